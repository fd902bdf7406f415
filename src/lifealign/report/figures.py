"""Figures for papers, as SVG and PNG: the score matrix, scores over time, methods side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifealign import storage
from lifealign.errors import ConfigError
from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import METRICS
from lifealign.report.comparison import Comparison, Estimate, MetricTable
from lifealign.report.terminal import number_text

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches: one column of a two-column page, and the whole of it."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart; yellow left out, which white paper swallows."""
MARKERS = "osD^vPX"
STATISTICS = {"last": "Last", "backward_transfer": "Backward transfer"}
UNITS = {"share": "per cent", "nats": "nats", "points": "points"}

Figure = Any
"""A ``matplotlib.figure.Figure``; the library is an extra, so it is not imported for a type."""


def life_figures(matrices: Mapping[str, ScoreMatrix], steps: Sequence[str]) -> dict[str, Figure]:
    """Of each metric the score matrix as a heat map, and the score of every task over the steps.

    Args:
        matrices: Score matrices by metric.
        steps: Names of the steps.

    Returns:
        Figures by file name without ending.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    figures = {}
    for name, matrix in matrices.items():
        figures[f"matrix-{name}"] = _heat_map(matrix, steps)
        figures[f"over-time-{name}"] = _over_time(matrix, steps)
    return figures


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """Of each order and metric the methods' last score and backward transfer, with one standard deviation over seeds.

    Returns:
        Figures by file name without ending.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    figures = {}
    for number, order in enumerate(comparison.orders, start=1):
        for table in order.metrics:
            place = f"-{number}" if len(comparison.orders) > 1 else ""
            figures[f"methods{place}-{table.metric}"] = _methods(table)
    return figures


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Writes figures as SVG, with text as text, and as PNG of 300 dpi; the same figures give the same bytes."""
    import matplotlib

    paths = []
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lifealign"}):
        for name, figure in figures.items():
            for ending, more in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 300})):
                content = io.BytesIO()
                figure.savefig(content, format=ending, bbox_inches="tight", **more)
                path = folder / f"{name}.{ending}"
                storage.write_bytes(path, content.getvalue())
                paths.append(path)
    return paths


def _new(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """An empty figure without any global state, and its axes."""
    try:
        from matplotlib.figure import Figure as MatplotlibFigure
    except ImportError as error:
        raise ConfigError(
            "figures: found no matplotlib, expected it; `pip install 'lifealign[plot]'`, or leave --figures out"
        ) from error
    figure = MatplotlibFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.tick_params(labelsize=7, length=2)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _heat_map(matrix: ScoreMatrix, steps: Sequence[str]) -> Figure:
    figure, (axis,) = _new(max(COLUMN, 0.62 * len(matrix.tasks) + 1.2), 0.32 * (len(steps) + 1) + 0.7)
    unit = METRICS[matrix.metric].unit
    values = [*matrix.base.values(), *(score for row in matrix.rows for score in row.values())]
    low, high = (0.0, 1.0) if unit == "share" else (min(values), max(values))
    rows = [matrix.base, *matrix.rows]
    for y, row in enumerate(rows):
        for x, task in enumerate(matrix.tasks):
            if 0 < y <= matrix.learnt_at[task]:
                continue  # not learnt yet
            score = row.get(task)
            share = 0.0 if score is None or high == low else (score - low) / (high - low)
            shade = (1 - 0.86 * share, 1 - 0.62 * share, 1 - 0.42 * share)
            hole = {"hatch": "////", "facecolor": "white"} if score is None else {"facecolor": shade}
            axis.add_patch(_box(x, y, edgecolor="#999999" if y != matrix.learnt_at[task] + 1 else "#000000", **hole))
            text = number_text(matrix.metric, score) if score is not None else "missing"
            colour = "white" if share > 0.8 and score is not None else "black"
            axis.text(x, y, text, ha="center", va="center", fontsize=7, color=colour)
    axis.set_xlim(-0.5, len(matrix.tasks) - 0.5)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xticks(range(len(matrix.tasks)), matrix.tasks, rotation=30, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(rows)), ["base model", *(f"after {step}" for step in steps)])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure


def _box(x: int, y: int, **look: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, linewidth=0.8, **look)


def _over_time(matrix: ScoreMatrix, steps: Sequence[str]) -> Figure:
    figure, (axis,) = _new(COLUMN, 2.3)
    unit = METRICS[matrix.metric].unit
    factor = 100 if unit == "share" else 1
    for number, task in enumerate(matrix.tasks):
        places = range(matrix.learnt_at[task], len(steps))
        scores = [matrix.rows[step].get(task) for step in places]
        heights = [float("nan") if score is None else factor * score for score in scores]  # a gap in the line
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        axis.plot(list(places), heights, label=task, linewidth=1.2, markersize=4, **look)
    axis.set_xticks(range(len(steps)), steps, rotation=20, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.3, len(steps) - 0.7)
    axis.set_ylabel(f"{METRICS[matrix.metric].short} ({UNITS[unit]})", fontsize=7)
    if unit == "share":
        axis.set_ylim(-4, 104)
    figure.legend(loc="outside lower center", ncols=min(3, len(matrix.tasks)), fontsize=7, frameon=False)
    return figure


def _methods(table: MetricTable) -> Figure:
    rows = [row for row in table.rows if row.seeds is not None]
    figure, axes = _new(PAGE, 0.24 * len(rows) + 0.7, columns=len(STATISTICS))
    unit = METRICS[table.metric].unit
    factor = 100 if unit == "share" else 1
    base = table.rows[0].statistics["last"]
    for axis, (statistic, name) in zip(axes, STATISTICS.items(), strict=True):
        for place, row in enumerate(rows):
            estimate: Estimate | None = row.statistics[statistic]
            if estimate is not None:
                spread = None if estimate.sd is None else factor * estimate.sd
                axis.errorbar(
                    factor * estimate.mean, place, xerr=spread, fmt="o", color=COLOURS[0], markersize=4, linewidth=1.2
                )
        if statistic == "last" and base is not None:
            axis.axvline(factor * base.mean, color="#888888", linewidth=0.8, linestyle=":")
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(range(len(rows)), [row.label for row in rows] if axis is axes[0] else [""] * len(rows))
        axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axis.locator_params(axis="x", prune="both")  # the last number of one axis would meet the first of the next
        axis.set_axisbelow(True)
        axis.set_xlabel(f"{name}, {METRICS[table.metric].short} ({UNITS[unit]})", fontsize=7)
    return figure
