"""What a step stores of recall: how well prompts of its tasks can be told from those of every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.step_files import read_record
from lifealign.life.disk.typed_json import Count, Number, Record
from lifealign.memory.scope import scope, scope_by

MOST_OTHERS = 64
"""Most tasks that a new one is told from when it is learnt, the latest ones before it: with all of them, this file
would grow by a task with every task, and so would the time that it takes. Recall itself knows all of them."""


class Other(Record):
    """Two tasks, told apart by the key of either: areas under the curve, 0.5 for prompts that are all alike.

    Attributes:
        by_own: By the new task's key, its own prompts from the other's.
        by_other: By the other's key, the other's prompts from the new task's.
        prompts: Number of the other's prompts.
    """

    by_own: Number = Field(ge=0, le=1)
    by_other: Number = Field(ge=0, le=1)
    prompts: Count


class ToldApart(Record):
    """A new task among those before it.

    Attributes:
        prompts: Number of its prompts that its key is not made of.
        others: By the name of each of the latest tasks before it, at most ``MOST_OTHERS``.
    """

    prompts: Count
    others: dict[str, Other]


class Recalling(Record):
    """``recall.json``: the tasks of a step, by name."""

    tasks: dict[str, ToldApart]


@dataclass(frozen=True)
class Overlap:
    """Which tasks of a life are about the same prompts.

    Attributes:
        tasks: Their names, oldest first.
        overlaps: For a task and another, how badly the first one's prompts are told from the other's by its own key:
            0 if always, 1 if not at all; left out if it was not measured.
        scopes: For each task, the same for all others together that it was measured with; 1 if chance explains that
            they were told apart.
        prompts: For each task, how many of its prompts this was measured on.
    """

    tasks: tuple[str, ...]
    overlaps: Mapping[tuple[str, str], float]
    scopes: Mapping[str, float]
    prompts: Mapping[str, int]


def overlap_of(directory: LifeDirectory) -> Overlap:
    """Which tasks of a life overlap, from what its steps have stored; tasks of steps that stored nothing are left out.

    Raises:
        LifeError: If a file is damaged.
    """
    told: dict[tuple[str, str], float] = {}
    prompts: dict[str, int] = {}
    for version in directory.steps:
        file = names.told_apart(version.name)
        if file not in version.files:
            continue
        for name, apart in read_record(directory, file, Recalling).tasks.items():
            prompts[name] = apart.prompts
            for other, found in apart.others.items():
                told[name, other], told[other, name] = found.by_own, found.by_other
                prompts.setdefault(other, found.prompts)
    overlaps = {pair: scope(area) for pair, area in told.items()}
    scopes = {}
    for task in prompts:
        others = {other: told[task, other] for other in prompts if (task, other) in told}
        total = sum(prompts[other] for other in others)
        mean = sum(prompts[other] * area for other, area in others.items()) / total if total else 0.5
        scopes[task] = scope_by(mean, min(prompts[task], total))
    return Overlap(tuple(prompts), overlaps, scopes, prompts)
