"""Charts: places worked out by hand, gaps that stay gaps, and labels that never overlap."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifealign.report.page.answers import changes
from lifealign.report.page.charts import bar_chart, dot_plot, level, line_chart, round_ticks, spread


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


def test_bars_go_to_both_sides_and_a_missing_one_has_no_length() -> None:
    chart = bar_chart({"a": -0.2, "b": 0.1, "c": None, "d": 0.0}, width=460)
    assert [(bar.x, bar.width) for bar in chart.bars] == [(120, 100), (220, 50), (220, 0), (220, 0)]
    assert bar_chart({"only": None}).bars[0].width == 0


def test_a_dot_plot_shows_every_seed_the_mean_and_one_deviation() -> None:
    plot = dot_plot({"ER": ([40.0, 60.0], 50.0, 10.0, "50 ± 10"), "MTL": ([], None, None, "-")}, width=500)
    assert (plot.ticks[0].label, plot.ticks[-1].label) == ("40", "60")
    first, second = plot.rows
    assert (first.dots, first.mean, first.low, first.high) == ((150, 350), 250, 150, 350)
    assert (second.dots, second.mean, second.low) == ((), None, None)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (0.04, 0), (0.06, 1), (0.5, 5), (1, 10), (7, 10), (-1, 0)])
def test_levels_of_a_scale(value: float, expected: int) -> None:
    assert level(value, 0, 1) == expected


WORDS = st.lists(st.sampled_from(["one", "two", "three", " ", ".", "\n"]), max_size=20).map("".join)


@given(WORDS, WORDS)
def test_marked_changes_hold_both_texts(before: str, after: str) -> None:
    pieces = changes(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == after
    if all(piece.kind != "new" for piece in pieces):
        assert "".join(piece.text for piece in pieces if piece.kind != "added") == before


def test_what_was_written_anew_is_not_littered_with_marks() -> None:
    assert changes("I am sorry to hear that.", "Good evening, we shall send a parcel.") == [
        ("new", "Good evening, we shall send a parcel.")
    ]
    assert changes(None, "First.") == [("same", "First.")] and changes(None, "") == []
    assert changes("Same.", "Same.") == [("same", "Same.")]
    assert changes("Gone.", "") == [("removed", "Gone.")]
    assert len(changes("a " * 3000, "b " * 3000)) == 1  # too long to compare
