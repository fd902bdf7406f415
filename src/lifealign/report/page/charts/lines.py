"""Lines over the steps of a life, as the positions of points, labels and ticks; the templates turn them into SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lifealign.report.page.charts.scales import NARROW, Tick, round_ticks, shortened, spread, step_labels, tick_text

LINE = 15.0
"""Minimum distance between two labels, in pixels."""


@dataclass(frozen=True)
class Point:
    """A point in pixels, with the step it belongs to and its value."""

    x: float
    y: float
    step: int
    value: float


@dataclass(frozen=True)
class Line:
    """A line through the points of consecutive steps; a missing step breaks it into several parts.

    Attributes:
        label: Name of the line.
        short: The name, cut to the room there is.
        style: Number of its colour, dash and marker, from 0.
        parts: Groups of points that are joined.
        label_y: Vertical position of the name, moved so that no two names overlap.
    """

    label: str
    short: str
    style: int
    parts: tuple[tuple[Point, ...], ...]
    label_y: float

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, in the order of the steps."""
        return tuple(point for part in self.parts for point in part)


@dataclass(frozen=True)
class LineChart:
    """Lines over steps.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        left: Where the steps begin.
        right: Where the steps end; the names of the lines are to the right of it.
        bottom: Vertical position of the axis of steps.
        steps: Full names of the steps.
        x_ticks: One tick per step.
        y_ticks: Round values on the vertical axis.
        lines: The lines.
    """

    width: float
    height: float
    left: float
    right: float
    bottom: float
    steps: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def line_chart(
    series: Mapping[str, Sequence[float | None]],
    steps: Sequence[str],
    *,
    limits: tuple[float, float] | None = None,
    width: float = 840,
    height: float = 300,
    left: float = 56,
    room: float = 146,
) -> LineChart:
    """Lays out lines over steps.

    Args:
        series: The value of each line at every step; None for a missing value, which becomes a gap and never a zero.
        steps: Names of the steps.
        limits: Lowest and highest value of the axis; None takes those of the values.
        width: Width in pixels.
        height: Height in pixels; increased if the names of the lines need more.
        left: Room for the values of the axis.
        room: Room for the names of the lines.

    Example:
        >>> chart = line_chart({"a": [0.0, 1.0]}, ["one", "two"], limits=(0, 1), width=300, height=100)
        >>> [(point.x, point.y) for point in chart.lines[0].points]
        [(70.0, 68.0), (140.0, 12.0)]
    """
    there = [value for values in series.values() for value in values if value is not None]
    low, high = limits or (min(there, default=0.0), max(there, default=1.0))
    if math.isclose(low, high):
        low, high = low - 0.5, high + 0.5
    ticks = round_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    height = max(height, LINE * len(series) + 60)
    right, top, bottom = width - room, 12.0, height - 32.0
    gap = (right - left - 28) / max(1, len(steps) - 1)

    def across(step: int) -> float:
        return round((left + right) / 2 if len(steps) == 1 else left + 14 + gap * step, 2)

    def up(value: float) -> float:
        return round(bottom - (bottom - top) * (value - low) / (high - low), 2)

    drawn: list[tuple[str, tuple[tuple[Point, ...], ...]]] = []
    for label, values in series.items():
        parts: list[list[Point]] = [[]]
        for step, value in enumerate(values):
            if value is None:
                parts.append([])
            else:
                parts[-1].append(Point(across(step), up(value), step, value))
        drawn.append((label, tuple(tuple(part) for part in parts if part)))
    ends = spread([parts[-1][-1].y if parts else bottom for _, parts in drawn], LINE, top + 4, bottom)
    names = step_labels(steps, gap - 6)
    return LineChart(
        width,
        height,
        left,
        right,
        bottom,
        tuple(steps),
        tuple(Tick(across(step), name) for step, name in enumerate(names)),
        tuple(Tick(up(value), tick_text(value)) for value in ticks),
        tuple(
            Line(label, shortened(label, room - 26), number, parts, ends[number])
            for number, (label, parts) in enumerate(drawn)
        ),
    )


def line_charts(
    series: Mapping[str, Sequence[float | None]],
    steps: Sequence[str],
    *,
    limits: tuple[float, float] | None = None,
    height: float = 300,
) -> dict[str, LineChart]:
    """The same lines laid out twice, ``wide`` and ``narrow``; the page shows the one that fits the screen."""
    narrow = {"width": NARROW, "height": 0.8 * height, "left": 40.0, "room": 100.0}
    return {
        "wide": line_chart(series, steps, limits=limits, height=height),
        "narrow": line_chart(series, steps, limits=limits, **narrow),
    }
