"""Lines over the steps: the score of every task, and general ability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import PERPLEXITY_METRIC, metric_of
from lifealign.report.figures.style import (
    COLUMN,
    GREY,
    PAGE,
    Axes,
    Figure,
    axis_label,
    inches,
    line_look,
    mark_zero,
    new_figure,
    settled,
    shortened,
)


def over_time(matrix: ScoreMatrix, steps: Sequence[str]) -> Figure:
    """A line per task, from the step that learnt it; a missing score is a gap."""
    metric = metric_of(matrix)
    tasks = [shortened(task) for task in matrix.tasks]
    many = len(tasks) > 6  # many names go beside the axis, few below it
    columns = -(-len(tasks) // 24) if many else max(1, min(len(tasks), int(COLUMN / (inches(tasks) + 0.5))))
    names = 0.15 * -(-len(tasks) // columns)  # their height in inches
    figure, (axis,) = new_figure(*((PAGE, max(2.6, names + 0.2)) if many else (COLUMN, 2.0 + names)))
    apart = min(0.06, 0.4 / len(tasks))  # in steps, so that equal scores appear side by side
    for number, task in enumerate(matrix.tasks):
        places = range(matrix.learnt_at[task], len(steps))
        scores = [matrix.rows[step].get(task) for step in places]
        heights = [float("nan") if score is None else metric.scaled(score) for score in scores]
        shift = apart * (number - (len(tasks) - 1) / 2)
        axis.plot([step + shift for step in places], heights, label=tasks[number], **line_look(number))
    _time_axis(axis, steps, width=4.2 if many else 2.7)
    axis.set_ylabel(axis_label(metric))
    if metric.axis_limits is None:
        mark_zero(axis, horizontal=True)
    else:
        low, high = metric.axis_limits
        beyond = 0.04 * (high - low)  # so that no marker at the limits is cut off
        axis.set_ylim(low - beyond, high + beyond)
    figure.legend(loc=f"outside {'center right' if many else 'lower center'}", ncols=columns, frameon=False)
    return settled(figure)


def general_text(general: Sequence[Mapping[str, Any] | None], steps: Sequence[str]) -> Figure:
    """Perplexity on general text after each step, with the base model's as a dashed line."""
    figure, (axis,) = new_figure(COLUMN, 2.0)
    heights = [float("nan") if record is None else record["perplexity"] for record in general]
    base = next(record["base"]["perplexity"] for record in general if record is not None)
    axis.axhline(base, color=GREY, linewidth=0.8, linestyle="--", label="base model")
    axis.plot(range(len(steps)), heights, label="after each step", **line_look(0))
    _time_axis(axis, steps, width=2.7)
    axis.set_ylabel(axis_label(PERPLEXITY_METRIC))
    axis.ticklabel_format(axis="y", useOffset=False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return settled(figure)


def _time_axis(axis: Axes, steps: Sequence[str], width: float) -> None:
    """Writes the names of the steps below an axis of a given width in inches, or their numbers if names do not fit."""
    names = [shortened(step) for step in steps]
    if inches(names) < 0.9 * width / len(steps):
        axis.set_xticks(range(len(steps)), names)
        axis.set_xlabel("after step")
    else:
        every = -(-len(steps) // 12)
        numbered = range(0, len(steps), every)
        axis.set_xticks(numbered, [str(step + 1) for step in numbered])
        axis.set_xlabel("after step number")
    axis.set_xlim(-0.35, len(steps) - 0.65)
