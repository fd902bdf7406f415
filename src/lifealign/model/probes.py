"""The rows of random tokens on which a base proves itself, and what the model makes of them in each layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lifealign.model.batch import Batch, Layout, collate
from lifealign.model.logps import CompletionLogps
from lifealign.model.rounding import tolerance_in
from lifealign.model.sharing import Sharing, longest_reach
from lifealign.model.tokens import TokenizedPair

BOTH = ("chosen", "rejected")


@dataclass(frozen=True)
class Probes:
    """Rows of random tokens, and the token that pads them."""

    pairs: Sequence[TokenizedPair]
    pad_token_id: int


@dataclass(frozen=True)
class Reading:
    """The results of one forward and backward pass, float32.

    Attributes:
        hidden: ``(tokens, width)``, last hidden states where completion tokens are predicted, in the batch's order.
        logps: ``(completions,)``, sums in nats: all chosen answers, then all rejected ones.
        gradient: Of chosen minus rejected, in the shape of the adapter's first ``lora_B``.
    """

    hidden: Tensor
    logps: Tensor
    gradient: Tensor


def probes_for(causal: Any, vocabulary: Sequence[int], max_length: int) -> list[TokenizedPair]:
    """Two pairs of random tokens, of different lengths; both answers of the first lie beyond every window."""
    config = causal.config.get_text_config(decoder=True)
    reach = longest_reach(config, max_length)
    positions = getattr(config, "max_position_embeddings", None)
    most = positions if reach and isinstance(positions, int) else max_length  # only rows beyond a window reveal it
    longest = min(reach + 9, max(most - 17, 1))
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        drawn = torch.randint(len(vocabulary), (count,), generator=generator)
        return tuple(vocabulary[index] for index in drawn.tolist())

    pairs: list[TokenizedPair] = []
    for prompt, chosen, rejected in ((longest, 11, 16), (min(6, longest), 13, 5)):
        room = max(most - prompt, 1)
        parts = tokens(prompt), tokens(min(chosen, room)), tokens(min(rejected, room))
        pairs.append(TokenizedPair(f"probe {len(pairs)}", "", *parts))
    return pairs


def read(model: PeftModel, batch: Batch, form: Sharing | None) -> Reading:
    """Hidden states, log-probabilities, and their gradient with respect to the adapter's first ``lora_B``."""
    policy = CompletionLogps(model, form)
    factor = next(parameter for name, parameter in model.named_parameters() if ".lora_B." in name)
    needed = factor.requires_grad
    factor.requires_grad_(True)
    try:
        with torch.enable_grad():
            hidden = policy.predicting(batch)
            logps = policy.summed(hidden, batch)
            signs = torch.tensor([1.0, -1.0], device=logps.device).repeat_interleave(batch.sequences // 2)
            (gradient,) = torch.autograd.grad((signs * logps).sum(), factor)
    finally:
        factor.requires_grad_(needed)
    return Reading(hidden.detach().float(), logps.detach(), gradient.detach().float())


def lay_out(model: PeftModel, pairs: Sequence[TokenizedPair], pad: int, layout: Layout) -> Batch:
    """A batch of both answers of pairs, on the model's device."""
    causal: Any = model.get_base_model()
    return collate(pairs, BOTH, pad_token_id=pad, layout=layout).to(causal.device)


def in_plain_order(batch: Batch, pairs: Sequence[TokenizedPair]) -> Tensor:
    """Indices of a shared batch's tokens in the order of plain rows: all chosen answers, then all rejected ones."""
    return torch.cat([tokens_of(batch, number) for number in range(2 * len(pairs))])


def tokens_of(batch: Batch, sequence: int) -> Tensor:
    """Indices of one completion's tokens in a batch, counted as its ``sequence`` counts completions."""
    return (batch.sequence == sequence).nonzero().squeeze(1)


def typical(distances: Tensor, model: PeftModel) -> float:
    """The largest distance in float32; below that the median, because a near tie of two experts may go either way."""
    return float(distances.max() if _dtype(model) == torch.float32 else distances.median())


def tolerance(model: PeftModel) -> float:
    """Relative distance that rounding alone explains in the model's dtype."""
    return tolerance_in(_dtype(model))


def _dtype(model: PeftModel) -> torch.dtype:
    dtype = model.get_base_model().dtype
    assert isinstance(dtype, torch.dtype)
    return dtype
