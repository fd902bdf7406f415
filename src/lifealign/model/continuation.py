"""Going on with some of the answers of a batch, once others have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def continued(output: Any, mask: Tensor, rows: Sequence[int]) -> dict[str, Any]:
    """What ``generate`` is given to go on with some rows of what it returned, from the cache that it returned.

    Args:
        output: What it returned, as a dictionary.
        mask: The attention mask that it was given.
        rows: Rows that go on.
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
