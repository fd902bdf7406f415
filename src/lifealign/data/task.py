"""A task: one preference dataset, split into training and held-out pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from lifealign.data.clean import leave_out, read_clean, read_split
from lifealign.data.pair import Pair
from lifealign.errors import ConfigError
from lifealign.settings.faults import nearest

if TYPE_CHECKING:
    from lifealign.data.answer_check import AnswerCheck

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
ENDINGS = re.compile(r"(\.(jsonl|json|csv|tsv|parquet|gz))+$", re.IGNORECASE)
PIPES = ("/dev/stdin", "/dev/fd/", "/proc/")


@dataclass(frozen=True)
class Task:
    """One preference to learn: pairs to train on, held-out pairs to score on, and a check that defines adherence.

    Attributes:
        name: At most 64 letters, digits, ``.``, ``_`` and ``-``; names the task's folders in a life.
        train: Pairs to learn from.
        test: Held-out pairs; if there are none, the task is trained but not scored.
        check: Exact check of a generated answer, or None if no program can decide adherence.
        supersedes: Names of earlier tasks whose rule this one replaces: from here on, an answer need not keep them.
        gate: Pairs that are neither trained on nor scored: later steps are accepted or refused by what they lose of
            them. Empty lets the life set some of ``train`` aside, as its ``retention`` says.
        max_loss: The largest loss of this task that is accepted, in (0, 1); None for the life's own limit.

    Raises:
        ConfigError: If the name has other characters, ``train`` is empty, a name is superseded twice, a gate prompt
            is held out, or ``max_loss`` is out of range.
    """

    name: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...] = ()
    check: AnswerCheck | None = None
    supersedes: tuple[str, ...] = ()
    gate: tuple[Pair, ...] = ()
    max_loss: float | None = None

    def __post_init__(self) -> None:
        if not TASK_NAME.fullmatch(self.name):
            raise ConfigError(f"task name: found {self.name!r}, expected {NAME_RULE}")
        if not self.train:
            raise ConfigError(f"task {self.name!r}: found no training pairs, expected at least one")
        for number, name in enumerate(self.supersedes):
            if name in self.supersedes[:number]:
                raise ConfigError(f"task {self.name!r}: supersedes: found {name!r} twice, expected each task once")
        if {pair.prompt for pair in self.gate} & {pair.prompt for pair in self.test}:
            raise ConfigError(f"task {self.name!r}: gate: found a prompt of test, expected prompts of its own")
        if self.max_loss is not None and not 0 < self.max_loss < 1:
            found = f"task {self.name!r}: max_loss: found {self.max_loss}"
            raise ConfigError(f"{found}, expected a share of prompts greater than 0 and less than 1")

    @property
    def data_hash(self) -> str:
        """Content hash of the task's pairs, in order, its check, the tasks that it supersedes, and its gate pairs."""
        check = "" if self.check is None else self.check.model_dump_json()
        keys = [pair.key for pair in (*self.train, *self.test)]
        parts = [str(len(self.train)), *keys, check]
        parts += [f"supersedes {' '.join(sorted(self.supersedes))}"] if self.supersedes else []
        parts += ["gate", *(pair.key for pair in self.gate)] if self.gate else []
        return xxhash.xxh3_128(" ".join(parts).encode()).hexdigest()

    @classmethod
    def from_files(
        cls,
        name: str,
        train: str | Path,
        test: str | Path | None = None,
        *,
        check: AnswerCheck | None = None,
        supersedes: Sequence[str] = (),
        gate: str | Path | None = None,
        max_loss: float | None = None,
    ) -> Task:
        """Reads and cleans a task's files, of any accepted shape (see :mod:`lifealign.data.formats`).

        Training pairs whose prompt is also held out are left out, and so are gate pairs whose prompt is held out; a
        warning counts them.

        Args:
            name: Name of the task.
            train: File of training pairs.
            test: File of held-out pairs, or None.
            check: Exact check of generated answers, or None.
            supersedes: Names of earlier tasks whose rule this one replaces.
            gate: File of pairs by which later steps are accepted or refused, or None.
            max_loss: The largest loss of this task that a later step may cost, or None.

        Raises:
            DataError: If a file is missing, empty, malformed, or has no usable pair, or every training prompt is held
                out or in the gate.
            ConfigError: If another argument is out of range.
        """
        pairs, held_out = read_split(train, test)
        if gate is None:
            return cls(name, pairs, held_out, check, tuple(supersedes), (), max_loss)
        kept = read_clean(gate).pairs
        if test is not None:
            kept = leave_out(gate, kept, test, held_out, "gate")
        pairs = leave_out(train, pairs, gate, kept)
        return cls(name, pairs, held_out, check, tuple(supersedes), kept, max_loss)

    from_jsonl = from_files


def require_earlier(tasks: Sequence[Task], learnt: Sequence[str] = ()) -> None:
    """Refuses tasks that supersede anything but an earlier task.

    Args:
        tasks: Tasks in the order in which they are met.
        learnt: Names of the tasks that were learnt before them.

    Raises:
        ConfigError: If a task supersedes itself, a later task, or one that does not exist.
    """
    earlier = list(learnt)
    for task in tasks:
        for name in task.supersedes:
            if name not in earlier:
                known = ", ".join(earlier) or "but there is none"
                raise ConfigError(
                    f"task {task.name!r}: supersedes: found {name!r}, expected a task that is learnt before it: "
                    f"{known}{nearest(name, earlier)}"
                )
        earlier.append(task.name)


def step_name(index: int, names: Sequence[str]) -> str:
    """Folder name of a step: its number from 1 and the task's name, such as ``02-tone``; joint steps join the names.

    Example:
        >>> step_name(1, ["tone"])
        '02-tone'
    """
    return f"{index + 1:02d}-{'+'.join(names)}"


def name_of_task(file: str) -> str:
    """Name of the task in a file: the file name without its endings, or the dataset's name without its owner.

    Args:
        file: A path, or ``hub:owner/name`` with or without ``:split``.

    Raises:
        ConfigError: If the file is a pipe, or its name is not a valid name for a task.

    Example:
        >>> name_of_task("data/v1.2-tone.jsonl.gz"), name_of_task("Tone.CSV"), name_of_task("hub:owner/tone-v1.2:test")
        ('v1.2-tone', 'Tone', 'tone-v1.2')
    """
    if file.startswith(PIPES):
        raise ConfigError(f"{file}: data from a pipe needs a name for its task; add --name NAME")
    last = file.removeprefix("hub:").rsplit("/", 1)[-1]
    name = last.partition(":")[0] if file.startswith("hub:") else ENDINGS.sub("", last)
    if not TASK_NAME.fullmatch(name):
        raise ConfigError(f"{file}: found {name!r} as the name of the task, expected {NAME_RULE}; add --name NAME")
    return name
