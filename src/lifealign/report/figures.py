"""Figures for papers, as SVG and PNG: the score matrix, scores over time, general ability, methods side by side.

Widths are those of one column or of both, exactly, so that a page takes a figure without scaling it and letters keep
their size. Nothing here uses ``pyplot`` or the settings of whoever runs it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lifealign import storage
from lifealign.errors import ConfigError
from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import METRICS
from lifealign.report.comparison import Comparison, MetricTable, OrderTables, Row
from lifealign.report.terminal import number_text

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches: one column of a two-column page, and the whole of it."""
SIZE = 7.0
"""Of letters, in points."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart; yellow left out, which white paper swallows."""
MARKERS = "osD^vPX"
LINES = ("-", "--", ":", "-.")
GREY, PALE = "#767676", "#DDDDDD"
DARKEST = (0x08 / 255, 0x45 / 255, 0x8A / 255)
"""Red, green and blue of the cell with the best score; the worst is white."""
STATISTICS = {"last": "last", "backward_transfer": "backward transfer"}
UNITS = {"share": "%", "nats": "nats", "points": "points"}
CHANGES = {"share": "percentage points", "nats": "nats", "points": "points"}
"""Units of a difference of two scores."""
LONGEST = 24
"""Letters of a name that are shown; a task's may have 64."""

Figure = Any
"""A ``matplotlib.figure.Figure``; the library is an extra, so it is not imported for a type."""
Axes = Any


def life_figures(
    matrices: Mapping[str, ScoreMatrix],
    steps: Sequence[str],
    general: Sequence[Mapping[str, Any] | None] | None = None,
) -> dict[str, Figure]:
    """Of each metric the score matrix as a heat map, and the score of every task over the steps.

    Args:
        matrices: Score matrices by metric.
        steps: Names of the steps.
        general: Figures on general text after each step, as a life's records have them; None, or a step's None, where
            they were not measured.

    Returns:
        Figures by file name without ending: ``matrix-METRIC``, ``over-time-METRIC``, and ``general`` if there is any.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    figures = {}
    with _look():
        for name, matrix in matrices.items():
            figures[f"matrix-{name}"] = _heat_map(matrix, steps)
            figures[f"over-time-{name}"] = _over_time(matrix, steps)
        if general is not None and any(record is not None for record in general):
            figures["general"] = _general(general, steps)
    return figures


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """Of each order and metric the methods' last score and backward transfer, with one standard deviation over seeds.

    Returns:
        Figures by file name without ending: ``methods-METRIC``, with several orders ``methods-NUMBER-METRIC``.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    figures = {}
    several = len(comparison.orders) > 1
    with _look():
        for number, order in enumerate(comparison.orders, start=1):
            for table in order.metrics:
                place = f"-{number}" if several else ""
                figures[f"methods{place}-{table.metric}"] = _methods(table, order, several)
    return figures


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Writes figures as SVG, with text as text, and as PNG of 300 dpi; the same figures give the same bytes.

    Returns:
        The files, an SVG and a PNG of each figure.

    Raises:
        ConfigError: If matplotlib is not installed.
        LifeError: If a file could not be written.
    """
    paths = []
    formats: dict[str, dict[str, Any]] = {
        "svg": {"metadata": {"Date": None, "Creator": None}},
        "png": {"metadata": {"Software": None}, "dpi": 300},
    }
    with _look():
        for name, figure in figures.items():
            for ending, more in formats.items():
                content = io.BytesIO()
                figure.savefig(content, format=ending, **more)
                path = folder / f"{name}.{ending}"
                storage.write_bytes(path, content.getvalue())
                paths.append(path)
    return paths


@contextmanager
def _look() -> Iterator[None]:
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


def _new(width: float, height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure without any global state, and its axes; sizes in inches."""
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _settled(figure: Figure) -> Figure:
    """The figure with everything in its final place: a layout moves a little each time it is made, so no more of it."""
    for _ in range(3):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _heat_map(matrix: ScoreMatrix, steps: Sequence[str]) -> Figure:
    """Rows are moments, the base model first; what was just learnt is framed, what is missing is hatched."""
    rows = [matrix.base, *matrix.rows]
    names = ["base model", *(f"after {shortened(step)}" for step in steps)]
    tasks = [shortened(task) for task in matrix.tasks]
    cells = {
        (x, y): row.get(task)
        for y, row in enumerate(rows)
        for x, task in enumerate(matrix.tasks)
        if y == 0 or y > matrix.learnt_at[task]  # else it was not learnt yet
    }
    texts = {place: _cell_text(matrix.metric, score) for place, score in cells.items() if score is not None}

    beside = _inches(names) + 0.15
    flat = _inches(tasks) < 0.5  # else the names of tasks are turned, and reach beyond the last cell
    above, beyond = (0.15, 0.0) if flat else (0.75 * _inches(tasks) + 0.2, 0.75 * _inches(tasks[-1:]) + 0.05)
    width, cell = COLUMN, (COLUMN - beside - beyond - 0.1) / len(tasks)
    if cell < 0.36:
        width, cell = PAGE, (PAGE - beside - beyond - 0.1) / len(tasks)
    cell = min(0.55, cell)
    flat = flat and _inches(tasks) < 0.9 * cell
    angle = 0 if flat else 45 if cell > 0.15 else 90
    height = min(0.28, max(0.13, 8.5 / len(rows)))
    size = min(SIZE, 0.75 * cell / _inches(texts.values()) * SIZE) if texts else SIZE

    figure, (axis,) = _new(width, height * len(rows) + above + 0.3)
    shades = _shades(matrix, [score for score in cells.values() if score is not None])
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
        inside.set_in_layout(False)  # they have their place, and are many
    axis.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect=height / cell)
    turned = {"rotation": angle, "ha": "left", "rotation_mode": "anchor"} if angle == 45 else {"rotation": angle}
    axis.set_xticks(range(len(tasks)), tasks, size=min(SIZE, 60 * cell), **turned)
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(rows)), names)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    missing = ", hatched: missing" if None in cells.values() else ""
    axis.set_xlabel(f"{_label(matrix.metric)}{missing}")
    return _settled(figure)


