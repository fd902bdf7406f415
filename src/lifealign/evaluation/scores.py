"""What is scored, and the scores of one model: numbers, the examples behind them, and why some are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Pair

LONGEST_REASON = 200
"""Characters of an error's message that a record keeps."""


@dataclass(frozen=True)
class HeldOut:
    """What a task is scored on: its held-out pairs, and its exact check if it has one.

    Attributes:
        name: Name of the task.
        pairs: Held-out pairs.
        check: Exact check of the task's own rule, or None.
        supersedes: Names of the earlier tasks whose rule it replaces.
        rules: Checks of all rules that an answer is asked to keep together, whatever other tasks are scored beside this
            one; empty if it is not asked that.
    """

    name: str
    pairs: tuple[Pair, ...]
    check: AnswerCheck | None = None
    supersedes: tuple[str, ...] = ()
    rules: tuple[AnswerCheck, ...] = ()


Marks = Callable[[HeldOut, Sequence[Pair], Sequence[str]], Sequence[float | None]]
"""A judge: marks, in points, for answers to the prompts of some of a task's pairs; None for a missing mark."""


@dataclass
class Scores:
    """Scores of one model, by metric, then task, and the examples behind them.

    Attributes:
        values: The scores.
        outcomes: The value of every held-out example, for scores that are a mean; None for a missing mark.
        counts: The number of held-out examples behind each score.
        holes: Why a requested score is missing.
        failures: Metric and task of the holes that are due to an exception.
        answers: The generated answers, the tasks they belong to, and the verdict of each of their checks.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    holes: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, metric: str, task: str, outcomes: Sequence[float]) -> None:
        """Records a score, the mean of its outcomes: one per held-out pair or prompt, at least one."""
        self.add_value(metric, task, fmean(outcomes), len(outcomes))
        self.outcomes.setdefault(metric, {})[task] = list(outcomes)

    def add_value(self, metric: str, task: str, value: float, examples: int) -> None:
        """Records a score and the number of held-out examples behind it.

        Raises:
            ValueError: If it is not finite: it could not be compared, and JSON cannot hold it.
        """
        if not math.isfinite(value):
            raise ValueError(f"found a score of {value}, expected a finite one")
        self.values.setdefault(metric, {})[task] = value
        self.counts.setdefault(metric, {})[task] = examples

    def fail(self, metric: str, task: str, error: BaseException) -> None:
        """Records that an error cost a score, unless the score is there."""
        if task not in self.values.get(metric, {}):
            self.holes.setdefault(metric, {})[task] = reason_of(error)
            self.failures.append((metric, task))

    @property
    def broken(self) -> list[str]:
        """Which scores were lost to errors, and why, as text; scores that are known all the same are left out."""
        there = [(metric, task) for metric, task in self.failures if task in self.holes.get(metric, {})]
        return [f"{metric} of {task} ({self.holes[metric][task]})" for metric, task in there]

    def add_marks(self, metric: str, task: str, marks: Sequence[float | None], max_missing: float) -> None:
        """Records a score of marks; a hole if more than ``max_missing`` of them are missing, or all."""
        there = [mark for mark in marks if mark is not None]
        missing = len(marks) - len(there)
        if there and missing <= max_missing * len(marks):
            self.add_value(metric, task, fmean(there), len(there))
            self.outcomes.setdefault(metric, {})[task] = list(marks)
        else:
            self.holes.setdefault(metric, {})[task] = f"{missing} of {len(marks)} marks are missing"

    def carry(self, earlier: Mapping[str, Any], only: Collection[str] | None = None) -> None:
        """Merges in the scores of an earlier record; those of this object win.

        A hole here that has a score there becomes that score.

        Args:
            earlier: The record: ``scores``, ``outcomes``, ``counts`` and ``holes``, each by metric, then task.
            only: Names of the tasks that are taken over; None for all.
        """

        def wanted(by_task: Mapping[str, Any]) -> dict[str, Any]:
            return {task: found for task, found in by_task.items() if only is None or task in only}

        mine: dict[str, Any] = {"scores": self.values, "outcomes": self.outcomes, "counts": self.counts}
        for key, found in mine.items():
            for metric, by_task in (earlier.get(key) or {}).items():
                found[metric] = {**wanted(by_task), **found.get(metric, {})}
        for metric, reasons in earlier.get("holes", {}).items():
            self.holes[metric] = {**wanted(reasons), **self.holes.get(metric, {})}
        for metric in list(self.holes):
            there = self.values.get(metric, {})
            self.holes[metric] = {task: why for task, why in self.holes[metric].items() if task not in there}
            if not self.holes[metric]:
                del self.holes[metric]


def reason_of(error: BaseException) -> str:
    r"""Why something is missing, on one line: kind and message of the error.

    Example:
        >>> reason_of(RuntimeError("out of\nmemory")), reason_of(KeyboardInterrupt())
        ('RuntimeError: out of memory', 'interrupted')
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = "".join(character if character.isprintable() else " " for character in str(error))
    message = " ".join(text.split())
    message = message if len(message) <= LONGEST_REASON else message[: LONGEST_REASON - 3] + "..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
