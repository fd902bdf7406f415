"""Projection: reduces the part of an update that overlaps what earlier tasks wrote."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lifealign.memory.denoise import require_float
from lifealign.memory.history import ExactHistory, History


class Overlap(NamedTuple):
    """Part of an update inside the span of history, and its share of the update's energy (ρ, in [0, 1])."""

    inside: Tensor
    energy: float


def refine_update(
    update: Float[Tensor, "rows cols"],
    history: Float[Tensor, "tasks rows cols"],
    overlap_kept: float,
) -> Float[Tensor, "rows cols"]:
    r"""Shrinks the part of an update that overlaps what earlier tasks wrote to memory.

    Flatten everything to vectors of length :math:`d = \text{rows} \cdot \text{cols}`, and let :math:`V` be an
    orthonormal basis of the span of ``history``. The update splits into :math:`V V^\top u`, its overlap with earlier
    tasks, and the rest, which is new. The rest is kept whole, the overlap is scaled:

    .. math::  u_{\text{refined}} = u - (1 - \lambda)\, V V^\top u, \qquad \lambda = \texttt{overlap\_kept}

    Works on one LoRA factor (``lora_A`` or ``lora_B``) at a time, never on their product: the two factors have
    histories of their own.

    Args:
        update: Denoised short-term update, in units of the weight itself (it is added to the weight later). float32 or
            float64; adapters trained in bfloat16 are cast by ``read_adapter``.
        history: Refined updates of earlier tasks for the same factor; their order and scale do not matter, only their
            span does. ``tasks`` may be 0, for the first task.
        overlap_kept: Share of the overlap that survives, dimensionless, in [0, 1]; the paper uses 0.5. 0 forbids any
            change along earlier directions (most stable), 1 switches projection off (most plastic).

    Returns:
        Refined update, same shape, dtype and device as ``update``, ready to be added to long-term memory.

    Raises:
        ValueError: If ``overlap_kept`` is outside [0, 1], ``history`` holds matrices of another shape, or either
            tensor holds NaN or infinity.
        TypeError: If ``update`` has a dtype other than float32 or float64.
        torch.linalg.LinAlgError: If the SVD does not converge. It is not caught: an unrefined update must not be
            committed as if it were refined.

    Example:
        >>> update = torch.tensor([[1.0, 1.0]])        # one 1 x 2 factor
        >>> history = torch.tensor([[[1.0, 0.0]]])     # one earlier task wrote along the first axis
        >>> refine_update(update, history, overlap_kept=0.25)
        tensor([[0.2500, 1.0000]])
        >>> torch.equal(refine_update(update, history, overlap_kept=1.0), update)
        True

    Reference:
        Li et al., LifeAlign, AAAI 2026 (arXiv:2509.17183), Short-to-Long Memory Consolidation, right half of the
        framework figure: SM'_t -> RSM_t. The figure bounds the basis by k_h <= t-1; the released code keeps a direction
        per stored update whatever its rank, see ``docs/deviations.md``.
    """
    return shrink(update, overlap_with(update, history), overlap_kept)


def shrink(update: Float[Tensor, "rows cols"], overlap: Overlap, overlap_kept: float) -> Float[Tensor, "rows cols"]:
    """An update whose overlap is scaled by ``overlap_kept``, in [0, 1]; at 1 the update itself, bit for bit.

    Raises:
        ValueError: If ``overlap_kept`` is outside [0, 1].
    """
    if not 0 <= overlap_kept <= 1:
        raise ValueError(f"overlap_kept: found {overlap_kept}, expected a number from 0 to 1")
    return update if overlap_kept == 1 else update - (1 - overlap_kept) * overlap.inside


def overlap_with(update: Float[Tensor, "rows cols"], history: Float[Tensor, "tasks rows cols"]) -> Overlap:
    r"""Measures how much of an update lies in the span of earlier updates.

    Args:
        update: Update of one factor; float32 or float64.
        history: Earlier updates of the same factor; ``tasks`` may be 0.

    Returns:
        The part inside, :math:`V V^\top u` (same shape and dtype as ``update``), and the overlap energy
        :math:`\rho = \|V V^\top u\|^2 / \|u\|^2`, 0 for an update of zeros. A random update of d numbers has an
        expected ρ of rank/d.

    Raises:
        ValueError: If the shapes differ, or either tensor holds NaN or infinity.
        TypeError: If ``update`` has a dtype other than float32 or float64.
        torch.linalg.LinAlgError: If the SVD does not converge.

    Example:
        >>> overlap_with(torch.tensor([[1.0, 1.0]]), torch.tensor([[[1.0, 0.0]]])).energy
        0.5
    """
    require_float(update)
    if history.shape[1:] != update.shape:
        raise ValueError(
            f"history: found matrices of shape {tuple(history.shape[1:])}, expected that of the update, "
            f"{tuple(update.shape)}"
        )
    basis = history_basis(history)
    return overlap_in(update, ExactHistory(basis, len(history)))


def overlap_in(update: Float[Tensor, "rows cols"], history: History) -> Overlap:
    """Measures how much of an update overlaps a history that is kept from task to task.

    Args:
        update: Update of one factor; float32 or float64.
        history: What earlier tasks wrote to the same factor.

    Returns:
        As :func:`overlap_with`; of a sketch, what it projects softly.

    Raises:
        ValueError: If the update holds NaN or infinity.
        TypeError: If it has a dtype other than float32 or float64.
    """
    require_float(update)
    flat = update.flatten().double()
    inside = history.inside(flat)
    total = flat.square().sum()
    energy = float(inside.square().sum() / total) if total > 0 else 0.0
    return Overlap(inside.reshape(update.shape).to(update.dtype), min(energy, 1.0))


def history_basis(history: Float[Tensor, "tasks rows cols"]) -> Float[Tensor, "rank dim"]:
    r"""Orthonormal basis of the span of earlier updates, as rows, in float64.

    Each update is scaled to unit length first, so a small update is protected as well as a large one. The rank is
    counted with the tolerance :math:`\max(t, \sqrt d) \cdot \epsilon_{32} \cdot s_1`: history is kept in float32, so a
    direction below its rounding is noise. Zero and repeated updates therefore add nothing.

    Args:
        history: Refined updates of earlier tasks for one factor; ``tasks`` may be 0.

    Returns:
        ``rank`` orthonormal rows of length rows · cols; no rows for an empty or all-zero history.

    Raises:
        ValueError: If ``history`` holds NaN or infinity.
        torch.linalg.LinAlgError: If the SVD does not converge.

    Example:
        >>> twice = torch.tensor([[[2.0, 0.0]], [[2.0, 0.0]], [[0.0, 0.0]]])
        >>> history_basis(twice).abs()
        tensor([[1., 0.]], dtype=torch.float64)
    """
    rows: Tensor = history.flatten(1).double()
    if not torch.isfinite(rows).all():
        raise ValueError("history: found NaN or infinity, expected finite numbers")
    norms = rows.norm(dim=1)
    rows = rows[norms > 0] / norms[norms > 0, None]
    if len(rows) == 0:
        return rows
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    # The span is that of float32 numbers: sqrt(d) roundings of size eps bound what noise alone can add to a unit row.
    tolerance = singular[0] * torch.finfo(torch.float32).eps * max(len(rows), rows.shape[1] ** 0.5)
    kept: Tensor = right[singular > tolerance]
    return kept
