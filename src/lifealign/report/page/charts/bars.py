"""Bars of what each task gained or lost since it was learnt: change to both sides of zero, and fall from the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lifealign.report.page.charts.scales import NARROW, shortened

ROW, HEAD = 30.0, 30.0
"""Height of a row, and of the column names above the rows, in pixels."""


@dataclass(frozen=True)
class Bar:
    """A bar from zero to a value.

    Attributes:
        value: The value; None if it is missing.
        text: The value in words.
        x: Left end, in pixels.
        width: Width in pixels.
    """

    value: float | None
    text: str
    x: float
    width: float


@dataclass(frozen=True)
class BarRow:
    """A task: its change since it was learnt, and its fall from its best score."""

    label: str
    short: str
    y: float
    change: Bar
    fall: Bar


@dataclass(frozen=True)
class BarChart:
    """Both columns on one scale, so that lengths are comparable.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        zeros: Where the bars of change begin, and where those of fall begin.
        texts: Where the numbers of both columns end.
        rows: One row per task.
    """

    width: float
    height: float
    zeros: tuple[float, float]
    texts: tuple[float, float]
    rows: tuple[BarRow, ...]


def bar_chart(
    values: Mapping[str, tuple[float | None, float | None]],
    text: Callable[[float | None, bool], str],
    *,
    width: float = 840,
    label_room: float = 130,
    text_room: float = 76,
) -> BarChart:
    """Lays out change and fall of every task.

    Args:
        values: By task, its change (positive is better) and its fall (at least 0); None for a missing one.
        text: Puts a value in words; the second argument says whether to write a sign.
        width: Width in pixels.
        label_room: Room for the names of the tasks.
        text_room: Room for a number.

    Example:
        >>> chart = bar_chart({"a": (-5.0, 10.0)}, lambda value, signed: f"{value:g}", width=500, label_room=100)
        >>> chart.zeros, [(row.change.x, row.change.width, row.fall.x, row.fall.width) for row in chart.rows]
        ((176.0, 348.0), [(138.0, 38.0, 348.0, 76.0)])
    """
    there = [abs(value) for both in values.values() for value in both if value is not None]
    greatest = max(there, default=0.0) or 1.0
    gap = 20.0
    unit = (width - label_room - 2 * text_room - gap) / 3  # change has two directions and takes two units
    zeros = (label_room + unit, label_room + 2 * unit + text_room + gap)

    def bar(value: float | None, zero: float, signed: bool) -> Bar:
        length = round(abs(value or 0.0) / greatest * unit, 2)
        return Bar(value, text(value, signed), round(zero - length if (value or 0.0) < 0 else zero, 2), length)

    rows = tuple(
        BarRow(
            label,
            shortened(label, label_room - 8),
            HEAD + ROW * number,
            bar(change, zeros[0], True),
            bar(fall, zeros[1], False),
        )
        for number, (label, (change, fall)) in enumerate(values.items())
    )
    ends = (label_room + 2 * unit + text_room - 4, width)
    return BarChart(width, HEAD + ROW * len(values) + 4, zeros, ends, rows)


def bar_charts(
    values: Mapping[str, tuple[float | None, float | None]], text: Callable[[float | None, bool], str]
) -> dict[str, BarChart]:
    """The same bars laid out twice, ``wide`` and ``narrow``."""
    narrow = bar_chart(values, text, width=NARROW, label_room=76, text_room=56)
    return {"wide": bar_chart(values, text), "narrow": narrow}
