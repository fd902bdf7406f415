"""A comparison as tables of text, which are the same in every format: what each table shows, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lifealign.evaluation.metrics import (
    CHANGES,
    METRICS,
    PERPLEXITY_CHANGE,
    PERPLEXITY_METRIC,
    Metric,
    examples_text,
    metric_of,
)
from lifealign.experiments.bootstrap import CONFIDENCE, RESAMPLES, Difference
from lifealign.experiments.comparison import COMPARED, BlockTable, Comparison, Estimate, MetricTable, OrderTables

COLUMNS = {"backward_transfer": "BWT", "last": "Last", "average": "AP", "learned": "Learn"}
COST_COLUMNS = {"minutes": "minutes", "state_mb": "state MB", "adapter_mb": "adapter MB", "peak_memory_gb": "peak GB"}

SPREAD = "±: sample standard deviation over seeds; a number without it is of one seed. -: there is no such number."
SCORES = (
    "Last: mean over the tasks after the last step. AP: mean over steps of the mean over the tasks seen by then. "
    "Learn: mean over the tasks right after each was learnt. BWT (backward transfer): mean change of the earlier tasks "
    "since each was learnt; negative means forgetting, so higher is better for every metric. For Last, AP and Learn "
    "the title says which direction is better.",
    "Tasks learnt all in one step, or each by a model of its own, are no stream and have no AP and no BWT.",
    SPREAD,
)
COST = (
    "Costs: means over seeds; lower is better. minutes: learning, without scoring. state: what the method has to keep "
    "besides the adapter. peak: most memory in use. 1 MB is 1,000,000 bytes, 1 GB 1,000 MB. -: not measured.",
)


RETENTION = (
    "Gate: on prompts that nothing was trained on, against the version that learnt each task. refused: share of the "
    "steps with earlier tasks that a gate which enforces would have refused, because it was not shown that every one "
    "is kept. worst loss: largest share of a task's gate prompts lost, gains taken off, after any step; and after the "
    "accepted ones alone. Later steps were learnt on top of all of them.",
)


class TextTable(NamedTuple):
    """A table of text, the same in every format.

    Attributes:
        title: What the table shows, and which direction is better.
        header: Names of the columns; the first is the column of labels.
        rows: Rows of cells.
        caption: The meaning of the columns; many tables share it.
        notes: What is missing from this table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: tuple[str, ...]
    notes: tuple[str, ...]


def tables(comparison: Comparison) -> list[TextTable]:
    """All tables: per order and metric, scores, differences and tasks; per order, text and costs; over all, blocks."""
    found = []
    for order in comparison.orders:
        notes = tuple(_note(label, absent, comparison.seeds) for label, absent in order.missing.items())
        for table in order.metrics:
            lacking = notes + tuple(f"Note: missing, so no mean is taken over it: {hole}." for hole in table.holes)
            examples = examples_text(table.examples)
            counted = (*lacking, f"Held-out examples: {examples}.") if examples else lacking
            found.append(_scores(order.order, table, counted))
            if any(row.differences for row in table.rows):
                found.append(_differences(order.order, table, str(comparison.against), lacking))
            found.append(_tasks(order.order, table, counted))
        if order.general:
            found.append(
                _general(order, notes + tuple(f"Note: could not be measured: {hole}." for hole in order.general_holes))
            )
        if order.retention:
            found.append(_retention(order, notes))
        found.append(_costs(order, notes))
    return found + [block_table(table, str(comparison.against)) for table in comparison.blocks]


def captions(comparison: Comparison) -> list[str]:
    """The meaning of the columns of all tables, each line once."""
    return list(dict.fromkeys(line for table in tables(comparison) for line in table.caption))


def _scores(order: str, table: MetricTable, notes: tuple[str, ...]) -> TextTable:
    metric, rows = metric_of(table), []
    for row in table.rows:
        seeds = "-" if row.seeds is None else str(len(row.seeds))
        cells = [_estimate(metric, row.statistics[name], name in CHANGES) for name in COLUMNS]
        rows.append((row.label, seeds, *cells))
    title = f"{order}: {metric.label_without_unit}; {_unit_and_direction(metric)}"
    return TextTable(title, ("method", "seeds", *COLUMNS.values()), tuple(rows), SCORES, notes)


def _differences(order: str, table: MetricTable, against: str, notes: tuple[str, ...]) -> TextTable:
    metric, rows = metric_of(table), []
    for row in table.rows:
        if row.differences:
            found = [row.differences[name] for name in COMPARED]
            pairs = max(0 if one is None else one.cells for one in found)
            rows.append((row.label, str(pairs), *(_difference(metric, one) for one in found)))
    direction = "above 0 is better" if metric.higher_is_better else "below 0 is better for Last, above 0 for BWT"
    title = f"{order}: {_name(table)}, difference from {against}; {metric.unit.of_change}, {direction}"
    caption = (
        f"Differences: this method minus {against}, mean over pairs of results of one order and seed (pairs: number). "
        f"In brackets: {100 * CONFIDENCE:.0f} % interval of a paired bootstrap over pairs and held-out examples "
        f"({RESAMPLES:,} resamples); * where it excludes zero. Not corrected for the number of comparisons; with few "
        "seeds the interval says more about other held-out examples than about other seeds.",
    )
    return TextTable(title, ("method", "pairs", *(COLUMNS[name] for name in COMPARED)), tuple(rows), caption, notes)


