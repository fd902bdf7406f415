"""Long-term memory: the refined updates of all finished tasks, and consolidation of a new one into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from lifealign.memory.denoise import denoise_update
from lifealign.memory.history import ExactHistory, SketchedHistory
from lifealign.memory.project import overlap_in, shrink
from lifealign.memory.update import Adapter

HISTORY_LIMIT = 32
"""Number of updates that are kept exactly unless a method says otherwise."""


@dataclass(frozen=True)
class FactorFigures:
    """What consolidation did to one LoRA factor.

    Attributes:
        rank_kept: Rank after denoising.
        energy_kept: Share of the update's energy after denoising, in (0, 1].
        overlap_energy: ρ, share of the denoised update's energy that lies in the span of history, in [0, 1].
        norm_before: Frobenius norm of the short-term update.
        norm_after: Frobenius norm of the refined update.
        sketch_error: Bound on how far the refined update is from what it would be without a sketch of history, as a
            share of the denoised update's norm; 0 while history is exact.
    """

    rank_kept: int
    energy_kept: float
    overlap_energy: float
    norm_before: float
    norm_after: float
    sketch_error: float = 0.0


@dataclass(frozen=True)
class Consolidation:
    """A refined update and, per factor, what consolidation did to it."""

    update: Adapter
    figures: dict[str, FactorFigures]

    def scaled(self, scale: float) -> Consolidation:
        """A part of the refined update, with the norm that it then has."""
        return Consolidation(
            {name: scale * factor for name, factor in self.update.items()},
            {name: replace(found, norm_after=scale * found.norm_after) for name, found in self.figures.items()},
        )

    def summary(self) -> dict[str, float]:
        """The mean of every figure over the factors, under the same names."""
        rows = [asdict(figures) for figures in self.figures.values()]
        return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}


@dataclass
class LongTermMemory:
    """The refined updates of finished tasks: the history that later updates are projected against.

    Up to a limit every update is kept, and the span of them is exact. With the next one a sketch takes their place
    (:class:`~lifealign.memory.history.SketchedHistory`): from then on neither memory nor time grows with the number of
    tasks, and the projection is soft, so that a direction counts by its energy and no longer wholly or not at all.

    Attributes:
        limit: Most updates that are kept as they are; also the number of rows of the sketch.
        updates: The refined updates while they are kept, oldest first; empty once there is a sketch.
        remembered: Number of updates that were remembered.
        histories: Per factor, what a new update is compared with.
        shapes: Per factor, its shape.
    """

    limit: int = HISTORY_LIMIT
    updates: list[Mapping[str, Tensor]] = field(default_factory=list)
    remembered: int = 0
    histories: dict[str, ExactHistory | SketchedHistory] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def history(self, factor: str, like: Tensor) -> ExactHistory | SketchedHistory:
        """What earlier tasks wrote to one factor.

        Args:
            factor: Name of the factor.
            like: Tensor of the factor's shape.

        Raises:
            ValueError: If earlier updates of the factor have another shape.
        """
        if factor not in self.histories:
            return ExactHistory.empty(like.numel())
        shape = self.shapes[factor]
        if shape != tuple(like.shape):
            raise ValueError(
                f"history: found matrices of shape {shape}, expected that of the update, {tuple(like.shape)}"
            )
        return self.histories[factor]

    def remember(self, update: Mapping[str, Tensor]) -> None:
        """Adds the refined update of a finished task.

        Raises:
            ValueError: If it holds NaN or infinity.
        """
        kept = {name: tensor.to(torch.float32) for name, tensor in update.items()}
        self.shapes |= {name: tuple(tensor.shape) for name, tensor in kept.items()}
        if self.remembered == self.limit:
            self.histories = {
                name: SketchedHistory.of(torch.stack([one[name].flatten() for one in self.updates])) for name in kept
            }
            self.updates = []
        self.histories |= {
            name: self.histories.get(name, ExactHistory.empty(tensor.numel())).extended(tensor.flatten())
            for name, tensor in kept.items()
        }
        self.remembered += 1
        if self.remembered <= self.limit:
            self.updates.append(kept)


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
        overlap = overlap_in(denoised.update, history)
        refined[name] = shrink(denoised.update, overlap, overlap_kept)
        figures[name] = FactorFigures(
            denoised.rank,
            denoised.energy,
            overlap.energy,
            float(factor.norm()),
            float(refined[name].norm()),
            (1 - overlap_kept) * history.error,
        )
    return Consolidation(refined, figures)
