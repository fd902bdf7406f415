"""Charts: places worked out by hand, gaps that stay gaps, and labels that never overlap."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifealign.report.page.charts.bars import bar_chart, bar_charts
from lifealign.report.page.charts.dots import Values, dot_plot
from lifealign.report.page.charts.layer_strips import strip_panels
from lifealign.report.page.charts.lines import line_chart, line_charts
from lifealign.report.page.charts.scales import CHARACTER, level, round_ticks, shortened, spread, step_labels


def test_a_line_runs_through_its_points() -> None:
    # 300 wide: steps lie between 56 + 14 and 300 - 146 - 14; 100 high: values between 68 (low) and 12 (high).
    chart = line_chart({"a": [0.0, 50.0, 100.0]}, ["1", "2", "3"], limits=(0, 100), width=300, height=100)
    assert [(point.x, point.y) for point in chart.lines[0].points] == [(70, 68), (105, 40), (140, 12)]
    assert [tick.label for tick in chart.y_ticks] == ["0", "25", "50", "75", "100"]


def test_what_was_not_measured_is_a_gap_and_never_a_zero() -> None:
    chart = line_chart({"a": [None, 10.0, None, 20.0, 30.0], "b": [None] * 5}, list("12345"))
    first, second = chart.lines
    assert [[point.step for point in part] for part in first.parts] == [[1], [3, 4]]
    assert [point.value for point in first.points] == [10.0, 20.0, 30.0]
    assert second.points == ()


@given(st.lists(st.floats(0, 200), min_size=1, max_size=12))
def test_labels_keep_their_order_and_their_distance(places: list[float]) -> None:
    moved = spread(places, 15, 0, 1000)
    ordered = [moved[index] for index in sorted(range(len(places)), key=lambda index: places[index])]
    assert all(other - one >= 15 - 1e-9 for one, other in pairwise(ordered))


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_round_and_enclose_the_values(low: float, size: float) -> None:
    ticks = round_ticks(low, low + size)
    assert ticks[0] <= low + 1e-6 * size and ticks[-1] >= low + size - 1e-6 * size and 3 <= len(ticks) <= 8
    gaps = [other - one for one, other in pairwise(ticks)]
    assert all(math.isclose(gap, gaps[0], rel_tol=1e-6) for gap in gaps)


def text(value: float | None, signed: bool) -> str:
    return "missing" if value is None else f"{value:+g}" if signed else f"{value:g}"


def test_bars_of_change_and_fall_have_one_scale_and_a_missing_one_has_no_length() -> None:
    # 500 wide without 100 for names, twice 70 for numbers and 20 between: three units of 80, the greatest value is one.
    values = {"a": (-20.0, 40.0), "b": (10.0, 0.0), "c": (None, None)}
    chart = bar_chart(values, text, width=500, label_room=100, text_room=70)
    assert chart.zeros == (180, 350)
    assert [(row.change.x, row.change.width) for row in chart.rows] == [(140, 40), (180, 20), (180, 0)]
    assert [(row.fall.x, row.fall.width) for row in chart.rows] == [(350, 80), (350, 0), (350, 0)]
    assert [(row.change.text, row.fall.text) for row in chart.rows] == [("-20", "40"), ("+10", "0"), ("missing",) * 2]
    assert bar_chart({}, text).rows == ()


@given(
    st.dictionaries(st.text(max_size=30), st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1e3)), min_size=1, max_size=9)
)
def test_bars_stay_clear_of_names_and_numbers(values: dict[str, tuple[float | None, float | None]]) -> None:
    for size, names, numbers in (("wide", 130, 76), ("narrow", 76, 56)):
        chart = bar_charts(values, text)[size]
        for row in chart.rows:
            assert names - 0.1 <= row.change.x and row.change.x + row.change.width <= chart.texts[0] - numbers + 4.1
            assert chart.texts[0] < row.fall.x and row.fall.x + row.fall.width <= chart.width - numbers + 0.1
            assert len(row.short) * CHARACTER <= names


def test_a_dot_plot_shows_every_seed_the_mean_one_deviation_and_what_to_compare_with() -> None:
    rows = {"ER": Values((40.0, 60.0), 50.0, 10.0, "50 ± 10"), "MTL": Values((), None, None, "-")}
    plot = dot_plot(rows, mark=(45.0, "base model"), width=500, label_room=150, text_room=150)
    assert (plot.ticks[0].label, plot.ticks[-1].label) == ("40", "60")
    first, second = plot.rows
    assert (first.dots, first.mean, first.low, first.high) == ((150, 350), 250, 150, 350)
    assert (second.dots, second.mean, second.low) == ((), None, None)
    assert plot.mark is not None and (plot.mark.place, plot.mark.label) == (200, "base model")
    assert dot_plot(rows, mark=(0.0, "zero")).ticks[0].label == "0"  # the scale reaches what it is compared with
    assert dot_plot({"one": Values((-3.0,), -3.0, None, "-3")}).ticks[0].label == "\u22123.6"


def test_a_narrow_chart_has_the_same_points_in_less_room() -> None:
    names = ["base model", *(f"0{number}-order-number" for number in range(1, 5))]
    charts = line_charts({"a-task-with-a-long-name": [1.0, 2.0, None, 3.0, 1.5]}, names)
    for size, chart in charts.items():
        (line,) = chart.lines
        assert [point.value for point in line.points] == [1.0, 2.0, 3.0, 1.5] and chart.steps == tuple(names)
        assert all(chart.left < point.x < chart.right for point in line.points)
        assert len(line.short) * CHARACTER <= chart.width - chart.right - 24, size
        ticks = [(tick.place, len(tick.label) * CHARACTER) for tick in chart.x_ticks]
        assert all(there + wide / 2 < then - width / 2 for (there, wide), (then, width) in pairwise(ticks)), size
    assert [tick.label for tick in charts["narrow"].x_ticks] == ["base", "01", "02", "03", "04"]
    assert line_chart({str(number): [0.5] for number in range(40)}, ["1"]).height == 660  # a label needs 15


@given(st.text(max_size=40), st.floats(14, 300))
def test_a_shortened_text_fits_and_says_that_it_was_cut(words: str, pixels: float) -> None:
    short = shortened(words, pixels)
    assert len(short) * CHARACTER <= max(pixels, 2 * CHARACTER)
    assert short == words or short == f"{words[: len(short) - 1]}\u2026"


def test_steps_are_named_whole_or_all_of_them_by_number() -> None:
    names = ["base model", "01-brief", "02-a-very-long-name"]
    assert step_labels(names, 200) == names
    assert step_labels(names, 100) == ["base", "01", "02"]


def test_strips_have_a_cell_per_layer_and_one_scale_for_all_steps() -> None:
    def factors(*overlaps: float) -> dict[str, dict[str, float]]:
        return {
            f"model.layers.{layer}.self_attn.q_proj.lora_A.weight": {
                "overlap_energy": overlap,
                "rank_kept": 2.0,
                "energy_kept": 0.55,
            }
            for layer, overlap in enumerate(overlaps)
        }

    steps = [{"label": "01-one", "factors": factors(0.0, 0.25)}, {"label": "02-two", "factors": factors(0.5, 0.75)}]
    overlap, rank, energy = strip_panels(steps, lora_rank=4)
    assert [[cell.level for _, cells in step["strip"].rows for cell in cells] for step in overlap["steps"]] == [
        [0, 5],
        [10, 10],
    ]
    assert (overlap["low"], overlap["high"], overlap["more"]) == (0.0, 0.5, True)  # said, since the colour cannot
    assert (rank["low"], rank["high"], rank["more"]) == (0.0, 4.0, False)
    assert (energy["low"], energy["high"]) == (0.5, 1.0)  # a life that keeps less has a longer scale
    assert overlap["layers"] == [0, 1] and overlap["steps"][0]["kinds"] == {"q_proj.lora_A": {0: 0.0, 1: 0.25}}
    assert strip_panels([], 4)[0]["steps"] == []


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (0.04, 0), (0.06, 1), (0.5, 5), (1, 10), (7, 10), (-1, 0)])
def test_levels_of_a_scale(value: float, expected: int) -> None:
    assert level(value, 0, 1) == expected
