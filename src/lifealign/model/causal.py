"""Whether a loaded model is a causal language model whose logits are its hidden states times a known head."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from lifealign.errors import ModelError
from lifealign.model.head import backbone, output_head
from lifealign.model.rounding import distance, float32_fits, in_float32, tolerance_in

CANNOT_RUN = (RuntimeError, TypeError, AttributeError, LookupError, ValueError)
"""What models raise that cannot be run on this machine, with this adapter or in this precision."""


def in_one_line(error: Exception) -> str:
    r"""An error's kind and the first line of its message.

    Example:
        >>> in_one_line(RuntimeError("no kernel\nframe 1\nframe 2"))
        'RuntimeError: no kernel'
    """
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


@torch.no_grad()
def require_causal(name: str, causal: Any, vocabulary: Sequence[int]) -> None:
    """Refuses a model that looks ahead, or whose logits are not its hidden states times a known head.

    Raises:
        ModelError: If it does either, or cannot be run; the message says which.
    """
    kind = type(causal).__name__
    ids = torch.tensor([list(vocabulary)[: 4 * 13 : 4][:12]], device=causal.device)
    other = ids.clone()
    other[0, -1] = int(vocabulary[-1])
    try:
        with in_float32(causal) if float32_fits(causal) else nullcontext():
            first, second = (causal(input_ids=one, use_cache=False).logits.float() for one in (ids, other))
            head = output_head(causal)
            hidden = backbone(causal)(input_ids=ids, use_cache=False).last_hidden_state
            logits = None if head is None else head.logits(hidden[0])
            tolerance = tolerance_in(causal.dtype)
    except CANNOT_RUN as error:
        raise ModelError(
            f"model {name!r}: {kind} cannot read a dozen tokens ({in_one_line(error)}), expected a causal "
            "language model"
        ) from error
    if float(distance(first[0, :-1], second[0, :-1]).max()) > tolerance:
        raise ModelError(
            f"model {name!r}: {kind} looks at later tokens when it predicts a token, expected a causal language model"
        )
    if logits is None:
        raise ModelError(f"model {name!r}: found no output head that is a single matrix, expected one")
    if logits.shape != first[0].shape or float(distance(logits, first[0]).max()) > tolerance:
        raise ModelError(
            f"model {name!r}: the logits of {kind} are not its last hidden states times its output head, expected a "
            "model where they are, up to a bias, a constant scale and a soft cap"
        )
