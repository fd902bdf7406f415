"""Methods side by side as dots: every seed, their mean, and one standard deviation to each side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lifealign.report.page.charts.scales import NARROW, Tick, round_ticks, shortened, tick_text

ROW = 28.0


@dataclass(frozen=True)
class Spread:
    """One row of a dot plot: a value per seed, their mean, and the range of one standard deviation, all in pixels.

    Attributes:
        label: Name of the row.
        short: The name, cut to the room there is.
        y: Vertical position of the row.
        dots: One value per seed.
        mean: Their mean; None without a value.
        low: Left end of mean ± standard deviation; None with fewer than two values.
        high: Right end of it.
        text: The numbers in words.
        tip: A longer text for the tooltip.
    """

    label: str
    short: str
    y: float
    dots: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    text: str
    tip: str


@dataclass(frozen=True)
class DotPlot:
    """Rows of dots on one scale.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        left: Where the scale begins.
        right: Where the scale ends; the numbers are to the right of it.
        bottom: Vertical position of the axis.
        ticks: Round values on the axis.
        mark: A value to compare with, such as the base model's or zero; None without one.
        rows: The rows.
    """

    width: float
    height: float
    left: float
    right: float
    bottom: float
    ticks: tuple[Tick, ...]
    mark: Tick | None
    rows: tuple[Spread, ...]


@dataclass(frozen=True)
class Values:
    """The content of a row: a value per seed, mean, standard deviation, and the numbers in words."""

    seeds: Sequence[float]
    mean: float | None
    deviation: float | None
    text: str
    tip: str = ""


def dot_plot(
    rows: Mapping[str, Values],
    *,
    mark: tuple[float, str] | None = None,
    width: float = 540,
    label_room: float = 120,
    text_room: float = 104,
) -> DotPlot:
    """Lays out a dot plot.

    Args:
        rows: Content of the rows by label.
        mark: A value to compare with, and its name.
        width: Width in pixels.
        label_room: Room for labels.
        text_room: Room for the numbers in words.
    """
    reached = [value for row in rows.values() for value in row.seeds]
    for row in rows.values():
        if row.mean is not None:
            reached += [row.mean - (row.deviation or 0.0), row.mean + (row.deviation or 0.0)]
    if mark is not None:
        reached.append(mark[0])
    low, high = min(reached, default=0.0), max(reached, default=1.0)
    if math.isclose(low, high):
        low, high = low - 0.5, high + 0.5
    left, right, top = label_room, width - text_room, 20.0
    ticks = round_ticks(low, high, about=5 if right - left > 200 else 3)
    low, high = ticks[0], ticks[-1]

    def across(value: float) -> float:
        return round(left + (right - left) * (value - low) / (high - low), 2)

    laid = []
    for number, (label, row) in enumerate(rows.items()):
        centre = low_end = high_end = None
        if row.mean is not None:
            centre = across(row.mean)
            if row.deviation is not None:
                low_end, high_end = across(row.mean - row.deviation), across(row.mean + row.deviation)
        dots, y = tuple(map(across, row.seeds)), top + ROW * (number + 0.5)
        short = shortened(label, label_room - 10)
        laid.append(Spread(label, short, y, dots, centre, low_end, high_end, row.text, row.tip or row.text))
    bottom = top + ROW * len(rows)
    axis = tuple(Tick(across(value), tick_text(value)) for value in ticks)
    line = None if mark is None else Tick(across(mark[0]), mark[1])
    return DotPlot(width, bottom + 26, left, right, bottom, axis, line, tuple(laid))


def dot_plots(rows: Mapping[str, Values], mark: tuple[float, str] | None = None) -> dict[str, DotPlot]:
    """The same dots laid out twice, ``wide`` and ``narrow``."""
    narrow = dot_plot(rows, mark=mark, width=NARROW, label_room=84, text_room=92)
    return {"wide": dot_plot(rows, mark=mark), "narrow": narrow}
