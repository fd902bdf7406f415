"""Denoising: least rank, energy, identity, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lifealign.memory.denoise import denoise_update

shares = st.floats(0.01, 1.0)
seeds = st.integers(0, 10_000)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 12))


def random_update(seed: int, shape: tuple[int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_singular_values(values: list[float], columns: int = 7, dtype: torch.dtype = torch.float64) -> Tensor:
    """A full matrix with these singular values, in a random pose."""
    left = torch.linalg.qr(random_update(1, (len(values), len(values)))).Q
    right = torch.linalg.qr(random_update(2, (columns, len(values)))).Q
    return (left * torch.tensor(values, dtype=torch.float64) @ right.T).to(dtype)


@pytest.mark.parametrize(
    ("energy_kept", "rank", "energy"),
    # energies 9, 4, 2, 1 of 16: shares 0.5625, 0.8125, 0.9375, 1
    [(0.01, 1, 0.5625), (0.5, 1, 0.5625), (0.57, 2, 0.8125), (0.9, 3, 0.9375), (0.94, 4, 1.0), (1.0, 4, 1.0)],
)
def test_the_least_rank_that_holds_the_energy_is_kept(energy_kept: float, rank: int, energy: float) -> None:
    update = with_singular_values([3.0, 2.0, 2.0**0.5, 1.0])
    denoised = denoise_update(update, energy_kept)
    assert denoised.rank == rank
    assert denoised.energy == pytest.approx(energy, abs=1e-12)
    left = torch.linalg.svdvals(denoised.update)
    expected = torch.tensor([3.0, 2.0, 2.0**0.5, 1.0][:rank] + [0.0] * (4 - rank), dtype=torch.float64)
    torch.testing.assert_close(left, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_share_that_is_met_exactly_is_met(dtype: torch.dtype) -> None:
    update = torch.diag(torch.tensor([3.0, 1.0], dtype=dtype))  # energies 9 and 1: the first is exactly 0.9
    denoised = denoise_update(update, 0.9)
    assert denoised.rank == 1
    assert torch.equal(denoised.update, torch.diag(torch.tensor([3.0, 0.0], dtype=dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeping_all_energy_is_the_identity_bit_for_bit(dtype: torch.dtype) -> None:
    update = random_update(3, (4, 9)).to(dtype)
    denoised = denoise_update(update, 1.0)
    assert torch.equal(denoised.update, update)
    assert (denoised.rank, denoised.energy) == (4, 1.0)
    low_rank = with_singular_values([2.0, 1.0, 0.0, 0.0])
    assert denoise_update(low_rank, 1.0).rank == 2
    assert torch.equal(denoise_update(low_rank, 1.0).update, low_rank)


def test_an_update_of_zeros_stays_zero_with_rank_zero() -> None:
    denoised = denoise_update(torch.zeros(3, 5), 0.9)
    assert torch.equal(denoised.update, torch.zeros(3, 5))
    assert (denoised.rank, denoised.energy) == (0, 1.0)


@given(seeds, shapes, shares)
def test_energy_rank_and_norm_keep_their_bounds(seed: int, shape: tuple[int, int], energy_kept: float) -> None:
    update = random_update(seed, shape)
    denoised = denoise_update(update, energy_kept)
    total = update.square().sum()
    assert ((update - denoised.update).square().sum() / total).item() <= 1 - energy_kept + 1e-9
    assert denoised.update.norm() <= update.norm() * (1 + 1e-12)
    assert 1 <= denoised.rank <= min(shape)
    assert torch.linalg.matrix_rank(denoised.update) <= denoised.rank
    # least: with one direction fewer, the share would be missed
    energies = torch.linalg.svdvals(update).square()
    assert energies[: denoised.rank - 1].sum() < energy_kept * total
    assert denoised.energy == pytest.approx((energies[: denoised.rank].sum() / total).item(), abs=1e-9)


@given(seeds, shapes, shares, st.floats(1e-6, 1e6))
def test_scaling_an_update_scales_the_denoised_one(
    seed: int, shape: tuple[int, int], energy_kept: float, scale: float
) -> None:
    update = random_update(seed, shape)
    one, other = denoise_update(update, energy_kept), denoise_update(scale * update, energy_kept)
    assert one.rank == other.rank
    torch.testing.assert_close(other.update, scale * one.update, rtol=1e-8, atol=scale * 1e-9)


def test_denoising_twice_at_the_same_rank_changes_nothing() -> None:
    once = denoise_update(with_singular_values([3.0, 2.0, 0.1, 0.05]), 0.99).update
    twice = denoise_update(once, 1 - 1e-9)
    assert twice.rank == 2
    torch.testing.assert_close(twice.update, once)


@pytest.mark.parametrize("energy_kept", [0.0, -0.1, 1.0001, float("nan")])
def test_a_share_outside_its_range_is_refused(energy_kept: float) -> None:
    with pytest.raises(ValueError, match=r"energy_kept: found .*, expected more than 0 and at most 1"):
        denoise_update(torch.eye(2), energy_kept)


@pytest.mark.parametrize("energy_kept", [0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_half_precision_and_integers_are_refused(dtype: torch.dtype, energy_kept: float) -> None:
    with pytest.raises(TypeError, match="expected float32 or float64"):
        denoise_update(torch.ones(2, 2).to(dtype), energy_kept)


@pytest.mark.parametrize("energy_kept", [0.9, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad: float, energy_kept: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        denoise_update(torch.tensor([[1.0, bad]]), energy_kept)


def test_an_svd_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(torch.linalg.LinAlgError, match="did not converge"):
        denoise_update(torch.eye(2), 0.9)
