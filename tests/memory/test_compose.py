"""Composition of updates: sums that a person can do, and what cannot be added up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from lifealign.memory.compose import compose, whole_steps

VERSIONS = [{"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([[0.0]])}] + [
    {"a": torch.tensor(a), "b": torch.tensor([[b]])}
    for a, b in [([1.0, 2.0], 1.0), ([4.0, 2.0], 1.5), ([4.0, 1.0], -8.0)]
]


@pytest.mark.parametrize(
    ("weights", "a", "b"),
    [
        ((0, 0, 0), [1.0, 0.0], 0.0),
        ((1, 1, 1), [4.0, 1.0], -8.0),
        ((1, 0, 1), [1.0, 1.0], -8.5),  # without the second update, (3, 0) and 0.5
        ((0, 1, 0), [4.0, 0.0], 0.5),
        ((0.5, 0, -1), [1.0, 2.0], 10.0),  # half of (0, 2) and 1, less (0, -1) and -9.5
    ],
)
def test_updates_are_added_with_their_weights(weights: Sequence[float], a: list[float], b: float) -> None:
    composed = compose(iter(VERSIONS), weights)
    assert composed["a"].tolist() == a and composed["b"].tolist() == [[b]]
    assert all(factor.dtype == torch.float32 for factor in composed.values())


def test_leaving_out_a_step_leaves_none_of_its_numbers() -> None:
    noise = torch.Generator().manual_seed(0)
    updates = [torch.randn(4, 3, generator=noise) for _ in range(4)]
    with_it = [{"w": sum(updates[:number], torch.zeros(4, 3))} for number in range(5)]
    other = [*updates[:1], torch.full((4, 3), 1e6), *updates[2:]]  # any second update at all
    with_other = [
        {"w": sum((one.double() for one in other[:number]), torch.zeros(4, 3).double())} for number in range(5)
    ]
    ours, theirs = (compose(versions, [1, 0, 1, 1])["w"] for versions in (with_it, with_other))
    assert torch.allclose(ours, theirs, atol=1e-5)  # float32 versions round at 1e-7 of their size
    assert torch.allclose(ours, updates[0] + updates[2] + updates[3], atol=1e-6)


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1, 1)])
def test_there_is_a_weight_for_every_step(weights: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="zip"):
        compose(VERSIONS, weights)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_a_finite_number(weight: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        compose(VERSIONS, [1, weight, 1])


def test_versions_of_different_ranks_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="differ in name or shape"):
        compose([{"w": torch.zeros(2, 3)}, {"w": torch.zeros(4, 3)}], [1])


def test_only_all_up_to_a_step_and_none_after_it_are_whole_steps() -> None:
    found = [whole_steps(weights) for weights in ((), (1,), (0, 0), (1, 0), (0, 1), (1, 2), (1, 0, 0.5))]
    assert found == [0, 1, 0, 1, None, None, None]
