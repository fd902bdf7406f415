"""How answers are decoded: by nothing but the model's logits, and without those that have ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig


@contextmanager
def by_logits_alone(causal: Any) -> Iterator[None]:
    """While open, ``generate`` does only what it is told, whatever the checkpoint's ``generation_config.json`` says.

    Checkpoints ask there for penalties on repetition, beams, forced or suppressed tokens, a least length. With these an
    answer would be neither greedy nor a draw from the model, and some count from where a call began, so that an answer
    written in several calls would be another one.
    """
    own = causal.generation_config
    causal.generation_config = GenerationConfig()
    try:
        yield
    finally:
        causal.generation_config = own


def continued(output: Any, mask: Tensor, rows: Sequence[int]) -> dict[str, Any]:
    """What ``generate`` is given to go on with some rows of what it returned, from the cache that it returned.

    Args:
        output: What it returned, as a dictionary.
        mask: The attention mask that it was given.
        rows: Rows that go on, in increasing order; at least one.

    Returns:
        ``input_ids`` and ``attention_mask``, ``(rows, tokens so far)``, and ``past_key_values``: the cache itself,
        which from now on has these rows only.
    """
    sequences, cache = output.sequences, output.past_key_values
    kept = torch.tensor(list(rows), device=sequences.device)
    new = mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])
    if len(rows) < len(mask):
        cache.batch_select_indices(kept)
    return {
        "input_ids": sequences[kept],
        "attention_mask": torch.cat((mask, new), dim=1)[kept],
        "past_key_values": cache,
    }
