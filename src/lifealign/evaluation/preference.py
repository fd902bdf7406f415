"""Preference accuracy and mean margin on held-out pairs: what the losses aim at, without generating a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from lifealign.errors import TrainingError
from lifealign.training.batches import TokenizedPair
from lifealign.training.objectives import preference_margin
from lifealign.training.runtime import Runtime


def held_out_margins(
    runtime: Runtime,
    pairs: Sequence[TokenizedPair],
    reference: Mapping[str, tuple[float, float]],
    *,
    beta: float,
    batch_size: int,
) -> list[float]:
    """Margins of held-out pairs under the model as it is now.

    Args:
        runtime: Model and device.
        pairs: Held-out pairs.
        reference: Log-probabilities ``(chosen, rejected)`` under the reference, by the pair's key.
        beta: DPO temperature, so that margins compare with those of training.
        batch_size: Pairs in one forward pass.

    Returns:
        Margins in nats, in the order of ``pairs``.

    Raises:
        TrainingError: If a margin is not finite.
    """
    policy = torch.tensor(runtime.score(pairs, batch_size), dtype=torch.float64).reshape(-1, 2)
    frozen = torch.tensor([reference[pair.key] for pair in pairs], dtype=torch.float64).reshape(-1, 2)
    margins = preference_margin(policy[:, 0], policy[:, 1], frozen[:, 0], frozen[:, 1], beta)
    if not torch.isfinite(margins).all():
        raise TrainingError("a margin on held-out pairs is not finite", task="", stage="evaluation")
    return [float(margin) for margin in margins]


def preference_scores(margins: Sequence[float]) -> dict[str, float]:
    """Preference accuracy and mean margin.

    Accuracy is the share of pairs with a positive margin; a margin of exactly 0 counts half. The base model measured
    against itself therefore scores 0.5 and 0: it has no preference beyond its own.

    Args:
        margins: At least one margin.

    Raises:
        ValueError: If there is no margin.

    Example:
        >>> preference_scores([1.0, -1.0, 0.0, 3.0])
        {'preference_accuracy': 0.625, 'margin': 0.75}
    """
    if not margins:
        raise ValueError("margins: found none, expected at least one")
    right = sum(margin > 0 for margin in margins) + 0.5 * sum(margin == 0 for margin in margins)
    return {"preference_accuracy": right / len(margins), "margin": fmean(margins)}
