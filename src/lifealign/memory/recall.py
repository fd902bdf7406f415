r"""Recall: which task a prompt belongs to, by the angle between its features and the mean of each task's own prompts.

A **key** is what is kept of a task's prompts: the direction of their mean, and how far off it prompts lie that the mean
was not made of. Features are whitened by a fixed general text, whose mean angles are measured from, never by other
tasks, so a key is a function of its own task alone: adding one or deleting one changes no other.

Angles, not distances: how far a prompt is from any mean is mostly how unlike general text it is, and a density that
allows each task its own spread gives prompts of every kind to whichever task is spread most (``docs/log.md``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

WIDEST = 1024
"""Widest features that are whitened as they are; wider ones are first projected at random."""
PROJECTED = 512
ROUND = 64
"""Tasks that are told from all others in one round: 16 MB of distances for 32,000 prompts."""


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
        direction: Unit vector towards the mean of their whitened features, ``(whitened,)``, float64; 0 if that is 0.
        count: How many prompts the mean is made of.
        distances: Distances, as below, of prompts that it was not made of; ascending.
    """

    direction: Float[Tensor, " whitened"]
    count: int
    distances: Float[Tensor, " calibrated"]

    def scores(self, whitened: Float[Tensor, "rows whitened"]) -> Float[Tensor, " rows"]:
        """Cosine of the angle between each prompt and the task's mean, in [-1, 1]; 0 for a prompt without features."""
        return (_unit(whitened) * self.direction).sum(dim=1)  # no product of matrices: equal prompts are ties

    def p_values(self, whitened: Float[Tensor, "rows whitened"]) -> Float[Tensor, " rows"]:
        """How typical each prompt is: the share of the task's own prompts that lie at least as far off its mean.

        For a prompt of the task, drawn as those were, the chance of a value of at most α is at most α.

        Reference:
            Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (conformal p-values).
        """
        closer = torch.searchsorted(self.distances, 1 - self.scores(whitened), side="left")
        return (1 + len(self.distances) - closer).double() / (len(self.distances) + 1)


@dataclass(frozen=True)
class KeyTable:
    """The keys of several tasks, side by side: a prompt is compared with all of them at once.

    Attributes:
        directions: Their directions, ``(tasks, whitened)``, float64.
        distances: Their calibrating distances, ``(tasks, most)``, infinite where a task has fewer.
        calibrated: How many each task has, ``(tasks,)``.
    """

    directions: Float[Tensor, "tasks whitened"]
    distances: Float[Tensor, "tasks most"]
    calibrated: Int[Tensor, " tasks"]

    @classmethod
    def of(cls, keys: Sequence[Key]) -> KeyTable:
        """The table of some keys, at least one."""
        most = max(len(key.distances) for key in keys)
        distances = torch.full((len(keys), most), torch.inf, dtype=torch.float64)
        for row, key in zip(distances, keys, strict=True):
            row[: len(key.distances)] = key.distances
        directions = torch.stack([key.direction for key in keys])
        return cls(directions, distances, torch.tensor([len(key.distances) for key in keys]))

    def look_up(self, prompt: Float[Tensor, " whitened"]) -> tuple[Float[Tensor, " tasks"], Float[Tensor, " tasks"]]:
        """Score and p-value of one prompt under every key; see :meth:`Key.scores` and :meth:`Key.p_values`.

        Example:
            >>> along, across = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
            >>> keys = [learn_key(along, torch.cat((along, across))), learn_key(across, across[:0])]
            >>> scores, p_values = KeyTable.of(keys).look_up(torch.tensor([0.6, 0.8], dtype=torch.float64))
            >>> scores.tolist(), p_values.tolist()  # of 2 others and itself; nothing to compare with
            ([0.6, 0.8], [0.6666666666666666, 1.0])
        """
        scores = (_unit(prompt[None]) * self.directions).sum(dim=1)
        closer = (self.distances < 1 - scores[:, None]).sum(dim=1)
        return scores, (1 + self.calibrated - closer).double() / (self.calibrated + 1)


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
        fitted: Whitened features of some of its prompts, at least one: the direction is that of their mean.
        calibrated: The same of others; without any, no prompt is typical or untypical.
        count: How many prompts ``fitted`` stands for, if it is their mean already.

    Raises:
        ValueError: If there is no prompt to fit, or a feature is not finite.

    Example:
        >>> key = learn_key(torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[0.0, 5.0], [3.0, 4.0]]))
        >>> key.direction.tolist(), key.distances.tolist()
        ([1.0, 0.0], [0.4, 1.0])
        >>> key.p_values(torch.tensor([[7.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()  # of 2 others
        [1.0, 1.0, 0.6666666666666666, 0.3333333333333333]
    """
    if not len(fitted) or not torch.isfinite(torch.cat((fitted, calibrated))).all():
        raise ValueError(f"features: found {len(fitted)} prompts, expected at least one, with finite features")
    key = Key(_unit(fitted.double().mean(dim=0, keepdim=True))[0], len(fitted) if count is None else count, fitted[:0])
    return replace(key, distances=(1 - key.scores(calibrated)).sort().values)


def _unit(rows: Float[Tensor, "rows whitened"]) -> Float[Tensor, "rows whitened"]:
    """Rows of length 1, float64; a row of zeros stays one."""
    found = rows.double()
    lengths = found.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, found / lengths.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def separation(own: Float[Tensor, " prompts"], others: Float[Tensor, " rest"]) -> float:
    """Chance that a task's own prompt scores above one of other tasks, ties counted half: the area under the curve.

    Example:
        >>> separation(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])), separation(torch.ones(2), torch.ones(1))
        (0.875, 0.5)
    """
    ranked, rest = own.double().sort().values, others.double()
    below = torch.searchsorted(ranked, rest, side="left")
    not_above = torch.searchsorted(ranked, rest, side="right")
    wins = len(ranked) * len(rest) - int(not_above.sum())
    ties = int((not_above - below).sum())
    return (wins + ties / 2) / (len(ranked) * len(rest))


def separations(keys: Sequence[Key], examples: Sequence[Float[Tensor, "prompts whitened"]]) -> list[float | None]:
    """How well each task's prompts can be told from those of all the others, by the task's own key.

    Args:
        keys: The keys of the tasks.
        examples: By task, whitened prompts of it that its centre is not made of.

    Returns:
        By task the area under the curve; None if there are no prompts of its own or no others.
    """
    rows = _unit(torch.cat(list(examples)))
    owner = torch.cat([torch.full((len(own),), place) for place, own in enumerate(examples)])
    found: list[float | None] = []
    for start in range(0, len(keys), ROUND):
        directions = torch.stack([key.direction for key in keys[start : start + ROUND]])
        # A matrix product may round equal prompts apart, by 1e-15: what differs by less than 1e-9 is a tie.
        scores = (directions @ rows.T * 1e9).round()
        for place, score in enumerate(scores, start=start):
            own, others = score[owner == place], score[owner != place]
            found.append(separation(own, others) if len(own) and len(others) else None)
    return found
