"""Files of preference pairs: held-out ones, remembered ones, those of gates, and all that a task was taught with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lifealign.data.pair import Message as PairMessage
from lifealign.data.pair import Pair
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.typed_json import Record, validated


class StoredMessage(Record):
    """One turn of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


class StoredPair(Record):
    """A row of a file of pairs; ``source`` and ``key`` are as in :class:`~lifealign.data.pair.Pair`.

    Attributes:
        task: In ``replay``, the task that it is of.
        split: In ``*.taught.jsonl.gz``, what it is for.
    """

    prompt: Annotated[list[StoredMessage], Field(min_length=1)]
    chosen: str
    rejected: str
    source: str
    key: str
    task: str | None = None
    split: Literal["train", "test", "gate"] | None = None

    def as_pair(self) -> Pair:
        """The pair."""
        prompt = tuple(PairMessage(message.role, message.content) for message in self.prompt)
        return Pair(prompt, self.chosen, self.rejected, self.source)


def read_stored_pairs(directory: LifeDirectory, file: str) -> list[StoredPair]:
    """Reads a committed file of pairs.

    Raises:
        LifeError: If the file is missing, damaged, or a row is no pair; the message names the line.
    """
    path = directory.path / file
    return [validated(f"{path}:{line}", row, StoredPair) for line, row in enumerate(directory.rows(file), start=1)]


def read_pairs(directory: LifeDirectory, file: str) -> tuple[Pair, ...]:
    """The pairs of a committed file; raises the errors of :func:`read_stored_pairs`."""
    return tuple(row.as_pair() for row in read_stored_pairs(directory, file))
