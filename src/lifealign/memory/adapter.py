"""An adapter as a dictionary of tensors: read from a model, written back, subtracted and added."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict
from torch import Tensor

Adapter = dict[str, Tensor]
"""LoRA factors by PEFT's state-dict name (``...q_proj.lora_A.weight``), as in ``adapter_model.safetensors``."""


def read_adapter(model: PeftModel) -> Adapter:
    """Copies the active adapter out of a model.

    Args:
        model: PEFT model with LoRA.

    Returns:
        Factors by name, sorted, float32 on the CPU: ``lora_A`` of shape (r, in), ``lora_B`` of shape (out, r).
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: state[name].detach().to("cpu", torch.float32, copy=True).contiguous() for name in sorted(state)}


def write_adapter(model: PeftModel, adapter: Mapping[str, Tensor]) -> None:
    """Sets the active adapter of a model, in place; dtype and device of the model's own parameters are kept.

    Args:
        model: PEFT model with LoRA.
        adapter: Factors by name, as :func:`read_adapter` returns them.

    Raises:
        ValueError: If names or shapes differ from the model's.
    """
    present = get_peft_model_state_dict(model, save_embedding_layers=False)
    if differing := sorted(present.keys() ^ adapter.keys()):
        raise ValueError(f"adapter: found other factors than the model has, first difference {differing[0]!r}")
    for name, tensor in adapter.items():
        if tensor.shape != present[name].shape:
            raise ValueError(
                f"adapter: {name}: found shape {tuple(tensor.shape)}, expected {tuple(present[name].shape)}"
            )
    set_peft_model_state_dict(model, dict(adapter))


def subtract(after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Adapter:
    """The update from one adapter to another, per factor.

    In float64, so that ``add(before, subtract(after, before))`` gives back ``after`` to the last float32 bit, as long
    as no weight has shrunk to less than 2^-28 of what it was.
    """
    return {name: after[name].double() - before[name].double() for name in after}


def add(before: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> Adapter:
    """The adapter after an update, float32."""
    return {name: (before[name].double() + update[name].double()).float() for name in before}
