"""Projection: what overlaps earlier updates shrinks, by a span that knows its rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifealign.memory.project import history_basis, overlap_with, refine_update

seeds = st.integers(0, 10_000)
kept = st.floats(0, 1)
tasks = st.integers(0, 5)


def world(seed: int, count: int, shape: tuple[int, int] = (2, 8)) -> tuple[Tensor, Tensor]:
    """A random update and history, in float64 whose numbers are those of float32, as a life stores them."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(count + 1, *shape, generator=generator).double()
    return numbers[0], numbers[1:]


def test_an_overlap_is_scaled_and_the_rest_is_returned_whole() -> None:
    update, history = torch.tensor([[1.0, 1.0]]), torch.tensor([[[1.0, 0.0]]])
    torch.testing.assert_close(refine_update(update, history, 0.25), torch.tensor([[0.25, 1.0]]))
    overlap = overlap_with(update, history)
    torch.testing.assert_close(overlap.inside, torch.tensor([[1.0, 0.0]]))
    assert overlap.energy == pytest.approx(0.5)
    # history along (3, 4)/5: the part of (5, 0) inside is 3 * (3, 4)/5 = (1.8, 2.4), 9 of 25 of its energy
    slanted = overlap_with(torch.tensor([[5.0, 0.0]]), torch.tensor([[[3.0, 4.0]]]))
    torch.testing.assert_close(slanted.inside, torch.tensor([[1.8, 2.4]]))
    assert slanted.energy == pytest.approx(0.36)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 3])
def test_keeping_all_overlap_is_the_identity_bit_for_bit(dtype: torch.dtype, count: int) -> None:
    update, history = (tensor.to(dtype) for tensor in world(0, count))
    assert torch.equal(refine_update(update, history, 1.0), update)


@given(seeds, kept, st.integers(0, 3))
def test_an_empty_or_all_zero_history_is_the_identity(seed: int, overlap_kept: float, count: int) -> None:
    update, _ = world(seed, 0)
    assert torch.equal(refine_update(update, torch.zeros(count, *update.shape), overlap_kept), update)
    assert overlap_with(update, torch.zeros(count, *update.shape)).energy == 0


@given(seeds, tasks)
def test_keeping_no_overlap_is_orthogonal_to_history_and_idempotent(seed: int, count: int) -> None:
    update, history = world(seed, count)
    once = refine_update(update, history, 0.0)
    assert (history.flatten(1) @ once.flatten()).abs().max().item() < 1e-9 if count else torch.equal(once, update)
    torch.testing.assert_close(refine_update(once, history, 0.0), once, atol=1e-12, rtol=1e-9)


@given(seeds, seeds, tasks, kept, st.floats(-10, 10))
def test_refining_is_linear_in_the_update(seed: int, other: int, count: int, overlap_kept: float, scale: float) -> None:
    (one, history), (two, _) = world(seed, count), world(other, 0)
    together = refine_update(one + scale * two, history, overlap_kept)
    apart = refine_update(one, history, overlap_kept) + scale * refine_update(two, history, overlap_kept)
    torch.testing.assert_close(together, apart, atol=1e-10, rtol=1e-9)


@given(seeds, st.integers(1, 5), kept, st.randoms(use_true_random=False))
def test_only_the_span_of_history_matters(seed: int, count: int, overlap_kept: float, random: object) -> None:
    update, history = world(seed, count)
    expected = refine_update(update, history, overlap_kept)
    order = list(range(count))
    random.shuffle(order)  # type: ignore[attr-defined]
    scales = torch.logspace(-6, 6, count, dtype=torch.float64)[:, None, None]
    for same_span in (
        history * scales,  # rescaled, by up to twelve orders of magnitude against each other
        -history[order],  # reordered and turned round
        torch.cat([history, history[:1] * 3]),  # a repeated row
        torch.cat([history, torch.zeros_like(history[:1])]),  # a zero row
        torch.cat([torch.zeros_like(history[:1]), history, history.sum(0, keepdim=True)]),  # zero, and a combination
    ):
        torch.testing.assert_close(refine_update(update, same_span, overlap_kept), expected, atol=1e-6, rtol=1e-6)


