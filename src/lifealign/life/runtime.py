"""The model of a life on its device, in the process that holds the life and in those that it leads."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from lifealign.errors import LostProcess, ModelError
from lifealign.life.settings import LifeConfig
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import Base, load_base
from lifealign.model.channel import Channel, take_own_device
from lifealign.model.device import current_device
from lifealign.model.follower import follow
from lifealign.model.ranks import Ranks
from lifealign.model.runtime import Runtime
from lifealign.model.template_check import require_usable_template

_channel: Channel | None = None
"""To the processes that this one leads; None if it leads none. A program that uses this package as a library leads none
by itself: its process group is its own."""


def untrained_runtime(settings: LifeConfig, base: Base) -> Runtime:
    """The model of a life before anything was learnt, on the current device.

    Args:
        settings: The life's settings.
        base: The base, which gets the adapter.

    Raises:
        ModelError: If a setting does not fit the base.
    """
    model = attach_lora(base, settings.lora, settings.seed).to(current_device())
    proof = base.proven(model, settings.data.max_length)
    data = settings.data
    if data.reasoning == "refuse":
        require_usable_template(base.tokenizer, base.name, reasoning="refuse")
    settings.method.prepare(model, settings.seed)
    return Runtime.prepare(
        model,
        base.tokenizer,
        proof,
        share_prefix=data.share_prefix,
        reasoning=data.reasoning,
        max_tokens=data.max_tokens_per_batch,
    )


def led(runtime: Runtime, settings: LifeConfig, base: Base) -> Runtime:
    """The same runtime with the processes that this one leads, if any."""
    if _channel is None:
        return runtime
    described = {"settings": settings.model_dump(mode="json"), "identity": asdict(base.identity)}
    return replace(runtime, ranks=Ranks(_channel, described))


@contextmanager
def leading() -> Iterator[None]:
    """Within the context this process leads the others of its launch, which follow until it ends.

    Raises:
        LostProcess: If they cannot be reached.
    """
    global _channel
    take_own_device()
    _channel = Channel()
    try:
        yield
    finally:
        channel, _channel = _channel, None
        with suppress(LostProcess):  # whoever is gone need not be stopped
            channel.tell({"do": "stop"})
        channel.close()


def follow_the_leader() -> None:
    """What every other process of a launch does: it computes its share until the leader stops.

    Ctrl-C and SIGTERM reach all processes of a launch. The leader still finishes its optimizer step and keeps the state
    of training, so the others go on until it ends.

    Raises:
        LostProcess: If the leader has ended without a word.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    take_own_device()
    channel = Channel()

    def load(described: Mapping[str, Any]) -> Runtime:
        settings = LifeConfig.model_validate(described["settings"])
        base = load_base(settings.model.model_copy(update={"revision": described["identity"]["revision"]}))
        for part, expected in described["identity"].items():
            if (found := getattr(base.identity, part)) != expected:
                raise ModelError(
                    f"found base model {base.name} with {part} {found}, expected the leader's, {expected}; every "
                    "machine needs the same files"
                )
        return untrained_runtime(settings, base)

    follow(channel, load)
    channel.close()
