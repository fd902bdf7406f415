"""An adapter as a dictionary of tensors, and the update from one adapter to another, by subtraction and addition."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Adapter = dict[str, Tensor]
"""LoRA factors by PEFT's state-dict name (``...q_proj.lora_A.weight``), as in ``adapter_model.safetensors``."""


def subtract(after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Adapter:
    """The update from one adapter to another, per factor.

    Computed in float64, so that ``add(before, subtract(after, before))`` restores ``after`` to the last float32 bit,
    as long as no weight has shrunk to less than 2^-28 of its former value.
    """
    return {name: after[name].double() - before[name].double() for name in after}


def add(before: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> Adapter:
    """The adapter after an update, float32."""
    return {name: (before[name].double() + update[name].double()).float() for name in before}
