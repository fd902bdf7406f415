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
from lifealign.model.tokens import TokenizedPair


def follow(channel: Channel, load: Callable[[Mapping[str, Any]], Runtime]) -> None:
    """Does what the leader asks, until it stops.

    Args:
        channel: To the leader.
        load: Makes the model that the leader describes. What it raises is told to the leader.

    Raises:
        LostProcess: If the leader has ended without a word.
    """
    runtime: Runtime | None = None
    graphs: dict[int, Tensor] = {}
    while (order := channel.hear())["do"] != "stop":
        if order["do"] == "load":
            graphs.clear()
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
            found = _forward(runtime, order, channel.rank)
            if order["gradient"] and len(found):
                graphs[order["pass"]] = found
            channel.hand_in(found)
        else:
            trained = [parameter for parameter in runtime.model.parameters() if parameter.requires_grad]
            slopes = torch.tensor(order["slopes"][channel.rank - 1])
            logps = graphs.pop(order["pass"], None)
            zeros = torch.zeros(sum(parameter.numel() for parameter in trained))
            channel.add_up(zeros if logps is None else gradient_of(logps, trained, slopes))


def _load(channel: Channel, load: Callable[[Mapping[str, Any]], Runtime], model: Mapping[str, Any]) -> Runtime | None:
    try:
        runtime = load(model)
    except LifeAlignError as error:
        channel.answer(str(error))
        return None
    channel.answer("")
    return runtime


def _forward(runtime: Runtime, order: Mapping[str, Any], rank: int) -> Tensor:
    """Log-probabilities of this process's share; empty if it has none."""
    shares = order["shares"]
    if rank >= len(shares):
        return torch.zeros(0)
    share = [TokenizedPair("", "", *map(tuple, ids)) for ids in shares[rank]]
    runtime.model.train(order["training"])
    with torch.set_grad_enabled(order["gradient"]), _checkpointing(runtime, order["checkpointing"]):
        batch = runtime.batch(share, order["completions"])
        if order["dropout"] is None:
            return runtime.policy(batch)  # type: ignore[no-any-return]
        with seeded(order["dropout"] + rank, runtime.device):
            return runtime.policy(batch)  # type: ignore[no-any-return]


@contextmanager
def _checkpointing(runtime: Runtime, wanted: bool) -> Iterator[None]:
    base: Any = runtime.model.get_base_model()
    if wanted and not base.is_gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not wanted and base.is_gradient_checkpointing:
        base.gradient_checkpointing_disable()
    yield
