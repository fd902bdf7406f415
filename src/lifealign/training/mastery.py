"""Pairs that a preference stage leaves out because they are mastered: what they would teach is next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lifealign.model.tokens import TokenizedPair
from lifealign.training.moments import Moments
from lifealign.training.objectives import PreferenceObjective

LOOK_AGAIN = 2
"""A mastered pair is looked at again at every second visit, that is every other epoch."""


def slopes(
    logps: Float[Tensor, " sequences"],
    pairs: Sequence[TokenizedPair],
    objective: PreferenceObjective,
    method: Moments,
) -> Float[Tensor, " pairs"]:
    r"""How much the weighted loss of each pair changes with its log-probabilities, per nat.

    A pair's gradient is this number times the gradient of its log-probabilities, so it says how much the pair can
    teach. For a weight w and a loss L of the margin r it is :math:`\beta\, |d(wL)/dr|`; for FPO with g = 2 that is
    0.298 β at margin 0 and 1 % of it at 2.19 nats, for DPO 0.5 β and 1 % of it at 5.29 nats.

    Args:
        logps: Log-probabilities of all chosen, then all rejected answers, nats.
        pairs: The pairs.
        objective: The preference objective.
        method: The method, whose weights multiply the losses.

    Returns:
        Slopes, at least 0, without gradient.

    Example:
        >>> pair = TokenizedPair("a", "", (1,), (2,), (3,))
        >>> objective = PreferenceObjective(beta=0.1, reference={"a": (0.0, 0.0)})
        >>> from lifealign.methods.seqft import SeqFT  # DPO: every weight is 1
        >>> slopes(torch.zeros(2), [pair], objective, SeqFT())
        tensor([0.0500])
    """
    with torch.enable_grad():
        at = logps.detach().clone().requires_grad_()
        outcome = objective.outcome(at, pairs)
        weights = method.example_weights(outcome)
        weighted = outcome.losses if weights is None else weights * outcome.losses
        (gradient,) = torch.autograd.grad(weighted.sum(), at)
    of_chosen, of_rejected = gradient.abs().chunk(2)
    return torch.maximum(of_chosen, of_rejected)


@dataclass
class _Look:
    """What was last seen of a pair.

    Attributes:
        margin: Its margin, nats.
        mastered: Whether its slope was under the threshold.
        visits: Visits since then, in which it was left out.
    """

    margin: float
    mastered: bool
    visits: int = 0


class Mastery:
    """Remembers, within one preference stage, which pairs are mastered.

    A pair is mastered if its slope (:func:`slopes`) is under a share of what it would be at margin 0, where policy and
    reference agree. At its first visit in a stage every pair is looked at, by a forward pass without gradient. A
    mastered pair is left out: no backward pass, and at its next visit no forward pass either; at every
    :data:`LOOK_AGAIN`-th visit it is looked at again. A pair that is not mastered takes its usual step, which is a look
    as well.

    What is left out of a step changes its gradient, at the parameters of the last look, by at most share times the mean
    over the whole batch of what each pair left out would contribute at margin 0. A look is at most one epoch old, since
    nothing outlives the stage: after a consolidation every pair is looked at anew.

    Args:
        objective: The preference objective.
        method: The method, whose weights multiply the losses.
        share: Share of the slope at margin 0 under which a pair is mastered, in (0, 1).
    """

    def __init__(self, objective: PreferenceObjective, method: Moments, share: float) -> None:
        self.objective, self.method, self.share = objective, method, share
        self._looks: dict[str, _Look] = {}

    def unseen(self, pairs: Sequence[TokenizedPair]) -> list[TokenizedPair]:
        """Begins a visit to a batch's pairs; returns those of which it is not known whether they are mastered now."""
        for pair in pairs:
            if (look := self._looks.get(pair.key)) is not None and look.mastered:
                look.visits += 1
        return [pair for pair in pairs if (look := self._looks.get(pair.key)) is None or look.visits >= LOOK_AGAIN]

    def saw(self, pairs: Sequence[TokenizedPair], logps: Float[Tensor, " sequences"]) -> None:
        """Notes the log-probabilities of pairs under the policy as it is now: all chosen answers, then all rejected."""
        now = slopes(logps, pairs, self.objective, self.method)
        agreed = torch.tensor(
            [self.objective.reference[pair.key] for pair in pairs], dtype=logps.dtype, device=logps.device
        )
        at_zero = slopes(agreed.T.flatten(), pairs, self.objective, self.method)
        margins = self.objective.outcome(logps.detach(), pairs).margins
        assert margins is not None
        for pair, margin, mastered in zip(pairs, margins.tolist(), (now < self.share * at_zero).tolist(), strict=True):
            self._looks[pair.key] = _Look(margin, mastered)

    def unmastered(self, pairs: Sequence[TokenizedPair]) -> list[TokenizedPair]:
        """Those of a batch's pairs that can still teach something."""
        return [pair for pair in pairs if not self._looks[pair.key].mastered]

    def looks(self) -> dict[str, tuple[float, ...]]:
        """What was last seen of every pair, by its key: margin, 1 if it was mastered, and visits since."""
        return {key: (look.margin, float(look.mastered), float(look.visits)) for key, look in self._looks.items()}

    def restore(self, looks: Mapping[str, Sequence[float]]) -> None:
        """Takes over what :meth:`looks` returned."""
        self._looks = {
            key: _Look(margin, bool(mastered), int(visits)) for key, (margin, mastered, visits) in looks.items()
        }

    def margins(self, pairs: Sequence[TokenizedPair]) -> list[float]:
        """Margins of pairs when they were last seen, nats."""
        return [self._looks[pair.key].margin for pair in pairs]
