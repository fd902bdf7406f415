"""The score matrix: a metric on every task after every step, and the numbers that continual learning reads from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

METRICS = {"adherence": True, "preference_accuracy": True, "margin": True}
"""Every metric, and whether higher is better."""

Row = Mapping[str, float]
"""Scores by task name; a task that was not scored is absent."""


@dataclass
class ScoreMatrix:
    """``scores[i, j]``: one metric on task j after step i; rows are time.

    Attributes:
        metric: Name of the metric.
        higher_is_better: Its direction.
        tasks: Names of the scored tasks in the order in which they were learnt.
        learnt_at: Step (from 0) in which each task was learnt; its column starts there.
        rows: Scores after each step.
        base: Scores of the base model, before any task.

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

    def __getitem__(self, index: tuple[int, int]) -> float | None:
        """Score of task j after step i; None where there is none."""
        step, task = index
        return self.rows[step].get(self.tasks[task])

    @property
    def last(self) -> float | None:
        """Mean of the last row: the scores of all tasks, now."""
        return _mean(self.rows[-1].values()) if self.rows else None

    @property
    def average(self) -> float | None:
        """Mean over steps of the mean over the tasks seen so far (AP in the paper)."""
        return _mean([fmean(row.values()) for row in self.rows if row])

    @property
    def learned(self) -> float | None:
        """Mean of the diagonal: how well each task was learnt when it was new. Loss of plasticity shows here."""
        return _mean([score for task in self.tasks if (score := self._when_learnt(task)) is not None])

    @property
    def backward_transfer(self) -> float | None:
        """Mean change of earlier tasks since each was learnt; negative means forgetting. None before a second task.

        For a metric where lower is better the sign is turned, so that negative means forgetting there, too.
        """
        sign = 1 if self.higher_is_better else -1
        changes = [
            sign * (self.rows[-1][task] - learnt)
            for task in self._earlier()
            if (learnt := self._when_learnt(task)) is not None
        ]
        return _mean(changes)

    @property
    def forgetting(self) -> float | None:
        """Mean fall of earlier tasks from the best they ever were, at least 0. None before a second task."""
        falls = []
        for task in self._earlier():
            history = [row[task] for row in self.rows[self.learnt_at[task] :] if task in row]
            best = max(history) if self.higher_is_better else min(history)
            falls.append(abs(best - history[-1]))
        return _mean(falls)

    def summary(self) -> dict[str, float | None]:
        """``last``, ``average``, ``learned``, ``backward_transfer``, ``forgetting`` and ``base`` in one dictionary."""
        names = ("last", "average", "learned", "backward_transfer", "forgetting")
        return {name: getattr(self, name) for name in names} | {"base": _mean(self.base.values())}

    def as_dict(self) -> dict[str, Any]:
        """The whole matrix as JSON can hold it, summary included."""
        return {
            "higher_is_better": self.higher_is_better,
            "tasks": list(self.tasks),
            "learnt_at": dict(self.learnt_at),
            "base": dict(self.base),
            "rows": [dict(row) for row in self.rows],
            "summary": self.summary(),
        }

    def _earlier(self) -> list[str]:
        """Tasks learnt before the last step and scored after it."""
        last = len(self.rows) - 1
        return [task for task in self.tasks if self.learnt_at[task] < last and task in self.rows[last]]

    def _when_learnt(self, task: str) -> float | None:
        return self.rows[self.learnt_at[task]].get(task)


def matrices(steps: Sequence[Mapping[str, Mapping[str, Row]]], learnt_at: Mapping[str, int]) -> dict[str, ScoreMatrix]:
    """Builds one matrix per metric from what each step recorded.

    Args:
        steps: Of each step, ``scores`` (metric -> task -> score) and ``base`` (the same of the base model, for the
            tasks that were new).
        learnt_at: Step of each task.

    Returns:
        Matrices by metric; a metric that no task has is absent.
    """
    built = {}
    for metric, higher_is_better in METRICS.items():
        scored = {task: step for task, step in learnt_at.items() if task in steps[step]["scores"].get(metric, {})}
        if scored:
            base = {task: steps[step]["base"][metric][task] for task, step in scored.items()}
            rows = [{task: score for task, score in step["scores"].get(metric, {}).items()} for step in steps]
            built[metric] = ScoreMatrix(metric, higher_is_better, list(scored), scored, rows, base)
    return built


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return fmean(numbers) if numbers else None
