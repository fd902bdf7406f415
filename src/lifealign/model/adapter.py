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
from torch import Tensor
from torch.nn import Parameter

from lifealign.errors import ModelError
from lifealign.memory.update import Adapter
from lifealign.model.base_model import Base
from lifealign.model.prompt_pool import PREFIX, prompt_pool
from lifealign.model.seeded import seeded

if TYPE_CHECKING:
    from lifealign.config import AdapterConfig

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
    suffixes = {name.rsplit(".", 1)[-1] for name, module in base.model.named_modules() if _is_linear(module)}
    for target in config.lora_target_modules:
        if target not in suffixes or target == "lm_head":
            usable = ", ".join(sorted(suffixes - {"lm_head"}))
            raise ModelError(f"lora_target_modules: found {target!r}, expected linear modules of {base.name}: {usable}")
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with seeded(seed, base.model.device):
        model = get_peft_model(base.model, lora)
    assert isinstance(model, PeftModel)
    return model


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
