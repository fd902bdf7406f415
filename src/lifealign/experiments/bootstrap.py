"""Paired bootstrap: could a difference between two methods be due to the seeds and held-out examples alone?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.experiments.result import Matrix, RunResult

STATISTICS = ("last", "average", "learned", "backward_transfer")
"""The statistics that are linear in the score matrix, and therefore means over held-out examples."""
RESAMPLES = 10_000
CONFIDENCE = 0.95

ROUNDING = 1e-9  # of a score; an interval's end that should be 0 comes out as 1e-17 with either sign
DRAWN_AT_ONCE = 2_000_000  # indices, 16 MB; more are drawn in several parts

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A difference between two methods in one statistic, in the metric's unit: shares (0.1 is ten points) or nats.

    Attributes:
        difference: Mean over the paired cells of ours - theirs.
        low: Lower end of the interval.
        high: Upper end of the interval.
        cells: Number of paired cells: orders and seeds that both methods have.
    """

    difference: float
    low: float
    high: float
    cells: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero, by more than the rounding of floats."""
        return self.low > ROUNDING or self.high < -ROUNDING


def paired_bootstrap(
    ours: Sequence[RunResult],
    theirs: Sequence[RunResult],
    metric: str,
    statistic: str,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference | None:
    """Difference between two methods in a statistic of one metric, with a percentile interval.

    Cells are paired by order and seed; a cell that only one method has does not count. Each resample draws paired cells
    with replacement and, for each task, held-out examples with replacement. The drawn examples are the same for both
    methods, all steps and all cells, so hard examples and lucky seeds that affect both methods cancel out.

    The interval covers other held-out examples of the same tasks and, crudely, other seeds. If only the seeds vary,
    three seeds give an interval no wider than from the least to the greatest of their differences, which contains the
    truth 75 times in 100, not 95 (in one case of four, all three lie on the same side of it). One seed covers the
    examples only. Not covered are other tasks or orders, other training data and another base model. There is no
    correction for multiple comparisons: of twenty intervals between methods that do not differ, one is expected to
    exclude zero.

    Args:
        ours: Results of one method.
        theirs: Results of the method to compare with.
        metric: Name of the metric.
        statistic: One of ``STATISTICS``. The sign of ``backward_transfer`` is turned where lower is better, as in
            :class:`~lifealign.evaluation.matrix.ScoreMatrix`; the others have the sign of the metric.
        resamples: Number of resamples.
        confidence: Share of the resamples inside the interval, between 0 and 1.
        seed: Seed of the resampling.

    Returns:
        Difference and interval; None if the methods have no cell in common, one of them has no such statistic (see
        :func:`cell_statistic`), or the scores are not means over a complete set of held-out examples, which are what is
        resampled.

    Raises:
        ValueError: If there is no such statistic, ``confidence`` or ``resamples`` is out of range, a cell occurs
            twice, or cells differ in their tasks or in the number of a task's held-out examples.

    Example:
        >>> def result(right):
        ...     matrix = ScoreMatrix("adherence", True, ["a"], {"a": 0}, [{"a": sum(right) / len(right)}])
        ...     scores, outcomes = {"adherence": Matrix(**matrix.as_dict())}, {"adherence": [{"a": right}]}
        ...     cell = {"order": "given", "settings": {"seed": 1}, "one_model": True}
        ...     return RunResult.model_construct(**cell, scores=scores, outcomes=outcomes)
        >>> found = paired_bootstrap([result([1, 1, 0, 1])], [result([0, 1, 0, 0])], "adherence", "last")
        >>> found.difference, found.low, found.high, found.excludes_zero
        (0.5, 0.0, 1.0, False)
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic: found {statistic!r}, expected one of {', '.join(STATISTICS)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: found {confidence}, expected a share between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples: found {resamples}, expected at least 1")
    our_cells, their_cells = _by_cell(ours), _by_cell(theirs)
    pairs = [(result, their_cells[cell]) for cell, result in our_cells.items() if cell in their_cells]
    both = [result for pair in pairs for result in pair]
    if not pairs or any(cell_statistic(result, metric, statistic) is None for result in both):
        return None
    if not all(_has_every_outcome(result, metric) for result in both):
        return None
    differences = _differences(pairs, metric, statistic)
    rng = np.random.default_rng(seed)
    cells_drawn = _times_drawn(rng, len(pairs), resamples)
    per_cell = np.zeros((resamples, len(pairs)))
    for of_task in differences.values():
        per_cell += _resampled_means(rng, of_task, resamples)
    resampled = (cells_drawn * per_cell).sum(axis=1) / len(pairs)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    difference = sum(float(of_task.mean()) for of_task in differences.values())
    return Difference(difference, float(low), float(high), len(pairs))


def cell_statistic(result: RunResult, metric: str, statistic: str) -> float | None:
    """A statistic of one result; None if the method cannot have it by construction.

    A single step (all tasks at once) has no average over steps. A method with one model per task has neither that
    average nor a backward transfer, since nothing follows the task that a model has learnt; values in its matrix, such
    as a backward transfer of 0, are artefacts. Such a method has no score of rules kept together either.
    """
    matrix = result.scores.get(metric)
    if matrix is None:
        return None
    over_steps = statistic in ("average", "backward_transfer")
    if over_steps and (not result.one_model or len(matrix.rows) < 2):
        return None
    value: float | None = getattr(matrix.summary, statistic)
    return value


def _has_every_outcome(result: RunResult, metric: str) -> bool:
    """Whether the scores are means over examples, with no example and no score missing."""
    rows, matrix = result.outcomes.get(metric), result.scores[metric]
    if rows is None or any(None in outcomes for row in rows for outcomes in row.values()):
        return False
    return all(
        task in row for step, row in enumerate(matrix.rows) for task in matrix.tasks if step >= matrix.learnt_at[task]
    )


def _by_cell(results: Sequence[RunResult]) -> dict[tuple[str, int], RunResult]:
    cells: dict[tuple[str, int], RunResult] = {}
    for result in results:
        cell = (result.order, result.seed)
        if cell in cells:
            raise ValueError(f"found order {cell[0]!r} and seed {cell[1]} twice, expected one result for each")
        cells[cell] = result
    return cells


def _differences(pairs: Sequence[tuple[RunResult, RunResult]], metric: str, statistic: str) -> dict[str, Vector]:
    """Per task ours - theirs, ``(cells, examples)``; the statistic's difference is the sum over tasks of the means."""
    parts = [[_parts(result, metric, statistic) for result in pair] for pair in pairs]
    sizes = {task: len(examples) for task, examples in parts[0][0].items()}
    for part in (part for pair in parts for part in pair):
        found = {task: len(examples) for task, examples in part.items()}
        if found != sizes:
            raise ValueError(f"found held-out examples {found}, expected {sizes} in every cell")
    return {task: np.stack([ours[task] - theirs[task] for ours, theirs in parts]) for task in sizes}


def _parts(result: RunResult, metric: str, statistic: str) -> dict[str, Vector]:
    """Per task, what each held-out example adds to the statistic over all steps; their mean is the task's share."""
    weights = _weights(metric, result.scores[metric], statistic)
    parts: dict[str, Vector] = {}
    for step, row in enumerate(result.outcomes[metric]):
        for task, outcomes in row.items():
            weighted = weights[step, task] * np.asarray(outcomes, dtype=np.float64)
            if task in parts and len(parts[task]) != len(weighted):
                raise ValueError(
                    f"task {task!r}: found {len(weighted)} held-out examples after step {step}, "
                    f"expected {len(parts[task])} as before"
                )
            parts[task] = parts[task] + weighted if task in parts else weighted
    return parts


def _weights(metric: str, matrix: Matrix, statistic: str) -> dict[tuple[int, str], float]:
    """Weight of each (step, task) score in a statistic: its value when that score is 1 and all others are 0.

    Using ``ScoreMatrix`` keeps a single definition of the statistics.
    """
    weights = {}
    rows = matrix.rows
    for step, task in [(step, task) for step, row in enumerate(rows) for task in row]:
        unit = [{name: float((at, name) == (step, task)) for name in row} for at, row in enumerate(rows)]
        of_unit = ScoreMatrix(metric, matrix.higher_is_better, matrix.tasks, matrix.learnt_at, unit)
        weights[step, task] = float(getattr(of_unit, statistic))
    return weights


def _resampled_means(rng: np.random.Generator, examples: Vector, resamples: int) -> Vector:
    """Means over drawn examples, ``(resamples, cells)``, of ``(cells, examples)``; all cells get the same draws."""
    size = examples.shape[1]
    at_once = max(1, DRAWN_AT_ONCE // size)
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([_times_drawn(rng, size, number) @ examples.T / size for number in sizes])


def _times_drawn(rng: np.random.Generator, size: int, resamples: int) -> Vector:
    """How often each of ``size`` things is drawn in ``size`` draws with replacement, ``(resamples, size)``."""
    places = rng.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.float64)
