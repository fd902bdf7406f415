"""Long-term memory: the refined updates of all finished tasks, and consolidation of a new one into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from lifealign.memory.denoise import denoise_update
from lifealign.memory.project import overlap_with, refine_update
from lifealign.memory.update import Adapter


@dataclass(frozen=True)
class FactorFigures:
    """What consolidation did to one LoRA factor.

    Attributes:
        rank_kept: Rank after denoising.
        energy_kept: Share of the update's energy after denoising, in (0, 1].
        overlap_energy: ρ, share of the denoised update's energy that lies in the span of history, in [0, 1].
        norm_before: Frobenius norm of the short-term update.
        norm_after: Frobenius norm of the refined update.
    """

    rank_kept: int
    energy_kept: float
    overlap_energy: float
    norm_before: float
    norm_after: float


@dataclass(frozen=True)
class Consolidation:
    """A refined update and, per factor, what consolidation did to it."""

    update: Adapter
    figures: dict[str, FactorFigures]

    def summary(self) -> dict[str, float]:
        """The mean of every figure over the factors, under the same names."""
        rows = [asdict(figures) for figures in self.figures.values()]
        return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}


@dataclass
class LongTermMemory:
    """The refined updates of finished tasks, oldest first: the history that later updates are projected against."""

    updates: list[Mapping[str, Tensor]] = field(default_factory=list)

    def history(self, factor: str, like: Tensor) -> Float[Tensor, "tasks rows cols"]:
        """Refined updates of one factor, stacked; ``tasks`` is 0 before the first one.

        Args:
            factor: Name of the factor.
            like: Tensor of the factor's shape, which an empty history takes.
        """
        earlier = [update[factor].to(torch.float32) for update in self.updates]
        return torch.stack(earlier) if earlier else torch.empty(0, *like.shape)

    def remember(self, update: Mapping[str, Tensor]) -> None:
        """Adds the refined update of a finished task."""
        self.updates.append({name: tensor.to(torch.float32) for name, tensor in update.items()})


def consolidate(
    update: Mapping[str, Tensor], memory: LongTermMemory, *, energy_kept: float, overlap_kept: float
) -> Consolidation:
    """Short-to-long memory consolidation (SLMC): each factor of an update is denoised, then refined against history.

    The memory is not changed: the caller remembers the refined update once the task is committed.

    Args:
        update: Short-term update, factors by name, float32 or float64.
        memory: What earlier tasks wrote.
        energy_kept: θ of :func:`~lifealign.memory.denoise.denoise_update`, in (0, 1]; 1 denoises nothing.
        overlap_kept: λ of :func:`~lifealign.memory.project.refine_update`, in [0, 1]; 1 projects nothing.

    Returns:
        The refined update and the figures of each factor. With both at 1 the update comes back unchanged and the
        figures still say how much of it overlapped history.

    Raises:
        ValueError: If an option is out of range, shapes differ, or a tensor holds NaN or infinity.
        torch.linalg.LinAlgError: If an SVD does not converge; nothing is returned in its place.

    Example:
        >>> memory = LongTermMemory()
        >>> memory.remember({"w": torch.tensor([[1.0, 0.0]])})
        >>> refined = consolidate({"w": torch.tensor([[1.0, 1.0]])}, memory, energy_kept=1.0, overlap_kept=0.0)
        >>> refined.update["w"], refined.figures["w"].overlap_energy
        (tensor([[0., 1.]]), 0.5)

    Reference:
        Li et al., LifeAlign, AAAI 2026 (arXiv:2509.17183), framework figure: SM_t -> SM'_t -> RSM_t.
    """
    refined: Adapter = {}
    figures: dict[str, FactorFigures] = {}
    for name, factor in update.items():
        denoised = denoise_update(factor, energy_kept)
        history = memory.history(name, factor)
        overlap = overlap_with(denoised.update, history)
        refined[name] = refine_update(denoised.update, history, overlap_kept)
        figures[name] = FactorFigures(
            denoised.rank, denoised.energy, overlap.energy, float(factor.norm()), float(refined[name].norm())
        )
    return Consolidation(refined, figures)
