"""Whether what was found under a model's name is a whole causal language model of text, with its whole tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lifealign.errors import ModelError

_OTHER_PARTS = {
    "vision_config": "images",
    "vision_tower_config": "images",
    "vq_config": "images",
    "audio_config": "sound",
    "audio_encoder_config": "sound",
    "patcher_config": "patches of bytes",
}
"""Inputs besides text, by the entry of a configuration that describes the part that reads them."""


def require_text_decoder(name: str, config: PretrainedConfig) -> None:
    """Refuses a model that is not a causal language model of text, before its weights are read."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"model {name!r}: {kind} is an encoder-decoder, expected a causal language model")
    parts = {what for name_, what in _OTHER_PARTS.items() if hasattr(config, name_)}
    if parts or config.get_text_config() is not config:
        raise ModelError(
            f"model {name!r}: {kind} reads {' and '.join(sorted(parts)) or 'other inputs'} as well as text, expected a "
            "model of text alone; many such models have their text part published separately"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"model {name!r}: {kind} is not a causal language model, expected one")


def require_whole_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer without a chat template or without an end-of-text token.

    Raises:
        ModelError: It says which of the two is missing.
    """
    if tokenizer.chat_template is None:
        raise ModelError(f"model {name!r}: its tokenizer has no chat template, expected an instruction-tuned model")
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model {name!r}: its tokenizer has no end-of-text token, expected one, because answers could not end "
            "without it"
        )


def require_whole_weights(name: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that does not hold every weight of the model, or holds more layers than the model has.

    The library fills in missing weights with random numbers and only logs it, where it is easily overlooked.
    """
    problems = []
    if missing := sorted(report["missing_keys"]):
        problems.append(f"{len(missing)} of {len(model.state_dict())} weights are missing ({_few(missing)})")
    if mismatched := sorted(str(entry[0]) for entry in report["mismatched_keys"]):
        problems.append(f"{len(mismatched)} have another shape ({_few(mismatched)})")
    own = {re.sub(r"\d+", "#", key) for key in model.state_dict()}
    if surplus := sorted(key for key in report["unexpected_keys"] if re.sub(r"\d+", "#", key) in own):
        problems.append(f"{len(surplus)} belong to layers that config.json does not have ({_few(surplus)})")
    if problems and (foreign := sorted(set(report["unexpected_keys"]) - set(surplus))):
        problems.append(f"{len(foreign)} have names that the model does not know ({_few(foreign)})")
    if errors := report.get("error_msgs"):
        problems.append(" ".join(str(errors[0]).split()))
    if problems:
        raise ModelError(f"model {name!r}: {'; '.join(problems)}, expected a complete checkpoint of this architecture")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def embedding_rows(model: PreTrainedModel) -> int:
    """Number of tokens that the model has an input embedding for."""
    weight: Any = model.get_input_embeddings().weight
    return int(weight.shape[0])


def ordinary_tokens(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens for ordinary text, in ascending order.

    Raises:
        ModelError: If a token of the tokenizer has no row in the embedding.
    """
    rows = embedding_rows(model)
    vocabulary = tokenizer.get_vocab()
    beyond = sorted((number, token) for token, number in vocabulary.items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        raise ModelError(
            f"model {name!r}: found token {token!r} with id {number}, expected ids below {rows}, the number of rows of "
            "its embedding; the tokenizer belongs to another model, or tokens were added without resizing the embedding"
        )
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return sorted(set(vocabulary.values()) - special)
