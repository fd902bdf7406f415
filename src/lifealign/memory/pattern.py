r"""Alignment patterns: what a task prefers, as a direction in the feature space of the frozen base.

A pattern is learnt once, from a task's own pairs, and rates any answer afterwards, also answers to other tasks'
prompts, and answers that the model gives itself. Features come from the frozen base, so a pattern does not wear with
training, and is a function of its own task alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

RIDGE = 0.1
"""Weight of the squared norm of a direction. Ours, not tuned."""
FOLDS = 5
"""Parts into which pairs are cut, each rated by a direction that was fitted to the others."""
NEWTON_STEPS = 50
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Pattern:
    r"""What a task prefers: :math:`r(y) = \langle w, h(y) \rangle - c`, with features h of an answer.

    Attributes:
        direction: w, ``(width,)``, float64, nats per unit of the features. The sharper the pattern is on pairs that it
            was not fitted to, the longer it is; a pattern that tells nothing has length 0.
        middle: c, nats: the rating is 0 half-way between the mean chosen and the mean rejected answer.
        accuracy: Share of pairs whose chosen answer is rated higher by a direction that was fitted without them, in
            [0, 1]; 0.5 if there is just one pair.
    """

    direction: Float[Tensor, " width"]
    middle: float
    accuracy: float

    def ratings(self, features: Float[Tensor, "answers width"]) -> Float[Tensor, " answers"]:
        """Log-odds that an answer counts as chosen under this pattern, float64, nats."""
        return features.double() @ self.direction - self.middle


def learn_pattern(chosen: Float[Tensor, "pairs width"], rejected: Float[Tensor, "pairs width"]) -> Pattern:
    r"""Fits a pattern to the features of a task's pairs.

    The direction is the ridge estimate of the Bradley-Terry model,
    :math:`P(y^+ \succ y^-) = \sigma(\langle w, h(y^+) - h(y^-) \rangle)`, on features of unit variance. Few pairs in
    many dimensions are separated by chance, so its length is set by cross-validation: it maximises the likelihood of
    the pairs under directions that were fitted without them, with one more pair that is ranked wrongly.

    Args:
        chosen: Features of the chosen answers, at least one.
        rejected: Features of the rejected answers, in the same order.

    Raises:
        ValueError: If there are no pairs, their numbers differ, or a feature is not finite.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> noise = torch.randn(2, 40, 8)
        >>> pattern = learn_pattern(noise[0] + torch.eye(8)[0] * 3, noise[1])  # chosen answers have more of the first
        >>> int(pattern.direction.argmax()), pattern.accuracy > 0.9
        (0, True)

    Reference:
        Bradley and Terry, Rank Analysis of Incomplete Block Designs, Biometrika 1952. That a task is kept as such a
        direction, and what it is used for, is ours.
    """
    if chosen.shape != rejected.shape or chosen.dim() != 2 or not len(chosen):
        found = f"{tuple(chosen.shape)} and {tuple(rejected.shape)}"
        raise ValueError(f"features: found shapes {found}, expected two equal (pairs, width) with at least one pair")
    both = torch.cat((chosen, rejected)).double()
    if not torch.isfinite(both).all():
        raise ValueError("features: found a number that is not finite, expected finite features")
    spread = both.std(dim=0, unbiased=False)
    unit = torch.where(spread > 0, 1 / spread.clamp_min(torch.finfo(spread.dtype).tiny), 0.0) / math.sqrt(len(both[0]))
    differences = (chosen.double() - rejected.double()) * unit
    direction = bradley_terry(differences, RIDGE)
    gap = float((differences @ direction).mean())
    if gap <= 0:  # all pairs are equal in their features
        return Pattern(torch.zeros_like(direction), 0.0, 0.5)
    margins = _held_out_margins(differences)
    length = _calibrated(margins) / gap
    direction = direction * unit * length
    accuracy = float((margins > 0).double().mean() + (margins == 0).double().mean() / 2) if len(margins) else 0.5
    return Pattern(direction, float(both.mean(dim=0) @ direction), accuracy)


def bradley_terry(differences: Float[Tensor, "pairs width"], ridge: float) -> Float[Tensor, " width"]:
    r"""Minimises :math:`\sum_i \log(1 + e^{-\langle w, d_i \rangle}) + \frac{ridge}{2} \|w\|^2` by Newton's method.

    Args:
        differences: Features of the chosen minus those of the rejected answer of each pair, float64.
        ridge: Above 0, which makes the minimum unique and finite.

    Returns:
        w, at which :math:`ridge \cdot w = \sum_i \sigma(-\langle w, d_i \rangle)\, d_i`.
    """
    if len(differences) < differences.shape[1]:  # w is a combination of the pairs
        return differences.T @ _dual(differences @ differences.T, ridge)
    weights = differences.new_zeros(differences.shape[1])
    identity = torch.eye(len(weights), dtype=weights.dtype)
    for _ in range(NEWTON_STEPS):
        wrong = torch.sigmoid(-(differences @ weights))
        slope = ridge * weights - differences.T @ wrong
        curvature = ridge * identity + differences.T @ (differences * (wrong * (1 - wrong))[:, None])
        step = torch.linalg.solve(curvature, slope)
        weights = weights - step
        if float(step.norm()) <= TOLERANCE * max(1.0, float(weights.norm())):
            break
    return weights


def _dual(products: Float[Tensor, "pairs pairs"], ridge: float) -> Float[Tensor, " pairs"]:
    """How often each pair counts: the same Newton's method in the space of the pairs."""
    counts = products.new_zeros(len(products))
    identity = torch.eye(len(products), dtype=products.dtype)
    for _ in range(NEWTON_STEPS):
        wrong = torch.sigmoid(-(products @ counts))
        curvature = ridge * identity + (wrong * (1 - wrong))[:, None] * products
        step = torch.linalg.solve(curvature, ridge * counts - wrong)
        counts = counts - step
        if float(step.norm()) <= TOLERANCE * max(1.0, float(counts.norm())):
            break
    return counts


