"""Features of answers and of prompts: what the frozen base makes of them half-way up, whatever was learnt since."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair


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
    return list(_means(runtime, pairs, completions, batch_size))


def prompt_features(
    runtime: Runtime, prompts: Sequence[tuple[int, ...]], *, batch_size: int = 16
) -> Float[Tensor, "prompts width"]:
    """The mean hidden state of each prompt in the frozen base's middle layer, without its first and its last token.

    In many models the first token, whatever it is, has a hidden state many times as long as any other; with it, a mean
    would tell the length of a prompt and little else.

    Args:
        runtime: Model and device; the adapter is off for this pass.
        prompts: Token ids of prompts, at least three tokens each.
        batch_size: Prompts in one forward pass, unless tokens are counted.

    Returns:
        One row per prompt, float32 on the CPU.

    Raises:
        ModelError: If the model does not return the hidden states of its layers.
        ValueError: If a prompt has fewer than three tokens.
    """
    if any(len(ids) < 3 for ids in prompts):
        raise ValueError("prompts: found one of fewer than three tokens, expected at least three")
    rows = [TokenizedPair("", "", ids[:2], ids[2:], ()) for ids in prompts]  # read as an answer to their first tokens
    return _means(runtime, rows, ("chosen",), batch_size)[0]


@torch.no_grad()
def _means(
    runtime: Runtime, pairs: Sequence[TokenizedPair], completions: Sequence[str], batch_size: int
) -> Float[Tensor, "completions pairs width"]:
    """Mean middle hidden states over the positions that predict each completion."""
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
    return in_order
