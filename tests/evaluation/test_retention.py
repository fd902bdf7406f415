"""The bound of what was lost, and how a life spends its error probability."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifealign.evaluation.retention import (
    OF_LOSSES,
    Flips,
    alpha_of,
    flips,
    loss_bound,
    loss_text,
    most_likely_at_most,
    promise,
    prompts_needed,
)


@pytest.mark.parametrize(("prompts", "lost"), [(16, 17.1), (48, 6.1), (59, 5.0), (149, 2.0)])
def test_what_prompts_without_a_flip_can_show(prompts: int, lost: float) -> None:
    """(1 - p)^n = 0.05, solved for p."""
    assert round(100 * loss_bound(0, 0, prompts, 0.05 / OF_LOSSES), 1) == lost
    assert loss_bound(0, 0, prompts, 0.05 / OF_LOSSES) == pytest.approx(1 - 0.05 ** (1 / prompts), abs=1e-12)


def test_the_limit_is_where_the_tail_is_alpha() -> None:
    """Two of 48: the textbook's 12.5 %."""
    limit = most_likely_at_most(2, 48, 0.05)
    tail = sum(math.comb(48, k) * limit**k * (1 - limit) ** (48 - k) for k in range(3))
    assert tail == pytest.approx(0.05, abs=1e-12)
    assert round(limit, 3) == 0.125


@given(st.integers(1, 60), st.data())
def test_gains_lower_the_bound_and_losses_raise_it(prompts: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, prompts - 1))
    gained = data.draw(st.integers(0, prompts - 1 - lost))
    here = loss_bound(lost, gained, prompts, 0.05)
    assert -1 <= here <= 1
    assert loss_bound(lost + 1, gained, prompts, 0.05) > here > loss_bound(lost, gained + 1, prompts, 0.05)
    assert here >= (lost - gained) / prompts  # never below what was seen


@pytest.mark.parametrize(("losing", "gaining"), [(0.1, 0.0), (0.2, 0.1), (0.3, 0.2), (0.12, 0.02), (0.55, 0.4)])
@pytest.mark.parametrize("prompts", [12, 40])
def test_the_bound_fails_no_more_often_than_it_says(losing: float, gaining: float, prompts: int) -> None:
    """Every outcome of the flips is weighted with its exact probability; none is simulated."""
    alpha, wrong = 0.05, 0.0
    for lost in range(prompts + 1):
        for gained in range(prompts + 1 - lost):
            if loss_bound(lost, gained, prompts, alpha) < losing - gaining:
                ways = math.comb(prompts, lost) * math.comb(prompts - lost, gained)
                same = (1 - losing - gaining) ** (prompts - lost - gained)
                wrong += ways * losing**lost * gaining**gained * same
    assert wrong <= alpha


def test_a_life_of_any_length_spends_its_alpha() -> None:
    spent = sum(alpha_of(0.05, decision) for decision in range(1, 100_000))
    assert 0.0499 < spent < 0.05
    for attempts in range(1, 6):
        of_one = sum(alpha_of(0.05, 3, attempt, attempts) for attempt in range(1, attempts + 1))
        assert of_one == pytest.approx(alpha_of(0.05, 3), rel=1e-12)


@given(st.floats(0.01, 0.6), st.floats(1e-6, 0.2))
def test_the_number_needed_is_the_least_that_is_enough(max_loss: float, alpha: float) -> None:
    needed = prompts_needed(max_loss, alpha)
    assert promise(needed, alpha) <= max_loss + 1e-9
    assert needed == 1 or promise(needed - 1, alpha) > max_loss


def test_flips_are_counted_prompt_by_prompt() -> None:
    found = flips([True, True, False, False], [False, True, True, False])
    assert found == Flips(4, (0,), (2,))
    assert found.change == 0
    with pytest.raises(ValueError, match="found 2 and 1 prompts"):
        flips([True, True], [True])
    with pytest.raises(ValueError, match="at least 1"):
        flips([], [])


def test_a_bound_below_zero_is_shown_as_nothing_lost() -> None:
    assert loss_text(Flips(48, (), tuple(range(30))), -0.4, 0.1).endswith("at most 0.0 % lost, allowed 10 %")


def test_the_table_of_the_docs_is_what_prompts_can_show() -> None:
    page = (Path(__file__).parents[2] / "docs" / "retention.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for prompts, *shown in rows:
        found = [promise(int(prompts), alpha_of(0.05, decision)) for decision in (1, 3, 10)]
        assert [f"{100 * share:.1f}" for share in found] == shown