def block_table(table: BlockTable, against: str) -> TextTable:
    """A comparison over all orders and seeds."""
    metric, rows = METRICS[table.metric], []
    for label, test in table.tests.items():
        interval = "too few blocks"
        if test.low is not None and test.high is not None:
            interval = f"{metric.tabled(test.low, signed=True)} to {metric.tabled(test.high, signed=True)}"
        middle = metric.tabled(test.difference, signed=True)
        won = f"{test.won} of {test.blocks}"
        rows.append((label, won, middle, interval, f"{test.p:.3g}", f"{test.adjusted:.3g}"))
    direction = "above 0 is better" if table.higher_is_better else "below 0 is better"
    title = f"All orders: {table.metric.replace('_', ' ')}, Last, difference from {against}; {metric.unit.of_change}"
    caption = (
        f"Blocks: an order with a seed. higher: blocks in which this method's Last is above that of {against}. The "
        f"{100 * CONFIDENCE:.0f} % interval and p are of a sign-flip test over blocks, which takes at least six blocks "
        "to have an interval; Holm: p corrected for all methods of the table.",
    )
    header = ("method", "higher", "difference", "interval", "p", "Holm")
    return TextTable(f"{title}, {direction}", header, tuple(rows), caption, ())


def _tasks(order: str, table: MetricTable, notes: tuple[str, ...]) -> TextTable:
    metric = metric_of(table)
    rows = [(row.label, *(_estimate(metric, row.tasks[task]) for task in table.tasks)) for row in table.rows]
    title = f"{order}: {_name(table)} per task after the last step; {_unit_and_direction(metric)}"
    return TextTable(title, ("method", *table.tasks), tuple(rows), (SPREAD,), notes)


def _general(order: OrderTables, notes: tuple[str, ...]) -> TextTable:
    rows = []
    for row in order.general:
        seeds = "-" if row.seeds is None else str(len(row.seeds))
        change = _estimate(PERPLEXITY_CHANGE, row.change, signed=True)
        rows.append((row.label, seeds, _estimate(PERPLEXITY_METRIC, row.perplexity), change))
    caption = (
        "Perplexity on general text that no task is about, after the last step; change is that from the base model. "
        "What a method costs in general ability shows here.",
        SPREAD,
    )
    title = f"{order.order}: {PERPLEXITY_METRIC.label}; {PERPLEXITY_METRIC.direction}"
    return TextTable(title, ("method", "seeds", "perplexity", "change %"), tuple(rows), caption, notes)


def _retention(order: OrderTables, notes: tuple[str, ...]) -> TextTable:
    rows = [
        (
            row.label,
            str(len(row.seeds)),
            f"{100 * row.refused:.0f} % of {row.decisions}",
            f"{100 * row.worst:.1f} %",
            "-" if row.worst_kept is None else f"{100 * row.worst_kept:.1f} %",
        )
        for row in order.retention
    ]
    header = ("method", "seeds", "refused", "worst loss", "of accepted")
    title = f"{order.order}: what steps cost the tasks before them; lower is better"
    return TextTable(title, header, tuple(rows), RETENTION, notes)


def _costs(order: OrderTables, notes: tuple[str, ...]) -> TextTable:
    rows = []
    for cost in order.costs:
        figures = [(cost.figures[name], ".2f" if name == "peak_memory_gb" else ".1f") for name in COST_COLUMNS]
        cells = ["-" if value is None else format(value, form) for value, form in figures]
        rows.append((cost.label, str(len(cost.seeds)), *cells))
    return TextTable(f"{order.order}: costs", ("method", "seeds", *COST_COLUMNS.values()), tuple(rows), COST, notes)


def _estimate(metric: Metric, estimate: Estimate | None, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    mean = metric.tabled(estimate.mean, signed=signed)
    return mean if estimate.sd is None else f"{mean} ± {metric.tabled(estimate.sd)}"


def _difference(metric: Metric, difference: Difference | None) -> str:
    if difference is None:
        return "-"
    ends = (difference.difference, difference.low, difference.high)
    middle, low, high = (metric.tabled(value, signed=True) for value in ends)
    # Two spaces in place of the mark keep the numbers aligned.
    return f"{middle} [{low}, {high}]{' *' if difference.excludes_zero else '  '}"


def _name(table: MetricTable) -> str:
    return table.metric.replace("_", " ")


def _unit_and_direction(metric: Metric) -> str:
    return f"{metric.unit.in_title}, {metric.direction}"


def _note(label: str, absent: Sequence[int], seeds: Sequence[int]) -> str:
    plural = "seeds" if len(absent) > 1 else "seed"
    return (
        f"Note: {label} has {len(seeds) - len(absent)} of {len(seeds)} seeds here; "
        f"no result of {plural} {', '.join(map(str, absent))}."
    )
