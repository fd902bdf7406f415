"""What a comparison says, once its results are brought together: tables of numbers, without their computation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import NamedTuple

from lifealign.experiments.blocks import BlockTest
from lifealign.experiments.bootstrap import Difference

BASE = "base model"
COMPARED = ("last", "backward_transfer")
"""Statistics for which differences between methods are computed."""
COSTS = {
    "minutes": ("seconds", 60.0),
    "state_mb": ("state_bytes", 1e6),
    "adapter_mb": ("adapter_bytes", 1e6),
    "peak_memory_gb": ("peak_memory_bytes", 1e9),
}
"""Costs as tables show them: the name in a result, and how many of its units make one unit of the table."""


class Estimate(NamedTuple):
    """Mean over seeds, and the sample standard deviation, which is None for a single value."""

    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Estimate | None:
        """Summarises the values that are not None; None if there are none.

        Example:
            >>> Estimate.of([1.0, 3.0, None]), Estimate.of([2.0]), Estimate.of([None])
            (Estimate(mean=2.0, sd=1.4142135623730951), Estimate(mean=2.0, sd=None), None)
        """
        there = [value for value in values if value is not None]
        return cls(fmean(there), stdev(there) if len(there) > 1 else None) if there else None


@dataclass(frozen=True)
class Row:
    """A method, or the base model, on one metric.

    Attributes:
        label: Display name.
        seeds: Seeds that have a result; None for the base model, which is not trained.
        statistics: By the names of ``STATISTICS``; None if the method has no such number. The base model has only
            ``last``: the mean of its scores.
        tasks: Score of each task after the last step.
        differences: By the names of ``COMPARED``: this method minus the one compared against; None if there is no such
            difference. Empty for the base model, for the method compared against, and if nothing is compared.
    """

    label: str
    seeds: tuple[int, ...] | None
    statistics: Mapping[str, Estimate | None]
    tasks: Mapping[str, Estimate | None]
    differences: Mapping[str, Difference | None]


@dataclass(frozen=True)
class MetricTable:
    """One metric in one order of the tasks; the first row is the base model's.

    Attributes:
        metric: Its name.
        higher_is_better: Its direction.
        tasks: The tasks, in the order of the first result.
        rows: The base model and the methods.
        examples: By task, the fewest and the most held-out examples that it was scored on, if known.
        holes: Which scores are missing and why, one line per result that lacks some. A mean that would include a
            missing score is None, including a mean over seeds.
    """

    metric: str
    higher_is_better: bool
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    examples: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    holes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostRow:
    """What a method costs: means over seeds by the names of ``COSTS``; None if it was not measured."""

    label: str
    seeds: tuple[int, ...]
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class GeneralRow:
    """Perplexity on general text after the last step, of a method or of the base model.

    Attributes:
        label: Display name.
        seeds: Seeds that measured it; None for the base model.
        perplexity: Perplexity; None if it was not measured.
        change: Relative change from the base model; 0.1 is ten per cent more, which is worse.
    """

    label: str
    seeds: tuple[int, ...] | None
    perplexity: Estimate | None
    change: Estimate | None


@dataclass(frozen=True)
class RetentionRow:
    """What the gate says of a method's steps, over all seeds.

    Attributes:
        label: Display name.
        seeds: Seeds that had a gate.
        decisions: Number of steps that had something to lose.
        refused: Share of them that a gate which enforces would have refused.
        worst: The largest observed loss of an earlier task, over all these steps.
        worst_kept: The same over those that the gate accepts; None if it accepts none.
    """

    label: str
    seeds: tuple[int, ...]
    decisions: int
    refused: float
    worst: float
    worst_kept: float | None


@dataclass(frozen=True)
class OrderTables:
    """Everything about one order of the tasks.

    Attributes:
        order: Name of the order.
        metrics: A table per metric.
        general: A row for the base model and one per method; empty if general ability was not measured.
        costs: A row per method.
        missing: By label, the seeds of the comparison without a result; only for labels that lack some.
        general_holes: Where general ability could not be measured, and why, one line per result.
        retention: A row per method that had a gate.
    """

    order: str
    metrics: tuple[MetricTable, ...]
    general: tuple[GeneralRow, ...]
    costs: tuple[CostRow, ...]
    missing: Mapping[str, tuple[int, ...]]
    general_holes: tuple[str, ...] = ()
    retention: tuple[RetentionRow, ...] = ()


@dataclass(frozen=True)
class BlockTable:
    """The last score of one metric, compared block by block over all orders and seeds.

    Attributes:
        metric: Its name.
        higher_is_better: Its direction.
        tests: By label: that method minus the one compared against.
    """

    metric: str
    higher_is_better: bool
    tests: Mapping[str, BlockTest]


@dataclass(frozen=True)
class Comparison:
    """Methods x orders x seeds, summarised.

    Attributes:
        orders: Tables of each order, in order of first appearance.
        seeds: Seeds of the whole comparison.
        against: Label of the method that the others are compared against, or None.
        blocks: A table per metric if there are several orders and a method to compare against; else empty.
    """

    orders: tuple[OrderTables, ...]
    seeds: tuple[int, ...]
    against: str | None
    blocks: tuple[BlockTable, ...] = ()
