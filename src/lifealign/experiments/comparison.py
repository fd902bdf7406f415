"""The results of a comparison, summarised: means over seeds, differences between methods, costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, NamedTuple

from lifealign.errors import ConfigError
from lifealign.evaluation.metrics import METRICS
from lifealign.experiments.blocks import BlockTest, compare_blocks
from lifealign.experiments.bootstrap import STATISTICS, Difference, cell_statistic, paired_bootstrap
from lifealign.experiments.result import RunResult
from lifealign.life.disk.step_files import General
from lifealign.settings.faults import nearest

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
class OrderTables:
    """Everything about one order of the tasks.

    Attributes:
        order: Name of the order.
        metrics: A table per metric.
        general: A row for the base model and one per method; empty if general ability was not measured.
        costs: A row per method.
        missing: By label, the seeds of the comparison without a result; only for labels that lack some.
        general_holes: Where general ability could not be measured, and why, one line per result.
    """

    order: str
    metrics: tuple[MetricTable, ...]
    general: tuple[GeneralRow, ...]
    costs: tuple[CostRow, ...]
    missing: Mapping[str, tuple[int, ...]]
    general_holes: tuple[str, ...] = ()


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


def compare_results(results: Sequence[RunResult], against: str | None) -> Comparison:
    """Summarises the results of a comparison.

    Every method has a row in every order, even without a result; missing values are reported, never filled in.

    Args:
        results: One per method, order and seed. Methods appear in the order of their first.
        against: Label of the method whose row the others are compared against, or None for no differences.

    Raises:
        ConfigError: If there is no result, ``against`` is not a label, or results do not belong together: one occurs
            twice, or differs from the rest in base model, metrics, tasks or numbers of held-out examples.
    """
    if not results:
        raise ConfigError("a comparison needs at least one result; run it first")
    _refuse_strangers(results)
    labels = list(dict.fromkeys(result.label for result in results))
    if against is not None and against not in labels:
        raise ConfigError(f"against: found {against!r}, expected one of {', '.join(labels)}{nearest(against, labels)}")
    seeds = tuple(sorted({result.seed for result in results}))
    orders = []
    for order in dict.fromkeys(result.order for result in results):
        here = [result for result in results if result.order == order]
        cells = {label: [result for result in here if result.label == label] for label in labels}
        measured = [metric for metric in METRICS if any(metric in one.scores for one in here)]
        had = {label: {result.seed for result in cells[label]} for label in labels}
        missing = {label: tuple(seed for seed in seeds if seed not in had[label]) for label in labels}
        orders.append(
            OrderTables(
                order,
                tuple(_metric_table(cells, metric, against) for metric in measured),
                tuple(_general_rows(cells)),
                tuple(_cost_row(label, cells[label]) for label in labels),
                {label: absent for label, absent in missing.items() if absent},
                tuple(
                    f"{_place(one)}: after {step} ({why})"
                    for one in here
                    for step, why in one.general_text_holes.items()
                ),
            )
        )
    blocks = _blocks(results, against) if against is not None and len(orders) > 1 else ()
    return Comparison(tuple(orders), seeds, against, tuple(blocks))


def _blocks(results: Sequence[RunResult], against: str) -> Iterator[BlockTable]:
    by_label: dict[str, list[RunResult]] = {}
    for result in results:
        by_label.setdefault(result.label, []).append(result)
    theirs = by_label.pop(against)
    for metric in METRICS:
        tests = compare_blocks(by_label, theirs, metric, "last")
        if tests:
            yield BlockTable(metric, METRICS[metric].higher_is_better, tests)


def _metric_table(cells: Mapping[str, Sequence[RunResult]], metric: str, against: str | None) -> MetricTable:
    everything = [result for results in cells.values() for result in results]
    first = next(result.scores[metric] for result in everything if metric in result.scores)
    tasks = tuple(first.tasks)
    base = Row(
        BASE,
        None,
        dict.fromkeys(STATISTICS) | {"last": Estimate.of([first.summary.base])},
        {task: Estimate.of([first.base.get(task)]) for task in tasks},
        {},
    )
    rows = [base]
    for label, results in cells.items():
        differences = {}
        if against is not None and label != against:
            differences = {name: paired_bootstrap(results, cells[against], metric, name) for name in COMPARED}
        rows.append(
            Row(
                label,
                _seeds(results),
                {name: _whole(cell_statistic(one, metric, name) for one in results) for name in STATISTICS},
                {task: _whole(_last_score(one, metric, task) for one in results) for task in tasks},
                differences,
            )
        )
    holes = tuple(f"{_place(one)}: {', '.join(found)}" for one in everything if (found := holes_of(one, metric)))
    return MetricTable(metric, first.higher_is_better, tasks, tuple(rows), _examples(everything, metric, tasks), holes)


def holes_of(result: RunResult, metric: str) -> list[str]:
    """Scores of a metric that a result lacks, as text, with the reason if the result has one."""
    matrix = result.scores.get(metric)
    if matrix is None:  # a method that cannot have it by construction
        return []
    names = [step.name for step in result.steps]
    reasons = {(hole.step, hole.task): f" ({hole.reason})" for hole in matrix.holes}
    return [
        f"{task} after {names[step]}{reasons.get((step, task), '')}"
        for step, row in enumerate(matrix.rows)
        for task in matrix.tasks
        if step >= matrix.learnt_at[task] and task not in row
    ]


def _last_score(result: RunResult, metric: str, task: str) -> float | None:
    """Score of a task after the last step."""
    return result.scores[metric].rows[-1].get(task) if metric in result.scores else None


def _whole(values: Iterable[float | None]) -> Estimate | None:
    """Mean over seeds if every seed has a value; with a hole, it would cover other seeds than the mean beside it."""
    numbers = list(values)
    return None if None in numbers else Estimate.of(numbers)


def _examples(results: Iterable[RunResult], metric: str, tasks: Sequence[str]) -> dict[str, tuple[int, int]]:
    rows = [row for result in results if metric in result.scores for row in result.scores[metric].counts]
    found = {task: [row[task] for row in rows if task in row] for task in tasks}
    return {task: (min(numbers), max(numbers)) for task, numbers in found.items() if numbers}


def _place(result: RunResult) -> str:
    return f"{result.label}, seed {result.seed}"


def _general_rows(cells: Mapping[str, Sequence[RunResult]]) -> Iterator[GeneralRow]:
    measured = {label: [one for one in results if _general(one) is not None] for label, results in cells.items()}
    first = next((_general(one) for results in measured.values() for one in results), None)
    if first is None:
        return
    yield GeneralRow(BASE, None, Estimate.of([first.base.perplexity]), None)
    for label, results in measured.items():
        figures = [found for one in results if (found := _general(one)) is not None]
        changes = [found.perplexity / found.base.perplexity - 1 for found in figures]
        yield GeneralRow(
            label, _seeds(results), Estimate.of(found.perplexity for found in figures), Estimate.of(changes)
        )


def _general(result: RunResult) -> General | None:
    """General ability after the last step of a result, if it was measured."""
    return result.general_text[-1] if result.general_text else None


def _cost_row(label: str, results: Sequence[RunResult]) -> CostRow:
    figures: dict[str, float | None] = {}
    for name, (key, unit) in COSTS.items():
        found = [None if result.cost is None else getattr(result.cost, key) for result in results]
        measured = [value / unit for value in found if value is not None]
        figures[name] = fmean(measured) if measured else None
    return CostRow(label, _seeds(results), figures)


def _refuse_strangers(results: Sequence[RunResult]) -> None:
    """Raises if a result cannot be in one table with those before it."""
    met: dict[tuple[str, ...], tuple[Any, str]] = {}
    cells = set()
    for result in results:
        place = f"label {result.label!r}, order {result.order!r}, seed {result.seed}"
        if place in cells:
            raise ConfigError(f"{place}: found two results, expected one; leave one of the files out")
        cells.add(place)
        for what, within, found in _traits(result):
            # The first result with a trait decides; later ones have to agree.
            expected, other = met.setdefault((what, within), (found, place))
            if found != expected:
                raise ConfigError(
                    f"{place}: found {what} {found}, expected {expected} as in {other}; "
                    "results of one comparison share base model, data and metrics, so run this one again"
                )


def _traits(result: RunResult) -> Iterator[tuple[str, str, Any]]:
    """What all results must share: its name, the order within which it must be the same (empty for all), its value."""
    order = result.order
    yield "the base model", "", result.base.fingerprint
    if (general := _general(result)) is not None:
        yield "the general text", "", f"{general.text} ({general.tokens} tokens)"  # it may be cut by max_length
    together = [metric for metric in result.scores if METRICS[metric].measured_on == "rules"]
    yield "the metrics", order, ", ".join(sorted(set(result.scores) - set(together)))
    if result.one_model:  # with one model per task, no model keeps rules together
        yield "the metrics of rules", order, ", ".join(together) or "none"
    for metric, matrix in result.scores.items():
        yield f"the tasks ({metric}, sorted)", order, ", ".join(sorted(matrix.tasks))
        if len(matrix.rows) > 1:  # in a single step, tasks have no order
            yield f"the tasks ({metric})", order, ", ".join(matrix.tasks)
        for row in result.outcomes.get(metric, ()):
            for task, outcomes in row.items():
                yield f"the number of held-out examples of task {task!r} ({metric})", "", len(outcomes)


def _seeds(results: Sequence[RunResult]) -> tuple[int, ...]:
    return tuple(sorted(result.seed for result in results))
