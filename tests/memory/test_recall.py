"""Keys of prompts: whitening, p-values that keep their promise, and how far tasks can be told apart."""

from __future__ import annotations

import math

import pytest
import torch

from lifealign.memory.recall import (
    WIDEST,
    KeyTable,
    Whitening,
    learn_key,
    learn_whitening,
    separation,
    separations,
    shrinkage,
)
from lifealign.memory.scope import scope


def normal(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_whitened_general_text_has_mean_0_and_covariance_1() -> None:
    """With many more pieces than dimensions nearly nothing is shrunk."""
    mixed = normal(20_000, 3, 0) @ torch.tensor([[3.0, 1, 0], [0, 1, 0], [0, 0, 2]]).double() + 7
    white = learn_whitening(mixed)(mixed)
    assert torch.allclose(white.mean(dim=0), torch.zeros(3).double(), atol=1e-9)
    assert torch.allclose(white.T @ white / len(white), torch.eye(3).double(), atol=0.01)


def test_the_shrinkage_is_ledoit_and_wolfs_by_hand() -> None:
    """Rows ±(2, 0) and ±(0, 1): S = diag(2, 1/2), m = 5/4; ||S - mI||² = 9/8.

    The mean of ||xxᵀ - S||² is (mean of |x|⁴) - ||S||² = (16 + 1) / 2 - 17/4 = 17/4; by 4 rows 17/16.
    """
    rows = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    assert shrinkage(rows) == pytest.approx((17 / 16) / (9 / 8))


def test_what_few_pieces_do_not_span_is_not_blown_up() -> None:
    """Two pieces lie on a line: S has eigenvalues 2 and 0, and half of it is shrunk to 1: 3/2 and 1/2."""
    whitening = learn_whitening(torch.tensor([[0.0, 0.0], [2.0, 2.0]]))
    inverse = torch.linalg.inv(whitening.matrix.T @ whitening.matrix)
    assert torch.allclose(torch.linalg.eigvalsh(inverse), torch.tensor([0.5, 1.5]).double())
    with pytest.raises(ValueError, match="found 1 rows, expected at least two"):
        learn_whitening(torch.ones(1, 3))
    with pytest.raises(ValueError, match="all of them finite"):
        learn_whitening(torch.full((3, 3), math.nan))


def test_wide_features_are_projected_the_same_way_every_time() -> None:
    general = normal(20, WIDEST + 1, 0)
    first, second = learn_whitening(general), learn_whitening(general)
    assert first.matrix.shape == (512, WIDEST + 1)
    assert torch.equal(first.matrix, second.matrix)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5])
def test_a_prompt_of_the_task_is_called_unknown_no_more_often_than_alpha(alpha: float) -> None:
    """Over 400 keys of 39 calibration prompts each, ten new prompts of the same kind a key."""
    wrong = 0
    for seed in range(400):
        prompts = normal(80, 3, seed)
        key = learn_key(prompts[:31], prompts[31:70])
        wrong += int((key.p_values(prompts[70:]) <= alpha).sum())
    share = wrong / 4000
    assert share <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / 4000)
    assert share >= alpha - 0.03  # and not by calling everything known


def test_a_far_prompt_has_the_smallest_p_value_and_a_near_one_the_largest() -> None:
    key = learn_key(torch.tensor([[1.0, 0.0]]), normal(9, 2, 0))
    values = key.p_values(torch.tensor([[3.0, 0.0], [-100.0, 0.0]]).double())
    assert values.tolist() == [1.0, 0.1]


def test_as_far_as_one_of_its_own_counts_as_typical_of_it() -> None:
    key = learn_key(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 2.0]]))
    found = key.p_values(torch.tensor([[1.0, 2.0], [1.0, -1.0], [1.0, 2.1], [3.0, 6.0]]))
    assert found.tolist() == [2 / 3, 1.0, 1 / 3, 2 / 3]


def test_a_task_without_calibration_prompts_calls_nothing_untypical() -> None:
    key = learn_key(torch.ones(3, 2), torch.zeros(0, 2))
    assert key.p_values(torch.full((1, 2), -9.0)).tolist() == [1.0]


def test_the_score_is_the_cosine_with_the_mean_whatever_the_lengths() -> None:
    """The mean of (0, 3) and (8, 3) points to (4, 3), so (1, 0) has a cosine of 4/5 with it."""
    key = learn_key(torch.tensor([[0.0, 3.0], [8.0, 3.0]]), torch.zeros(0, 2))
    found = key.scores(torch.tensor([[1.0, 0.0], [70.0, 0.0], [-4.0, -3.0], [3.0, -4.0], [0.0, 0.0]]))
    assert found.tolist() == pytest.approx([0.8, 0.8, -1.0, 0.0, 0.0])


