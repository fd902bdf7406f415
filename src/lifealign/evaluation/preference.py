"""Preference accuracy and mean margin on held-out pairs: what the losses aim at, without generating text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lifealign.errors import TrainingError
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair
from lifealign.training.objectives import preference_margin


def held_out_margins(
    runtime: Runtime,
    pairs: Sequence[TokenizedPair],
    reference: Mapping[str, tuple[float, float]],
    *,
    beta: float,
    batch_size: int,
) -> list[float]:
    """Margins of held-out pairs under the current model.

    Args:
        runtime: Model and device.
        pairs: Held-out pairs.
        reference: Log-probabilities ``(chosen, rejected)`` under the reference, by the pair's key.
        beta: DPO temperature, so that margins are comparable with those in training.
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


def preference_outcomes(margins: Sequence[float]) -> dict[str, list[float]]:
    """The value of each pair in preference accuracy and in mean margin.

    Accuracy is the share of pairs with a positive margin; a margin of exactly 0 counts half. Measured against
    itself, the base model therefore scores 0.5 and 0.

    Args:
        margins: Preference margins, nats.

    Example:
        >>> preference_outcomes([1.5, -1.0, 0.0])
        {'preference_accuracy': [1.0, 0.0, 0.5], 'margin': [1.5, -1.0, 0.0]}
    """
    right = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
    return {"preference_accuracy": right, "margin": list(margins)}
