"""Scope: what counts as a domain must not be chance."""

from __future__ import annotations

import math

import pytest
import torch

from lifealign.memory.recall import separation
from lifealign.memory.scope import BY_CHANCE, HOUSE_RULE, chance_of_separation, scope, scope_by


def test_perfect_separation_is_as_likely_as_so_many_coins_on_one_side() -> None:
    assert [chance_of_separation(1.0, prompts) for prompts in range(6)] == pytest.approx([2.0**-k for k in range(6)])


def test_the_bound_is_that_of_a_coin() -> None:
    """At three quarters: KL(3/4 | 1/2) = 3/4 log(3/2) + 1/4 log(1/2)."""
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert chance_of_separation(0.75, 10) == pytest.approx(math.exp(-10 * divergence))


def test_four_prompts_never_make_a_domain_and_five_do_if_all_are_told() -> None:
    assert [scope_by(1.0, prompts) for prompts in (0, 4, 5)] == [1.0, 1.0, 0.0]
    assert scope_by(0.95, 5) == 1.0


def test_with_enough_prompts_scope_is_as_measured() -> None:
    assert [scope_by(0.76, prompts) for prompts in (19, 23, 1000)] == [1.0, scope(0.76), scope(0.76)]
    assert scope_by(0.3, 1000) == scope_by(0.5, 1000) == 1.0


@pytest.mark.parametrize("prompts", [3, 6, 12, 32])
def test_prompts_that_are_all_alike_are_seldom_a_domain(prompts: int) -> None:
    """Two thousand tasks whose prompts score like all others, of which there are twice as many."""
    generator = torch.Generator().manual_seed(prompts)
    called, by_area_alone = 0, 0
    for _ in range(2000):
        own, others = torch.randn(3 * prompts, generator=generator).split([prompts, 2 * prompts])
        area = separation(own, others)
        called += scope_by(area, prompts) < HOUSE_RULE
        by_area_alone += scope(area) < HOUSE_RULE
    assert called <= BY_CHANCE * 2000
    assert prompts > 6 or by_area_alone > 50  # which is what happened