def _box(x: int, y: int, **look: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, linewidth=0.9 if look["edgecolor"] == "black" else 0.5, **look)


def _shades(matrix: ScoreMatrix, scores: Sequence[float]) -> Callable[[float], tuple[float, ...]]:
    """Colour of a score: the better the darker; shares on their whole scale, others between worst and best."""
    low, high = (0.0, 1.0) if METRICS[matrix.metric].unit == "share" else (min(scores), max(scores))

    def shade(score: float) -> tuple[float, ...]:
        share = 0.0 if high == low else (score - low) / (high - low)
        share = share if matrix.higher_is_better else 1 - share
        return tuple(1 - share * (1 - part) for part in DARKEST)

    return shade


def _ink(shade: Sequence[float]) -> str:
    """Black or white, whichever has more contrast to a colour (relative luminance as WCAG defines it)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shade]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def _cell_text(metric: str, score: float) -> str:
    """A score without its unit, which the label has."""
    return number_text(metric, score).removesuffix(" %")


def _over_time(matrix: ScoreMatrix, steps: Sequence[str]) -> Figure:
    """A line per task, from the step that learnt it; a missing score is a gap."""
    tasks = [shortened(task) for task in matrix.tasks]
    many = len(tasks) > 6  # then their names stand beside the axis, else below it
    columns = -(-len(tasks) // 24) if many else max(1, min(len(tasks), int(COLUMN / (_inches(tasks) + 0.5))))
    names = 0.15 * -(-len(tasks) // columns)  # inches of their height
    figure, (axis,) = _new(*((PAGE, max(2.6, names + 0.2)) if many else (COLUMN, 2.0 + names)))
    factor = 100 if METRICS[matrix.metric].unit == "share" else 1
    apart = min(0.06, 0.4 / len(tasks))  # of a step: equal scores stand side by side
    for number, task in enumerate(matrix.tasks):
        places = range(matrix.learnt_at[task], len(steps))
        scores = [matrix.rows[step].get(task) for step in places]
        heights = [float("nan") if score is None else factor * score for score in scores]
        shift = apart * (number - (len(tasks) - 1) / 2)
        axis.plot([step + shift for step in places], heights, label=tasks[number], **_line(number))
    _time_axis(axis, steps, width=4.2 if many else 2.7)
    axis.set_ylabel(_label(matrix.metric))
    if METRICS[matrix.metric].unit == "share":
        axis.set_ylim(-4, 104)
    else:
        _mark_zero(axis, horizontal=True)
    figure.legend(loc=f"outside {'center right' if many else 'lower center'}", ncols=columns, frameon=False)
    return _settled(figure)


def _line(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the n-th line; no two of the first 49 are the same."""
    lap = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + lap) % len(MARKERS)],
        "linestyle": LINES[lap % len(LINES)],
        "linewidth": 1.1,
        "markersize": 3.5,
    }


