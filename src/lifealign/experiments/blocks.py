"""Permutation test over blocks: does one method beat another on every order and seed, or just on some?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lifealign.experiments.bootstrap import cell_statistic
from lifealign.experiments.result import RunResult

EXACT_UP_TO = 16
"""Blocks up to which every pattern of signs is counted; beyond, ``DRAWN`` random ones are."""
DRAWN = 65_536
ROUNDING = 1e-9
HALVINGS = 50

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class BlockTest:
    """A difference between two methods over blocks, in the metric's unit.

    Attributes:
        difference: Mean over the blocks of ours - theirs.
        low: Lower end of the interval; None if there are too few blocks for one.
        high: Upper end, likewise.
        p: Share of the patterns of signs under which the mean difference is at least as far from 0 as it is.
        adjusted: p after Holm's correction for all comparisons made together.
        blocks: Number of blocks: orders and seeds that both methods have.
        won: Blocks in which ours is higher.
    """

    difference: float
    low: float | None
    high: float | None
    p: float
    adjusted: float
    blocks: int
    won: int


def compare_blocks(
    ours: Mapping[str, Sequence[RunResult]],
    theirs: Sequence[RunResult],
    metric: str,
    statistic: str,
    *,
    confidence: float = 0.95,
) -> dict[str, BlockTest]:
    """Compares several methods with one, block by block.

    A block is an order with a seed. If a method and the other do not differ, each block's difference is as likely to
    have the other sign; p is the share of all such patterns whose mean is at least as far from 0 (Fisher's sign-flip
    test, two-sided). The interval has every shift that this test would not refuse at 1 - ``confidence``. Nothing is
    assumed of the spread, but n blocks cannot have a p below 2 / 2^n: five are too few for an interval at 95 %.

    Args:
        ours: Results of each method, by label.
        theirs: Results of the method that all of them are compared with.
        metric: Name of the metric.
        statistic: One of :data:`~lifealign.experiments.bootstrap.STATISTICS`.
        confidence: Of the interval, between 0 and 1.

    Returns:
        One test for each method that has this statistic and a block in common with the other. All of them together
        are corrected by Holm's method.

    Reference:
        Fisher, The Design of Experiments, 1935; Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    differences = {label: block_differences(results, theirs, metric, statistic) for label, results in ours.items()}
    differences = {label: found for label, found in differences.items() if found}
    ps = {label: sign_flip_p(np.array(found)) for label, found in differences.items()}
    adjusted = holm(ps)
    tests = {}
    for label, found in differences.items():
        low, high = sign_flip_interval(np.array(found), confidence) or (None, None)
        won = sum(one > ROUNDING for one in found)
        tests[label] = BlockTest(fmean(found), low, high, ps[label], adjusted[label], len(found), won)
    return tests


def block_differences(
    ours: Sequence[RunResult], theirs: Sequence[RunResult], metric: str, statistic: str
) -> list[float]:
    """Ours - theirs in every block that both have; a block in which one lacks the statistic is left out."""
    by_block = {(one.order, one.seed): cell_statistic(one, metric, statistic) for one in theirs}
    found = []
    for one in ours:
        value, other = cell_statistic(one, metric, statistic), by_block.get((one.order, one.seed))
        if value is not None and other is not None:
            found.append(value - other)
    return found


def sign_flip_p(differences: Vector) -> float:
    """Two-sided p of the sign-flip test.

    Args:
        differences: One per block, at least one.

    Example:
        >>> sign_flip_p(np.array([0.3, 0.2, 0.4]))  # three blocks agree: one pattern in four is as extreme
        0.25
        >>> sign_flip_p(np.array([0.3, -0.3]))
        1.0
    """
    return _p(differences, _patterns(len(differences)))


def sign_flip_interval(differences: Vector, confidence: float) -> tuple[float, float] | None:
    """The shifts that the sign-flip test does not refuse at 1 - ``confidence``, as an interval.

    Args:
        differences: One per block, at least one.
        confidence: Between 0 and 1.

    Returns:
        Its ends, between the least and the greatest difference; None if even blocks that all agree could not refuse
        any shift.

    Example:
        >>> found = sign_flip_interval(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 0.95)
        >>> tuple(round(end, 3) for end in found)  # 0.10 would leave no block below it: p = 2 / 64
        (0.1, 0.6)
        >>> sign_flip_interval(np.array([0.1, 0.2, 0.3]), 0.95) is None
        True
    """
    patterns = _patterns(len(differences))
    alpha = 1 - confidence
    middle = float(differences.mean())

    def kept(shift: float) -> bool:
        return _p(differences - shift, patterns) > alpha + ROUNDING

    ends = []
    for outside in (float(differences.min()) - 1, float(differences.max()) + 1):
        if kept(outside):
            return None
        refused, inside = outside, middle
        for _ in range(HALVINGS):
            half = (refused + inside) / 2
            refused, inside = (refused, half) if kept(half) else (half, inside)
        ends.append(inside)
    return ends[0], ends[1]


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction: the chance of any false finding among all stays below what each is held to.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted: dict[str, float] = {}
    least = 0.0
    for rank, (name, p) in enumerate(sorted(ps.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(ps) - rank) * p))
        adjusted[name] = least
    return adjusted


def _patterns(blocks: int) -> NDArray[np.int8]:
    """Patterns of signs, ``(patterns, blocks)``; the first has none flipped. All of them, or random ones."""
    if blocks <= EXACT_UP_TO:
        bits = np.arange(2**blocks)[:, None] >> np.arange(blocks) & 1
    else:
        bits = np.random.default_rng(0).integers(2, size=(DRAWN, blocks))
        bits[0] = 0
    return (1 - 2 * bits).astype(np.int8)


def _p(differences: Vector, patterns: NDArray[np.int8]) -> float:
    totals = np.abs(patterns @ differences)
    return float((totals >= totals[0] - ROUNDING).mean())
