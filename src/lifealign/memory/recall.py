r"""Recall: which task a prompt belongs to, by the distance of its features from those of each task's own prompts.

A **key** is what is kept of a task's prompts: their mean, their spread, and how far prompts that the mean was not made
of lie from it. Features are whitened by a fixed general text, never by other tasks, so a key is a function of its own
task alone: adding one or deleting one changes no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

WIDEST = 1024
"""Widest features that are whitened as they are; wider ones are first projected at random."""
PROJECTED = 512


@dataclass(frozen=True)
class Whitening:
    r"""Takes features to where those of general text have mean 0 and, as far as it can tell, covariance 1.

    Attributes:
        mean: Mean features of general text, ``(width,)``, float64.
        matrix: W, ``(whitened, width)``, float64: :math:`z = W (h - \mu)`.
    """

    mean: Float[Tensor, " width"]
    matrix: Float[Tensor, "whitened width"]

    def __call__(self, features: Float[Tensor, "rows width"]) -> Float[Tensor, "rows whitened"]:
        """Whitened features, float64."""
        return (features.double() - self.mean) @ self.matrix.T


@dataclass(frozen=True)
class Key:
    """What is kept of a task's prompts.

    Attributes:
        center: Mean of their whitened features, ``(whitened,)``, float64.
        spread: Mean squared distance of the task's prompts from the centre, per dimension; greater than 0.
        count: How many prompts the centre is made of.
        distances: Squared distances from the centre, per dimension, of prompts that it was not made of; ascending.
    """

    center: Float[Tensor, " whitened"]
    spread: float
    count: int
    distances: Float[Tensor, " calibrated"]

    def distance(self, whitened: Float[Tensor, "rows whitened"]) -> Float[Tensor, " rows"]:
        """Squared distance of each prompt from the centre, per dimension."""
        return (whitened - self.center).square().mean(dim=1)

    def scores(self, whitened: Float[Tensor, "rows whitened"]) -> Float[Tensor, " rows"]:
        """Log-density of each prompt per dimension, in nats and up to a constant, as if prompts were normal."""
        return -self.distance(whitened) / (2 * self.spread) - math.log(self.spread) / 2

    def p_values(self, whitened: Float[Tensor, "rows whitened"]) -> Float[Tensor, " rows"]:
        """How typical each prompt is: the share of the task's own prompts that lie at least as far from the centre.

        For a prompt of the task, drawn as those were, the chance of a value of at most α is at most α.

        Reference:
            Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (conformal p-values).
        """
        closer = torch.searchsorted(self.distances, self.distance(whitened), side="left")
        return (1 + len(self.distances) - closer).double() / (len(self.distances) + 1)


def learn_whitening(general: Float[Tensor, "pieces width"], *, seed: int = 0) -> Whitening:
    r"""Whitens by general text: :math:`W^T W = [(1 - a) \Sigma + a \, \mathrm{tr}(\Sigma) / d \; I]^{-1}`.

    Args:
        general: Features of pieces of general text, at least two.
        seed: Seed of the random projection of wide features.

    Raises:
        ValueError: If there are fewer than two pieces, or a feature is not finite.

    Reference:
        Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004, for a.
    """
    if len(general) < 2 or not torch.isfinite(general).all():
        raise ValueError(f"features: found {len(general)} rows, expected at least two, all of them finite")
    rows, width = general.double(), general.shape[1]
    mean = rows.mean(dim=0)
    projection = torch.eye(width, dtype=torch.float64)
    if width > WIDEST:
        generator = torch.Generator().manual_seed(seed)
        projection = torch.randn(PROJECTED, width, generator=generator, dtype=torch.float64) / math.sqrt(PROJECTED)
    centred = (rows - mean) @ projection.T
    covariance = centred.T @ centred / len(rows)
    shrunk = max(shrinkage(centred), 1 / len(rows))  # few pieces may look as if they spanned nothing else
    scale = covariance.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(len(covariance), dtype=torch.float64)
    values, vectors = torch.linalg.eigh((1 - shrunk) * covariance + shrunk * scale * eye)
    return Whitening(mean, (vectors * values.rsqrt()) @ vectors.T @ projection)


def shrinkage(centred: Float[Tensor, "rows width"]) -> float:
    r"""Ledoit and Wolf's weight of the scaled identity, in [0, 1].

    With :math:`S` the covariance, :math:`m = \mathrm{tr}(S) / d` and x the rows: the mean of
    :math:`\|x x^T - S\|^2 / n` over rows, divided by :math:`\|S - m I\|^2`, at most 1.

    Args:
        centred: Rows with mean 0.
    """
    number, width = centred.shape
    covariance = centred.T @ centred / number
    squares = centred.square().sum(dim=1)
    spread = float((squares.square().mean() - covariance.square().sum()) / number)
    from_identity = float(covariance.square().sum() - covariance.diagonal().sum() ** 2 / width)
    return 1.0 if from_identity <= 0 else min(1.0, max(0.0, spread / from_identity))


def learn_key(
    fitted: Float[Tensor, "prompts whitened"],
    calibrated: Float[Tensor, "others whitened"],
    *,
    count: int | None = None,
) -> Key:
    """The key of a task.

    Args:
        fitted: Whitened features of some of its prompts, at least one: the centre is their mean.
        calibrated: The same of others; without any, no prompt is typical or untypical.
        count: How many prompts ``fitted`` stands for, if it is their mean already.

    Raises:
        ValueError: If there is no prompt to fit, or a feature is not finite.

    Example:
        >>> key = learn_key(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 3.0], [1.0, 1.0]]))
        >>> key.center.tolist(), key.distances.tolist(), key.spread
        ([1.0, 0.0], [0.5, 4.5], 2.5)
        >>> key.p_values(torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 9.0]])).tolist()  # of 2 others
        [1.0, 0.6666666666666666, 0.3333333333333333]
    """
    if not len(fitted) or not torch.isfinite(torch.cat((fitted, calibrated))).all():
        raise ValueError(f"features: found {len(fitted)} prompts, expected at least one, with finite features")
    center = fitted.double().mean(dim=0)
    others = (calibrated.double() - center).square().mean(dim=1)
    # Prompts lie closer to a centre they are part of than those that are to be told apart later.
    own = others if len(others) else (fitted.double() - center).square().mean(dim=1)
    spread = float(own.mean()) or 1.0
    return Key(center, spread, len(fitted) if count is None else count, others.sort().values)


def separation(own: Float[Tensor, " prompts"], others: Float[Tensor, " rest"]) -> float:
    """Chance that a task's own prompt scores above one of other tasks, ties counted half: the area under the curve.

    Example:
        >>> separation(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])), separation(torch.ones(2), torch.ones(1))
        (0.875, 0.5)
    """
    gaps = own.double()[:, None] - others.double()[None]
    return float((gaps > 0).double().mean() + (gaps == 0).double().mean() / 2)


def scope(separated: float) -> float:
    """How far a task is about every prompt, in [0, 1]: 1 for a rule of the house, 0 for a domain of its own.

    Example:
        >>> scope(0.5), scope(0.75), scope(1.0), scope(0.3)
        (1.0, 0.5, 0.0, 1.0)
    """
    return min(1.0, max(0.0, 2 * (1 - separated)))
