"""The style of every figure: sizes, colours and axis labels; and figures that use no global state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lifealign.errors import ConfigError
from lifealign.evaluation.metrics import CHANGES, Metric

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches: one column of a two-column page, and the whole page."""
SIZE = 7.0
"""Font size in points."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, which colour-blind readers can tell apart; without yellow, too faint on white paper."""
MARKERS = "osD^vPX"
LINES = ("-", "--", ":", "-.")
GREY, PALE = "#767676", "#DDDDDD"
STATISTICS = {"last": "last", "backward_transfer": "backward transfer"}
LONGEST = 24
"""Maximum number of characters of a name that are shown; the name of a task may have 64."""
Figure = Any
"""A ``matplotlib.figure.Figure``; the library is an extra, so it is not imported for a type."""
Axes = Any


@contextmanager
def look() -> Iterator[None]:
    """Applies the style within the context, whatever the user's own settings, which are restored afterwards."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError(
            "figures: found no matplotlib, expected it; `pip install 'lifealign[plot]'`, or leave --figures out"
        ) from error
    defaults = matplotlib.rcParamsDefault
    plain: dict[Any, Any] = {key: defaults[key] for key in defaults if not key.startswith("backend")}
    ours: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "lifealign",  # otherwise the ids in the file are random
        "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],  # the first comes with matplotlib
        "font.size": SIZE,
        "axes.labelsize": SIZE,
        "xtick.labelsize": SIZE,
        "ytick.labelsize": SIZE,
        "legend.fontsize": SIZE,
        "hatch.linewidth": 0.6,
        "text.parse_math": False,  # a dollar in a label is a dollar
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.size": 2.0,
        "ytick.major.size": 2.0,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
    }
    with matplotlib.rc_context(plain | ours):
        yield


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure without any global state, and its axes; sizes in inches."""
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def settled(figure: Figure) -> Figure:
    """The figure with everything in its final place; the layout is then frozen, because each run moves it a little."""
    for _ in range(3):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def line_look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the n-th line; no two of the first 49 are the same."""
    lap = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + lap) % len(MARKERS)],
        "linestyle": LINES[lap % len(LINES)],
        "linewidth": 1.1,
        "markersize": 3.5,
    }


def mark_zero(axis: Axes, *, horizontal: bool) -> None:
    """Draws a line at zero if zero is within the axis limits; never changes the limits."""
    low, high = sorted(axis.get_ylim() if horizontal else axis.get_xlim())
    if low < 0 < high:
        (axis.axhline if horizontal else axis.axvline)(0, color=GREY, linewidth=0.6, zorder=0.5)


def axis_label(metric: Metric, statistic: str | None = None) -> str:
    """What an axis shows, with its unit, and its direction if lower is better.

    Example:
        >>> from lifealign.evaluation.metrics import PERPLEXITY_METRIC, METRICS
        >>> axis_label(METRICS["adherence"]), axis_label(PERPLEXITY_METRIC)
        ('adherence (%)', 'perplexity (lower is better)')
        >>> axis_label(METRICS["adherence"], "backward_transfer")
        'adherence, backward transfer (percentage points)'
    """
    changes = statistic in CHANGES
    what = metric.short if statistic is None else f"{metric.short}, {STATISTICS[statistic]}"
    unit = metric.unit.of_change if changes else metric.unit.on_axis
    usual = metric.higher_is_better or changes
    return f"{what} ({', '.join(word for word in (unit, '' if usual else metric.direction) if word)})"


def shortened(name: str) -> str:
    """A name shortened to at most ``LONGEST`` characters by leaving out its middle.

    Example:
        >>> shortened("brief"), shortened("always-answer-in-one-short-sentence")
        ('brief', 'always-answer…t-sentence')
    """
    if len(name) <= LONGEST:
        return name
    tail = (LONGEST - 1) * 2 // 5 + 1
    return f"{name[: LONGEST - 1 - tail]}…{name[-tail:]}"


def inches(texts: Iterable[str]) -> float:
    """Width of the widest of some texts, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=SIZE)
    return float(max(text_to_path.get_text_width_height_descent(text, font, False)[0] for text in texts)) / 72
