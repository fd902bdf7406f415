"""What earlier tasks wrote to one factor, in the form in which a new update is compared with it: exact, or a sketch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 0.01
"""Ridge of a sketch as a share of its largest eigenvalue: a direction with that share of energy counts half."""


class History(Protocol):
    """Earlier updates of one factor, flattened to vectors of length ``dim``."""

    def inside(self, vector: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        """The part of a vector that overlaps them, float64."""

    @property
    def error(self) -> float:
        """Bound on what a sketch changes of :meth:`inside`, as a share of the vector's length."""


@dataclass(frozen=True)
class ExactHistory:
    r"""An orthonormal basis of the span of earlier updates, extended by one update at a time.

    Classical Gram-Schmidt, done twice, costs :math:`O(t d)` for update t; a singular value decomposition of all of them
    would cost :math:`O(t^2 d)`. Every update is scaled to unit length first, so a small update is protected as well as
    a large one. It adds a direction if what of it lies outside the span so far is longer than
    :math:`\max(t, \sqrt d)\, \epsilon_{32}`: updates are kept in float32, and what is shorter may be their rounding.
    Zero and repeated updates therefore add nothing.

    Attributes:
        basis: Orthonormal rows, float64.
        updates: Number of updates so far.

    Example:
        >>> history = ExactHistory.empty(2).extended(torch.tensor([2.0, 0.0])).extended(torch.tensor([-1.0, 0.0]))
        >>> history.basis, history.inside(torch.tensor([3.0, 4.0], dtype=torch.float64))
        (tensor([[1., 0.]], dtype=torch.float64), tensor([3., 0.], dtype=torch.float64))
    """

    basis: Float[Tensor, "rank dim"]
    updates: int

    @classmethod
    def empty(cls, dim: int) -> ExactHistory:
        """The history before the first update."""
        return cls(torch.empty(0, dim, dtype=torch.float64), 0)

    def extended(self, update: Float[Tensor, " dim"]) -> ExactHistory:
        """The history with one update more.

        Raises:
            ValueError: If the update holds NaN or infinity.
        """
        number = self.updates + 1
        unit = unit_length(update)
        outside = unit
        for _ in range(2):  # once leaves rounding along the basis, which scaling would enlarge
            outside = outside - self.inside(outside)
        length = outside.norm()
        if length <= max(number, len(unit) ** 0.5) * torch.finfo(torch.float32).eps:
            return ExactHistory(self.basis, number)
        return ExactHistory(torch.cat((self.basis, (outside / length)[None])), number)

    def inside(self, vector: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        """The projection on the span."""
        return self.basis.T @ (self.basis @ vector.double())

    @property
    def error(self) -> float:
        """0: nothing is left out."""
        return 0.0


@dataclass(frozen=True)
class SketchedHistory:
    r"""A few orthogonal rows that stand for any number of updates, and a soft projection on them.

    Let H hold one update of unit length per row and :math:`M = H^\top H`. The sketch keeps l rows B with
    :math:`\|M - B^\top B\|_2 \le \Delta` by Frequent Directions with partial shrinking: a new update joins as one more
    row, the rows are rotated to be orthogonal, and the weakest quarter loses the energy of the very weakest, which
    disappears; Δ is what was lost so far. Shrinking them all would wipe out updates that are orthogonal to each other;
    dropping the weakest alone would never learn a direction that comes back in small pieces.

    A projection on the span cannot be sketched: it treats a direction of energy 1e-6 like one of energy 1. In its place
    stands :math:`f_\tau(M) = M (M + \tau I)^{-1}` with τ = :data:`RIDGE` times the largest eigenvalue of
    :math:`B^\top B`. It changes by at most :math:`\|M - M'\|_2 / \tau` where M changes, and so the sketch errs by at
    most :math:`\Delta / \tau` times the length of the vector, which :attr:`error` reports.

    Attributes:
        rows: B, orthogonal rows, the strongest first, float32.
        lost: Δ, energy; the squared length of one update is 1.

    Reference:
        Ghashami, Liberty, Phillips, Woodruff, Frequent Directions, SIAM J. Comput. 2016; the partial shrinking of
        Desai, Ghashami, Phillips, Improved Practical Matrix Sketching with Guarantees, TKDE 2016.
    """

    rows: Float[Tensor, "rows dim"]
    lost: float

    @classmethod
    def of(cls, updates: Float[Tensor, "updates dim"]) -> SketchedHistory:
        """The sketch that holds as many updates as it has rows, without loss."""
        return cls(_orthogonal(torch.stack([unit_length(update) for update in updates])).float(), 0.0)

    def extended(self, update: Float[Tensor, " dim"]) -> SketchedHistory:
        """The sketch with one update more, of as many rows as before.

        Raises:
            ValueError: If the update holds NaN or infinity.
        """
        size = len(self.rows)
        rows = _orthogonal(torch.cat((self.rows.double(), unit_length(update)[None])))
        energies = rows.square().sum(dim=1)
        least = energies[-1]
        shrunk = energies.clone()
        shrunk[size - max(1, size // 4) :] -= least  # the weakest quarter of those kept, and the one that goes
        factors = (shrunk.clamp_min(0) / energies.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        return SketchedHistory((factors[:, None] * rows)[:size].float(), self.lost + float(least))

    def inside(self, vector: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        r""":math:`f_\tau(B^\top B)` times the vector."""
        rows = self.rows.double()
        weights = rows.square().sum(dim=1) + self.ridge
        return rows.T @ ((rows @ vector.double()) / weights.clamp_min(torch.finfo(torch.float64).tiny))

    @property
    def ridge(self) -> float:
        """τ, energy."""
        return RIDGE * float(self.rows[0].double().square().sum())

    @property
    def error(self) -> float:
        """Δ / τ, at most 1, which is the most that two soft projections can differ by."""
        return min(1.0, self.lost / self.ridge) if self.lost else 0.0


def unit_length(update: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
    """An update scaled to length 1, float64; one of zeros stays zero.

    Raises:
        ValueError: If the update holds NaN or infinity.
    """
    vector: Tensor = update.flatten().double()
    if not torch.isfinite(vector).all():
        raise ValueError("history: found NaN or infinity, expected finite numbers")
    length = vector.norm()
    return vector / length if length > 0 else vector


def _orthogonal(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Rows with the same Gram matrix over columns, orthogonal to each other, the strongest first."""
    _, rotation = torch.linalg.eigh(rows @ rows.T)
    turned: Tensor = rotation.flip(1).T @ rows
    return turned
