"""From tokenised pairs to tensors: micro-batches that say which position predicts which token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from lifealign.model.packing import Span
from lifealign.model.tokens import TokenizedPair

Layout = Literal["plain", "shared", "packed"]
"""``plain``: a row for every completion. ``shared``: a row for every pair, whose completions share one copy of the
prompt. ``packed``: one row for all pairs, each laid out as in a shared row, without padding."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch: rows of tokens, and for every completion token which position predicts it.

    Attributes:
        input_ids: ``(rows, length)``, padded on the right.
        position_ids: ``(rows, length)``; with shared prompts both completions continue from the prompt's end.
        attention_mask: ``(rows, length)`` of 0/1, or ``(rows, 1, length, length)`` of booleans for shared prompts;
            packed pairs need none, and what it holds is not used.
        predicted_from: ``(tokens,)``, index into the flattened rows of the position whose output predicts the token.
        targets: ``(tokens,)``, the completion tokens.
        sequence: ``(tokens,)``, which completion a token belongs to, from 0.
        sequences: Number of completions: all chosen answers first, then all rejected.
        prompts: Token ids of the prompt that each row begins with; of every pair, if they are packed.
        spans: Where each pair stands in a packed row; empty in the other layouts.
    """

    input_ids: Int[Tensor, "rows length"]
    position_ids: Int[Tensor, "rows length"]
    attention_mask: Tensor
    predicted_from: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    sequence: Int[Tensor, " tokens"]
    sequences: int
    prompts: Sequence[tuple[int, ...]]
    spans: tuple[Span, ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()
        }
        return Batch(**moved)


def collate(pairs: Sequence[TokenizedPair], completions: Sequence[str], *, pad_token_id: int, layout: Layout) -> Batch:
    """Lays pairs out as one micro-batch.

    In a shared row a pair is prompt | chosen | rejected: the mask keeps the rejected answer from seeing the chosen one,
    its positions restart at the prompt's end, and the first token of both is predicted from the prompt's last position.
    Packed, all pairs stand like this in one row, and attention runs on each alone. In a plain row every completion has
    a copy of the prompt. The log-probabilities are the same (Wang et al., Accelerating DPO with prefix sharing,
    arXiv:2410.20305).

    Args:
        pairs: At least one tokenised pair.
        completions: ``("chosen",)`` or ``("chosen", "rejected")``; one completion has nothing to share its prompt with,
            so shared rows of it are plain rows.
        pad_token_id: Token that pads the rows.
        layout: How the pairs are laid out.
    """
    if layout == "packed":
        return _packed(pairs, completions)
    shared = layout == "shared" and len(completions) > 1
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


def positions(pairs: Sequence[TokenizedPair], completions: Sequence[str], layout: Layout) -> int:
    """Number of positions, padding included, of the batch that :func:`collate` makes of pairs.

    Example:
        >>> pairs = [TokenizedPair("a", "", (1, 2), (3,), (4,)), TokenizedPair("b", "", (1, 2), (3, 4, 5), (6,))]
        >>> [positions(pairs, ("chosen", "rejected"), layout) for layout in ("plain", "shared", "packed")]
        [20, 12, 10]
    """
    lengths = [[len(getattr(pair, name)) for name in completions] for pair in pairs]
    together = [len(pair.prompt) + sum(each) for pair, each in zip(pairs, lengths, strict=True)]
    if layout == "packed":
        return sum(together)
    if layout == "shared":
        return len(pairs) * max(together)
    longest = max(len(pair.prompt) + max(each) for pair, each in zip(pairs, lengths, strict=True))
    return len(pairs) * len(completions) * longest


def _packed(pairs: Sequence[TokenizedPair], completions: Sequence[str]) -> Batch:
    """One row that holds every pair, prompt and completions, without padding."""
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    of_each: list[list[tuple[list[int], tuple[int, ...]]]] = [[] for _ in completions]  # predicting places, targets
    for pair in pairs:
        start, prompt = len(ids), len(pair.prompt)
        ids += pair.prompt
        positions += range(prompt)
        answers: list[tuple[int, ...]] = [getattr(pair, name) for name in completions]
        for places, tokens in zip(of_each, answers, strict=True):
            places.append(([start + prompt - 1, *range(len(ids), len(ids) + len(tokens) - 1)], tokens))
            ids += tokens
            positions += range(prompt, prompt + len(tokens))
        spans.append(Span(start, prompt, tuple(map(len, answers))))
    sequences = [one for places in of_each for one in places]
    return Batch(
        torch.tensor([ids]),
        torch.tensor([positions]),
        torch.ones(1, len(ids), dtype=torch.long),
        torch.tensor([place for places, _ in sequences for place in places]),
        torch.tensor([token for _, tokens in sequences for token in tokens]),
        torch.tensor([number for number, (_, tokens) in enumerate(sequences) for _ in tokens]),
        len(sequences),
        [pair.prompt for pair in pairs],
        tuple(spans),
    )


def _branch_mask(branch: Int[Tensor, "rows length"]) -> Tensor:
    """Causal mask in which a completion sees the prompt and itself; padding sees itself, so its softmax is not NaN."""
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = branch[:, :, None], branch[:, None, :]
    visible = ((key == 0) | (key == query)) & (query >= 0) & (key >= 0) & causal
    return (visible | torch.eye(length, dtype=torch.bool))[:, None]
