"""From tokenised pairs to tensors: micro-batches that say which position predicts which token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lifealign.model.tokens import TokenizedPair


@dataclass(frozen=True)
class Batch:
    """A micro-batch: rows of tokens, and for every completion token which position predicts it.

    Attributes:
        input_ids: ``(rows, length)``, padded on the right.
        position_ids: ``(rows, length)``; with shared prompts both completions continue from the prompt's end.
        attention_mask: ``(rows, length)`` of 0/1, or ``(rows, 1, length, length)`` of booleans for shared prompts.
        predicted_from: ``(tokens,)``, index into the flattened rows of the position whose output predicts the token.
        targets: ``(tokens,)``, the completion tokens.
        sequence: ``(tokens,)``, which completion a token belongs to, from 0.
        sequences: Number of completions: all chosen answers first, then all rejected.
        prompts: Token ids of the prompt that each row begins with.
    """

    input_ids: Int[Tensor, "rows length"]
    position_ids: Int[Tensor, "rows length"]
    attention_mask: Tensor
    predicted_from: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    sequence: Int[Tensor, " tokens"]
    sequences: int
    prompts: Sequence[tuple[int, ...]]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()
        }
        return Batch(**moved)


def collate(
    pairs: Sequence[TokenizedPair], completions: Sequence[str], *, pad_token_id: int, share_prefix: bool
) -> Batch:
    """Lays pairs out as one micro-batch.

    With ``share_prefix`` a pair is one row, prompt | chosen | rejected: the mask keeps the rejected answer from seeing
    the chosen one, its positions restart at the prompt's end, and the first token of both is predicted from the
    prompt's last position. Without, every completion is a row of its own with a copy of the prompt. The
    log-probabilities are the same (Wang et al., Accelerating DPO with prefix sharing, arXiv:2410.20305).

    Args:
        pairs: At least one tokenised pair.
        completions: ``("chosen",)`` or ``("chosen", "rejected")``.
        pad_token_id: Token that pads the rows.
        share_prefix: Whether the completions of a pair share one copy of the prompt.
    """
    shared = share_prefix and len(completions) > 1
    rows: list[tuple[TokenizedPair, list[tuple[int, str]]]] = []  # pair, [(sequence number, completion name)]
    if shared:
        for index, pair in enumerate(pairs):
            rows.append((pair, [(number * len(pairs) + index, name) for number, name in enumerate(completions)]))
    else:
        for number, name in enumerate(completions):
            rows += [(pair, [(number * len(pairs) + index, name)]) for index, pair in enumerate(pairs)]

    length = max(len(pair.prompt) + sum(len(getattr(pair, name)) for _, name in parts) for pair, parts in rows)
    input_ids = torch.full((len(rows), length), pad_token_id)
    position_ids = torch.zeros(len(rows), length, dtype=torch.long)
    branch = torch.full((len(rows), length), -1)  # 0 prompt, 1, 2 completions, -1 padding
    predicted_from: list[int] = []
    targets: list[int] = []
    sequence: list[int] = []
    for row, (pair, parts) in enumerate(rows):
        start = end = len(pair.prompt)
        input_ids[row, :end] = torch.tensor(pair.prompt)
        position_ids[row, :end] = torch.arange(end)
        branch[row, :end] = 0
        for part, (number, name) in enumerate(parts, start=1):
            tokens: tuple[int, ...] = getattr(pair, name)
            begin, end = end, end + len(tokens)
            input_ids[row, begin:end] = torch.tensor(tokens)
            position_ids[row, begin:end] = torch.arange(start, start + len(tokens))
            branch[row, begin:end] = part
            predicted_from += [row * length + start - 1, *range(row * length + begin, row * length + end - 1)]
            targets += tokens
            sequence += [number] * len(tokens)
    return Batch(
        input_ids,
        position_ids,
        _branch_mask(branch) if shared else (branch >= 0).long(),
        torch.tensor(predicted_from),
        torch.tensor(targets),
        torch.tensor(sequence),
        len(pairs) * len(completions),
        [pair.prompt for pair, _ in rows],
    )


def _branch_mask(branch: Int[Tensor, "rows length"]) -> Tensor:
    """Causal mask in which a completion sees the prompt and itself; padding sees itself, so its softmax is not NaN."""
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = branch[:, :, None], branch[:, None, :]
    visible = ((key == 0) | (key == query)) & (query >= 0) & (key >= 0) & causal
    return (visible | torch.eye(length, dtype=torch.bool))[:, None]
