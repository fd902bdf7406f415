"""The score matrix: a metric on every task after every step, and the statistics of continual learning."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
from statistics import fmean
from typing import Any, Protocol

from lifealign.evaluation.metrics import METRICS, metric_of

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


@dataclass(frozen=True)
class Part:
    """What a row says of which only some tasks were to be scored (``evaluate_last``).

    Attributes:
        tasks: How many tasks it has a score of.
        of: How many had been learnt by then.
        mean: Mean over those that it has; None if one that was to be scored is missing.
        change: Mean change, since each was learnt, of those learnt before the step; None if there is none, or one is
            missing.
    """

    tasks: int
    of: int
    mean: float | None
    change: float | None


@dataclass
class ScoreMatrix:
    """``scores[i, j]``: one metric on task j after step i; rows are time.

    A mean over several scores is None if one of them is missing: otherwise it would cover other tasks than the mean
    beside it. :attr:`holes` lists the missing ones. A score that was never asked for (``evaluate_last``) is missing
    for every mean as well, but is no hole: :meth:`part` says what there is in its place.

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
        asked_from: For each row, how many of ``tasks``, the oldest ones, were not to be scored; empty if all were.

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
    asked_from: Sequence[int] = ()

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
        return _mean(self.row_mean(step) for step in range(first, len(self.rows)))

    @property
    def learned(self) -> float | None:
        """Mean of the diagonal: how well each task was learnt at its time. A loss of plasticity shows here."""
        return _mean(self._when_learnt(task) for task in self.tasks)

    @property
    def backward_transfer(self) -> float | None:
        """Mean change of earlier tasks since each was learnt; negative means forgetting. None before a second task.

        If lower is better, the sign is turned, so that negative means forgetting there too.
        """
        return _mean(self.change(task) for task in self._earlier())

    @property
    def forgetting(self) -> float | None:
        """Mean fall of earlier tasks from their best score, at least 0. None before a second task."""
        return _mean(self.fall(task) for task in self._earlier())

    @property
    def holes(self) -> list[tuple[int, str]]:
        """Step and task of every score that should be there and is not: it was asked for, then or later."""
        failed: dict[int, list[str]] = {}  # asked for later, by an evaluation of everything
        for step, task in self.reasons:
            if task not in self.rows[step] and self._places[task] < self._first_asked(step):
                failed.setdefault(step, []).append(task)
        return [
            (step, task)
            for step, row in enumerate(self.rows)
            for task in (*sorted(failed.get(step, ()), key=self._places.__getitem__), *self._asked(step))
            if task not in row
        ]

    @property
    def examples(self) -> dict[str, tuple[int, int]]:
        """Fewest and most held-out examples that each task was scored on; a task is absent if that is not known."""
        found: dict[str, list[int]] = {}
        for row in self.counts:
            for task, number in row.items():
                found.setdefault(task, []).append(number)
        return {task: (min(found[task]), max(found[task])) for task in self.tasks if task in found}

    def row_mean(self, step: int) -> float | None:
        """Mean over the tasks learnt by a step."""
        row = self.rows[step]
        return _mean(row.get(task) for task in self._seen(step))

    def part(self, step: int = -1) -> Part | None:
        """What a row says if some of the tasks learnt by then were not to be scored and have no score; else None.

        Args:
            step: The row; -1 is the last one.

        Example:
            >>> matrix = ScoreMatrix("accuracy", True, ["a", "b"], {"a": 0, "b": 1}, [{"a": 0.9}, {"b": 0.8}])
            >>> matrix.holes, matrix.part()
            ([(1, 'a')], None)
            >>> matrix.asked_from = [0, 1]
            >>> matrix.holes, matrix.part(), matrix.last
            ([], Part(tasks=1, of=2, mean=0.8, change=None), None)
        """
        if not self.rows or not self.asked_from:
            return None
        step = step % len(self.rows)
        row, seen = self.rows[step], self._seen(step)
        older = seen[: self._first_asked(step)]
        if all(task in row for task in older):
            return None
        there = [*(task for task in older if task in row), *self._asked(step)]
        earlier = [task for task in there if self.learnt_at[task] < step]
        return Part(
            sum(task in row for task in there),
            len(seen),
            _mean(row.get(task) for task in there),
            _mean(self._change(task, step) for task in earlier),
        )

    def change(self, task: str) -> float | None:
        """Change of a task since it was learnt, negative if it became worse; None if a score is missing."""
        return self._change(task, len(self.rows) - 1)

    def fall(self, task: str) -> float | None:
        """Fall of a task from its best score, at least 0; None if a score since it was learnt is missing."""
        history: list[float] = []
        for row in self.rows[self.learnt_at[task] :]:
            if task not in row:
                return None
            history.append(row[task])
        return abs((max(history) if self.higher_is_better else min(history)) - history[-1])

    def latest(self, most: int) -> tuple[list[str], range]:
        """The latest tasks and the latest steps, at most so many of each, for a view that has no room for all."""
        return self._in_time[-most:], range(max(0, len(self.rows) - most), len(self.rows))

    def summary(self) -> dict[str, float | None]:
        """``last``, ``average``, ``learned``, ``backward_transfer``, ``forgetting`` and ``base`` in one dictionary."""
        names = ("last", "average", "learned", "backward_transfer", "forgetting")
        return {name: getattr(self, name) for name in names} | {"base": _mean(map(self.base.get, self.tasks))}

    def as_dict(self) -> dict[str, Any]:
        """The whole matrix as JSON can hold it, with its summary, and :meth:`part` if not all was to be scored."""
        part = self.part()
        also = {"asked_from": list(self.asked_from)} if self.asked_from else {}
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
            **also,
            **({} if part is None else {"part": asdict(part)}),
        }

    @cached_property
    def _in_time(self) -> list[str]:
        """The tasks, in the order in which they were learnt."""
        return sorted(self.tasks, key=self.learnt_at.__getitem__)

    @cached_property
    def _numbers_seen(self) -> list[int]:
        """For each step, how many tasks had been learnt by then."""
        learnt = Counter(self.learnt_at[task] for task in self.tasks)
        return list(accumulate(learnt[step] for step in range(len(self.rows))))

    @cached_property
    def _places(self) -> dict[str, int]:
        """The place of each task in the order in which they were learnt."""
        return {task: place for place, task in enumerate(self._in_time)}

    def _seen(self, step: int) -> list[str]:
        """The tasks learnt by a step, oldest first."""
        return self._in_time[: self._numbers_seen[step]]

    def _first_asked(self, step: int) -> int:
        return self.asked_from[step] if self.asked_from else 0

    def _asked(self, step: int) -> list[str]:
        """The tasks that a step was to score, oldest first."""
        return self._seen(step)[self._first_asked(step) :]

    def _change(self, task: str, step: int) -> float | None:
        now, then = self.rows[step].get(task), self._when_learnt(task)
        if now is None or then is None:
            return None
        return (now - then) if self.higher_is_better else (then - now)

    def _earlier(self) -> list[str]:
        """Tasks learnt before the last step."""
        return [task for task in self.tasks if self.learnt_at[task] < len(self.rows) - 1]

    def _when_learnt(self, task: str) -> float | None:
        return self.rows[self.learnt_at[task]].get(task)


