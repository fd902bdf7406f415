"""Packed rows: whole pairs side by side in one row, each of which attends to itself alone.

A row of several pairs needs no padding and no mask. Every other layer of a decoder treats each token by itself; only
attention has to know where a pair begins and ends, and it runs once per answer, on the tokens that the answer may see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_ATTENTION = "lifealign_packed"
"""Name under which transformers finds :func:`packed_attention`."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a pair stands in a packed row: its prompt, then its completions, one after another.

    Attributes:
        start: Index of the prompt's first token.
        prompt: Number of tokens in the prompt, at least 1.
        completions: Number of tokens in each completion, each at least 1; position ids restart at the prompt's end.
    """

    start: int
    prompt: int
    completions: tuple[int, ...]

    @property
    def end(self) -> int:
        """Index after the last token."""
        return self.start + self.prompt + sum(self.completions)


def packed_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "1 heads length width"],
    key: Float[Tensor, "1 key_heads length width"],
    value: Float[Tensor, "1 key_heads length value_width"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packed_spans: Sequence[Span] = (),
    **more: Any,
) -> tuple[Float[Tensor, "1 length heads value_width"], None]:
    """Attention of one layer, in the form that transformers calls; without spans it is transformers' own ``sdpa``.

    The prompt and its first completion are one causal sequence. Every further completion attends to the prompt and to
    itself, causally.

    Args:
        module: The attention layer.
        query: Queries, rotated already.
        key: Keys; there may be fewer heads than of queries.
        value: Values, with as many heads as keys.
        attention_mask: Not used where there are spans.
        scaling: Factor on the products of queries and keys; None for one over the square root of their width.
        dropout: Probability of dropping a weight.
        sliding_window: How many positions a token sees, its own included; None for all.
        packed_spans: The pairs of the row, in order, without gaps; empty for a batch that is not packed.
        **more: What transformers passes to every attention function.

    Raises:
        ValueError: If the layer wants something of attention that this one does not have.
    """
    if not packed_spans:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return plain
    wanted = [name for name in ("softcap", "position_bias", "s_aux") if more.get(name) is not None]
    if wanted or more.get("is_causal") is False or not getattr(module, "is_causal", True):
        raise ValueError(f"packed rows: found attention with {', '.join(wanted) or 'no causal order'}, expected none")
    options: dict[str, Any] = {"scale": scaling, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}
    answers: list[Tensor] = []
    for span in packed_spans:
        begin = span.start + span.prompt
        for number, length in enumerate(span.completions):
            own = slice(begin if number else span.start, begin + length)  # the first one takes the prompt with it
            seen_keys, seen_values = key[:, :, own], value[:, :, own]
            if number:
                prompt = slice(span.start, span.start + span.prompt)
                seen_keys = torch.cat((key[:, :, prompt], seen_keys), dim=2)
                seen_values = torch.cat((value[:, :, prompt], seen_values), dim=2)
            mask = _visible(own.stop - own.start, seen_keys.shape[2], sliding_window, query.device)
            answers.append(
                scaled_dot_product_attention(
                    query[:, :, own], seen_keys, seen_values, attn_mask=mask, is_causal=mask is None, **options
                )
            )
            begin = own.stop
    return torch.cat(answers, dim=2).transpose(1, 2), None


def _visible(queries: int, keys: int, window: int | None, device: torch.device) -> Bool[Tensor, "queries keys"] | None:
    """Which keys each query sees, if the queries are the last of the keys; None if plain causal order says it."""
    narrow = window is not None and window < keys
    if queries == keys and not narrow:
        return None
    behind = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return (behind >= 0) & (behind < window) if window is not None and narrow else behind >= 0


def install_packed_attention(causal: Any) -> None:
    """Lets a model that uses ``sdpa`` read packed rows as well; whatever else it reads, it reads as before."""
    for config in _configs(causal):
        config._attn_implementation = PACKED_ATTENTION


@contextmanager
def packed_attention_installed(causal: Any) -> Iterator[None]:
    """Does the same within the context, and takes it back afterwards."""
    before = [(config, config._attn_implementation) for config in _configs(causal)]
    install_packed_attention(causal)
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


def _configs(causal: Any) -> list[Any]:
    """A model's configuration, and that of its text part if it is another object."""
    text = causal.config.get_text_config(decoder=True)
    return [causal.config] if text is causal.config else [causal.config, text]


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
