"""Patterns: what a task prefers as a direction, how sure of it, and what a tilt by several of them draws."""

from __future__ import annotations

import math

import pytest
import torch

from lifealign.memory.pattern import Pattern, agreement, bradley_terry, draw, learn_pattern, tilt


def pairs(number: int, width: int, gap: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of noise; those of chosen answers have ``gap`` more of the first."""
    noise = torch.randn(2, number, width, generator=torch.Generator().manual_seed(seed))
    noise[0, :, 0] += gap
    return noise[0], noise[1]


@pytest.mark.parametrize(("number", "width"), [(5, 20), (20, 5)], ids=["fewer pairs", "fewer features"])
def test_the_direction_is_where_the_slope_is_zero(number: int, width: int) -> None:
    differences = torch.randn(number, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    direction = bradley_terry(differences, 0.1)
    slope = 0.1 * direction - differences.T @ torch.sigmoid(-(differences @ direction))
    assert float(slope.abs().max()) < 1e-9


@pytest.mark.parametrize("number", [30, 3000], ids=["fewer pairs", "fewer features"])
def test_pairs_that_all_say_the_same_have_a_minimum_too(number: int) -> None:
    differences = torch.ones(number, 100, dtype=torch.float64) * 0.3  # norm 3, more than unit features have
    direction = bradley_terry(differences, 0.1)
    slope = 0.1 * direction - differences.T @ torch.sigmoid(-(differences @ direction))
    assert float(slope.abs().max()) < 1e-8


def test_one_pair_in_one_dimension_has_the_root_of_w_equal_sigmoid_of_minus_w() -> None:
    direction = bradley_terry(torch.ones(1, 1, dtype=torch.float64), 1.0)
    assert float(direction) == pytest.approx(1 / (1 + math.exp(float(direction))), abs=1e-12)
    assert float(direction) == pytest.approx(0.4010581375, abs=1e-9)


def test_a_pattern_rates_new_answers_as_it_should_and_is_zero_half_way() -> None:
    chosen, rejected = pairs(60, 12, 3.0)
    pattern = learn_pattern(chosen, rejected)
    new_chosen, new_rejected = pairs(200, 12, 3.0, seed=1)
    right = (pattern.ratings(new_chosen) > 0).double().mean() + (pattern.ratings(new_rejected) < 0).double().mean()
    assert 0.85 < float(right) / 2 < 0.95  # an ideal one reaches Φ(1.5) = 0.93
    assert pattern.accuracy > 0.9  # of pairs, where an ideal one reaches Φ(3/√2) = 0.98
    assert float(pattern.ratings(torch.cat((chosen, rejected))).mean()) == pytest.approx(0, abs=1e-9)


def test_chosen_and_rejected_swapped_rate_the_other_way() -> None:
    chosen, rejected = pairs(30, 6, 2.0)
    one, other = learn_pattern(chosen, rejected), learn_pattern(rejected, chosen)
    torch.testing.assert_close(one.ratings(chosen), -other.ratings(chosen))


def test_ratings_do_not_depend_on_the_units_of_the_features() -> None:
    chosen, rejected = pairs(30, 6, 2.0)
    one, other = learn_pattern(chosen, rejected), learn_pattern(1000 * chosen + 5, 1000 * rejected + 5)
    torch.testing.assert_close(one.ratings(chosen), other.ratings(1000 * chosen + 5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_separated_by_chance_and_yet_the_pattern_says_next_to_nothing(seed: int) -> None:
    noise, real = learn_pattern(*pairs(40, 200, 0.0, seed)), learn_pattern(*pairs(40, 200, 6.0, seed))
    assert 0.25 < noise.accuracy < 0.75  # 40 coins
    chosen, rejected = pairs(200, 200, 6.0, seed + 50)
    apart = float((real.ratings(chosen) - real.ratings(rejected)).mean())
    assert float(noise.ratings(rejected).std()) < 0.3 < 1 < apart  # nats


def test_more_pairs_make_a_pattern_surer() -> None:
    few, many = (learn_pattern(*pairs(number, 8, 5.0)) for number in (6, 200))
    chosen, _ = pairs(100, 8, 5.0, seed=2)
    assert float(many.ratings(chosen).mean()) > float(few.ratings(chosen).mean()) > 0


def test_pairs_without_a_difference_and_a_single_pair_make_a_pattern_that_says_nothing() -> None:
    same = torch.ones(4, 3)
    one = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(0))
    for pattern in (learn_pattern(same, same), learn_pattern(one[0], one[1])):
        assert pattern.accuracy == 0.5
        assert pattern.ratings(torch.randn(5, 3)).abs().max() == 0


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (torch.zeros(0, 3), torch.zeros(0, 3), r"\(0, 3\)"),
        (torch.zeros(2, 3), torch.zeros(1, 3), r"\(2, 3\) and \(1, 3\)"),
        (torch.full((1, 3), math.nan), torch.zeros(1, 3), "not finite"),
    ],
)
def test_features_that_cannot_be_used_are_refused(chosen, rejected, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        learn_pattern(chosen, rejected)


def test_agreement_is_the_log_probability_that_all_hold() -> None:
    features = torch.tensor([[0.0, 0.0], [2.0, -3.0]])
    first, second = (Pattern(torch.eye(2, dtype=torch.float64)[n], 0.0, 1.0) for n in (0, 1))
    sigmoid = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(3))]
    expected = torch.tensor([2 * math.log(0.5), math.log(sigmoid[0]) + math.log(sigmoid[1])], dtype=torch.float64)
    torch.testing.assert_close(agreement([first, second], features), expected)
    assert agreement([], features).tolist() == [0.0, 0.0]


def test_a_tilt_is_the_posterior_unless_too_few_answers_are_left() -> None:
    scores = torch.tensor([0.0, math.log(0.5), math.log(0.5)])
    torch.testing.assert_close(tilt(scores, 1), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))
    for least in (2.0, 2.7, 2.9):  # the posterior leaves 2.67
        left = float(1 / tilt(scores, least).square().sum())
        assert left == pytest.approx(max(least, 8 / 3), rel=1e-6)
    assert tilt(scores, 3).tolist() == [1 / 3] * 3


def test_a_tilt_keeps_the_order_and_stands_very_different_scores() -> None:
    probabilities = tilt(torch.tensor([-1e6, -5.0, -1e3]), 2)
    assert probabilities[1] > probabilities[2] > probabilities[0] >= 0
    assert float(probabilities.sum()) == pytest.approx(1)


def test_a_draw_has_every_answer_as_often_as_its_probability_says() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    for seed in range(20):
        drawn = draw(probabilities, 10, torch.Generator().manual_seed(seed))
        assert [drawn.count(index) for index in range(4)] == [5, 3, 2, 0]
    drawn = draw(torch.full((3,), 1 / 3), 100, torch.Generator().manual_seed(0))
    assert sorted(drawn.count(index) for index in range(3)) == [33, 33, 34]


def test_a_draw_is_not_rounded_the_same_way_for_answers_that_alternate() -> None:
    probabilities = torch.tensor([0.125, 0.125 / 3] * 6)  # 1.5 and 0.5 of twelve draws
    firsts = [sum(i % 2 == 0 for i in draw(probabilities, 12, torch.Generator().manual_seed(s))) for s in range(40)]
    assert len(set(firsts)) > 2  # in the given order it is 12 or 6
    assert sum(firsts) / 40 == pytest.approx(9, abs=0.5)
