"""Replay: which pairs are remembered, how a capacity is shared, and what is mixed."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.tiny import pair

from lifealign.data.pair import Pair
from lifealign.data.replay import ReplayBuffer, quotas, sample_for_replay

stores = st.lists(st.integers(0, 50), max_size=8)
capacities = st.integers(0, 200)


def some_pairs(name: str, count: int) -> list[Pair]:
    return [pair(f"{name} {number}", "good", "bad", f"{name}:{number}") for number in range(count)]


def test_a_seed_draws_the_same_pairs_and_another_others() -> None:
    pairs = some_pairs("a", 100)
    drawn = sample_for_replay(pairs, 0.2, seed=1)
    assert drawn == sample_for_replay(pairs, 0.2, seed=1)
    assert drawn != sample_for_replay(pairs, 0.2, seed=2)
    assert drawn != tuple(pairs[:20])  # not the first ones of the file


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [(10, 0.2, 2), (14, 0.2, 2), (3, 0.2, 1), (1, 0.01, 1), (10, 0.0, 0), (7, 1.0, 7)],
)
def test_the_share_is_rounded_down_but_no_task_is_forgotten_whole(count: int, fraction: float, expected: int) -> None:
    pairs = some_pairs("a", count)
    drawn = sample_for_replay(pairs, fraction, seed=0)
    assert len(drawn) == len({one.key for one in drawn}) == expected
    assert set(drawn) <= set(pairs)


@given(stores, capacities)
def test_quotas_fill_the_capacity_and_give_none_more_than_it_has(stored: list[int], capacity: int) -> None:
    kept = quotas(stored, capacity)
    assert sum(kept) == min(capacity, sum(stored))
    assert all(0 <= quota <= number for quota, number in zip(kept, stored, strict=True))


@given(stores, capacities)
@example([1, 3, 2], 5)  # [1, 2, 2]
def test_quotas_are_as_even_as_can_be(stored: list[int], capacity: int) -> None:
    kept = quotas(stored, capacity)
    short = [quota for quota, number in zip(kept, stored, strict=True) if quota < number]  # those that had to give way
    assert max(kept, default=0) - min(short, default=max(kept, default=0)) <= 1
    assert short == sorted(short, reverse=True)  # what does not divide goes to the oldest


@given(stores, capacities)
def test_a_larger_capacity_takes_nothing_from_any_task(stored: list[int], capacity: int) -> None:
    assert all(more >= less for more, less in zip(quotas(stored, capacity + 1), quotas(stored, capacity), strict=True))


def test_a_buffer_keeps_its_capacity_and_drops_the_end_of_each_random_draw() -> None:
    a, b, c = (tuple(some_pairs(name, count)) for name, count in (("a", 10), ("b", 2), ("c", 10)))
    buffer = ReplayBuffer(12, {"a": a, "b": b, "c": c})
    assert buffer.pairs() == [*a[:5], *b, *c[:5]]
    assert ReplayBuffer(100, buffer.tasks).pairs() == [*a, *b, *c]
    assert ReplayBuffer(0, buffer.tasks).pairs() == []
    assert ReplayBuffer(5).pairs() == []


def test_a_mix_has_the_current_task_and_what_is_remembered() -> None:
    current, earlier = some_pairs("now", 3), tuple(some_pairs("then", 2))
    assert ReplayBuffer(10, {"then": earlier}).mix(current) == [*current, *earlier]
    assert ReplayBuffer(0, {"then": earlier}).mix(current) == current


def test_a_pair_of_the_current_task_is_never_there_twice() -> None:
    current = some_pairs("now", 3)
    copy = pair("now 1", "good", "bad", "other file:9")  # the same pair, from another file
    mixed = ReplayBuffer(10, {"then": (copy, *some_pairs("then", 1))}).mix(current)
    assert [one.key for one in mixed] == [one.key for one in [*current, *some_pairs("then", 1)]]
    reversed_pair = pair("now 1", "bad", "good")  # another pair: the opposite preference
    assert len(ReplayBuffer(10, {"then": (reversed_pair,)}).mix(current)) == 4