def _time_axis(axis: Axes, steps: Sequence[str], width: float) -> None:
    """Names of the steps below an axis of so many inches, or their numbers where the names do not fit."""
    names = [shortened(step) for step in steps]
    if _inches(names) < 0.9 * width / len(steps):
        axis.set_xticks(range(len(steps)), names)
        axis.set_xlabel("after step")
    else:
        every = -(-len(steps) // 12)
        numbered = range(0, len(steps), every)
        axis.set_xticks(numbered, [str(step + 1) for step in numbered])
        axis.set_xlabel("after step number")
    axis.set_xlim(-0.35, len(steps) - 0.65)


def _general(general: Sequence[Mapping[str, Any] | None], steps: Sequence[str]) -> Figure:
    """Perplexity on general text after each step, and of the base model as a dashed line."""
    figure, (axis,) = _new(COLUMN, 2.0)
    heights = [float("nan") if record is None else record["perplexity"] for record in general]
    base = next(record["base"]["perplexity"] for record in general if record is not None)
    axis.axhline(base, color=GREY, linewidth=0.8, linestyle="--", label="base model")
    axis.plot(range(len(steps)), heights, label="after each step", **_line(0))
    _time_axis(axis, steps, width=2.7)
    axis.set_ylabel("perplexity (lower is better)")
    axis.ticklabel_format(axis="y", useOffset=False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _settled(figure)


def _methods(table: MetricTable, order: OrderTables, name_the_order: bool) -> Figure:
    """A dot per method, and a bar of one standard deviation to both sides where there are several seeds."""
    rows = [row for row in table.rows if row.seeds is not None]
    figure, axes = _new(PAGE, 0.19 * len(rows) + 0.75, columns=len(STATISTICS))
    factor = 100 if METRICS[table.metric].unit == "share" else 1
    for number, (axis, statistic) in enumerate(zip(axes, STATISTICS, strict=True)):
        look = {"color": COLOURS[number], "fmt": MARKERS[number]}
        for place, row in enumerate(rows):
            estimate = row.statistics[statistic]
            if estimate is None:
                text = "no result" if not row.seeds else "none"
                axis.text(
                    0.02, place, text, transform=axis.get_yaxis_transform(), va="center", color=GREY, style="italic"
                )
                continue
            spread = None if estimate.sd is None else factor * estimate.sd
            axis.errorbar(factor * estimate.mean, place, xerr=spread, markersize=3.5, linewidth=1.1, capsize=2, **look)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(range(len(rows)), [shortened(row.label) for row in rows] if axis is axes[0] else [])
        axis.grid(axis="x", color=PALE, linewidth=0.5)
        axis.set_axisbelow(True)
        axis.locator_params(axis="x", nbins=5)
        axis.set_xlabel(_label(table.metric, statistic, table.higher_is_better))
    _mark_base(axes[0], table, factor)
    _mark_zero(axes[1], horizontal=False)
    told = f"{order.order}: " if name_the_order else ""
    figure.supxlabel(f"{told}{_spread_text(rows)}", fontsize=SIZE, color=GREY)
    return _settled(figure)


def _mark_base(axis: Axes, table: MetricTable, factor: float) -> None:
    base = table.rows[0].statistics["last"]
    if base is not None:
        axis.axvline(factor * base.mean, color=GREY, linewidth=0.8, linestyle="--")
        axis.annotate(
            "base model",
            (factor * base.mean, 1.0),
            xycoords=axis.get_xaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=GREY,
        )


def _mark_zero(axis: Axes, *, horizontal: bool) -> None:
    """A line at zero where it is in sight, which it does not bring there."""
    low, high = sorted(axis.get_ylim() if horizontal else axis.get_xlim())
    if low < 0 < high:
        (axis.axhline if horizontal else axis.axvline)(0, color=GREY, linewidth=0.6, zorder=0.5)


def _spread_text(rows: Sequence[Row]) -> str:
    """What dot and bar are."""
    counts = sorted({len(row.seeds) for row in rows if row.seeds})
    if not counts:
        return "no results"
    if counts[-1] == 1:
        return "one seed, so no spread"
    seeds = f"{counts[-1]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean and one standard deviation over {seeds} seeds"


def _label(metric: str, statistic: str | None = None, higher_is_better: bool | None = None) -> str:
    """What an axis shows, with its unit, and its direction where that is not the usual one."""
    described = METRICS[metric]
    changes = statistic == "backward_transfer"
    unit = (CHANGES if changes else UNITS)[described.unit]
    what = described.short if statistic is None else f"{described.short}, {STATISTICS[statistic]}"
    higher = described.higher_is_better if higher_is_better is None else higher_is_better
    # The sign of backward transfer is turned where lower is better: below zero is always worse.
    return f"{what} ({unit})" if higher or changes else f"{what} ({unit}, lower is better)"


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


def _inches(texts: Iterable[str]) -> float:
    """Width of the widest of some texts."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=SIZE)
    return float(max(text_to_path.get_text_width_height_descent(text, font, False)[0] for text in texts)) / 72
