"""How much of an earlier task a new version can have lost: an exact bound from a few prompts, for a whole life.

Each prompt of a gate set holds or does not, once under the version that learnt the task and once under the new one. The
**loss** is the probability that a prompt no longer holds, minus the probability that it holds only now. A version is
accepted if the upper bound of the loss is within the limit for *every* earlier task. If any one of them has in truth
lost more, then its own bound had to fail for the version to be accepted; so no correction for the number of tasks is
needed (an intersection-union test), and the promise is about the worst of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

OF_LOSSES = 0.9
"""Share of the error probability that the bound on lost prompts takes; that on gained prompts takes the rest. Chosen
before anything was measured: losses are what the gate is for, and without gains the second bound is 0 anyway."""
STEPS_OF_BISECTION = 60


@dataclass(frozen=True)
class Flips:
    """What became of the prompts of a gate set between two versions.

    Attributes:
        prompts: How many prompts there are, at least 1.
        lost: Places of those that held and no longer do.
        gained: Places of those that did not hold and do now.
    """

    prompts: int
    lost: tuple[int, ...]
    gained: tuple[int, ...]

    @property
    def change(self) -> float:
        """Observed loss, in [-1, 1]: the share of lost prompts minus that of gained ones."""
        return (len(self.lost) - len(self.gained)) / self.prompts

    def bound(self, alpha: float) -> float:
        """The loss is below this, but for a probability of ``alpha``; see :func:`loss_bound`."""
        return loss_bound(len(self.lost), len(self.gained), self.prompts, alpha)


def flips(before: Sequence[bool], now: Sequence[bool]) -> Flips:
    """Compares which prompts hold, prompt by prompt.

    Args:
        before: Whether each prompt held under the version that learnt the task.
        now: The same under the new version.

    Raises:
        ValueError: If the two are not about the same prompts.

    Example:
        >>> flips([True, True, False], [True, False, True])
        Flips(prompts=3, lost=(1,), gained=(2,))
    """
    if len(before) != len(now) or not before:
        raise ValueError(f"found {len(before)} and {len(now)} prompts, expected the same number, at least 1")
    pairs = list(enumerate(zip(before, now, strict=True)))
    return Flips(
        len(before),
        tuple(place for place, (was, holds) in pairs if was and not holds),
        tuple(place for place, (was, holds) in pairs if holds and not was),
    )


def loss_bound(lost: int, gained: int, prompts: int, alpha: float) -> float:
    """Upper confidence bound of the loss, by Clopper and Pearson's exact limits on both kinds of flips.

    Args:
        lost: How many prompts held before and no longer do.
        gained: How many did not hold before and do now.
        prompts: Number of prompts, drawn independently of training.
        alpha: Probability that the true loss is above the bound, at most; in (0, 1).

    Returns:
        The bound, in [-1, 1].

    Example:
        >>> [round(loss_bound(0, 0, prompts, 0.05 / OF_LOSSES), 3) for prompts in (48, 149)]
        [0.061, 0.02]
    """
    most_lost = most_likely_at_most(lost, prompts, OF_LOSSES * alpha)
    least_gained = 1 - most_likely_at_most(prompts - gained, prompts, (1 - OF_LOSSES) * alpha)
    return most_lost - least_gained


def most_likely_at_most(count: int, prompts: int, alpha: float) -> float:
    """The largest probability under which at most ``count`` of ``prompts`` happen with a chance of ``alpha`` or more.

    This is the upper limit of Clopper and Pearson (1934). The bisection ends on its safe side.

    Example:
        >>> round(most_likely_at_most(0, 10, 0.05), 4) == round(1 - 0.05**0.1, 4)  # (1 - p)^10 = 0.05
        True
        >>> most_likely_at_most(10, 10, 0.05)
        1.0
    """
    if count >= prompts:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(STEPS_OF_BISECTION):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(count, prompts, middle) >= alpha else (low, middle)
    return high


def _at_most(count: int, prompts: int, probability: float) -> float:
    """Chance that at most ``count`` of ``prompts`` independent events happen, each with a probability in (0, 1)."""
    yes, no = math.log(probability), math.log1p(-probability)
    return math.fsum(
        math.exp(math.log(math.comb(prompts, happen)) + happen * yes + (prompts - happen) * no)
        for happen in range(count + 1)
    )


def alpha_of(alpha: float, decision: int, attempt: int = 1, attempts: int = 1) -> float:
    """The error probability that one attempt of one decision may spend, so that a life of any length spends ``alpha``.

    Decision t gets 6 / (π² t²) of it, which sums to 1. Its attempts come in a fixed order and end with the first that
    is accepted: each spends half of what is left, and the last one all of it.

    Args:
        alpha: Error probability of the whole life, in (0, 1).
        decision: Number of the decision, from 1.
        attempt: Number of the attempt, from 1.
        attempts: How many attempts the decision may make.

    Example:
        >>> [round(alpha_of(0.05, 1, attempt, 3) / alpha_of(0.05, 1), 3) for attempt in (1, 2, 3)]
        [0.5, 0.25, 0.25]
    """
    return alpha * 6 / (math.pi * decision) ** 2 * 0.5 ** min(attempt, attempts - 1)


def promise(prompts: int, alpha: float) -> float:
    """The least loss that a number of prompts can promise: the bound if none of them flips."""
    return loss_bound(0, 0, prompts, alpha) if prompts else 1.0


def prompts_needed(max_loss: float, alpha: float) -> int:
    """The least number of prompts that can promise a loss of at most ``max_loss``, if none of them flips.

    Example:
        >>> prompts_needed(0.1, 0.05), promise(29, 0.05) > 0.1 >= promise(30, 0.05)
        (30, True)
    """
    return math.ceil(math.log(OF_LOSSES * alpha) / math.log1p(-max_loss))


def loss_text(found: Flips, bound: float, max_loss: float) -> str:
    """What was lost of a gate set, in words.

    Example:
        >>> loss_text(Flips(48, (3, 7), (9,)), 0.1416, 0.1)
        '2 of 48 prompts lost, 1 gained; at most 14.2 % lost, allowed 10 %'
    """
    lost, gained = len(found.lost), len(found.gained)
    counted = f"{lost} of {found.prompts} prompts lost, {gained} gained"
    return f"{counted}; at most {100 * max(0.0, bound):.1f} % lost, allowed {100 * max_loss:.3g} %"
