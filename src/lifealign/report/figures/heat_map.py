"""The score matrix as a heat map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import Metric, metric_of
from lifealign.report.figures.style import (
    COLUMN,
    GREY,
    PAGE,
    SIZE,
    Figure,
    axis_label,
    inches,
    new_figure,
    settled,
    shortened,
)

DARKEST = (0x08 / 255, 0x45 / 255, 0x8A / 255)
"""Red, green and blue of the cell with the best score; the worst is white."""


def heat_map(matrix: ScoreMatrix, steps: Sequence[str]) -> Figure:
    """A row per step, the base model first; what was just learnt is framed, what is missing is hatched."""
    metric = metric_of(matrix)
    rows = [matrix.base, *matrix.rows]
    names = ["base model", *(f"after {shortened(step)}" for step in steps)]
    tasks = [shortened(task) for task in matrix.tasks]
    cells = {
        (x, y): row.get(task)
        for y, row in enumerate(rows)
        for x, task in enumerate(matrix.tasks)
        if y == 0 or y > matrix.learnt_at[task]  # otherwise the task was not learnt yet
    }
    # Without the unit, which is in the label.
    texts = {place: metric.text(score, unit=False) for place, score in cells.items() if score is not None}

    beside = inches(names) + 0.15
    flat = inches(tasks) < 0.5  # otherwise the names of tasks are rotated, and extend beyond the last cell
    above, beyond = (0.15, 0.0) if flat else (0.75 * inches(tasks) + 0.2, 0.75 * inches(tasks[-1:]) + 0.05)
    width, cell = COLUMN, (COLUMN - beside - beyond - 0.1) / len(tasks)
    if cell < 0.36:
        width, cell = PAGE, (PAGE - beside - beyond - 0.1) / len(tasks)
    cell = min(0.55, cell)
    flat = flat and inches(tasks) < 0.9 * cell
    angle = 0 if flat else 45 if cell > 0.15 else 90
    height = min(0.28, max(0.13, 8.5 / len(rows)))
    size = min(SIZE, 0.75 * cell / inches(texts.values()) * SIZE) if texts else SIZE

    figure, (axis,) = new_figure(width, height * len(rows) + above + 0.3)
    shades = _shades(metric, [score for score in cells.values() if score is not None])
    for (x, y), score in cells.items():
        new = y == matrix.learnt_at[matrix.tasks[x]] + 1
        shade = (1.0, 1.0, 1.0) if score is None else shades(score)
        axis.add_patch(_box(x, y, facecolor=shade, edgecolor="black" if new else GREY, hatch=None))
        if score is None:
            axis.add_patch(_box(x, y, facecolor="none", edgecolor=GREY, hatch="//////"))
        else:
            weight = "bold" if new else "normal"
            axis.text(x, y, texts[x, y], ha="center", va="center", fontsize=size, color=_ink(shade), fontweight=weight)
    for inside in (*axis.patches, *axis.texts):
        inside.set_in_layout(False)  # their places are fixed, and laying out so many would be slow
    axis.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect=height / cell)
    turned = {"rotation": angle, "ha": "left", "rotation_mode": "anchor"} if angle == 45 else {"rotation": angle}
    axis.set_xticks(range(len(tasks)), tasks, size=min(SIZE, 60 * cell), **turned)
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(rows)), names)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    absent = "missing or not scored" if matrix.asked_from else "missing"
    missing = f", hatched: {absent}" if None in cells.values() else ""
    axis.set_xlabel(f"{axis_label(metric)}{missing}")
    return settled(figure)


def _box(x: int, y: int, **look: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, linewidth=0.9 if look["edgecolor"] == "black" else 0.5, **look)


def _shades(metric: Metric, scores: Sequence[float]) -> Callable[[float], tuple[float, ...]]:
    """Colours of scores, darker for better; shares use their whole scale, others the range from worst to best."""
    low, high = metric.ends(scores)

    def shade(score: float) -> tuple[float, ...]:
        share = 0.0 if high == low else (score - low) / (high - low)
        share = share if metric.higher_is_better else 1 - share
        return tuple(1 - share * (1 - part) for part in DARKEST)

    return shade


def _ink(shade: Sequence[float]) -> str:
    """Black or white, whichever has more contrast to a colour (relative luminance as WCAG defines it)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shade]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"
