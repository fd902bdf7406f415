"""The LoRA adapter of a model: attach it, read it as a dictionary of tensors, write it back, freeze or reset it."""

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
"""Module names in families where the input projections of attention, or of a state-space layer, are fused into one
matrix or factored into a product of two."""

ACTIVE, FROZEN = "default", "frozen"
"""PEFT's names for the adapter being trained, and for a frozen one that holds earlier tasks and is added to it."""


def attach_lora(base: Base, config: AdapterConfig, seed: int) -> PeftModel:
    """Attaches a new LoRA adapter to a base model; its ``lora_B`` is zero, so it changes nothing until trained.

    Args:
        base: Frozen base model.
        config: Rank, scaling, dropout, target modules.
        seed: Seed of the initial ``lora_A``.

    Raises:
        ModelError: If a target is not the name of a linear module, is the output head, or is one that PEFT refuses.
    """
    usable = linear_modules(base.model)
    targets = usual_targets(base) if config.lora_target_modules == "auto" else config.lora_target_modules
    for target in targets:
        if target not in usable:
            raise ModelError(
                f"lora_target_modules: found {target!r}, expected the name of a linear module of {base.name}: "
                f"{', '.join(usable)}"
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
    except ValueError as error:  # PEFT refuses modules that cannot take an adapter, such as those in Mamba's kernels
        raise ModelError(f"lora_target_modules: {base.name}: {' '.join(str(error).split())}") from error
    assert isinstance(model, PeftModel)
    return model


def usual_targets(base: Base) -> tuple[str, ...]:
    """The modules that get an adapter when the settings do not name any.

    The query and value projections of attention, as in the released code. In a family that names them differently,
    PEFT's default targets; in a family that PEFT does not know, the matrix that fuses the input projections.

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
        f"model {base.name!r}: found neither q_proj and v_proj nor the modules that usually replace them; "
        f"set lora.lora_target_modules to some of: {', '.join(usable)}"
    )


def linear_modules(model: Module) -> list[str]:
    """Last parts of the names of a model's linear modules, except its output head, in alphabetical order."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module) and module is not head}
    )


def read_adapter(model: PeftModel) -> Adapter:
    """Copies the trained tensors of a model: its LoRA adapter, or its prompt pool if it has one.

    Args:
        model: PEFT model with LoRA.

    Returns:
        Factors by name, sorted, float32 on the CPU: ``lora_A`` of shape (r, in), ``lora_B`` of shape (out, r); for a
        prompt pool, the matrices ``prompt_pool.prompts`` and ``prompt_pool.keys``.
    """
    return _read(model, ACTIVE)


def write_adapter(model: PeftModel, adapter: Mapping[str, Tensor]) -> None:
    """Overwrites the trained tensors of a model in place; its parameters keep their dtype and device.

    Args:
        model: PEFT model with LoRA.
        adapter: Factors by name, as :func:`read_adapter` returns them.

    Raises:
        ValueError: If names or shapes differ from the model's.
    """
    present = _read(model, ACTIVE)
    if differing := sorted(present.keys() ^ adapter.keys()):
        raise ValueError(f"adapter: found factors other than the model's, the first difference is {differing[0]!r}")
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
    """Parameters that require gradient, under the names that :func:`read_adapter` uses."""
    return {
        name.replace(f".{ACTIVE}.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def plain_adapter(model: PeftModel) -> Adapter:
    """Everything the model adds to its base, as one adapter that PEFT can load on its own.

    A model with a frozen adapter beside the trained one computes :math:`B_f A_f + B A` (both with the same scaling).
    That equals one adapter whose rank is the sum of the two: the ``lora_A`` are stacked row-wise, the ``lora_B``
    column-wise. Without a frozen adapter this is :func:`read_adapter`.
    """
    trained = _read(model, ACTIVE)
    if FROZEN not in model.peft_config:
        return trained
    frozen = _read(model, FROZEN)
    return {
        name: torch.cat((frozen[name], factor), dim=0 if ".lora_A." in name else 1) for name, factor in trained.items()
    }


def install_adapter(model: PeftModel, adapter: Mapping[str, Tensor]) -> None:
    """Makes a saved adapter of any rank the model's only one, in place; adjusts ``lora_alpha`` to keep the scaling.

    Args:
        model: PEFT model with LoRA, in whatever state a method has left it.
        adapter: An adapter that :func:`plain_adapter` returned for a model of the same kind.

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
    """Freezes the trained adapter and adds a new trainable one of the given rank beside it, in place.

    Both are active: the model's output does not change, and what is trained from now on is added to it.

    Args:
        model: PEFT model with one adapter, of any rank.
        rank: LoRA rank of the new adapter; its ``lora_B`` is zero.
        seed: Seed of the new ``lora_A``.

    Returns:
        The factors that are now frozen, float32 on the CPU.
    """
    frozen = read_adapter(model)
    with seeded(seed, _device(model)):  # PEFT draws initial values, which the next line overwrites
        model.add_adapter(FROZEN, copy.deepcopy(model.peft_config[ACTIVE]))
    set_peft_model_state_dict(model, dict(frozen), adapter_name=FROZEN)
    model.set_adapter(FROZEN)  # PEFT warns when the active adapter is deleted
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
    """Resets the trained LoRA adapter in place: ``lora_A`` is drawn anew, ``lora_B`` is set to zero."""
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
    """Whether the modules of this name store their weight as (in, out), as GPT-2's do; PEFT has to be told."""
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
    """Replaces the trained adapter with a new one of another rank and the same scaling."""
    config = copy.deepcopy(_lora_config(model))
    config.lora_alpha = config.lora_alpha * rank // config.r
    config.r = rank
    model.delete_adapter(ACTIVE)
    with seeded(0, _device(model)):  # every caller overwrites the drawn values
        model.add_adapter(ACTIVE, config)
    model.set_adapter(ACTIVE)
