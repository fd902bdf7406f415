"""Prompts that are set aside: a share of them, the same in every task, another for every seed."""

from __future__ import annotations

import pytest

from lifealign.data.pair import Message, Pair
from lifealign.data.set_aside import set_aside, without

PAIRS = tuple(Pair((Message("user", f"{place // 2}"),), f"good {place}", "bad") for place in range(40))
"""Two pairs of each of 20 prompts."""


@pytest.mark.parametrize(("share", "prompts"), [(0.0, 0), (0.2, 4), (0.26, 5), (1.0, 20)])
def test_all_pairs_of_a_share_of_the_prompts_go(share: float, prompts: int) -> None:
    stay, aside = set_aside(PAIRS, share, seed=0)
    assert len({pair.prompt for pair in aside}) == prompts and len(aside) == 2 * prompts
    assert {pair.prompt for pair in stay}.isdisjoint(pair.prompt for pair in aside)
    assert sorted((*stay, *aside), key=PAIRS.index) == list(PAIRS)


def test_the_same_prompts_go_in_every_task_and_others_with_another_seed() -> None:
    other = tuple(Pair(pair.prompt, "x", "y") for pair in PAIRS[::-2])
    chosen = [
        {pair.prompt for pair in set_aside(pairs, 0.5, seed)[1]} for pairs, seed in ((PAIRS, 0), (other, 0), (PAIRS, 1))
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_texts_are_not_run_together() -> None:
    """Two messages are another prompt than one with both texts."""
    one, two = (Message("user", "ab"),), (Message("user", "a"), Message("user", "b"))
    assert without((Pair(one, "x", "y"), Pair(two, "x", "y")), {one}) == (Pair(two, "x", "y"),)
