"""How far a task is about every prompt: a rule of the house, or a domain of its own."""

from __future__ import annotations

import math

HOUSE_RULE = 0.5
"""Scope from which a task counts as a rule of the house, which holds whatever the prompt is about."""
BY_CHANCE = 0.05
"""Chance, at most, that a task whose prompts are like all others is not called a rule of the house."""


def scope(separated: float) -> float:
    """How far a task is about every prompt, in [0, 1]: 1 for a rule of the house, 0 for a domain of its own.

    Args:
        separated: How well its prompts are told from others, as the area under the curve.

    Example:
        >>> scope(0.5), scope(0.75), scope(1.0), scope(0.3)
        (1.0, 0.5, 0.0, 1.0)
    """
    return min(1.0, max(0.0, 2 * (1 - separated)))


def scope_by(separated: float, prompts: int) -> float:
    """The scope that so many prompts tell: 1 if prompts that are all alike might have been told apart as well.

    A domain is answered by a version of its own, a rule of the house by the latest; so where there is too little to go
    by, a task is a rule of the house.

    Args:
        separated: As :func:`scope` takes it.
        prompts: Number of prompts, the task's own or all others, whichever is smaller.

    Example:
        >>> scope_by(0.9, 6), scope_by(1.0, 6), round(scope_by(0.9, 32), 6)
        (1.0, 0.0, 0.2)
    """
    return scope(separated) if chance_of_separation(separated, prompts) <= BY_CHANCE else 1.0


def chance_of_separation(separated: float, prompts: int) -> float:
    r"""Upper bound of the chance that prompts which are all alike are told apart at least as well as this.

    The area under the curve is a mean over pairs of an own and another prompt, where one half is expected of each. The
    chance that such a mean is at least :math:`a \ge 1/2` is at most :math:`e^{-k\,\mathrm{KL}(a \| 1/2)}`. Where all
    are told apart, this is :math:`2^{-k}`.

    Args:
        separated: The area a, in [0, 1].
        prompts: k: number of own or of other prompts, whichever is smaller.

    Reference:
        Hoeffding, Probability inequalities for sums of bounded random variables, 1963, Theorem 1 and Section 5.

    Example:
        >>> [round(chance_of_separation(1.0, prompts), 4) for prompts in (0, 1, 4, 5)]
        [1.0, 0.5, 0.0625, 0.0312]
        >>> chance_of_separation(0.5, 100), chance_of_separation(0.2, 100)
        (1.0, 1.0)
    """
    if separated <= 0.5:
        return 1.0
    entropy = -sum(share * math.log(share) for share in (separated, 1 - separated) if share > 0)
    return math.exp(-prompts * (math.log(2) - entropy))
