"""How far a task is about every prompt: a rule of the house, or a domain of its own."""

from __future__ import annotations

HOUSE_RULE = 0.5
"""Scope from which a task counts as a rule of the house, which holds whatever the prompt is about."""


def scope(separated: float) -> float:
    """How far a task is about every prompt, in [0, 1]: 1 for a rule of the house, 0 for a domain of its own.

    Args:
        separated: How well its prompts are told from others, as the area under the curve.

    Example:
        >>> scope(0.5), scope(0.75), scope(1.0), scope(0.3)
        (1.0, 0.5, 0.0, 1.0)
    """
    return min(1.0, max(0.0, 2 * (1 - separated)))
