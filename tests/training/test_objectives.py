"""The losses against numbers that a person can derive, their closed forms, and the limits where FPO is DPO."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifealign.model.tokens import TokenizedPair
from lifealign.training.objectives import (
    PreferenceObjective,
    SupervisedObjective,
    dpo_loss,
    focal_preference_loss,
    focal_weight,
    preference_margin,
)

# r, FPO's loss, FPO's and DPO's derivative, each of the last three from its closed form at the printed precision
TABLE = [
    (-6.0, 5.973, -1.022, -0.998),
    (-4.0, 3.875, -1.086, -0.982),
    (-3.0, 2.766, -1.127, -0.953),
    (-2.0, 1.650, -1.077, -0.881),
    (-1.0, 0.702, -0.768, -0.731),
    (0.0, 0.1733, -0.298, -0.5),
    (1.0, 0.0227, -0.0526, -0.269),
    (2.0, 0.0018, -0.0049, -0.119),
    (3.0, 0.0001, -0.0003, -0.047),
]


def slope(loss: Tensor, margins: Tensor) -> Tensor:
    """Derivative of a per-pair loss by its margin."""
    (gradient,) = torch.autograd.grad(loss.sum(), margins)
    return gradient


def tokenized(key: str, chosen: int, rejected: int = 1) -> TokenizedPair:
    return TokenizedPair(key, key, (1,), (2,) * chosen, (3,) * rejected)


def test_known_margins_give_known_losses() -> None:
    # beta 0.1 and log-ratio differences 0, 10, 20 make margins 0, 1, 2; -log(sigmoid(1)) = log(1 + 1/e) = 0.3133,
    # and (1 - sigmoid(1))^2 = 0.2689^2 = 0.0723 of it is 0.0227.
    chosen, zero = torch.tensor([-30.0, -20.0, -10.0]), torch.zeros(3)
    margins = preference_margin(chosen, zero, zero - 30, zero, beta=0.1)
    torch.testing.assert_close(margins, torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(dpo_loss(margins), torch.tensor([0.6931, 0.3133, 0.1269]), atol=5e-5, rtol=0)
    fpo = focal_preference_loss(margins, 2.0)
    torch.testing.assert_close(fpo, torch.tensor([0.1733, 0.0227, 0.0018]), atol=5e-5, rtol=0)


def test_a_margin_rises_with_chosen_and_falls_with_rejected_and_is_zero_at_the_reference() -> None:
    # ((-1) - (-2)) - ((-5) - (-4)) = 2 nats; half of it at beta 0.5
    one = [torch.tensor([value]) for value in (-1.0, -5.0, -2.0, -4.0)]
    assert preference_margin(*one, beta=0.5).item() == 1.0
    assert preference_margin(one[0], one[1], one[0], one[1], beta=0.5).item() == 0.0


def test_the_weight_carries_gradient() -> None:
    zero = torch.zeros(1, requires_grad=True)
    assert slope(dpo_loss(zero), zero).item() == pytest.approx(-0.5)
    # 1/4 (2 * 1/2 * log(1/2) - 1/2) = -0.298; were the weight a constant, 1/4 * -1/2 = -0.125
    assert slope(focal_preference_loss(zero, 2.0), zero).item() == pytest.approx(-0.2983, abs=5e-5)


@pytest.mark.parametrize(("margin", "loss", "gradient", "dpo_gradient"), TABLE)
def test_the_table_of_the_method_holds(margin: float, loss: float, gradient: float, dpo_gradient: float) -> None:
    r = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
    fpo = focal_preference_loss(r, 2.0)
    assert fpo.item() == pytest.approx(loss, abs=5e-4 if abs(loss) > 0.5 else 5e-5)
    assert slope(fpo, r).item() == pytest.approx(gradient, abs=5e-4 if abs(gradient) > 0.1 else 5e-5)
    assert slope(dpo_loss(r), r).item() == pytest.approx(dpo_gradient, abs=5e-4)


def test_the_steepest_margin_exceeds_dpo() -> None:
    r = torch.linspace(-6, 6, 12001, dtype=torch.float64, requires_grad=True)
    steep = slope(focal_preference_loss(r, 2.0), r).abs()
    assert r[steep.argmax()].item() == pytest.approx(-2.79, abs=0.01)
    assert steep.max().item() == pytest.approx(1.129, abs=0.001)


@given(st.floats(-20, 20), st.floats(0, 5))
def test_the_gradient_is_the_closed_form(margin: float, exponent: float) -> None:
    r = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
    s = 1 / (1 + math.exp(-margin))
    expected = (1 - s) ** exponent * (exponent * s * math.log(s) - (1 - s))
    assert slope(focal_preference_loss(r, exponent), r).item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_the_gradient_agrees_with_finite_differences(exponent: float) -> None:
    r = torch.linspace(-6, 6, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda margins: focal_preference_loss(margins, exponent), (r,))


def test_exponent_zero_is_dpo_in_value_and_gradient() -> None:
    r = torch.linspace(-90, 90, 181, requires_grad=True)
    fpo, dpo = focal_preference_loss(r, 0.0), dpo_loss(r)
    assert torch.equal(fpo, dpo)
    assert torch.equal(slope(fpo, r), slope(dpo, r))


@pytest.mark.parametrize("exponent", [0.0, 2.0, 5.0])
def test_extreme_margins_stay_finite(exponent: float) -> None:
    r = torch.tensor([-1e4, -80.0, 80.0, 1e4], requires_grad=True)
    loss = focal_preference_loss(r, exponent)
    gradient = slope(loss, r)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()
    assert (loss >= 0).all()
    assert (gradient <= 0).all()
    # far on the wrong side FPO is DPO: loss |r|, gradient -1
    torch.testing.assert_close(loss[:2], torch.tensor([1e4, 80.0]))
    torch.testing.assert_close(gradient[:2], torch.tensor([-1.0, -1.0]))


def test_the_weight_of_a_well_mastered_pair_keeps_its_precision() -> None:
    # 1 - sigmoid(20) rounds to 0 in float32; exp(-2 * 20) does not
    margins = torch.tensor([20.0, 40.0])
    assert (1 - torch.sigmoid(margins) == 0).all()
    torch.testing.assert_close(focal_weight(margins, 2.0), torch.exp(-2 * margins), rtol=1e-5, atol=0)
    assert focal_weight(torch.tensor([-80.0]), 2.0).item() == 1.0
    assert focal_weight(torch.tensor([80.0]), 2.0).item() == pytest.approx(0.0, abs=1e-38)


def test_a_negative_exponent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"focal_exponent: found -1\.0, expected at least 0"):
        focal_preference_loss(torch.zeros(1), -1.0)
    with pytest.raises(ValueError, match="focal_exponent"):
        focal_weight(torch.zeros(1), -0.1)


def test_the_preference_objective_reads_chosen_first_and_the_reference_by_key() -> None:
    objective = PreferenceObjective(beta=0.5, reference={"a": (-1.0, -2.0), "b": (-3.0, -4.0)})
    pairs = [tokenized("b", 1), tokenized("a", 1)]
    logps = torch.tensor([-1.0, -1.0, -6.0, -2.0], requires_grad=True)  # chosen b, a, then rejected b, a
    outcome = objective.outcome(logps, pairs)
    # b: 0.5 * ((-1 + 3) - (-6 + 4)) = 2; a: 0.5 * ((-1 + 1) - (-2 + 2)) = 0
    assert outcome.margins is not None
    assert outcome.margins.tolist() == [2.0, 0.0]
    assert outcome.rejected_logps is not None
    assert (outcome.chosen_logps.tolist(), outcome.rejected_logps.tolist()) == ([-1, -1], [-6, -2])
    torch.testing.assert_close(outcome.losses, torch.tensor([0.1269, 0.6931]), atol=5e-5, rtol=0)
    # d(-log sigmoid(m))/d(chosen logp) = -beta * sigmoid(-m), and the rejected answer gets the opposite
    expected = torch.tensor([-0.5 * 0.1192, -0.25, 0.5 * 0.1192, 0.25])
    torch.testing.assert_close(slope(outcome.losses, logps), expected, atol=5e-5, rtol=0)
    assert [objective.size(pair) for pair in pairs] == [1, 1]


def test_the_supervised_loss_is_a_mean_over_all_tokens_of_the_batch() -> None:
    objective = SupervisedObjective()
    pairs = [tokenized("short", 1), tokenized("long", 3)]
    outcome = objective.outcome(torch.tensor([-8.0, -6.0]), pairs)
    assert outcome.losses.tolist() == [8.0, 6.0]
    assert outcome.margins is None
    # 14 nats over 4 tokens; a mean of the means per answer would be (8 + 2) / 2 = 5
    assert outcome.losses.sum().item() / sum(objective.size(pair) for pair in pairs) == 3.5