def test_a_task_of_widely_spread_prompts_does_not_take_those_of_a_narrow_one() -> None:
    """Why it is no density: with a spread each, the wide task would be likelier for anything far out."""
    narrow, wide = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0])
    keys = [
        learn_key(narrow + 0.5 * normal(40, 2, 0), narrow + 0.5 * normal(40, 2, 1)),
        learn_key(wide + 3 * normal(40, 2, 2), wide + 3 * normal(40, 2, 3)),
    ]
    far = torch.tensor([[12.0, 2.0]])  # eight off the narrow task's mean, which has a spread of half
    assert keys[0].scores(far) > 0.95 > 0.5 > keys[1].scores(far)


def test_a_mean_of_zero_has_no_direction_and_everything_is_as_far_off() -> None:
    key = learn_key(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    assert key.scores(torch.tensor([[5.0, 1.0]])).tolist() == [0.0] and key.distances.tolist() == [1.0]
    assert key.p_values(torch.tensor([[5.0, 1.0]])).tolist() == [1.0]


def test_a_mean_stands_for_its_prompts() -> None:
    prompts, others = normal(30, 5, 0), normal(8, 5, 1)
    whole, mean = learn_key(prompts, others), learn_key(prompts.mean(dim=0)[None], others, count=30)
    assert torch.allclose(whole.direction, mean.direction) and torch.allclose(whole.distances, mean.distances)
    assert whole.count == mean.count == 30


def test_whitening_is_affine_so_a_mean_can_be_whitened_in_place_of_its_prompts() -> None:
    whitening = learn_whitening(normal(50, 6, 0))
    prompts = normal(10, 6, 1)
    assert torch.allclose(whitening(prompts).mean(dim=0), whitening(prompts.mean(dim=0)[None])[0])


def test_domains_apart_have_no_scope_and_equal_ones_all_of_it() -> None:
    own, far, same = normal(200, 2, 0) + 20, normal(200, 2, 1) - 50, normal(200, 2, 2) + 20
    key = learn_key(own[:100], own[100:])
    of_own = key.scores(own[100:])
    assert scope(separation(of_own, key.scores(far))) == 0.0
    assert scope(separation(of_own, key.scores(same))) > 0.85
    assert isinstance(learn_whitening(own), Whitening)


def test_a_table_of_keys_says_what_each_key_says() -> None:
    """Of tasks with more, fewer and no prompts to calibrate them, and of a prompt as far as one of those."""
    keys = [
        learn_key(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 3.0]])),
        learn_key(torch.ones(2, 2), torch.tensor([[1.0, 2.0]])),
        learn_key(torch.tensor([[0.0, 5.0]]), torch.zeros(0, 2)),
    ]
    table = KeyTable.of(keys)
    for prompt in (torch.tensor([2.0, 2.0]), torch.tensor([-9.0, 9.0]), torch.zeros(2)):
        scores, p_values = table.look_up(prompt.double())
        assert torch.equal(scores, torch.cat([key.scores(prompt[None].double()) for key in keys]))
        assert torch.equal(p_values, torch.cat([key.p_values(prompt[None].double()) for key in keys]))
    assert table.look_up(torch.tensor([2.0, 2.0], dtype=torch.float64))[1].tolist() == [0.75, 1.0, 1.0]


def test_a_task_is_told_from_all_others_together_by_its_own_key() -> None:
    """By hand: of one pair of tasks that lie apart, a third with the prompts of the first, and one without prompts."""
    near, far = torch.tensor([[9.0, 0.0], [9.0, 1.0]]), torch.tensor([[0.0, 9.0], [1.0, 9.0]])
    examples = [near, far, near, torch.zeros(0, 2)]
    means = ([1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0])
    keys = [learn_key(torch.tensor([mean]), own) for mean, own in zip(means, examples, strict=True)]
    # of the first: against far 4 of 4, against its double 1 win, 1 loss and 2 ties of 4: (4 + 1 + 1) / 8
    assert separations(keys, examples) == [0.75, 1.0, 0.75, None]
    assert separations(keys[:1], examples[:1]) == [None]


def test_prompts_that_differ_by_rounding_alone_are_ties() -> None:
    """Two tasks with the same prompts, of which one went through another order of sums: nobody can tell them apart."""
    one = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    key = learn_key(one[:1], one)
    assert separations([key, key], [one, one * (1 + 1e-15)]) == separations([key, key], [one, one]) == [0.5, 0.5]


def test_many_tasks_are_told_apart_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    examples = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(7)]
    keys = [learn_key(own[:1], own) for own in examples]
    at_once = separations(keys, examples)
    for place, (key, own, found) in enumerate(zip(keys, examples, at_once, strict=True)):
        rest = torch.cat([examples[other] for other in range(7) if other != place])
        assert found == separation(key.scores(own), key.scores(rest))
    monkeypatch.setattr("lifealign.memory.recall.ROUND", 2)
    assert separations(keys, examples) == at_once
