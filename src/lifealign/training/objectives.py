"""The losses of both stages as functions of tensors, and the two objectives that a training stage runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from lifealign.model.tokens import TokenizedPair

StageName = Literal["sft", "preference", "rehearsal"]


def preference_margin(
    policy_chosen_logps: Float[Tensor, "*batch"],
    policy_rejected_logps: Float[Tensor, "*batch"],
    reference_chosen_logps: Float[Tensor, "*batch"],
    reference_rejected_logps: Float[Tensor, "*batch"],
    beta: float,
) -> Float[Tensor, "*batch"]:
    r"""How much more than the reference the policy prefers the chosen answer, in nats, :math:`\beta` included.

    .. math::  r = \beta \left[ \log\frac{\pi(y^+|x)}{\pi_{ref}(y^+|x)}
               - \log\frac{\pi(y^-|x)}{\pi_{ref}(y^-|x)} \right]

    Args:
        policy_chosen_logps: Log-probabilities of the chosen answers under the policy: sums over their tokens, nats.
        policy_rejected_logps: The same for the rejected answers.
        reference_chosen_logps: The same for the chosen answers under the frozen reference; carries no gradient.
        reference_rejected_logps: The same for the rejected answers under the reference.
        beta: DPO temperature, dimensionless, above 0.

    Returns:
        Margins, one per pair, in the dtype of the inputs.

    Example:
        >>> zero = torch.zeros(2)
        >>> preference_margin(torch.tensor([0.0, 10.0]), zero, zero, zero, beta=0.1)
        tensor([0., 1.])

    Reference:
        Rafailov et al., Direct Preference Optimization, NeurIPS 2023 (arXiv:2305.18290), Eq. 7; the ``rewards/margins``
        of TRL.
    """
    return beta * ((policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps))


def dpo_loss(margins: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    r"""Negative log-likelihood of the preference, :math:`-\log\sigma(r)`, per pair, in nats.

    Args:
        margins: Preference margins r, nats, :math:`\beta` included (see :func:`preference_margin`).

    Returns:
        Losses of the same shape; log 2 at margin 0, falling towards 0.

    Example:
        >>> dpo_loss(torch.tensor([0.0, 1.0, 2.0]))
        tensor([0.6931, 0.3133, 0.1269])

    Reference:
        Rafailov et al. 2023, Eq. 7.
    """
    return -logsigmoid(margins)


def focal_weight(margins: Float[Tensor, "*batch"], focal_exponent: float) -> Float[Tensor, "*batch"]:
    r"""Weight of a pair in focalized preference optimization, :math:`(1 - \sigma(r))^g`: near 1 while not yet mastered.

    Computed as :math:`\exp(g \log\sigma(-r))`, which keeps its precision for well-mastered pairs, where
    :math:`1 - \sigma(r)` would round to 0. **The weight carries gradient**: it is part of the loss, not a constant.

    Args:
        margins: Preference margins r, nats, :math:`\beta` included.
        focal_exponent: g, dimensionless, at least 0. 0 gives weight 1 to every pair, that is DPO.

    Returns:
        Weights in (0, 1], same shape as ``margins``.

    Raises:
        ValueError: If ``focal_exponent`` is negative, which would put the weight on what is already mastered.

    Example:
        >>> focal_weight(torch.tensor([0.0]), 2.0)
        tensor([0.2500])

    Reference:
        Li et al., LifeAlign, AAAI 2026 (arXiv:2509.17183), Focalized Preference Optimization; the focal term is that of
        Lin et al., Focal Loss, ICCV 2017.
    """
    if focal_exponent < 0:
        raise ValueError(f"focal_exponent: found {focal_exponent}, expected at least 0")
    return torch.exp(focal_exponent * logsigmoid(-margins))


def focal_preference_loss(margins: Float[Tensor, "*batch"], focal_exponent: float) -> Float[Tensor, "*batch"]:
    r"""Focalized preference optimization (FPO): DPO's loss times its focal weight, per pair.

    .. math::  L_{FPO}(r) = -(1 - \sigma(r))^g \, \log\sigma(r), \qquad
               \frac{dL}{dr} = (1-\sigma)^g \left[ g\,\sigma \log\sigma - (1-\sigma) \right]

    The gradient flows through the weight as well; at margin 0 and g = 2 it is -0.298 (with a detached weight it would
    be -0.125, for DPO -0.5). Steepest at r = -2.79, where it exceeds DPO's.

    Args:
        margins: Preference margins r, nats, :math:`\beta` included.
        focal_exponent: g, dimensionless, at least 0; the paper uses 2.

    Returns:
        Losses of the same shape. With ``focal_exponent`` 0 this is :func:`dpo_loss`, in value and gradient.

    Raises:
        ValueError: If ``focal_exponent`` is negative.

    Example:
        >>> focal_preference_loss(torch.tensor([0.0, 1.0, 2.0]), focal_exponent=2.0)
        tensor([0.1733, 0.0227, 0.0018])

    Reference:
        Li et al., LifeAlign, AAAI 2026 (arXiv:2509.17183), Focalized Preference Optimization.
    """
    return focal_weight(margins, focal_exponent) * dpo_loss(margins)


@dataclass(frozen=True)
class BatchOutcome:
    """The results of one forward pass over a micro-batch; a method uses them to weight examples or add a penalty.

    Attributes:
        stage: ``sft``, ``preference`` or ``rehearsal``.
        pairs: The pairs of the micro-batch.
        losses: Loss per pair, before any weight, shape ``(pairs,)``: nats summed over chosen tokens in SFT, DPO's loss
            in the preference stage.
        chosen_logps: Log-probabilities of the chosen answers under the policy, sums, nats, ``(pairs,)``.
        rejected_logps: The same for the rejected answers; None outside the preference stage.
        margins: Preference margins, ``(pairs,)``; None outside the preference stage.
    """

    stage: StageName
    pairs: Sequence[TokenizedPair]
    losses: Float[Tensor, " pairs"]
    chosen_logps: Float[Tensor, " pairs"]
    rejected_logps: Float[Tensor, " pairs"] | None = None
    margins: Float[Tensor, " pairs"] | None = None


class Objective(Protocol):
    """What a training stage minimises: which completions it reads, their losses, and what it divides them by."""

    @property
    def stage(self) -> StageName:
        """Name of the stage."""

    @property
    def completions(self) -> tuple[str, ...]:
        """Completions that a forward pass must score, in the order of its output."""

    def size(self, pair: TokenizedPair) -> int:
        """A pair's share of the denominator: the batch loss is the sum of losses over the sum of sizes."""

    def outcome(self, logps: Float[Tensor, " sequences"], pairs: Sequence[TokenizedPair]) -> BatchOutcome:
        """Losses of a micro-batch from its log-probabilities."""


