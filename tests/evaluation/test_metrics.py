"""How numbers are shown: digits, signs, units and directions of every metric, in the terminal, on pages, in tables."""

from dataclasses import replace

import pytest

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import (
    CHANGES,
    METRICS,
    PERPLEXITY,
    PERPLEXITY_CHANGE,
    PERPLEXITY_METRIC,
    Metric,
    metric_of,
)

SHARE, NATS, POINTS = METRICS["adherence"], METRICS["margin"], METRICS["judge"]


@pytest.mark.parametrize(
    ("metric", "value", "signed", "text"),
    [
        ("adherence", 0.0, False, "0 %"),
        ("adherence", 1.0, False, "100 %"),
        ("adherence", 2 / 3, False, "67 %"),
        ("preference_accuracy", 0.125, True, "+12 %"),
        ("preference_accuracy", -0.4, True, "-40 %"),
        ("preference_accuracy", 0.0, True, "+0 %"),
        ("margin", 1.005, False, "1.00"),
        ("margin", -12.346, False, "-12.35"),
        ("margin", 0.5, True, "+0.50"),
        ("bleu", 27.25, False, "27.2"),
        ("judge", -4.0, True, "-4.0"),
        ("margin", None, True, "-"),
        ("adherence", None, False, "-"),
    ],
)
def test_a_number_as_text(metric: str, value: float | None, signed: bool, text: str) -> None:
    assert METRICS[metric].text(value, signed=signed) == text


@pytest.mark.parametrize(
    ("metric", "value", "signed", "text"),
    [
        (SHARE, 0.5, False, "50 %"),
        (SHARE, 0.5, True, "+50 %"),
        (SHARE, -0.0049, True, "0 %"),  # rounds to zero, which has no sign
        (SHARE, 0.0049, True, "0 %"),
        (SHARE, 0.005, True, "0 %"),  # half of one per cent rounds to the even 0
        (SHARE, -0.0051, True, "\u22121 %"),
        (NATS, -0.004, False, "0.00"),
        (NATS, -0.006, False, "\u22120.01"),
        (POINTS, -0.04, True, "0.0"),
        (POINTS, 40.0, True, "+40.0"),
        (PERPLEXITY_METRIC, 11.046, False, "11.05"),
        (POINTS, None, True, "\u2013"),
    ],
)
def test_a_number_on_a_page(metric: Metric, value: float | None, signed: bool, text: str) -> None:
    assert metric.typeset(value, signed=signed) == text


@pytest.mark.parametrize(
    ("metric", "value", "exact", "tabled"),
    [
        (SHARE, -1 / 3, "\u221233.33 %", "-33.3"),
        (SHARE, -0.00001, "+0.00 %", "+0.0"),
        (NATS, 2 / 3, "+0.6667", "+0.67"),
        (NATS, -0.00001, "+0.0000", "+0.00"),
        (POINTS, 27.25, "+27.250", "+27.2"),
        (PERPLEXITY_CHANGE, 0.1, "+10.0 %", "+10.0"),
        (PERPLEXITY_CHANGE, -0.0004, "+0.0 %", "+0.0"),
    ],
)
def test_more_digits_where_there_is_room(metric: Metric, value: float, exact: str, tabled: str) -> None:
    assert (metric.exact(value, signed=True), metric.tabled(value, signed=True)) == (exact, tabled)


def test_a_unit_can_be_left_out_where_a_label_has_it() -> None:
    assert (SHARE.text(0.25, unit=False), SHARE.typeset(-0.25, unit=False)) == ("25", "\u221225")
    assert (NATS.text(0.25, unit=False), NATS.typeset(-0.25, unit=False)) == ("0.25", "\u22120.25")


def test_a_title_that_names_the_unit_does_not_name_it_twice() -> None:
    for metric in (*METRICS.values(), PERPLEXITY_METRIC):
        assert f"({metric.unit.word})" not in metric.label_without_unit
        assert metric.label.startswith(metric.label_without_unit)


def test_shares_have_one_scale_and_others_that_of_what_there_is() -> None:
    assert (SHARE.axis_limits, SHARE.ends([0.2, 0.3]), SHARE.ends([])) == ((0.0, 100.0), (0.0, 1.0), (0.0, 1.0))
    assert (NATS.axis_limits, NATS.ends([0.3, -0.2]), NATS.ends([])) == (None, (-0.2, 0.3), (0.0, 1.0))
    assert PERPLEXITY_CHANGE.axis_limits is None


def test_scores_say_their_direction_themselves() -> None:
    matrix = ScoreMatrix("margin", True, ["a"], {"a": 0}, [{"a": 1.0}])
    assert metric_of(matrix) == METRICS["margin"] and metric_of(matrix).direction == "higher is better"
    turned = metric_of(replace(matrix, higher_is_better=False))
    assert turned == replace(METRICS["margin"], higher_is_better=False) and turned.direction == "lower is better"


def test_perplexity_is_no_metric_of_a_task_and_is_better_lower() -> None:
    assert PERPLEXITY not in METRICS and PERPLEXITY_METRIC.short == PERPLEXITY
    assert PERPLEXITY_METRIC.direction == PERPLEXITY_CHANGE.direction == "lower is better"


def test_changes_are_numbers_that_a_matrix_has() -> None:
    matrix = ScoreMatrix("margin", True, ["a"], {"a": 0}, [{"a": 1.0}])
    assert matrix.summary().keys() >= CHANGES
