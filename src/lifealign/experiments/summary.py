"""Brings the results of a comparison together: means over seeds, differences between methods, costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from lifealign.errors import ConfigError
from lifealign.evaluation.metrics import METRICS
from lifealign.experiments.blocks import compare_blocks
from lifealign.experiments.bootstrap import STATISTICS, cell_statistic, paired_bootstrap
from lifealign.experiments.comparison import (
    BASE,
    COMPARED,
    COSTS,
    BlockTable,
    Comparison,
    CostRow,
    Estimate,
    GeneralRow,
    MetricTable,
    OrderTables,
    RetentionRow,
    Row,
)
from lifealign.experiments.result import RunResult
from lifealign.experiments.strangers import refuse_strangers
from lifealign.life.disk.step_files import General
from lifealign.settings.faults import nearest


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
    refuse_strangers(results)
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
                tuple(_retention_rows(cells)),
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
    holes = tuple(
        f"{_place(one)}: {', '.join(found)}"
        for one in everything
        if (found := [*holes_of(one, metric), *_not_asked(one, metric)])
    )
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
        for place, task in enumerate(matrix.tasks)
        if step >= matrix.learnt_at[task] and task not in row
        if not matrix.asked_from or place >= matrix.asked_from[step] or (step, task) in reasons
    ]


def _not_asked(result: RunResult, metric: str) -> list[str]:
    """That the last step of a result was not to score all tasks, as text; empty if it was."""
    part = result.scores[metric].part if metric in result.scores else None
    return [f"{part.tasks} of {part.of} tasks scored after the last step (evaluation.evaluate_last)"] if part else []


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


def _retention_rows(cells: Mapping[str, Sequence[RunResult]]) -> Iterator[RetentionRow]:
    for label, results in cells.items():
        steps = [(one, step.retention) for one in results for step in one.steps if step.retention is not None]
        if steps:
            worst = [found.worst for _, found in steps]
            kept = [found.worst for _, found in steps if found.kept]
            with_a_gate = [one for one in results if any(one is other for other, _ in steps)]
            yield RetentionRow(
                label,
                _seeds(with_a_gate),
                len(steps),
                1 - len(kept) / len(steps),
                max(worst),
                max(kept) if kept else None,
            )


def _seeds(results: Sequence[RunResult]) -> tuple[int, ...]:
    return tuple(sorted(result.seed for result in results))
