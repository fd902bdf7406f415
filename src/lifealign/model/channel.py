"""How the processes of one run talk: the leader tells all others in JSON, and tensors go to and fro. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lifealign.errors import LostProcess

MEETING = timedelta(minutes=10)
"""How long processes wait for each other when a run begins."""
PATIENCE = timedelta(days=365)
"""How long one waits for the next word. The leader may score for hours; a process that ends is noticed at once."""

SIGNS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""What errors in a pass say when another process has ended; the libraries beneath have no kinds of their own."""


class Channel:
    """The processes of one run, which talk on the CPU (gloo), numbered from 0, which is the leader.

    Every call is made by all of them in the same order, in their roles.

    Raises:
        LostProcess: From every method, if another process has ended.
    """

    def __init__(self) -> None:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"  # the second for a base held together
        with noticing():
            dist.init_process_group(backend, timeout=MEETING)
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.led: object = None
        """Whose model the others have loaded, at the leader."""

    def tell(self, order: dict[str, Any]) -> None:
        """The leader's word to all others."""
        text = torch.frombuffer(bytearray(json.dumps(order).encode()), dtype=torch.uint8)
        self.share(torch.tensor([len(text)]))
        self.share(text)

    def hear(self) -> dict[str, Any]:
        """What the leader tells, at the others."""
        (length,) = self.share(torch.zeros(1, dtype=torch.long)).tolist()
        order: dict[str, Any] = json.loads(bytes(self.share(torch.zeros(length, dtype=torch.uint8)).tolist()))
        return order

    def share(self, tensor: Tensor) -> Tensor:
        """The leader's tensor at every process, in place."""
        with noticing():
            dist.broadcast(tensor, 0, group=self._group)
        return tensor

    def collect(self, sizes: Sequence[int]) -> list[Tensor]:
        """At the leader: the vectors of the others, float32, of known lengths."""
        found = []
        for rank, size in enumerate(sizes, start=1):
            vector = torch.zeros(size)
            with noticing():
                dist.recv(vector, rank, group=self._group)
            found.append(vector)
        return found

    def hand_in(self, vector: Tensor) -> None:
        """At the others: gives the leader a vector that it collects."""
        with noticing():
            dist.send(vector.detach().float().cpu().contiguous(), 0, group=self._group)

    def add_up(self, vector: Tensor) -> Tensor:
        """The sum of the vectors of all processes at the leader, in place; the others' become meaningless."""
        with noticing():
            dist.reduce(vector, 0, group=self._group)
        return vector

    def answers(self) -> list[str]:
        """At the leader: a text from each of the others."""
        lengths = [int(length) for (length,) in (vector.tolist() for vector in self.collect([1] * (self.size - 1)))]
        return [bytes(vector.to(torch.uint8).tolist()).decode() for vector in self.collect(lengths)]

    def answer(self, text: str) -> None:
        """At the others: gives the leader a text."""
        coded = torch.tensor(list(text.encode()), dtype=torch.float32)
        self.hand_in(torch.tensor([float(len(coded))]))
        self.hand_in(coded)

    def close(self) -> None:
        """Leaves the group; nothing can be told any more."""
        dist.destroy_process_group()


def take_own_device() -> None:
    """Makes the accelerator that belongs to this process the current one, where there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count())


@contextmanager
def noticing(signs: Sequence[str] = ("",)) -> Iterator[None]:
    """Within the context, a ``RuntimeError`` with one of the signs, or any, is a :class:`LostProcess`."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in signs):
            raise
        raise LostProcess(
            "another process of this run has ended; what it said is above, if it could say something. The same command "
            "goes on from the last state of training that was kept"
        ) from error