@given(seeds, tasks, kept)
def test_a_norm_never_grows_and_energies_add_up(seed: int, count: int, overlap_kept: float) -> None:
    update, history = world(seed, count)
    refined, overlap = refine_update(update, history, overlap_kept), overlap_with(update, history)
    assert refined.norm() <= update.norm() * (1 + 1e-12)
    assert 0 <= overlap.energy <= 1
    # ||refined||^2 = ((1 - rho) + lambda^2 rho) ||u||^2
    share = (1 - overlap.energy) + overlap_kept**2 * overlap.energy
    torch.testing.assert_close(refined.square().sum(), share * update.square().sum())


def test_a_rank_one_history_of_many_rows_protects_one_direction() -> None:
    row = torch.tensor([[[1.0, 2.0, 2.0, 0.0]]])
    history = torch.cat([row, 2 * row, 0 * row, row])
    assert history_basis(history).shape == (1, 4)
    update = torch.tensor([[0.0, 0.0, 0.0, 5.0]])  # orthogonal to the only direction
    assert torch.equal(refine_update(update, history, 0.0), update)


def test_rows_that_differ_by_rounding_are_one_direction_and_rows_that_differ_by_more_are_two() -> None:
    row = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(5))
    rounding = row * (1 + 6e-8 * torch.randn(row.shape, generator=torch.Generator().manual_seed(6)))
    assert len(history_basis(torch.cat([row, rounding]))) == 1
    near = row + 1e-3 * torch.randn(row.shape, generator=torch.Generator().manual_seed(7))
    basis = history_basis(torch.cat([row, near]))
    assert len(basis) == 2
    torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64))
    refined = refine_update(torch.ones(4, 64), torch.cat([row, near]), 0.0)
    assert (torch.cat([row, near]).flatten(1) @ refined.flatten()).abs().max() < 1e-4


def test_a_history_of_full_rank_leaves_nothing() -> None:
    history = torch.eye(4).reshape(4, 2, 2)
    update = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    torch.testing.assert_close(refine_update(update, history, 0.0), torch.zeros(2, 2))
    torch.testing.assert_close(refine_update(update, history, 0.5), update / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_shape_are_kept(dtype: torch.dtype) -> None:
    update, history = world(1, 3)
    refined = refine_update(update.to(dtype), history.float(), 0.5)
    assert (refined.dtype, refined.shape) == (dtype, update.shape)


@pytest.mark.parametrize("overlap_kept", [0.0, 0.5])
def test_what_must_not_be_projected_is_refused(overlap_kept: float) -> None:
    good, history = torch.ones(2, 2), torch.ones(1, 2, 2)
    with pytest.raises(TypeError, match="expected float32 or float64"):
        refine_update(good.bfloat16(), history, overlap_kept)
    with pytest.raises(ValueError, match="update: found NaN or infinity"):
        refine_update(good * float("nan"), history, overlap_kept)
    with pytest.raises(ValueError, match="history: found NaN or infinity"):
        refine_update(good, history * float("inf"), overlap_kept)
    with pytest.raises(ValueError, match=r"history: found matrices of shape \(2, 3\), expected .* \(2, 2\)"):
        refine_update(good, torch.ones(1, 2, 3), overlap_kept)


@pytest.mark.parametrize("overlap_kept", [-0.01, 1.01, float("nan")])
def test_a_share_outside_its_range_is_refused(overlap_kept: float) -> None:
    with pytest.raises(ValueError, match=r"overlap_kept: found .*, expected a number from 0 to 1"):
        refine_update(torch.ones(1, 2), torch.ones(1, 1, 2), overlap_kept)


def test_an_svd_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(torch.linalg.LinAlgError, match="did not converge"):
        refine_update(torch.ones(1, 2), torch.ones(1, 1, 2), 0.5)
