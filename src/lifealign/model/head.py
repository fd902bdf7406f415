"""A causal language model in two parts: the backbone computes hidden states, the head turns them into logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

FACTORS = ("logit_scale", "lm_head_multiplier")
"""Configuration entries that hold a factor of the logits: Cohere, Falcon-H1."""
DIVISORS = ("logits_scaling",)
"""Configuration entries that hold a divisor of the logits: Granite."""
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Configuration entries that hold a bound of the logits: Gemma 2 and later, RecurrentGemma, xLSTM."""


@dataclass(frozen=True)
class OutputHead:
    r"""Logits :math:`c \tanh(s (h W^\top + b) / c)`; without a soft cap :math:`s (h W^\top + b)`.

    Attributes:
        weight: ``(vocabulary, width)``.
        bias: ``(vocabulary,)``, or None.
        scale: Constant factor s of the logits.
        soft_cap: Bound c of the logits, or None.
    """

    weight: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, " vocabulary"] | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    def logits(self, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """Logits at some positions, float32."""
        raw = functional.linear(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            raw = raw * self.scale
        return raw if self.soft_cap is None else (raw / self.soft_cap).tanh() * self.soft_cap


def output_head(causal: Any) -> OutputHead | None:
    """The head of a causal language model, read from its modules and configuration; None if it is not a single matrix.

    Whether the logits depend on anything else has to be tried on the model itself (see
    :func:`lifealign.model.causal.require_causal`).
    """
    module = causal.get_output_embeddings()
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    config = causal.config.get_text_config(decoder=True)

    def setting(names: tuple[str, ...]) -> float | None:
        found = (getattr(config, name, None) for name in names)
        return next((float(value) for value in found if isinstance(value, int | float) and value), None)

    factor, divisor = setting(FACTORS), setting(DIVISORS)
    scale = (1.0 if factor is None else factor) / (1.0 if divisor is None else divisor)
    return OutputHead(weight, getattr(module, "bias", None), scale, setting(SOFT_CAPS))


def backbone(causal: Any) -> Any:
    """The part of a causal language model that computes the last hidden states."""
    inner = causal.base_model
    if inner is not causal:
        return inner
    # Some classes declare a ``base_model_prefix`` that they do not have; the library then returns the whole model.
    return next((child for child in causal.children() if isinstance(child, PreTrainedModel)), causal)


@contextmanager
def contiguous_for_head(causal: Any) -> Iterator[None]:
    """Hands the head a contiguous tensor while the context is open; the logits are the same.

    Generation reads the last position of every prompt from all its hidden states. On CPU, PyTorch multiplies such a
    view by a *copy of the head for each row* of the batch: 2.7 GB for 48 rows, 49,152 tokens, a width of 576, bfloat16.
    """
    head = causal.get_output_embeddings()
    if not isinstance(head, nn.Module):
        yield
        return
    handle = head.register_forward_pre_hook(lambda _, inputs: tuple(map(_contiguous, inputs)))
    try:
        yield
    finally:
        handle.remove()


def _contiguous(value: Any) -> Any:
    return value.contiguous() if isinstance(value, Tensor) else value
