"""The model of a life before anything was learnt, on its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from peft import PeftModel

from lifealign.life.settings import LifeConfig
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import Base
from lifealign.model.device import current_device
from lifealign.model.runtime import Runtime
from lifealign.model.template_check import require_usable_template


def untrained_runtime(settings: LifeConfig, base: Base, shard: Callable[[PeftModel], None] | None = None) -> Runtime:
    """The model of a life before anything was learnt, on the current device.

    Args:
        settings: The life's settings.
        base: The base, which gets the adapter.
        shard: Leaves this process its part of the base; None keeps it whole. What is proven of the base is proven
            before that, where it was loaded: a device need not have room for all of it.

    Raises:
        ModelError: If a setting does not fit the base.
    """
    model = attach_lora(base, settings.lora, settings.seed)
    if shard is None:
        model = model.to(current_device())
    proof = base.proven(model, settings.data.max_length)
    data = settings.data
    if data.reasoning == "refuse":
        require_usable_template(base.tokenizer, base.name, reasoning="refuse")
    settings.method.prepare(model, settings.seed)
    if shard is not None:
        shard(model)
    runtime = Runtime.prepare(
        model,
        base.tokenizer,
        proof,
        share_prefix=data.share_prefix,
        reasoning=data.reasoning,
        max_tokens=data.max_tokens_per_batch,
    )
    return replace(runtime, sharded=shard is not None)
