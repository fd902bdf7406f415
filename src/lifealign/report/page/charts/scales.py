"""Shared by all charts: round ticks, labels that neither overlap nor overrun, and the levels of a colour scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LEVELS = 10
"""Number of levels of a colour scale above its zero."""
CHARACTER = 6.8
"""Width in pixels assumed for a character of 12 pixels; generous, because the page uses the reader's own font."""
NARROW = 340.0
"""Width of charts on a phone: a screen of 360 pixels without its margins, and a little to spare."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in pixels, and its label."""

    place: float
    label: str


def round_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values that enclose a range; their number is close to ``about``.

    Example:
        >>> round_ticks(0.0, 1.0), round_ticks(-0.3, 2.1), round_ticks(17.2, 18.9)
        ([0.0, 0.25, 0.5, 0.75, 1.0], [-1.0, 0.0, 1.0, 2.0, 3.0], [17.0, 17.5, 18.0, 18.5, 19.0])
    """
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(number * size, 10) for number in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A value on an axis, with a proper minus sign instead of a hyphen, as everywhere on the page.

    Example:
        >>> tick_text(-40.0), tick_text(17.5)
        ('\u221240', '17.5')
    """
    return f"{value:g}".replace("-", "\u2212")


def spread(places: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Moves labels apart, keeping their order, so that each has its own line.

    Args:
        places: Desired vertical positions.
        gap: Minimum distance between labels.
        top: Highest position.
        bottom: Lowest position; if there are too many labels, some end up above ``top``.

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


def shortened(text: str, pixels: float) -> str:
    """Text cut so that it fits; the full text is in the table below the chart.

    Example:
        >>> shortened("order-number", 200), shortened("order-number", 60)
        ('order-number', 'order-n\u2026')
    """
    most = max(2, int(pixels / CHARACTER))
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def step_labels(names: Sequence[str], gap: float) -> list[str]:
    """Names of steps that fit on an axis: all of them in full, or all of them by number.

    Args:
        names: Names of versions, such as ``02-tone``, or other names.
        gap: Pixels from one step to the next.

    Example:
        >>> step_labels(["base model", "01-brief"], 200), step_labels(["base model", "01-brief"], 40)
        (['base model', '01-brief'], ['base', '01'])
    """
    if all(len(name) * CHARACTER <= gap for name in names):
        return list(names)
    return [name.replace(" ", "-").split("-", 1)[0][:6] for name in names]


def level(value: float, low: float, high: float) -> int:
    """The level of a value on a colour scale, from 0 to ``LEVELS``.

    Example:
        >>> level(0.0, 0, 1), level(0.5, 0, 1), level(1.0, 0, 1), level(3.0, 3, 3)
        (0, 5, 10, 5)
    """
    if math.isclose(low, high):
        return LEVELS // 2
    return max(0, min(LEVELS, round(LEVELS * (value - low) / (high - low))))
