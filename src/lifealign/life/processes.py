"""A life that several processes learn: the one that holds it leads, and the others compute their share of each step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from peft import PeftModel

from lifealign.errors import LostProcess, ModelError
from lifealign.life.settings import LifeConfig
from lifealign.life.untrained import untrained_runtime
from lifealign.model.base_model import Base, load_base
from lifealign.model.channel import SIGNS, Channel, noticing, take_own_device
from lifealign.model.follower import follow
from lifealign.model.ranks import Ranks
from lifealign.model.runtime import Runtime
from lifealign.model.settings import Sharding
from lifealign.model.sharded import Attended, require_shardable, shard

_channel: Channel | None = None
"""To the processes that this one leads; None if it leads none. A program that uses this package as a library leads none
by itself: its process group is its own."""


def led_runtime(settings: LifeConfig, base: Base, sharding: Sharding = "none") -> Runtime:
    """The model of a life before anything was learnt, with the processes that this one leads, if any.

    Args:
        settings: The life's settings.
        base: The base, which gets the adapter.
        sharding: Whether all processes hold the base together; a process that leads no other holds it alone.

    Raises:
        ModelError: If a setting does not fit the base, or another process cannot load it.
        LostProcess: If another process has ended.
    """
    channel = _channel
    if channel is None:
        return untrained_runtime(settings, base)
    described = {"settings": settings.model_dump(mode="json"), "identity": asdict(base.identity), "sharding": sharding}
    ranks = Ranks(channel, described)

    def hold_together(model: PeftModel) -> None:
        require_shardable(model)  # before the others are called
        ranks.meet()
        shard(model, channel.size)
        ranks.attended = Attended(model, channel, ranks.meet)

    return replace(untrained_runtime(settings, base, hold_together if sharding == "base" else None), ranks=ranks)


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
        with noticing(SIGNS):
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

    def load(described: Mapping[str, Any], ready: Callable[[], None]) -> Runtime:
        settings = LifeConfig.model_validate(described["settings"])
        base = load_base(settings.model.model_copy(update={"revision": described["identity"]["revision"]}))
        for part, expected in described["identity"].items():
            if (found := getattr(base.identity, part)) != expected:
                raise ModelError(
                    f"found base model {base.name} with {part} {found}, expected the leader's, {expected}; every "
                    "machine needs the same files"
                )

        def hold_together(model: PeftModel) -> None:
            ready()
            shard(model, channel.size)

        if described["sharding"] == "base":
            return untrained_runtime(settings, base, hold_together)
        runtime = untrained_runtime(settings, base)
        ready()
        return runtime

    with noticing(SIGNS):  # in a pass of a base that is held together
        follow(channel, load)
    channel.close()
