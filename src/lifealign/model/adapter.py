"""The LoRA adapter on a model: put on, read as a dictionary of tensors, written back, frozen, renewed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor
from torch.nn import Module, Parameter
from transformers import PreTrainedModel

from lifealign.errors import ModelError
from lifealign.memory.update import Adapter
from lifealign.model.base_model import Base
from lifealign.model.prompt_pool import PREFIX, prompt_pool
from lifealign.model.seeded import seeded

if TYPE_CHECKING:
    from lifealign.model.settings import AdapterConfig

QUERIES_AND_VALUES = ("q_proj", "v_proj")
FUSED = (("qkv_proj",), ("query_key_value",), ("c_attn",), ("Wqkv",), ("q_b_proj", "kv_b_proj"), ("in_proj",))
"""Names of the inputs of attention, or of a state-space layer, where they are one matrix or a product of two."""

ACTIVE, FROZEN = "default", "frozen"
"""PEFT's names of the adapter that is trained, and of one that holds earlier tasks and is only added to it."""


def attach_lora(base: Base, config: AdapterConfig, seed: int) -> PeftModel:
    """Puts a new LoRA adapter on a base model; with ``lora_B`` at zero it changes nothing until trained.

    Args:
        base: Frozen base model.
        config: Rank, scaling, dropout, target modules.
        seed: Seed of the initial ``lora_A``.

    Raises:
        ModelError: If no module has a target's name, or the output head is among them.
    """
    usable = linear_modules(base.model)
    targets = usual_targets(base) if config.lora_target_modules == "auto" else config.lora_target_modules
    for target in targets:
        if target not in usable:
            raise ModelError(
                f"lora_target_modules: found {target!r}, expected linear modules of {base.name}: {', '.join(usable)}"
            )
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(targets),
        fan_in_fan_out=all(_is_transposed(base.model, target) for target in targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        with seeded(seed, base.model.device):
            model = get_peft_model(base.model, lora)
    except ValueError as error:  # PEFT knows modules that must not have an adapter, such as those of Mamba's kernels
        raise ModelError(f"lora_target_modules: {base.name}: {' '.join(str(error).split())}") from error
    assert isinstance(model, PeftModel)
    return model


def usual_targets(base: Base) -> tuple[str, ...]:
    """The modules that get an adapter where the settings do not name any.

    The queries and values of attention, as in the released code; where a family calls them otherwise, what PEFT adapts
    there by default; where PEFT does not know the family, the one matrix in which attention's inputs are fused.

    Raises:
        ModelError: If the model has none of these; the message lists its linear modules.
    """
    usable = linear_modules(base.model)
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(base.model.config.model_type)
    choices = [QUERIES_AND_VALUES, *([tuple(known)] if isinstance(known, list) else []), *FUSED]
    for choice in choices:
        if set(choice) <= set(usable):
            return choice
    raise ModelError(
        f"model {base.name!r}: found neither q_proj and v_proj nor modules that are usual in their place; "
        f"lora.lora_target_modules needs some of: {', '.join(usable)}"
    )


def linear_modules(model: Module) -> list[str]:
    """Last names of a model's linear modules, without its output head, in alphabetical order."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module) and module is not head}
    )


def read_adapter(model: PeftModel) -> Adapter:
    """Copies what is trained out of a model: its LoRA adapter, or its prompt pool where it has one.

    Args:
        model: PEFT model with LoRA.

    Returns:
        Factors by name, sorted, float32 on the CPU: ``lora_A`` of shape (r, in), ``lora_B`` of shape (out, r); of a
        prompt pool ``prompt_pool.prompts`` and ``prompt_pool.keys``, matrices as well.
    """
    return _read(model, ACTIVE)


def write_adapter(model: PeftModel, adapter: Mapping[str, Tensor]) -> None:
    """Sets what is trained in a model, in place; dtype and device of the model's own parameters are kept.

    Args:
        model: PEFT model with LoRA.
        adapter: Factors by name, as :func:`read_adapter` returns them.

    Raises:
        ValueError: If names or shapes differ from the model's.
    """
    present = _read(model, ACTIVE)
    if differing := sorted(present.keys() ^ adapter.keys()):
        raise ValueError(f"adapter: found other factors than the model has, first difference {differing[0]!r}")
    for name, tensor in adapter.items():
        if tensor.shape != present[name].shape:
            raise ValueError(
                f"adapter: {name}: found shape {tuple(tensor.shape)}, expected {tuple(present[name].shape)}"
            )
    if (pool := prompt_pool(model)) is not None:
        pool.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in adapter.items()})
    else:
        set_peft_model_state_dict(model, dict(adapter))


def trainable_parameters(model: PeftModel) -> dict[str, Parameter]:
    """Parameters that require gradient, by the names that :func:`read_adapter` gives their values."""
    return {
        name.replace(f".{ACTIVE}.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def plain_adapter(model: PeftModel) -> Adapter:
    """Everything the model adds to its base, as one adapter that PEFT loads by itself.

    A model with a frozen adapter beside the trained one computes :math:`B_f A_f + B A` (both with the same scaling),
    which is one adapter of the ranks' sum: the rows of the ``lora_A`` below each other, the columns of the ``lora_B``
    side by side. Without a frozen one this is :func:`read_adapter`.
    """
    trained = _read(model, ACTIVE)
    if FROZEN not in model.peft_config:
        return trained
    frozen = _read(model, FROZEN)
    return {
        name: torch.cat((frozen[name], factor), dim=0 if ".lora_A." in name else 1) for name, factor in trained.items()
    }


def install_adapter(model: PeftModel, adapter: Mapping[str, Tensor]) -> None:
    """Makes a saved adapter of any rank the model's only one, in place; ``lora_alpha`` follows so that scaling stays.

    Args:
        model: PEFT model with LoRA, in whatever state a method has left it.
        adapter: An adapter that :func:`plain_adapter` has returned of a model of this kind.

    Raises:
        ValueError: If names or shapes do not fit the model.
    """
    if FROZEN in model.peft_config:
        model.delete_adapter(FROZEN)
    ranks = {tensor.shape[0] for name, tensor in adapter.items() if ".lora_A." in name}
    if len(ranks) == 1 and ranks != {lora_rank(model)}:
        _renew(model, ranks.pop())
    write_adapter(model, adapter)


def freeze_adapter(model: PeftModel, rank: int, seed: int) -> Adapter:
    """Freezes the trained adapter where it is and puts a new one of the given rank beside it, in place.

    Both stay active: the model computes what it did before, and what is trained from now on is added to it.

    Args:
        model: PEFT model with one adapter, of any rank.
        rank: LoRA rank of the new one; its ``lora_B`` is zero.
        seed: Seed of its ``lora_A``.

    Returns:
        The factors that are frozen now, float32 on the CPU.
    """
    frozen = read_adapter(model)
    with seeded(seed, _device(model)):  # PEFT draws what is overwritten here
        model.add_adapter(FROZEN, copy.deepcopy(model.peft_config[ACTIVE]))
    set_peft_model_state_dict(model, dict(frozen), adapter_name=FROZEN)
    model.set_adapter(FROZEN)  # PEFT warns when the active one is deleted
    _renew(model, rank)
    reset_adapter(model, seed)
    tuner: Any = model.base_model
    tuner.set_adapter([FROZEN, ACTIVE])
    for name, parameter in model.named_parameters():
        if f".{FROZEN}." in name:  # PEFT makes every active adapter trainable
            parameter.requires_grad_(False)
    return frozen


def lora_rank(model: PeftModel) -> int:
    """Rank of the trained LoRA adapter."""
    return _lora_config(model).r


def reset_adapter(model: PeftModel, seed: int) -> None:
    """Makes the trained LoRA adapter a new one, in place: a random ``lora_A``, and ``lora_B`` zero."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    with seeded(seed, _device(model)):
        for layer in layers:
            layer.reset_lora_parameters(ACTIVE, True)


def adapter_fingerprint(adapter: Adapter) -> str:
    """Content hash of an adapter (xxh3, 128 bits, hexadecimal): the same numbers give the same hash."""
    digest = xxhash.xxh3_128()
    for name in sorted(adapter):
        digest.update(name.encode() + adapter[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _device(model: PeftModel) -> torch.device:
    return next(model.parameters()).device


def _is_transposed(model: Module, target: str) -> bool:
    """Whether modules of a name keep their weight as (in, out), as GPT-2's do; PEFT has to be told."""
    return any(type(module).__name__ == "Conv1D" for name, module in model.named_modules() if _ends(name, target))


def _ends(name: str, target: str) -> bool:
    return name.rsplit(".", 1)[-1] == target


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _read(model: PeftModel, name: str) -> Adapter:
    pool = prompt_pool(model)
    state = (
        {f"{PREFIX}{key}": value for key, value in pool.state_dict().items()}
        if pool is not None
        else get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    )
    return {key: state[key].detach().to("cpu", torch.float32, copy=True).contiguous() for key in sorted(state)}


def _lora_config(model: PeftModel) -> LoraConfig:
    config = model.peft_config[ACTIVE]
    assert isinstance(config, LoraConfig)
    return config


def _renew(model: PeftModel, rank: int) -> None:
    """Replaces the trained adapter by a new one of another rank and the same scaling."""
    config = copy.deepcopy(_lora_config(model))
    config.lora_alpha = config.lora_alpha * rank // config.r
    config.r = rank
    model.delete_adapter(ACTIVE)
    with seeded(0, _device(model)):  # overwritten by whoever calls
        model.add_adapter(ACTIVE, config)
    model.set_adapter(ACTIVE)
