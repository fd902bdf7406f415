"""The sign-flip test over blocks against numbers counted by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.experiments.blocks import (
    EXACT_UP_TO,
    block_differences,
    compare_blocks,
    holm,
    sign_flip_interval,
    sign_flip_p,
)
from lifealign.experiments.result import Matrix, RunResult


def result(score: float, *, order: str = "given", seed: int = 1) -> RunResult:
    matrix = ScoreMatrix("adherence", True, ["a"], {"a": 0}, [{"a": score}])
    settings: dict[str, Any] = {"seed": seed}
    scores = {"adherence": Matrix(**matrix.as_dict())}
    return RunResult.model_construct(order=order, settings=settings, one_model=True, scores=scores, outcomes={})


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.5], 1.0),  # one block says nothing: + and - are equally far
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2 / 64),
        ([0.4, 0.3, -0.1], 4 / 8),  # sums .8 .6 .2 .0 and their negatives: .6 is reached by .8 and .6
        ([0.0, 0.0], 1.0),
        ([0.2, -0.2], 1.0),
    ],
)
def test_p_is_the_share_of_sign_patterns_as_far_from_zero(differences: list[float], expected: float) -> None:
    assert sign_flip_p(np.array(differences)) == pytest.approx(expected)
    assert sign_flip_p(-np.array(differences)) == pytest.approx(expected)
    assert sign_flip_p(np.array(differences) * 7) == pytest.approx(expected)


def test_p_of_many_blocks_is_estimated_by_random_patterns() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.3, 1.0, EXACT_UP_TO)
    exact = sign_flip_p(differences)
    with_zero = sign_flip_p(np.append(differences, 0.0))  # a block without a difference changes no sum
    assert 0.01 < exact < 0.9
    assert with_zero == pytest.approx(exact, abs=0.01)


def test_the_interval_has_the_shifts_that_the_test_does_not_refuse() -> None:
    differences = np.random.default_rng(1).normal(0.2, 0.1, 8)
    found = sign_flip_interval(differences, 0.95)
    assert found is not None
    low, high = found
    for inside in (low + 1e-6, differences.mean(), high - 1e-6):
        assert sign_flip_p(differences - inside) > 0.05
    for outside in (low - 1e-6, high + 1e-6):
        assert sign_flip_p(differences - outside) <= 0.05
    moved = sign_flip_interval(differences + 1, 0.95)
    assert moved == pytest.approx((low + 1, high + 1))


@pytest.mark.parametrize(("blocks", "there"), [(5, False), (6, True)])
def test_five_blocks_are_too_few_for_an_interval(blocks: int, there: bool) -> None:
    assert (sign_flip_interval(np.linspace(0.1, 0.2, blocks), 0.95) is not None) == there


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        found = sign_flip_interval(rng.exponential(1.0, 8) - rng.exponential(1.0, 8), 0.95)
        assert found is not None
        covered += found[0] <= 0 <= found[1]
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_holm_is_monotone_and_at_most_bonferroni() -> None:
    assert holm({}) == {}
    ps = dict(zip("abcd", [0.2, 0.01, 0.02, 0.02], strict=True))
    assert holm(ps) == pytest.approx({"b": 0.04, "c": 0.06, "d": 0.06, "a": 0.2})
    for order in itertools.permutations(ps):
        assert holm({name: ps[name] for name in order}) == pytest.approx(holm(ps))


def test_methods_are_compared_on_the_blocks_that_both_have() -> None:
    theirs = [result(0.1, seed=seed, order=order) for order in ("one", "two") for seed in (1, 2, 3)]
    ours = [result(0.1 + seed / 10, seed=seed, order=order) for order in ("one", "two") for seed in (3, 2, 1, 9)]
    assert block_differences(ours, theirs, "adherence", "last") == pytest.approx([0.3, 0.2, 0.1] * 2)
    tests = compare_blocks({"ours": ours, "same": theirs, "none": []}, theirs, "adherence", "last")
    assert set(tests) == {"ours", "same"}
    found = tests["ours"]
    assert (found.blocks, found.won, found.p, found.adjusted) == (6, 6, 2 / 64, 4 / 64)
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, 0.1, 0.3))
    assert (tests["same"].p, tests["same"].adjusted, tests["same"].won) == (1.0, 1.0, 0)


def test_one_model_per_task_has_no_backward_transfer_to_compare() -> None:
    apart = result(0.4).model_copy(update={"one_model": False})
    assert block_differences([apart], [result(0.1)], "adherence", "backward_transfer") == []
