"""Denoising: an update keeps its strongest directions and drops the rest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Denoised(NamedTuple):
    """A denoised update, the rank it kept, and the share of energy that rank holds (1 for an update of zeros)."""

    update: Tensor
    rank: int
    energy: float


def denoise_update(update: Float[Tensor, "rows cols"], energy_kept: float) -> Denoised:
    r"""Truncates an update to the lowest rank that keeps a given share of its energy.

    With the singular value decomposition :math:`U = \sum_i s_i u_i v_i^\top`, returns the sum of the first k terms,
    where k is the smallest number with

    .. math::  \sum_{i \le k} s_i^2 \;\ge\; \theta \sum_i s_i^2, \qquad \theta = \texttt{energy\_kept}

    Works on one LoRA factor (``lora_A`` or ``lora_B``) at a time, never on their product.

    Args:
        update: Short-term update of one factor, in units of the weight itself; float32 or float64.
        energy_kept: Share of the squared singular values to keep, dimensionless, in (0, 1]; the paper uses 0.9. 1
            returns the update itself, bit for bit.

    Returns:
        The truncated update (same shape, dtype and device), its rank and the share of energy kept.

    Raises:
        ValueError: If ``energy_kept`` is outside (0, 1], or the update holds NaN or infinity.
        TypeError: If ``update`` has a dtype other than float32 or float64.
        torch.linalg.LinAlgError: If the SVD, of the triangle of a QR decomposition in float64, does not converge. It is
            not caught: a raw update must not be committed as if it were denoised.

    Example:
        >>> denoised = denoise_update(torch.diag(torch.tensor([3.0, 1.0])), energy_kept=0.9)   # energies 9 and 1
        >>> denoised.rank, denoised.energy
        (1, 0.9)

    Reference:
        Li et al., LifeAlign, AAAI 2026 (arXiv:2509.17183), Short-to-Long Memory Consolidation, left half of the
        framework figure: SM_t -> SM'_t.
    """
    if not 0 < energy_kept <= 1:
        raise ValueError(f"energy_kept: found {energy_kept}, expected more than 0 and at most 1")
    require_float(update)
    # A factor is narrow: what takes time is its long side, and QR of that is cheaper than an SVD of the whole.
    tall = update.double() if len(update) >= update.shape[1] else update.double().T
    outer, triangle = torch.linalg.qr(tall)
    left, singular, right = torch.linalg.svd(triangle, full_matrices=False)
    energies = singular.square()
    total = energies.sum()
    if total == 0:
        return Denoised(update, 0, 1.0)
    shares = energies.cumsum(0) / total
    # Rounding may leave the last share at 1 - 1e-16; a small tolerance keeps the lowest rank true to the formula.
    rank = int((shares < energy_kept - 1e-12).sum()) + 1
    if energy_kept == 1 or rank == len(singular):
        return Denoised(update, int((shares < 1 - 1e-12).sum()) + 1, 1.0)
    kept = outer @ (left[:, :rank] * singular[:rank]) @ right[:rank]
    kept = kept if len(update) >= update.shape[1] else kept.T
    return Denoised(kept.to(update.dtype).contiguous(), rank, float(shares[rank - 1]))


def require_float(update: Tensor) -> None:
    """Refuses what must not enter an SVD: a dtype other than float32 or float64, NaN, infinity."""
    if update.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"update: found dtype {update.dtype}, expected float32 or float64 (cast it first)")
    if not torch.isfinite(update).all():
        raise ValueError("update: found NaN or infinity, expected finite numbers")