def _held_out_margins(differences: Float[Tensor, "pairs width"]) -> Float[Tensor, " pairs"]:
    """Margin of each pair under a direction fitted without it, over the mean margin of the pairs that it was fitted to.

    None if there is a single pair.
    """
    number = len(differences)
    if number < 2:
        return differences.new_zeros(0)
    fold = torch.arange(number) % min(FOLDS, number)
    margins = differences.new_zeros(number)
    for one in fold.unique():
        others = differences[fold != one]
        direction = bradley_terry(others, RIDGE)
        gap = (others @ direction).mean()
        margins[fold == one] = differences[fold == one] @ direction / gap if gap > 0 else 0.0
    return margins


def _calibrated(margins: Float[Tensor, " pairs"]) -> float:
    r"""The s at which :math:`\sum_i \log\sigma(s m_i) + \log\sigma(-s\,\overline{|m|})` is largest, at least 0."""
    if not len(margins):
        return 0.0
    seen = torch.cat((margins, -margins.abs().mean()[None]))

    def slope(scale: float) -> float:
        return float((torch.sigmoid(-scale * seen) * seen).sum())

    if slope(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while slope(high) > 0 and high < 1e6:
        low, high = high, 2 * high
    for _ in range(60):
        half = (low + high) / 2
        low, high = (half, high) if slope(half) > 0 else (low, half)
    return low


def agreement(patterns: Sequence[Pattern], features: Float[Tensor, "answers width"]) -> Float[Tensor, " answers"]:
    r"""Log-probability that an answer counts as chosen under every pattern, :math:`\sum_j \log\sigma(r_j(y))`.

    Close to 0 only if all agree: an answer that breaks one pattern cannot make up for it by keeping another.

    Returns:
        Float64, at most 0, nats; 0 without patterns.
    """
    total = torch.zeros(len(features), dtype=torch.float64)
    for pattern in patterns:
        total = total + logsigmoid(pattern.ratings(features))
    return total


def tilt(scores: Float[Tensor, " answers"], least_effective: float) -> Float[Tensor, " answers"]:
    r"""Probabilities :math:`p_i \propto \exp(s_i / \tau)`; :math:`\tau \ge 1` is the least that leaves enough answers.

    Args:
        scores: Log-probabilities of being right, such as :func:`agreement`, at least one.
        least_effective: Least effective number of answers :math:`1 / \sum_i p_i^2`, from 1 to the number of answers.

    Returns:
        Probabilities that add up to 1, float64.

    Example:
        >>> tilt(torch.tensor([0.0, -50.0]), least_effective=1)
        tensor([1.0000e+00, 1.9287e-22], dtype=torch.float64)
        >>> tilt(torch.tensor([0.0, -50.0]), least_effective=2)
        tensor([0.5000, 0.5000], dtype=torch.float64)

    Reference:
        Kish, Survey Sampling, 1965, for the effective number.
    """
    scores = scores.double()
    if least_effective >= len(scores):
        return torch.full_like(scores, 1 / len(scores))

    def at(temperature: float) -> Tensor:
        return torch.softmax(scores / temperature, dim=0)

    def enough(temperature: float) -> bool:
        return float(1 / at(temperature).square().sum()) >= least_effective

    if enough(1.0):
        return at(1.0)
    low, high = 1.0, 2.0
    while not enough(high) and high < 1e12:
        low, high = high, 2 * high
    for _ in range(60):
        half = math.sqrt(low * high)
        low, high = (low, half) if enough(half) else (half, high)
    return at(high)


def draw(probabilities: Float[Tensor, " answers"], number: int, generator: torch.Generator) -> list[int]:
    """Draws answers so that each occurs as often as its probability says, rounded up or down.

    This is systematic sampling from a random order: in a given one, answers that alternate between two kinds would all
    be rounded alike.

    Args:
        probabilities: Add up to 1.
        number: How many to draw.
        generator: Source of what decides the roundings.

    Returns:
        Indices in increasing order; an index may occur several times.

    Example:
        >>> draw(torch.tensor([0.5, 0.25, 0.25]), 4, torch.Generator().manual_seed(0))
        [0, 0, 1, 2]
    """
    order = torch.randperm(len(probabilities), generator=generator)
    places = torch.arange(number, dtype=torch.float64) + torch.rand((), generator=generator, dtype=torch.float64)
    ends = probabilities.double()[order].cumsum(dim=0)
    found = torch.searchsorted(ends / ends[-1], places / number, right=True).clamp_max(len(order) - 1)
    return sorted(order[found].tolist())
