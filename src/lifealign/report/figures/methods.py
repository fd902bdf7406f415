"""Methods side by side, with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from lifealign.evaluation.metrics import Metric, metric_of
from lifealign.experiments.comparison import MetricTable, OrderTables, Row
from lifealign.report.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    PAGE,
    PALE,
    SIZE,
    STATISTICS,
    Axes,
    Figure,
    axis_label,
    mark_zero,
    new_figure,
    settled,
    shortened,
)


def methods_side_by_side(table: MetricTable, order: OrderTables, name_the_order: bool) -> Figure:
    """A dot per method, with a bar of one standard deviation to each side if there are several seeds."""
    metric = metric_of(table)
    rows = [row for row in table.rows if row.seeds is not None]
    figure, axes = new_figure(PAGE, 0.19 * len(rows) + 0.75, columns=len(STATISTICS))
    for number, (axis, statistic) in enumerate(zip(axes, STATISTICS, strict=True)):
        look = {"color": COLOURS[number], "fmt": MARKERS[number]}
        for place, row in enumerate(rows):
            estimate = row.statistics[statistic]
            if estimate is None:
                text = "no result" if not row.seeds else "none"
                axis.text(
                    0.02, place, text, transform=axis.get_yaxis_transform(), va="center", color=GREY, style="italic"
                )
                continue
            spread = None if estimate.sd is None else metric.scaled(estimate.sd)
            mean = metric.scaled(estimate.mean)
            axis.errorbar(mean, place, xerr=spread, markersize=3.5, linewidth=1.1, capsize=2, **look)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(range(len(rows)), [shortened(row.label) for row in rows] if axis is axes[0] else [])
        axis.grid(axis="x", color=PALE, linewidth=0.5)
        axis.set_axisbelow(True)
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel(axis_label(metric, statistic))
    _mark_base(axes[0], table, metric)
    mark_zero(axes[1], horizontal=False)
    told = f"{order.order}: " if name_the_order else ""
    figure.supxlabel(f"{told}{_spread_text(rows)}", fontsize=SIZE, color=GREY)
    return settled(figure)


def _mark_base(axis: Axes, table: MetricTable, metric: Metric) -> None:
    base = table.rows[0].statistics["last"]
    if base is not None:
        place = metric.scaled(base.mean)
        axis.axvline(place, color=GREY, linewidth=0.8, linestyle="--")
        axis.annotate(
            "base model",
            (place, 1.0),
            xycoords=axis.get_xaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=GREY,
        )


def _spread_text(rows: Sequence[Row]) -> str:
    """What the dots and bars mean, in words."""
    counts = sorted({len(row.seeds) for row in rows if row.seeds})
    if not counts:
        return "no results"
    if counts[-1] == 1:
        return "one seed, so no spread"
    seeds = f"{counts[-1]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean and one standard deviation over {seeds} seeds"
