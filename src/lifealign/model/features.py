"""Features of answers: what the frozen base makes of them half-way up, whatever has been learnt since."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair


@torch.no_grad()
def answer_features(
    runtime: Runtime,
    pairs: Sequence[TokenizedPair],
    completions: Sequence[str] = ("chosen", "rejected"),
    *,
    batch_size: int = 16,
) -> list[Float[Tensor, "pairs width"]]:
    """The mean hidden state of each answer in the frozen base's middle layer, given its prompt.

    How well a rule is told from them: ``python -m experiments.pattern_accuracy``.

    Args:
        runtime: Model and device; the adapter is off for this pass.
        pairs: The pairs.
        completions: Whose features: ``chosen``, ``rejected`` or both.
        batch_size: Pairs in one forward pass, unless tokens are counted.

    Returns:
        For each completion, one row per pair, float32 on the CPU.

    Raises:
        ModelError: If the model does not return the hidden states of its layers.
    """
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index]))
    found: list[Tensor] = []
    runtime.model.eval()
    with runtime.base_policy():
        for part in runtime.micro_batches([pairs[index] for index in by_length], completions, batch_size):
            batch = runtime.batch(part, completions)
            hidden = runtime.policy.predicting(batch, middle=True).float()
            sums = hidden.new_zeros(batch.sequences, hidden.shape[1]).index_add(0, batch.sequence, hidden)
            lengths = torch.bincount(batch.sequence, minlength=batch.sequences)
            found.append((sums / lengths[:, None]).view(len(completions), len(part), -1).cpu())
    features = torch.cat(found, dim=1)
    in_order = torch.empty_like(features)
    in_order[:, by_length] = features
    return list(in_order)
