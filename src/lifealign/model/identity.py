"""What identifies a base model: content hashes of its weights, its tokenizer and its chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
import xxhash
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lifealign.model.chat_template import template_fingerprint
from lifealign.model.quantized import quantised_parts


@dataclass(frozen=True)
class Identity:
    """Identifies a base model, so that a life can tell whether it is the one that it was made with.

    Attributes:
        fingerprint: Content hash of its weights as loaded (xxh3, 128 bits, hexadecimal).
        tokenizer: Content hash of its tokenizer, special and end tokens included.
        chat_template: Content hash of its chat template.
        revision: Hub commit that it was loaded from; None for a folder or file.
    """

    fingerprint: str
    tokenizer: str
    chat_template: str
    revision: str | None


def identity_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, revision: str | None) -> Identity:
    """Computes the identity of a loaded model.

    Args:
        model: The model as loaded; its weights are hashed in their own dtype.
        tokenizer: Its tokenizer, with a chat template.
        revision: Hub commit that both were loaded from, or None.
    """
    return Identity(
        fingerprint(model), tokenizer_fingerprint(model, tokenizer), template_fingerprint(tokenizer), revision
    )


def fingerprint(model: PreTrainedModel) -> str:
    """Content hash of all weights with their names and dtypes, scales of 4-bit weights too: equal only for equals."""
    digest = xxhash.xxh3_128()
    kept = {*model.state_dict(keep_vars=True)}
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in kept]
    for name, tensor in sorted([*model.named_parameters(), *buffers, *quantised_parts(model)]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Content hash of what turns text into tokens and ends an answer: vocabulary, rules, special and end tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = {
        "vocabulary": tokenizer.get_vocab() if backend is None else json.loads(backend.to_str()),
        "added": {str(number): repr(token) for number, token in tokenizer.added_tokens_decoder.items()},
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "end": getattr(model.generation_config, "eos_token_id", None),
    }
    return xxhash.xxh3_128(json.dumps(parts, sort_keys=True).encode()).hexdigest()
