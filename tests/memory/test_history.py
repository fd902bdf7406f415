"""What a new update is compared with: the exact span, grown one update at a time, and the sketch that replaces it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifealign.memory.history import RIDGE, ExactHistory, SketchedHistory, unit_length
from lifealign.memory.project import history_basis

seeds = st.integers(0, 10_000)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers that float32 can hold, as a life stores them, in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def grown(updates: Tensor) -> ExactHistory:
    history = ExactHistory.empty(updates.shape[1])
    for update in updates:
        history = history.extended(update)
    return history


def sketched(updates: Tensor, size: int) -> SketchedHistory:
    history = SketchedHistory.of(updates[:size])
    for update in updates[size:]:
        history = history.extended(update)
    return history


def energy(updates: Tensor) -> Tensor:
    """M, of updates of unit length."""
    units = torch.stack([unit_length(update) for update in updates])
    return units.T @ units


@pytest.mark.parametrize(
    "kind", ["random", "repeated", "near", "nearer than rounding", "zeros", "badly scaled", "a combination"]
)
def test_a_span_that_grows_is_that_of_all_updates_together(kind: str) -> None:
    updates = random(8, 256)
    if kind == "repeated":
        updates[5] = -3 * updates[2]
    elif kind == "near":
        updates[5] = updates[2] + 1e-3 * updates[5]
    elif kind == "nearer than rounding":
        updates[5] = updates[2] + 1e-9 * updates[5]
    elif kind == "zeros":
        updates[0] = updates[5] = 0
    elif kind == "badly scaled":
        updates *= torch.logspace(-12, 12, 8, dtype=torch.float64)[:, None]
    elif kind == "a combination":
        updates[7] = updates[:7].sum(dim=0)
    history, plain = grown(updates), history_basis(updates[:, None])
    assert history.updates == 8
    assert len(history.basis) == len(plain) == {"random": 8, "near": 8, "zeros": 6, "badly scaled": 8}.get(kind, 7)
    torch.testing.assert_close(history.basis @ history.basis.T, torch.eye(len(plain), dtype=torch.float64))
    for vector in random(5, 256, seed=1):
        expected = plain.T @ (plain @ vector)
        assert (history.inside(vector) - expected).norm() <= 1e-6 * vector.norm()


@given(seeds, st.integers(1, 9))
def test_a_full_span_takes_everything_in(seed: int, extra: int) -> None:
    history = grown(random(6 + extra, 6, seed=seed))
    vector = random(6, seed=seed + 1)
    assert len(history.basis) == 6
    torch.testing.assert_close(history.inside(vector), vector)


def test_a_sketch_that_has_lost_nothing_is_the_soft_projection_itself() -> None:
    updates = random(5, 32)
    history, vector = SketchedHistory.of(updates), random(32, seed=1)
    whole = energy(updates)
    ridge = RIDGE * float(torch.linalg.eigvalsh(whole).max())
    exact = whole @ torch.linalg.inv(whole + ridge * torch.eye(32, dtype=torch.float64)) @ vector
    torch.testing.assert_close(history.inside(vector), exact, rtol=1e-5, atol=1e-6)
    assert (history.error, history.lost) == (0, 0)
    assert history.ridge == pytest.approx(ridge)


@given(seeds, st.integers(1, 12), st.floats(0.0, 3.0))
def test_what_a_sketch_loses_is_bounded_as_it_says(seed: int, size: int, decay: float) -> None:
    """100 updates of decaying directions: energies differ by no more than Delta, soft projections by Delta / tau."""
    updates = random(100, 24, seed=seed) * torch.arange(1, 25, dtype=torch.float64) ** -decay
    history, whole = sketched(updates, size), energy(updates)
    assert history.rows.shape == (size, 24)
    rows = history.rows.double()
    difference = whole - rows.T @ rows
    values = torch.linalg.eigvalsh(difference)
    assert values.min() > -1e-4 and values.max() <= history.lost + 1e-4  # of 100; rows are kept in float32
    for kept in range(max(1, size // 4)):  # the promise of Frequent Directions for the quarter that is shrunk
        rest = torch.linalg.eigvalsh(whole).flip(0)[kept:].sum()
        assert history.lost <= rest / (max(1, size // 4) - kept) + 1e-4
    vector = random(24, seed=seed + 1)
    exact = whole @ torch.linalg.inv(whole + history.ridge * torch.eye(24, dtype=torch.float64)) @ vector
    assert (history.inside(vector) - exact).norm() <= (history.error + 1e-4) * vector.norm()


def test_updates_orthogonal_to_each_other_are_not_wiped_out_by_one_too_many() -> None:
    axes = torch.eye(9, dtype=torch.float64)
    history = sketched(axes, 8)
    energies = history.rows.square().sum(dim=1)
    assert energies.tolist() == pytest.approx([1.0] * 6 + [0.0] * 2, abs=1e-9)  # shrinking all would leave nothing
    assert history.lost == pytest.approx(1.0)


def test_a_direction_that_comes_back_is_learnt_although_it_is_the_weakest_each_time() -> None:
    old, new = torch.eye(9, dtype=torch.float64)[:8], torch.eye(9, dtype=torch.float64)[8]
    strong = torch.cat([old, old, old])  # every old direction three times
    history = sketched(torch.cat([strong, new.expand(8, 9)]), 8)
    assert float(history.inside(new) @ new) > 0.9


@pytest.mark.parametrize("history", [ExactHistory.empty(2), SketchedHistory.of(torch.eye(2))])
def test_what_is_not_a_number_is_refused(history: ExactHistory | SketchedHistory) -> None:
    with pytest.raises(ValueError, match="history: found NaN or infinity"):
        history.extended(torch.tensor([float("nan"), 0.0]))


def test_a_direction_that_is_hardly_new_is_still_orthogonal_to_the_others() -> None:
    """One pass of Gram-Schmidt leaves the rounding of a unit vector, 1e-16, on a remainder of 1e-5: 1e-11 of it."""
    start, steps = random(1, 256), 1e-5 * random(20, 256, seed=1)
    basis = grown(torch.cat([start, start + steps])).basis
    assert len(basis) == 21
    assert (basis @ basis.T - torch.eye(21, dtype=torch.float64)).abs().max() < 1e-13