@dataclass(frozen=True)
class SupervisedObjective:
    """Completion-only cross entropy on the chosen answers, a mean over the tokens of the whole optimizer batch.

    Attributes:
        stage: ``sft``; ``rehearsal`` where the chosen answers are the model's own.
    """

    stage: StageName = "sft"
    completions: ClassVar[tuple[str, ...]] = ("chosen",)

    def size(self, pair: TokenizedPair) -> int:
        """Number of chosen tokens."""
        return len(pair.chosen)

    def outcome(self, logps: Float[Tensor, " sequences"], pairs: Sequence[TokenizedPair]) -> BatchOutcome:
        """Negative log-likelihood of each chosen answer."""
        return BatchOutcome(self.stage, pairs, losses=-logps, chosen_logps=logps)


@dataclass(frozen=True)
class PreferenceObjective:
    """DPO's loss against cached reference log-probabilities; a method's example weights turn it into FPO or others.

    Attributes:
        beta: DPO temperature.
        reference: Log-probabilities ``(chosen, rejected)`` of each pair under the reference, by the pair's key.
    """

    beta: float
    reference: Mapping[str, tuple[float, float]]
    stage: ClassVar[StageName] = "preference"
    completions: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    def size(self, pair: TokenizedPair) -> int:
        """1: the batch loss is a mean over pairs."""
        return 1

    def outcome(self, logps: Float[Tensor, " sequences"], pairs: Sequence[TokenizedPair]) -> BatchOutcome:
        """Margins and DPO losses; ``logps`` holds the chosen answers first, then the rejected."""
        chosen, rejected = logps.chunk(2)
        reference = torch.tensor([self.reference[pair.key] for pair in pairs], dtype=logps.dtype, device=logps.device)
        margins = preference_margin(chosen, rejected, reference[:, 0], reference[:, 1], self.beta)
        return BatchOutcome(self.stage, pairs, dpo_loss(margins), chosen, rejected, margins)


Logps = Mapping[str, tuple[float, float]]
"""Log-probabilities ``(chosen, rejected)``, sums over tokens in nats, by the pair's key."""
