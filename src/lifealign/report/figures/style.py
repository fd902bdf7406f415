"""How every figure looks: sizes, colours, the words of its axes; and figures that owe nothing to global state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lifealign.errors import ConfigError
from lifealign.evaluation.metrics import CHANGES, Metric

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches: one column of a two-column page, and the whole of it."""
SIZE = 7.0
"""Of letters, in points."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart; yellow left out, which white paper swallows."""
MARKERS = "osD^vPX"
LINES = ("-", "--", ":", "-.")
GREY, PALE = "#767676", "#DDDDDD"
STATISTICS = {"last": "last", "backward_transfer": "backward transfer"}
LONGEST = 24
"""Letters of a name that are shown; a task's may have 64."""
Figure = Any
"""A ``matplotlib.figure.Figure``; the library is an extra, so it is not imported for a type."""
Axes = Any


@contextmanager
def look() -> Iterator[None]:
    """How everything looks, whatever the settings of whoever runs it; they come back afterwards."""
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
        "svg.hashsalt": "lifealign",  # else the ids in it are random
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
    """The figure with everything in its final place: a layout moves a little each time it is made, so no more of it."""
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
    """A line at zero where it is in sight, which it does not bring there."""
    low, high = sorted(axis.get_ylim() if horizontal else axis.get_xlim())
    if low < 0 < high:
        (axis.axhline if horizontal else axis.axvline)(0, color=GREY, linewidth=0.6, zorder=0.5)


def axis_label(metric: Metric, statistic: str | None = None) -> str:
    """What an axis shows, with its unit, and its direction where that is not the usual one.

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
    """A name of at most ``LONGEST`` letters: the middle is left out.

    Example:
        >>> shortened("brief"), shortened("always-answer-in-one-short-sentence")
        ('brief', 'always-answer…t-sentence')
    """
    if len(name) <= LONGEST:
        return name
    tail = (LONGEST - 1) * 2 // 5 + 1
    return f"{name[: LONGEST - 1 - tail]}…{name[-tail:]}"


def inches(texts: Iterable[str]) -> float:
    """Width of the widest of some texts."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=SIZE)
    return float(max(text_to_path.get_text_width_height_descent(text, font, False)[0] for text in texts)) / 72
