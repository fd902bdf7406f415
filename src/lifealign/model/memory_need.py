"""How much memory a training step needs, estimated from the shape of a model before any of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from lifealign.model.logps import CHUNK
from lifealign.model.quantized import four_bit_bytes
from lifealign.model.settings import AdapterConfig, Dtype

BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a step of the preference stage needs at its peak, by what they are for."""

    weights: int
    adapter: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of them, in bytes; Python and its libraries come on top."""
        return self.weights + self.adapter + self.activations + self.logits


def memory_need(
    outline: PreTrainedModel,
    dtype: Dtype,
    lora: AdapterConfig,
    *,
    pairs: int,
    prompt: int,
    answer: int,
    in_4bit: bool = False,
) -> MemoryNeed:
    r"""Estimates the memory of one forward and backward pass over pairs with a shared prompt.

    With b bytes per number of the base, T = pairs (prompt + 2 answer) tokens, and per layer attention of width a
    (heads times their size), hidden width h and inner width m:

    - weights: b per parameter; with ``in_4bit`` 0.52 per weight of a linear layer other than the head.
    - adapter: 16 per parameter of LoRA on query and value, for its value, its gradient and AdamW's two moments, all
      float32.
    - activations kept for the backward pass, per token and layer:
      b (4 a + 3 m) for query, key, value and result of SDPA, and the three factors of the gated inner layer;
      8 h for the float32 inputs of two norms; and 4 h for the float32 input of each LoRA factor (once in float32,
      where both share it).
    - logits: 8 per entry of the vocabulary and completion position, for the float32 logits and one working copy; of at
      most ``CHUNK`` positions at a time.

    Frozen matrices keep nothing. Left out are what a single layer works with, masks, and attention weights under eager
    attention; experts count as one inner layer. Gradient checkpointing needs less. For SmolLM2-135M and 4 pairs of
    64 + 2 x 64 tokens this is within 5 % of what the process gained in a step, in both dtypes.

    Args:
        outline: The model, with or without its weights.
        dtype: Dtype of the base weights.
        lora: Settings of the adapter.
        pairs: Pairs in a forward pass (``per_device_train_batch_size``).
        prompt: Tokens of a prompt.
        answer: Tokens of an answer.
        in_4bit: Whether linear layers are kept in 4 bits.

    Raises:
        ValueError: If the model's configuration does not give its layers and widths under the usual names.
    """
    config: Any = outline.config.get_text_config(decoder=True)
    size, tokens = BYTES[dtype], pairs * (prompt + 2 * answer)
    hidden, layers = _number(config, "hidden_size"), _number(config, "num_hidden_layers")
    heads = _number(config, "num_attention_heads")
    head = getattr(config, "head_dim", None) or hidden // heads
    attention, values = heads * head, (getattr(config, "num_key_value_heads", None) or heads) * head
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    parameters = sum(one.numel() for one in outline.parameters())
    linear = _linear_weights(outline) if in_4bit else 0
    trained = layers * lora.lora_r * (2 * hidden + attention + values)
    adapted_inputs = 1 if dtype == "float32" else 2
    per_token = size * (4 * attention + 3 * inner) + 8 * hidden + 4 * hidden * adapted_inputs
    positions = min(2 * pairs * answer, CHUNK)
    return MemoryNeed(
        weights=size * (parameters - linear) + four_bit_bytes(linear),
        adapter=16 * trained,
        activations=tokens * layers * per_token,
        logits=8 * positions * _number(config, "vocab_size"),
    )


def _linear_weights(outline: PreTrainedModel) -> int:
    head = outline.get_output_embeddings()
    layers = [one for one in outline.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    return sum(one.weight.numel() for one in layers)


def _number(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    if not isinstance(value, int):
        raise ValueError(f"{name}: found nothing in the configuration of {config.model_type}, expected a number")
    return value
