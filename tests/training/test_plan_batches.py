"""The plan of a stage: every batch decided beforehand, by a pure function."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifealign.model.tokens import TokenizedPair
from lifealign.training.settings import SFTConfig
from lifealign.training.stage import OptimizerBatch, plan_batches

sizes = st.integers(1, 5)


def settings(**changes: Any) -> SFTConfig:
    return SFTConfig(
        **{"num_train_epochs": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2} | changes
    )


def some_pairs(count: int) -> list[TokenizedPair]:
    """Pairs of 3, 4, 5, 3, 4, ... tokens."""
    return [TokenizedPair(str(number), "", (1,) * (1 + number % 3), (2,), (3,)) for number in range(count)]


def keys(batches: list[OptimizerBatch]) -> list[list[list[str]]]:
    return [[[pair.key for pair in part] for part in batch.micro_batches] for batch in batches]


@given(st.integers(0, 30), sizes, sizes, st.integers(0, 3), st.integers(0, 2**62))
def test_every_epoch_has_every_pair_once(count: int, micro: int, accumulated: int, epochs: int, seed: int) -> None:
    pairs = some_pairs(count)
    chosen = settings(
        num_train_epochs=epochs, per_device_train_batch_size=micro, gradient_accumulation_steps=accumulated
    )
    plan = plan_batches(pairs, chosen, seed)
    assert keys(plan) == keys(plan_batches(pairs, chosen, seed))  # pure
    whole = micro * accumulated
    per_epoch = -(-count // whole)
    assert len(plan) == epochs * per_epoch
    for epoch in range(epochs):
        part = plan[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(key for batch in keys(part) for micro_batch in batch for key in micro_batch) == sorted(
            pair.key for pair in pairs
        )
        lengths = [sum(len(micro_batch) for micro_batch in batch.micro_batches) for batch in part]
        assert all(length == whole for length in lengths[:-1])
        assert all(0 < length <= whole for length in lengths[-1:])
        assert all(len(micro_batch) <= micro for batch in part for micro_batch in batch.micro_batches)
        assert [batch.epoch for batch in part[-1:]] == [epoch + 1] * bool(part)


def test_the_last_optimizer_batch_of_an_epoch_is_smaller() -> None:
    plan = plan_batches(some_pairs(10), settings(num_train_epochs=2), seed=0)
    assert [[len(part) for part in batch.micro_batches] for batch in plan] == [[2, 2], [2, 2], [2]] * 2
    assert [batch.epoch for batch in plan] == pytest.approx([0.4, 0.8, 1.0, 1.4, 1.8, 2.0])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    pairs = some_pairs(30)
    plan = keys(plan_batches(pairs, settings(num_train_epochs=2), seed=0))
    assert plan[:8] != plan[8:]
    assert plan != keys(plan_batches(pairs, settings(num_train_epochs=2), seed=1))
    assert plan[:8] == keys(plan_batches(pairs, settings(), seed=0))  # a longer stage begins as a shorter one does


def test_the_layout_into_micro_batches_does_not_decide_what_is_in_an_optimizer_batch() -> None:
    pairs = some_pairs(11)
    sets = []
    for micro, accumulated in ((1, 4), (2, 2), (4, 1)):
        plan = plan_batches(
            pairs, settings(per_device_train_batch_size=micro, gradient_accumulation_steps=accumulated), seed=3
        )
        sets.append([{pair.key for part in batch.micro_batches for pair in part} for batch in plan])
    assert sets[0] == sets[1] == sets[2]


def test_micro_batches_hold_pairs_of_similar_length() -> None:
    for batch in plan_batches(some_pairs(12), settings(), seed=0):
        lengths = [len(pair) for part in batch.micro_batches for pair in part]
        assert lengths == sorted(lengths)
