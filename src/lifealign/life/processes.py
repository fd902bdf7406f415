"""A life that several processes learn: the one that holds it leads, and the others compute their share of each step."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from lifealign.errors import LostProcess, ModelError
from lifealign.life.settings import LifeConfig
from lifealign.life.untrained import untrained_runtime
from lifealign.model.base_model import Base, load_base
from lifealign.model.channel import Channel, take_own_device
from lifealign.model.follower import follow
from lifealign.model.ranks import Ranks
from lifealign.model.runtime import Runtime

_channel: Channel | None = None
"""To the processes that this one leads; None if it leads none. A program that uses this package as a library leads none
by itself: its process group is its own."""


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
