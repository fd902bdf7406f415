"""The score matrix: a metric on every task after every step, and the statistics of continual learning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol

from lifealign.evaluation.metrics import METRICS

Row = Mapping[str, float]
"""Scores by task name; a task that was not scored is absent."""


class StepScores(Protocol):
    """What :func:`matrices` reads of a step; every attribute is by metric, then task.

    Attributes:
        scores: Scores of the model after the step.
        base: Scores of the base model, on tasks for which no earlier step has them.
        counts: Number of held-out examples behind a score.
        holes: Why a requested score is missing.
        base_holes: The same for the base model.
    """

    scores: dict[str, dict[str, float]]
    base: dict[str, dict[str, float]]
    counts: dict[str, dict[str, int]]
    holes: dict[str, dict[str, str]]
    base_holes: dict[str, dict[str, str]]


@dataclass
class ScoreMatrix:
    """``scores[i, j]``: one metric on task j after step i; rows are time.

    A mean over several scores is None if one of them is missing: otherwise it would cover other tasks than the mean
    beside it. :attr:`holes` lists the missing ones.

    Attributes:
        metric: Name of the metric.
        higher_is_better: Its direction.
        tasks: Names of the tasks that have a score, or a reason why it is missing, in the order in which they were
            learnt.
        learnt_at: Step (from 0) in which each task was learnt; its column starts there.
        rows: Scores after each step.
        base: Scores of the base model, before any task.
        counts: For each row, the number of held-out examples behind a score, if known.
        reasons: Why a score is missing, by step and task, if known.
        base_reasons: The same for the base model, by task.

    Example:
        >>> matrix = ScoreMatrix("accuracy", True, ["a", "b"], {"a": 0, "b": 1}, [{"a": 0.9}, {"a": 0.5, "b": 0.8}])
        >>> matrix[1, 0], matrix.last, round(matrix.backward_transfer, 2)
        (0.5, 0.65, -0.4)
    """

    metric: str
    higher_is_better: bool
    tasks: Sequence[str]
    learnt_at: Mapping[str, int]
    rows: Sequence[Row]
    base: Row = field(default_factory=dict)
    counts: Sequence[Mapping[str, int]] = ()
    reasons: Mapping[tuple[int, str], str] = field(default_factory=dict)
    base_reasons: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, index: tuple[int, int]) -> float | None:
        """Score of task j after step i; None if it is missing."""
        step, task = index
        return self.rows[step].get(self.tasks[task])

    @property
    def last(self) -> float | None:
        """Mean of the last row: the scores of all tasks, now."""
        return self.row_mean(len(self.rows) - 1) if self.rows else None

    @property
    def average(self) -> float | None:
        """Mean over steps of the mean over the tasks seen so far (AP in the paper)."""
        first = min(self.learnt_at.values(), default=0)
        return _mean([self.row_mean(step) for step in range(first, len(self.rows))])

    @property
    def learned(self) -> float | None:
        """Mean of the diagonal: how well each task was learnt at its time. A loss of plasticity shows here."""
        return _mean([self._when_learnt(task) for task in self.tasks])

    @property
    def backward_transfer(self) -> float | None:
        """Mean change of earlier tasks since each was learnt; negative means forgetting. None before a second task.

        If lower is better, the sign is turned, so that negative means forgetting there too.
        """
        return _mean([self.change(task) for task in self._earlier()])

    @property
    def forgetting(self) -> float | None:
        """Mean fall of earlier tasks from their best score, at least 0. None before a second task."""
        return _mean([self.fall(task) for task in self._earlier()])

    @property
    def holes(self) -> list[tuple[int, str]]:
        """Step and task of every score that should be there and is not."""
        known = range(len(self.rows))
        return [
            (step, task)
            for step in known
            for task in self.tasks
            if step >= self.learnt_at[task] and task not in self.rows[step]
        ]

    @property
    def examples(self) -> dict[str, tuple[int, int]]:
        """Fewest and most held-out examples that each task was scored on; a task is absent if that is not known."""
        found: dict[str, list[int]] = {}
        for row in self.counts:
            for task in self.tasks:
                if task in row:
                    found.setdefault(task, []).append(row[task])
        return {task: (min(numbers), max(numbers)) for task, numbers in found.items()}

    def row_mean(self, step: int) -> float | None:
        """Mean over the tasks learnt by a step."""
        return _mean([self.rows[step].get(task) for task in self.tasks if self.learnt_at[task] <= step])

    def change(self, task: str) -> float | None:
        """Change of a task since it was learnt, negative if it became worse; None if a score is missing."""
        now, then = self.rows[-1].get(task), self._when_learnt(task)
        if now is None or then is None:
            return None
        return (now - then) if self.higher_is_better else (then - now)

    def fall(self, task: str) -> float | None:
        """Fall of a task from its best score, at least 0; None if a score since it was learnt is missing."""
        history = [row.get(task) for row in self.rows[self.learnt_at[task] :]]
        there = [score for score in history if score is not None]
        if len(there) < len(history):
            return None
        return abs((max(there) if self.higher_is_better else min(there)) - there[-1])

    def summary(self) -> dict[str, float | None]:
        """``last``, ``average``, ``learned``, ``backward_transfer``, ``forgetting`` and ``base`` in one dictionary."""
        names = ("last", "average", "learned", "backward_transfer", "forgetting")
        return {name: getattr(self, name) for name in names} | {"base": _mean(map(self.base.get, self.tasks))}

    def as_dict(self) -> dict[str, Any]:
        """The whole matrix as JSON can hold it, summary included."""
        return {
            "higher_is_better": self.higher_is_better,
            "tasks": list(self.tasks),
            "learnt_at": dict(self.learnt_at),
            "base": dict(self.base),
            "rows": [dict(row) for row in self.rows],
            "counts": [dict(row) for row in self.counts],
            "holes": [
                {"step": step, "task": task, "reason": self.reasons.get((step, task), "not measured")}
                for step, task in self.holes
            ],
            "summary": self.summary(),
        }

    def _earlier(self) -> list[str]:
        """Tasks learnt before the last step."""
        return [task for task in self.tasks if self.learnt_at[task] < len(self.rows) - 1]

    def _when_learnt(self, task: str) -> float | None:
        return self.rows[self.learnt_at[task]].get(task)


def matrices(steps: Sequence[StepScores], learnt_at: Mapping[str, int]) -> dict[str, ScoreMatrix]:
    """Builds one matrix per metric from what each step recorded.

    A task whose scores are all missing still has a column if a step says why: without one, means would be taken over
    the other tasks as if this one did not exist.

    Args:
        steps: What each step measured.
        learnt_at: Step of each task.

    Returns:
        Matrices by metric; metrics without any score are absent.
    """
    built = {}
    for name, metric in METRICS.items():
        rows = [dict(step.scores.get(name, {})) for step in steps]
        counts = [dict(step.counts.get(name, {})) for step in steps]
        holes = [dict(step.holes.get(name, {})) for step in steps]
        base_holes = [dict(step.base_holes.get(name, {})) for step in steps]
        mentioned = {task for by_step in (rows, holes) for row in by_step for task in row}
        scored = {task: step for task, step in learnt_at.items() if task in mentioned}
        if scored:
            found = {task: score for step in steps for task, score in step.base.get(name, {}).items()}
            base = {task: found[task] for task in scored if task in found}
            reasons = {
                (step, task): why
                for step, row in enumerate(holes)
                for task, why in row.items()
                if task not in rows[step]
            }
            of_base = {task: why for row in base_holes for task, why in row.items() if task not in base}
            built[name] = ScoreMatrix(
                name, metric.higher_is_better, list(scored), scored, rows, base, counts, reasons, of_base
            )
    return built


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of some scores; None if there are none, or one is missing."""
    numbers = list(values)
    there = [number for number in numbers if number is not None]
    return fmean(there) if there and len(there) == len(numbers) else None