def matrices(
    steps: Sequence[StepScores], learnt_at: Mapping[str, int], first_asked: Sequence[int] = ()
) -> dict[str, ScoreMatrix]:
    """Builds one matrix per metric from what each step recorded.

    A task whose scores are all missing still has a column if a step says why: without one, means would be taken over
    the other tasks as if this one did not exist.

    Args:
        steps: What each step measured.
        learnt_at: Step of each task, in the order in which they were learnt.
        first_asked: For each step the place of the oldest task that it was to score; empty if all were.

    Returns:
        Matrices by metric; metrics without any score are absent.
    """
    built = {}
    order = {task: place for place, task in enumerate(learnt_at)}
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
            places = [order[task] for task in scored]
            asked_from = [bisect_left(places, first) for first in first_asked]
            built[name] = ScoreMatrix(
                name,
                metric.higher_is_better,
                list(scored),
                scored,
                rows,
                base,
                counts,
                reasons,
                of_base,
                asked_from if any(asked_from) else (),
            )
    return built


def part_text(matrix: ScoreMatrix) -> str:
    """What is known of a life whose last step was not to score all tasks, in one line; empty if it was.

    Example:
        >>> rows = [{"a": 0.9}, {"a": 0.5, "b": 0.8}, {"b": 0.7, "c": 0.9}]
        >>> learnt_at = {"a": 0, "b": 1, "c": 2}
        >>> part_text(ScoreMatrix("adherence", True, list(learnt_at), learnt_at, rows, asked_from=[0, 0, 1]))
        '2 of 3 tasks were scored after the last step: mean 80 %, change since each was learnt -10 %'
    """
    part, metric = matrix.part(), metric_of(matrix)
    if part is None:
        return ""
    change = "" if part.change is None else f", change since each was learnt {metric.text(part.change, signed=True)}"
    return f"{part.tasks} of {part.of} tasks were scored after the last step: mean {metric.text(part.mean)}{change}"


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of some scores; None if there are none, or one is missing."""
    numbers = []
    for value in values:
        if value is None:
            return None
        numbers.append(value)
    return fmean(numbers) if numbers else None
