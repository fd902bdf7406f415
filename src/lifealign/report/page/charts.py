"""Charts as numbers: where points, labels and ticks lie. The templates turn them into SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

LEVELS = 10
"""Steps of a colour scale beside its zero."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in pixels, and what is written there."""

    place: float
    label: str


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
        label: Its name.
        style: Number of its colour, dash and marker, from 0.
        parts: Points that are joined.
        label_y: Height of its name, moved so that no two names overlap.
    """

    label: str
    style: int
    parts: tuple[tuple[Point, ...], ...]
    label_y: float

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, from the first step on."""
        return tuple(point for part in self.parts for point in part)


@dataclass(frozen=True)
class LineChart:
    """Lines over steps.

    Attributes:
        width: Pixels.
        height: Pixels.
        left: Where the steps begin.
        right: Where they end; names of the lines stand beyond.
        x_ticks: One per step.
        y_ticks: Round values.
        lines: The lines.
    """

    width: float
    height: float
    left: float
    right: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def line_chart(
    series: Mapping[str, Sequence[float | None]],
    steps: Sequence[str],
    *,
    limits: tuple[float, float] | None = None,
    width: float = 960,
    height: float = 300,
) -> LineChart:
    """Lays out lines over steps.

    Args:
        series: Of each line, its value at every step; None where there is none, which is a gap and never a zero.
        steps: Names of the steps.
        limits: Least and greatest value of the axis; None takes those of the values.
        width: Pixels.
        height: Pixels.

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
    left, right, top, bottom = 56.0, width - 146.0, 12.0, height - 32.0
    gap = (right - left) / max(1, len(steps))

    def across(step: int) -> float:
        return round(
            left + gap * (step + 0.5) if len(steps) == 1 else left + 14 + (right - left - 28) * step / (len(steps) - 1),
            2,
        )

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
    ends = spread([parts[-1][-1].y if parts else bottom for _, parts in drawn], 15.0, top + 4, bottom)
    return LineChart(
        width,
        height,
        left,
        right,
        bottom,
        tuple(Tick(across(step), name) for step, name in enumerate(steps)),
        tuple(Tick(up(value), f"{value:g}") for value in ticks),
        tuple(Line(label, number, parts, ends[number]) for number, (label, parts) in enumerate(drawn)),
    )


def round_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values that enclose a range, about as many as asked for.

    Example:
        >>> round_ticks(0.0, 1.0), round_ticks(-0.3, 2.1), round_ticks(17.2, 18.9)
        ([0.0, 0.25, 0.5, 0.75, 1.0], [-1.0, 0.0, 1.0, 2.0, 3.0], [17.0, 17.5, 18.0, 18.5, 19.0])
    """
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(number * size, 10) for number in range(first, last + 1)]


def spread(places: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Moves labels apart, keeping their order, so that each has its own line.

    Args:
        places: Heights at which they should stand.
        gap: Least distance.
        top: Highest place.
        bottom: Lowest place; overrun where there are more labels than room.

    Example:
        >>> spread([50.0, 52.0, 90.0], 15, 0, 100)
        [50.0, 65.0, 90.0]
        >>> spread([99.0, 98.0], 15, 0, 100)
        [100, 85]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for one, other in pairwise(order):
        moved[other] = max(moved[other], moved[one] + gap)
    if order and moved[order[-1]] > bottom:
        moved[order[-1]] = bottom
        for one, other in zip(order[-2::-1], order[:0:-1], strict=False):
            moved[one] = min(moved[one], moved[other] - gap)
    return [max(top, place) if len(places) == 1 else place for place in moved]


def level(value: float, low: float, high: float) -> int:
    """Step of a colour scale, from 0 to ``LEVELS``.

    Example:
        >>> level(0.0, 0, 1), level(0.5, 0, 1), level(1.0, 0, 1), level(3.0, 3, 3)
        (0, 5, 10, 5)
    """
    if math.isclose(low, high):
        return LEVELS // 2
    return max(0, min(LEVELS, round(LEVELS * (value - low) / (high - low))))


@dataclass(frozen=True)
class Bar:
    """A bar from zero to a value.

    Attributes:
        label: What it is of.
        value: The value; None where it is missing.
        x: Left end, in pixels.
        width: Pixels.
        y: Upper edge.
    """

    label: str
    value: float | None
    x: float
    width: float
    y: float


@dataclass(frozen=True)
class BarChart:
    """Bars to both sides of zero."""

    width: float
    height: float
    zero: float
    bars: tuple[Bar, ...]


def bar_chart(values: Mapping[str, float | None], *, width: float = 460, row: float = 28) -> BarChart:
    """Lays out bars to both sides of zero, on one scale.

    Example:
        >>> chart = bar_chart({"a": -0.5, "b": 1.0, "c": None}, width=460)
        >>> chart.zero, [(bar.x, bar.width) for bar in chart.bars]
        (220.0, [(170.0, 50.0), (220.0, 100.0), (220.0, 0.0)])
    """
    left, right = 120.0, width - 140.0
    zero = (left + right) / 2
    greatest = max((abs(value) for value in values.values() if value is not None), default=0.0) or 1.0
    bars = []
    for number, (label, value) in enumerate(values.items()):
        length = round(abs(value or 0.0) / greatest * (right - zero), 2)
        bars.append(Bar(label, value, zero - length if (value or 0.0) < 0 else zero, length, 6 + row * number))
    return BarChart(width, 12 + row * len(values), zero, tuple(bars))


@dataclass(frozen=True)
class Spread:
    """One row of a dot plot: a value per seed, their mean, and the reach of one standard deviation; in pixels.

    Attributes:
        label: Name of the row.
        y: Its height.
        dots: One per seed.
        mean: Their mean; None without a value.
        low: Left end of mean ± standard deviation; None with fewer than two values.
        high: Right end.
        text: The numbers in words.
    """

    label: str
    y: float
    dots: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class DotPlot:
    """Rows of dots on one scale."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    ticks: tuple[Tick, ...]
    rows: tuple[Spread, ...]


def dot_plot(
    rows: Mapping[str, tuple[Sequence[float], float | None, float | None, str]],
    *,
    width: float = 720,
    row: float = 26,
) -> DotPlot:
    """Lays out a dot plot.

    Args:
        rows: By label: the values, their mean, their standard deviation, and the numbers in words.
        width: Pixels.
        row: Height of a row.
    """
    reached = [value for values, *_ in rows.values() for value in values]
    for _, mean, deviation, _ in rows.values():
        if mean is not None:
            reached += [mean - (deviation or 0.0), mean + (deviation or 0.0)]
    low, high = min(reached, default=0.0), max(reached, default=1.0)
    if math.isclose(low, high):
        low, high = low - 0.5, high + 0.5
    ticks = round_ticks(low, high, about=5)
    low, high = ticks[0], ticks[-1]
    left, right, bottom = 150.0, width - 150.0, 10 + row * len(rows)

    def across(value: float) -> float:
        return round(left + (right - left) * (value - low) / (high - low), 2)

    laid = []
    for number, (label, (values, mean, deviation, text)) in enumerate(rows.items()):
        centre = low_end = high_end = None
        if mean is not None:
            centre = across(mean)
            if deviation is not None:
                low_end, high_end = across(mean - deviation), across(mean + deviation)
        y = 10 + row * (number + 0.5)
        laid.append(Spread(label, y, tuple(map(across, values)), centre, low_end, high_end, text))
    axis = tuple(Tick(across(value), f"{value:g}") for value in ticks)
    return DotPlot(width, bottom + 26, left, right, bottom, axis, tuple(laid))
