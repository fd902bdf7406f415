"""The plan of a stage: every batch decided beforehand, by a pure function."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import LAYOUTS

from lifealign.model.batch import Layout, collate, positions
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair
from lifealign.training.settings import SFTConfig
from lifealign.training.stage import OptimizerBatch, plan_batches

sizes = st.integers(1, 5)
BOTH = ("chosen", "rejected")


def settings(**changes: Any) -> SFTConfig:
    return SFTConfig(
        **{"num_train_epochs": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2} | changes
    )


def some_pairs(count: int) -> list[TokenizedPair]:
    """Pairs of 3, 4, 5, 3, 4, ... tokens."""
    return [TokenizedPair(str(number), "", (1,) * (1 + number % 3), (2,), (3,)) for number in range(count)]


def keys(batches: list[OptimizerBatch]) -> list[list[str]]:
    return [[pair.key for pair in batch.pairs] for batch in batches]


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
        assert sorted(key for batch in keys(part) for key in batch) == sorted(pair.key for pair in pairs)
        lengths = [len(batch.pairs) for batch in part]
        assert all(length == whole for length in lengths[:-1])
        assert all(0 < length <= whole for length in lengths[-1:])
        assert [batch.epoch for batch in part[-1:]] == [epoch + 1] * bool(part)


def test_the_last_optimizer_batch_of_an_epoch_is_smaller() -> None:
    plan = plan_batches(some_pairs(10), settings(num_train_epochs=2), seed=0)
    assert [len(batch.pairs) for batch in plan] == [4, 4, 2] * 2
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
        sets.append(keys(plan))
    assert sets[0] == sets[1] == sets[2]


def test_the_pairs_of_a_batch_are_ordered_by_length() -> None:
    for batch in plan_batches(some_pairs(12), settings(), seed=0):
        lengths = [len(pair) for pair in batch.pairs]
        assert lengths == sorted(lengths)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), max_size=12), st.integers(1, 60))
def test_a_pass_has_as_many_pairs_as_fit(layout: Layout, lengths: list[tuple[int, int, int]], most: int) -> None:
    pairs = [
        TokenizedPair(str(number), "", (1,) * prompt, (2,) * chosen, (3,) * rejected)
        for number, (prompt, chosen, rejected) in enumerate(lengths)
    ]
    runtime = SimpleNamespace(max_tokens=most, layout=layout)
    parts = Runtime.micro_batches(runtime, pairs, BOTH, 2)  # type: ignore[arg-type]
    assert [pair for part in parts for pair in part] == pairs
    for part in parts:
        laid_out = collate(part, BOTH, pad_token_id=0, layout=layout).input_ids.numel()
        assert laid_out == positions(part, BOTH, layout)
        assert laid_out <= most or len(part) == 1
    for part, later in pairwise(parts):
        assert positions([*part, later[0]], BOTH, layout) > most


def test_without_a_limit_on_tokens_passes_have_the_given_number_of_pairs() -> None:
    runtime = SimpleNamespace(max_tokens=None, layout="packed")
    parts = Runtime.micro_batches(runtime, some_pairs(5), BOTH, 2)  # type: ignore[arg-type]
    assert [len(part) for part in parts] == [2, 2, 1]
