"""The report of several runs: methods side by side with their spread over seeds, and the tables of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from lifealign.errors import ConfigError
from lifealign.evaluation.metrics import CHANGES, Metric, metric_of
from lifealign.experiments.bootstrap import cell_statistic
from lifealign.experiments.comparison import Comparison, MetricTable, OrderTables
from lifealign.experiments.result import RunResult
from lifealign.experiments.summary import compare_results
from lifealign.life.card.loading_code import short_name
from lifealign.report.page.charts.dots import Values, dot_plots
from lifealign.report.page.render import render
from lifealign.report.tables import TextTable, block_table, captions, tables

STATISTICS = {"last": "Last: mean over the tasks after the last step", "backward_transfer": "Backward transfer"}


def runs_page(runs: Sequence[RunResult], against: str | None = None) -> str:
    """The report of several runs as one HTML file that needs nothing else; the same runs give the same bytes.

    Args:
        runs: Results, as :func:`load_run` reads them.
        against: Label of the method that the others are compared with, or None for no differences.

    Raises:
        ConfigError: If the runs do not belong together, or nothing was measured.
    """
    comparison = compare_results(runs, against)
    if not any(order.metrics for order in comparison.orders):
        raise ConfigError("found no scores in any of the runs, expected some; `lifealign evaluate` measures them")
    return render(
        "runs.html.j2",
        title="Runs side by side",
        labels=list(dict.fromkeys(run.label for run in runs)),
        runs=len(runs),
        seeds=comparison.seeds,
        bases=list(dict.fromkeys(short_name(run.base.model_name_or_path) for run in runs)),
        against=against,
        orders=[_order(comparison, order, runs) for order in comparison.orders],
        blocks=[block_table(table, str(comparison.against))._asdict() for table in comparison.blocks],
        captions=captions(comparison),
    )


def _order(comparison: Comparison, order: OrderTables, runs: Iterable[RunResult]) -> dict[str, Any]:
    """One order of the tasks: a tab per metric with plots and tables, and the tables that belong to no metric."""
    here = [run for run in runs if run.order == order.order]
    metrics = []
    for table in order.metrics:
        metric = metric_of(table)
        of_metric = replace(
            comparison, orders=(replace(order, metrics=(table,), general=(), costs=(), retention=()),), blocks=()
        )
        metrics.append(
            {
                "key": table.metric,
                "short": metric.short,
                "label": metric.label,
                "direction": metric.direction,
                "plots": _plots(here, table),
                "tables": [_named(found, order.order) for found in tables(of_metric)[:-1]],  # without the empty costs
            }
        )
    others = tables(replace(comparison, orders=(replace(order, metrics=()),), blocks=()))
    return {"name": order.order, "metrics": metrics, "others": [_named(found, order.order) for found in others]}


def _named(table: TextTable, order: str) -> dict[str, Any]:
    """A table for display under a heading that already names the order."""
    title = table.title.removeprefix(f"{order}: ")
    return table._asdict() | {"title": title[:1].upper() + title[1:]}


def _plots(runs: Sequence[RunResult], table: MetricTable) -> list[dict[str, Any]]:
    """Both statistics as dots, with the best last score on top; the tables keep the given order."""
    metric, (base, *methods) = metric_of(table), table.rows
    found = {
        name: {row.label: [_statistic(run, table.metric, name) for run in _of(runs, row.label)] for row in methods}
        for name in STATISTICS
    }

    def rank(label: str) -> float:
        there = [value for value in found["last"][label] if value is not None]
        return float("inf") if not there else fmean(there) * (-1 if metric.higher_is_better else 1)

    labels = sorted((row.label for row in methods), key=rank)
    plots = []
    for name, title in STATISTICS.items():
        rows = {
            label: _values(metric, _of(runs, label), found[name][label], signed=name in CHANGES) for label in labels
        }
        last = base.statistics["last"]
        mark = None
        if name in CHANGES:
            mark = (0.0, "no change")
        elif last is not None:
            mark = (metric.scaled(last.mean), "base model")
        there = any(row.mean is not None for row in rows.values())
        plots.append({"name": title, "plots": dot_plots(rows, mark) if there else None, "rows": _seed_rows(rows)})
    return plots


def _statistic(run: RunResult, metric: str, name: str) -> float | None:
    return cell_statistic(run, metric, name) if metric in run.scores else None


def _of(runs: Iterable[RunResult], label: str) -> list[RunResult]:
    return sorted((run for run in runs if run.label == label), key=lambda run: run.seed)


def _values(metric: Metric, runs: Sequence[RunResult], values: Sequence[float | None], *, signed: bool) -> Values:
    """A row of a dot plot: the value of every seed, mean and standard deviation, as numbers and in words."""
    seeds = {run.seed: value for run, value in zip(runs, values, strict=True) if value is not None}
    if not seeds:
        return Values((), None, None, "no such number")
    if len(seeds) < len(runs):
        lacking = ", ".join(str(run.seed) for run in runs if run.seed not in seeds)
        return Values((), None, None, f"missing for seed {lacking}, so there is no mean")
    there = list(seeds.values())
    mean, deviation = fmean(there), stdev(there) if len(there) > 1 else None
    text = metric.typeset(mean, signed=signed)
    if deviation is not None:
        text = f"{metric.typeset(mean, signed=signed, unit=False)} ± {metric.typeset(deviation)}"
    tip = "; ".join(f"seed {seed}: {metric.typeset(value, signed=signed)}" for seed, value in seeds.items())
    return Values(
        tuple(map(metric.scaled, there)),
        metric.scaled(mean),
        None if deviation is None else metric.scaled(deviation),
        text,
        f"{text} ({tip})",
    )


def _seed_rows(rows: Mapping[str, Values]) -> list[tuple[str, str]]:
    """The content of the plot as rows of a table: the label, and its numbers in words."""
    return [(label, row.tip or row.text) for label, row in rows.items()]
