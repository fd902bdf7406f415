"""How tokens are drawn when answers are sampled: each row of a batch from its own generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

COLDEST = 1e-5
"""Lower temperatures count as this one, which practically always takes the most likely token: logits divided by much
less are infinite, and the largest of them could not be told."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled when they are not greedy; names and order of the filters are those of transformers.

    Attributes:
        temperature: Divides the logits; 1 leaves them as they are.
        top_p: Tokens are drawn from the smallest set of most likely tokens whose total probability reaches this; 1 is
            no limit.
        top_k: Tokens are drawn from at most this many of the most likely tokens; 0 is no limit.
        seed: Determines the answer together with the prompt, whatever else is in the batch.
    """

    temperature: float
    top_p: float
    top_k: int
    seed: int


def filters_of(sampling: Sampling, noise: GumbelNoise) -> LogitsProcessorList:
    """What makes the largest of the changed logits a sampled token, with the filters of transformers.

    A filter without effect is left out: each of the last two would sort the whole vocabulary at every token.
    """
    filters: list[LogitsProcessor] = []
    if sampling.temperature != 1:
        filters.append(TemperatureLogitsWarper(max(sampling.temperature, COLDEST)))
    if sampling.top_k:
        filters.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        filters.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*filters, noise])


class GumbelNoise(LogitsProcessor):
    """Adds noise so that the largest logit is a draw from the softmax (Gumbel-max); each row has its own generator.

    ``torch.multinomial`` draws for a whole batch at once, so an answer would depend on its neighbours.
    """

    def __init__(self, seed: int, prompts: Sequence[Sequence[int]]) -> None:
        seeds = [xxhash.xxh64(f"{seed} {list(prompt)}".encode()).intdigest() >> 1 for prompt in prompts]
        self._generators = [torch.Generator().manual_seed(one) for one in seeds]

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with some of the rows."""
        self._generators = [self._generators[row] for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits minus Gumbel noise, ``(rows, vocabulary)``."""
        noise = torch.empty(scores.shape)
        for row, generator in zip(noise, self._generators, strict=True):
            row.uniform_(generator=generator)
        tiny = torch.finfo(noise.dtype).tiny
        noise.clamp_min_(tiny).log_().neg_().clamp_min_(tiny).log_()  # in place: a batch has millions of them
        return scores - noise.to(scores)
