"""What a process does that is led: it computes its share of every pass until the leader stops; see ``ranks.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lifealign.errors import LifeAlignError
from lifealign.model.adapter_shape import AdapterShape, flat, put_flat, take_shape
from lifealign.model.channel import Channel
from lifealign.model.ranks import gradient_of
from lifealign.model.runtime import Runtime
from lifealign.model.seeded import seeded
from lifealign.model.sharded import attendance
from lifealign.model.tokens import TokenizedPair

REMEMBERED = 64
"""Passes of the leader alone that are remembered until it asks for their gradient, which it does soon or never."""
Load = Callable[[Mapping[str, Any], Callable[[], None]], Runtime]
"""Makes the model that the leader describes, and calls back when nothing about it can be refused any more."""


def follow(channel: Channel, load: Load) -> None:
    """Does what the leader asks, until it stops.

    Args:
        channel: To the leader.
        load: Makes the model that the leader describes. What it raises before it has called back is told to the leader.

    Raises:
        LostProcess: If the leader has ended without a word.
    """
    runtime: Runtime | None = None
    graphs: dict[int, Tensor] = {}
    attended: dict[int, Tensor] = {}
    while (order := channel.hear())["do"] != "stop":
        if order["do"] == "load":
            graphs.clear()
            attended.clear()
            runtime = None  # one base at a time
            runtime = _load(channel, load, order["model"])
            continue
        assert runtime is not None
        if order["do"] == "shape":
            shape = order["shape"]
            take_shape(runtime.model, AdapterShape(shape["rank"], shape["frozen"], tuple(shape["trained"])))
        elif order["do"] == "forward":
            for number in order["ended"]:
                graphs.pop(number, None)
            put_flat(runtime.model, channel.share(torch.zeros_like(flat(runtime.model))))
            found = _share(runtime, order, channel.rank)
            if order["gradient"]:
                graphs[order["pass"]] = found
            channel.hand_in(found if channel.rank < len(order["shares"]) else found[:0])
        elif order["do"] == "attend":
            now = order["attended"]
            attended = {number: found for number, found in attended.items() if number > now - REMEMBERED}
            attended[now] = _attendance(runtime, order)
        elif order["do"] == "attend backward":
            logps = attended.pop(order["attended"])
            gradient_of(logps, _trained(runtime), torch.zeros_like(logps))
        else:
            slopes = torch.tensor(order["slopes"][channel.rank - 1])
            logps = graphs.pop(order["pass"])
            channel.add_up(gradient_of(logps, _trained(runtime), slopes if len(slopes) else torch.zeros_like(logps)))


def _load(channel: Channel, load: Load, model: Mapping[str, Any]) -> Runtime | None:
    answered = False

    def ready() -> None:
        nonlocal answered
        channel.answer("")
        answered = True

    try:
        return load(model, ready)
    except LifeAlignError as error:
        if answered:
            raise
        channel.answer(str(error))
        return None


def _share(runtime: Runtime, order: Mapping[str, Any], rank: int) -> Tensor:
    """Log-probabilities of this process's share of a round; of a row that nobody asked for if it has none."""
    shares = order["shares"]
    if rank >= len(shares):
        return _no_share(runtime, order)
    share = [TokenizedPair("", "", *map(tuple, ids)) for ids in shares[rank]]
    with _as_the_leader(runtime, order):
        batch = runtime.batch(share, order["completions"])
        if order["dropout"] is None:
            return runtime.policy(batch)  # type: ignore[no-any-return]
        with seeded(order["dropout"] + rank, runtime.device):
            return runtime.policy(batch)  # type: ignore[no-any-return]


def _no_share(runtime: Runtime, order: Mapping[str, Any]) -> Tensor:
    """Of a round without a share for this process: nothing, or the passes that the others make, of the shortest row."""
    if not runtime.sharded:
        return torch.zeros(1, requires_grad=True)
    token = _token(runtime)
    with _as_the_leader(runtime, order):
        row = TokenizedPair("", "", (token, token), (token,), (token,))
        return runtime.policy(runtime.batch([row], ("chosen",)))  # type: ignore[no-any-return]


def _attendance(runtime: Runtime, order: Mapping[str, Any]) -> Tensor:
    """The one pass that the leader makes alone."""
    with _as_the_leader(runtime, order):
        return attendance(runtime.model, _token(runtime))


def _token(runtime: Runtime) -> int:
    return int(runtime.tokenizer.pad_token_id)


def _trained(runtime: Runtime) -> list[Tensor]:
    return [parameter for parameter in runtime.model.parameters() if parameter.requires_grad]


@contextmanager
def _as_the_leader(runtime: Runtime, order: Mapping[str, Any]) -> Iterator[None]:
    """A pass with gradient, in training mode and with checkpoints exactly if the leader's is."""
    runtime.model.train(order["training"])
    with torch.set_grad_enabled(order["gradient"]), _checkpointing(runtime, order["checkpointing"]):
        yield


@contextmanager
def _checkpointing(runtime: Runtime, wanted: bool) -> Iterator[None]:
    base: Any = runtime.model.get_base_model()
    if wanted and not base.is_gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not wanted and base.is_gradient_checkpointing:
        base.gradient_checkpointing_disable()
    yield
