"""Figures for papers: the files, the numbers in them, holes that are no zeros, labels that do not overlap."""

import builtins
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Affine2D

from lifealign.errors import ConfigError
from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.experiments.comparison import Comparison, Estimate
from lifealign.experiments.result_file import load_result
from lifealign.experiments.summary import compare_results
from lifealign.report.figures import comparison_figures, life_figures, write_figures
from lifealign.report.figures.heat_map import _ink
from lifealign.report.figures.style import COLOURS, COLUMN, PAGE, line_look, shortened

RESULTS = sorted((Path(__file__).parents[2] / "results" / "support_desk_three_rules").glob("*.json"))
STEPS = ["01-brief", "02-greet"]
MATRIX = ScoreMatrix(
    "adherence", True, ["brief", "greet"], {"brief": 0, "greet": 1}, [{"brief": 0.83}, {"greet": 0.41}], {"brief": 0.07}
)


def square(count: int, name: str = "task-", metric: str = "bleu") -> ScoreMatrix:
    """A full matrix of so many tasks."""
    tasks = [f"{name}{number}" for number in range(count)]
    rows = [
        {task: 40.0 + 3 * step - 2 * place for place, task in enumerate(tasks[: step + 1])} for step in range(count)
    ]
    return ScoreMatrix(metric, True, tasks, {task: n for n, task in enumerate(tasks)}, rows, dict.fromkeys(tasks, 12.5))


def steps_of(matrix: ScoreMatrix) -> list[str]:
    return [f"{number + 1:02d}-{task}" for number, task in enumerate(matrix.tasks)]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare_results(list(map(load_result, RESULTS)), None)


def one_metric(comparison: Comparison) -> Comparison:
    return replace(comparison, orders=(replace(comparison.orders[0], metrics=comparison.orders[0].metrics[:1]),))


def texts(path: Path) -> list[str]:
    """Texts that an SVG shows."""
    return [element.text or "" for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


Corners = Sequence[tuple[float, float]]


def visible(figure: Any) -> list[Text]:
    """Texts of a figure that are drawn; labels of ticks beyond the ends of an axis are not."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    found += [tick.label1, tick.label2]
    return [text for text in found if text.get_text() and text.get_visible()]


def drawn(figure: Any) -> list[tuple[Text, Corners]]:
    """Texts of a figure with the four corners of each, in pixels, however it is turned."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = []
    for text in visible(figure):
        angle, around = text.get_rotation(), text.get_transform().transform(text.get_position())
        by_anchor = text.get_rotation_mode() == "anchor"
        text.set_rotation(0 if by_anchor else angle)
        box = text.get_window_extent(canvas.get_renderer())
        text.set_rotation(angle)
        corners = [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]
        turned = Affine2D().rotate_deg_around(*around, angle if by_anchor else 0)
        found.append((text, [tuple(corner) for corner in turned.transform(corners)]))
    return found


def apart(one: Corners, other: Corners) -> bool:
    """Whether two rectangles do not overlap: there is a line between them that is parallel to a side."""
    for corners in (one, other):
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            across = (y1 - y0, x0 - x1)
            shadows = [[x * across[0] + y * across[1] for x, y in each] for each in (one, other)]
            if max(shadows[0]) <= min(shadows[1]) or max(shadows[1]) <= min(shadows[0]):
                return True
    return False


def assert_readable(figure: Any) -> None:
    """No two texts overlap, and none is cut off at the edge; numbers in cells are looked at by the cell."""
    found = drawn(figure)
    width, height = figure.canvas.get_width_height()
    for text, corners in found:
        for x, y in corners:
            assert -1 <= x <= width + 1 and -1 <= y <= height + 1, f"{text.get_text()} is cut off"
    cells = set(figure.axes[0].texts) if figure.axes[0].patches else set()
    for (one, a), (other, b) in combinations([pair for pair in found if pair[0] not in cells], 2):
        assert apart(a, b), f"{one.get_text()!r} overlaps {other.get_text()!r}"


def size(png: Path) -> tuple[int, ...]:
    return struct.unpack(">II", png.read_bytes()[16:24])


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_life_gives_a_matrix_and_lines_as_svg_and_png(tmp_path: Path) -> None:
    paths = write_figures(
        tmp_path, life_figures({"adherence": MATRIX, "margin": replace(MATRIX, metric="margin")}, STEPS)
    )
    names = [
        f"{stem}-{metric}.{ending}"
        for metric in ("adherence", "margin")
        for stem in ("matrix", "over-time")
        for ending in ("svg", "png")
    ]
    assert [path.name for path in paths] == names and all(path.parent == tmp_path for path in paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_the_same_numbers_give_the_same_bytes_whatever_the_settings_of_the_user(
    tmp_path: Path, comparison: Comparison
) -> None:
    def draw(name: str) -> dict[str, Any]:
        figures = life_figures({"adherence": MATRIX}, STEPS) | comparison_figures(one_metric(comparison))
        write_figures(tmp_path / f"{name}-again", figures)  # what has been written once is not moved by it
        return {path.name: path.read_bytes() for path in write_figures(tmp_path / name, figures)} | figures

    first = draw("a")
    again = {path.name: path.read_bytes() for path in (tmp_path / "a-again").iterdir()}
    with matplotlib.rc_context(
        {"font.size": 20, "svg.fonttype": "path", "lines.linewidth": 9, "savefig.bbox": "tight"}
    ):
        before = dict(matplotlib.rcParams)
        second = draw("b")
        assert dict(matplotlib.rcParams) == before
    assert {name: second[name] for name in again} == again == {name: first[name] for name in again}


def test_writing_moves_nothing(tmp_path: Path, comparison: Comparison) -> None:
    figures = life_figures({"adherence": MATRIX}, STEPS) | comparison_figures(one_metric(comparison))
    engines = [figure.get_layout_engine() for figure in figures.values()]
    assert not [engine for engine in engines if isinstance(engine, ConstrainedLayoutEngine)]  # one layout, two formats
    before = [[axes.get_position().bounds for axes in figure.axes] for figure in figures.values()]
    write_figures(tmp_path, figures)
    assert [[axes.get_position().bounds for axes in figure.axes] for figure in figures.values()] == before


def test_widths_are_those_of_a_column_or_the_page(tmp_path: Path, comparison: Comparison) -> None:
    figures = life_figures({"adherence": MATRIX}, STEPS) | comparison_figures(one_metric(comparison))
    for path in write_figures(tmp_path, figures):
        inches = PAGE if path.name.startswith("methods") else COLUMN
        if path.suffix == ".png":
            assert size(path)[0] == round(300 * inches)
        else:
            assert ElementTree.parse(path).getroot().attrib["width"] == f"{72 * inches:g}pt"


def test_nothing_of_pyplot_and_no_date_is_in_it(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    svg, png, *_ = write_figures(tmp_path, life_figures({"adherence": MATRIX}, STEPS))
    assert ("matplotlib.pyplot" in sys.modules) is loaded
    assert "date" not in svg.read_text("utf-8").lower() and b"Software" not in png.read_bytes()


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, comparison: Comparison
) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (
        lambda: life_figures({"adherence": MATRIX}, STEPS),
        lambda: comparison_figures(comparison),
        lambda: write_figures(tmp_path, {}),
    ):
        with pytest.raises(ConfigError, match=r"pip install 'lifealign\[plot\]'"):
            call()


# -- a life -----------------------------------------------------------------------------------------------------------


def test_numbers_are_text_and_a_hole_is_hatched_and_no_zero(tmp_path: Path) -> None:
    figures = life_figures({"adherence": MATRIX}, STEPS)
    matrix, _, lines, _ = write_figures(tmp_path, figures)
    names = ["brief", "greet", "base model", "after 01-brief", "after 02-greet", "adherence (%), hatched: missing"]
    assert sorted(texts(matrix)) == sorted(["7", "83", "41", *names])
    hatched = [patch for patch in figures["matrix-adherence"].axes[0].patches if patch.get_hatch()]
    places = [(round(patch.get_center()[0]), round(patch.get_center()[1])) for patch in hatched]
    assert places == [(1, 0), (0, 2)]  # the base on greet, and brief after the second step
    assert 0.0 not in [y for line in figures["over-time-adherence"].axes[0].lines for y in line.get_ydata()]
    assert {"brief", "greet", *STEPS, "adherence (%)", "after step"} <= set(texts(lines))


def test_a_missing_score_is_a_gap_in_the_line() -> None:
    figure = life_figures({"adherence": MATRIX}, STEPS)["over-time-adherence"]
    brief, greet = (line.get_ydata() for line in figure.axes[0].lines)
    assert brief[0] == 83.0 and brief[1] != brief[1] and list(greet) == [41.0]


def test_the_better_a_score_the_darker_its_cell() -> None:
    scores = {"a": 0.0, "b": 1.0, "c": 2.0}
    for higher in (True, False):
        matrix = ScoreMatrix("margin", higher, list(scores), dict.fromkeys(scores, 0), [scores], scores)
        figure = life_figures({"margin": matrix}, ["01-a+b+c"])["matrix-margin"]
        light = [sum(patch.get_facecolor()[:3]) for patch in figure.axes[0].patches[:3]]
        assert light == sorted(light, reverse=higher) and len(set(light)) == 3


def test_what_was_just_learnt_is_framed_and_bold() -> None:
    figure = life_figures({"bleu": square(3)}, steps_of(square(3)))["matrix-bleu"]
    bold = {text.get_position() for text in figure.axes[0].texts if text.get_fontweight() == "bold"}
    framed = [patch.get_center() for patch in figure.axes[0].patches if patch.get_edgecolor()[:3] == (0, 0, 0)]
    assert {(round(x), round(y)) for x, y in framed} == bold == {(0, 1), (1, 2), (2, 3)}


@pytest.mark.parametrize("shade", [(1.0, 1.0, 1.0), (0.03, 0.27, 0.54), (0.5, 0.63, 0.77), (0.4, 0.56, 0.72)])
def test_numbers_can_be_read_on_every_shade(shade: tuple[float, float, float]) -> None:
    def luminance(colour: Sequence[float]) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    ink = luminance((1, 1, 1) if _ink(shade) == "white" else (0, 0, 0))
    light, dark = sorted((luminance(shade), ink), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("count", [1, 4, 6, 7, 20])
@pytest.mark.parametrize("name", ["task-", "always-answer-in-one-short-sentence-of-at-most-ten-words-n"])
def test_few_and_many_tasks_with_short_and_long_names_can_be_read(count: int, name: str) -> None:
    matrix = square(count, name)
    figures = life_figures({"bleu": matrix}, steps_of(matrix))
    for figure in figures.values():
        assert_readable(figure)
        assert figure.get_figwidth() in (COLUMN, PAGE) and figure.get_figheight() < 11
    axis = figures["matrix-bleu"].axes[0]
    corners = {text.get_position(): place for text, place in drawn(figures["matrix-bleu"]) if text in axis.texts}
    for (x, _), place in corners.items():  # every number stays in its cell
        left, right = (axis.transData.transform((x + side, 0))[0] for side in (-0.5, 0.5))
        assert left <= min(px for px, _ in place) and max(px for px, _ in place) <= right
    lines = figures["over-time-bleu"].axes[0]
    assert lines.get_window_extent().width > 0.3 * figures["over-time-bleu"].bbox.width


def test_tasks_learnt_together_can_be_read() -> None:
    names = ["brief", "greet", "escalate"]
    matrix = ScoreMatrix("adherence", True, names, dict.fromkeys(names, 0), [dict.fromkeys(names, 0.5)])
    for figure in life_figures({"adherence": matrix}, ["01-brief+greet+escalate"]).values():
        assert_readable(figure)
    places = {line.get_xdata()[0] for line in figure.axes[0].lines}
    assert len(places) == 3  # equal scores stand side by side


def test_lines_differ_in_more_than_colour() -> None:
    looks = [line_look(number) for number in range(49)]
    assert len({(look["color"], look["marker"]) for look in looks}) == 49
    assert len({look["marker"] for look in looks[:7]}) == 7
    okabe_ito = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert set(COLOURS) == okabe_ito - {"#F0E442"}


def test_general_ability_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    measured = {"perplexity": 11.0, "base": {"perplexity": 10.0}}
    assert "general" not in life_figures({"adherence": MATRIX}, STEPS, [None, None])
    figures = life_figures({}, STEPS, [None, measured])
    base, now = figures["general"].axes[0].lines
    assert set(base.get_ydata()) == {10.0} and now.get_ydata()[0] != now.get_ydata()[0] and now.get_ydata()[1] == 11.0
    assert_readable(figures["general"])
    svg, _ = write_figures(tmp_path, figures)
    assert {"base model", "after each step", "perplexity (lower is better)"} <= set(texts(svg))


# -- a comparison -----------------------------------------------------------------------------------------------------


def test_methods_stand_side_by_side_with_their_spread(tmp_path: Path, comparison: Comparison) -> None:
    figures = comparison_figures(comparison)
    assert list(figures) == ["methods-adherence", "methods-preference_accuracy", "methods-margin"]
    for figure in figures.values():
        assert_readable(figure)
    last, backward = figures["methods-adherence"].axes
    rows = [row for row in comparison.orders[0].metrics[0].rows if row.seeds is not None]
    assert [label.get_text() for label in last.get_yticklabels()] == [row.label for row in rows]
    for axis, statistic in ((last, "last"), (backward, "backward_transfer")):
        known = {place: found for place, row in enumerate(rows) if (found := row.statistics[statistic]) is not None}
        assert len(axis.containers) == len(known)
        for (place, estimate), (dot, _, (bar,)) in zip(known.items(), axis.containers, strict=True):
            assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (100 * estimate.mean, place)
            (left, _), (right, _) = bar.get_segments()[0]
            assert (right - left) / 2 == pytest.approx(100 * (estimate.sd or 0))
    shown = texts(write_figures(tmp_path, {"methods": figures["methods-adherence"]})[0])
    assert {"adherence, last (%)", "adherence, backward transfer (percentage points)", "base model"} <= set(shown)
    assert "mean and one standard deviation over 3 seeds" in shown


def test_what_a_method_does_not_have_is_said_and_not_drawn(comparison: Comparison) -> None:
    (order, *_) = comparison.orders
    table = order.metrics[0]
    gone = [replace(row, seeds=(), statistics=dict.fromkeys(row.statistics)) for row in table.rows if row.label == "ER"]
    rows = tuple(gone[0] if row.label == "ER" else row for row in table.rows)
    some = replace(comparison, orders=(replace(order, metrics=(replace(table, rows=rows),)),))
    figure = comparison_figures(some)["methods-adherence"]
    assert_readable(figure)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    told = [{names[text.get_position()[1]]: text.get_text() for text in _plain_texts(axis)} for axis in figure.axes]
    assert told == [{"ER": "no result"}, {"ER": "no result", "MTL": "none", "STL": "none"}]


def _plain_texts(axis: Any) -> list[Text]:
    return [text for text in axis.texts if not isinstance(text, Annotation)]


def test_one_seed_has_no_bar_and_says_so(comparison: Comparison) -> None:
    def single(statistics: Mapping[str, Estimate | None]) -> dict[str, Estimate | None]:
        return {name: None if found is None else Estimate(found.mean, None) for name, found in statistics.items()}

    (order, *_) = comparison.orders
    tables = tuple(
        replace(
            table,
            rows=tuple(
                replace(row, seeds=row.seeds and row.seeds[:1], statistics=single(row.statistics)) for row in table.rows
            ),
        )
        for table in order.metrics
    )
    figure = comparison_figures(replace(comparison, orders=(replace(order, metrics=tables),)))["methods-adherence"]
    assert all(bars == () for axis in figure.axes for _, _, bars in axis.containers)
    assert "one seed, so no spread" in [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("label", ["{}", "<A> & $b$ {}", "a rather long_name of a method, number {}"])
def test_few_and_many_methods_can_be_read(tmp_path: Path, comparison: Comparison, count: int, label: str) -> None:
    (order, *_) = comparison.orders
    table = order.metrics[0]
    rows = [replace(table.rows[1 + number % 10], label=label.format(number)) for number in range(count)]
    some = replace(order, metrics=(replace(table, rows=(table.rows[0], *rows)),))
    figure = comparison_figures(replace(comparison, orders=(some,)))["methods-adherence"]
    assert_readable(figure)
    svg, _ = write_figures(tmp_path, {"methods": figure})
    assert {shortened(row.label) for row in rows} <= set(texts(svg))  # a dollar is a dollar


def test_every_order_has_figures_of_its_own(comparison: Comparison) -> None:
    (order, *_) = comparison.orders
    orders = (order, replace(order, order="reversed"))
    figures = comparison_figures(replace(comparison, orders=orders))
    assert list(figures)[:1] + list(figures)[3:4] == ["methods-1-adherence", "methods-2-adherence"]
    told = [text.get_text() for text in figures["methods-2-adherence"].findobj(Text)]
    assert "reversed: mean and one standard deviation over 3 seeds" in told


def test_long_names_keep_both_ends() -> None:
    assert shortened("x" * 24) == "x" * 24
    long = shortened("first-" + "x" * 50 + "-last")
    assert len(long) == 24 and long.startswith("first-") and long.endswith("-last")
