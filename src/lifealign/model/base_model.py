"""The frozen base model: loading it, checking that it can be used, and identifying it by content hashes."""

from __future__ import annotations

import copy
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from peft import PeftModel
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from lifealign.errors import ModelError
from lifealign.model.chat_template import template_fingerprint
from lifealign.model.embedded import EMBEDDED_HUB_ID, EmbeddedCopy, embedded_file
from lifealign.model.proof import Proof, prove, require_causal
from lifealign.model.settings import EMBEDDED
from lifealign.model.template_check import TemplateFacts, require_usable_template

if TYPE_CHECKING:
    from lifealign.model.settings import ModelConfig

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Base:
    """A frozen base model.

    Attributes:
        name: What an exported adapter gives as its base: a hub id, or a folder or file.
        model: The model, with every parameter frozen and dropout switched off.
        tokenizer: Its tokenizer, with a chat template and a padding token.
        identity: Content hashes of its parts.
        template: What its chat template does.
        proofs: Proofs made on it in this process, by adapted modules, row length and device.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: Identity
    template: TemplateFacts
    proofs: dict[tuple[object, ...], Proof] = field(default_factory=dict, compare=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """Content hash of its weights as loaded."""
        return self.identity.fingerprint

    def copied(self) -> Base:
        """The same base with weights of its own, so that an adapter put on it leaves this one as it is."""
        return replace(self, model=copy.deepcopy(self.model))

    def proven(self, model: PeftModel, max_length: int) -> Proof:
        """Which shortcuts are exact on this base with an adapter attached; proven once for all its copies.

        Args:
            model: The base with a LoRA adapter.
            max_length: Length of the longest row, in tokens.

        Raises:
            ModelError: If the model has fewer positions than that, or :func:`~lifealign.model.proof.prove` refuses it.
        """
        positions = most_positions(self.model)
        if positions is not None and positions < max_length:
            raise ModelError(
                f"model {self.name!r}: found {positions} positions, expected at least data.max_length ({max_length}); "
                f"set data.max_length={positions} or less"
            )
        targets: Any = model.peft_config["default"].target_modules  # type: ignore[attr-defined]
        key = (*sorted(targets), max_length, str(self.model.device))
        if key not in self.proofs:
            self.proofs[key] = prove(
                model,
                ordinary_tokens(self.name, self.model, self.tokenizer),
                max_length,
                int(self.tokenizer.pad_token_id),
            )
        return self.proofs[key]


def load_base(config: ModelConfig) -> Base:
    """Loads a base model: the embedded one, a folder, a ``.gguf`` file, or a model of the hub.

    Code from the model's repository is never run. GGUF weights are dequantised to plain linear layers, because LoRA
    gradients pass through them in every step. Dropout of the base is switched off, so that the policy and its reference
    differ by what was learnt, not by noise.

    Args:
        config: Name or path, revision, dtype, attention implementation.

    Raises:
        ModelError: If the model cannot be found, is incomplete, or cannot be trained by this package: it is an encoder,
            reads images, has no chat template, no end-of-text token or tokens without an embedding, or its logits are
            not its hidden states times a head.
    """
    name = config.model_name_or_path
    if name != EMBEDDED:
        return _load(config, *_locate(name))
    original = embedded_file()
    kept = EmbeddedCopy.of(original, _dtype(config))
    if kept.is_whole():
        return _load(config, str(kept.folder), {})
    base = _load(config, str(original.parent), {"gguf_file": original.name})
    kept.make(base.model, base.tokenizer, lambda folder: _load(config, str(folder), {}).identity == base.identity)
    return base


def _load(config: ModelConfig, where: str, options: dict[str, Any]) -> Base:
    """Loads the base model that is called as the settings say from where it is, with options of ``from_pretrained``."""
    name = config.model_name_or_path
    options = options | {"revision": config.revision}
    logger.info("loading %s", name)
    with _quiet(name):
        settings = AutoConfig.from_pretrained(where, **_NO_CODE, **options)
    require_text_decoder(name, settings)
    with _quiet(name):
        tokenizer = AutoTokenizer.from_pretrained(where, **_NO_CODE, **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _require_whole_tokenizer(name, tokenizer)
    if "gguf_file" in options:
        options["quantization_config"] = GgufConfig(dequantize=True)
        options["config"] = settings  # read once: it takes seconds
    if config.attn_implementation != "auto":
        options["attn_implementation"] = config.attn_implementation
    with _quiet(name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=_dtype(config), output_loading_info=True, ignore_mismatched_sizes=True, **_NO_CODE, **options
        )
    model: PreTrainedModel = loaded[0]
    _require_whole_weights(name, model, report=loaded[1])
    model.requires_grad_(False)
    model.eval()
    _switch_dropout_off(model)
    ordinary = ordinary_tokens(name, model, tokenizer)
    facts = require_usable_template(tokenizer, name, embedding_rows=_embedding_rows(model))
    require_causal(name, model, ordinary)
    identity = Identity(
        fingerprint(model),
        tokenizer_fingerprint(model, tokenizer),
        template_fingerprint(tokenizer),
        getattr(settings, "_commit_hash", None) or config.revision,
    )
    return Base(EMBEDDED_HUB_ID if name == EMBEDDED else name, model, tokenizer, identity, facts)


def _dtype(config: ModelConfig) -> torch.dtype:
    return torch.float32 if config.dtype == "float32" else torch.bfloat16


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads only the tokenizer of a model, for counting tokens.

    Raises:
        ModelError: If the model cannot be found.
    """
    where, options = _locate(name)
    if name == EMBEDDED:
        copies = (EmbeddedCopy.of(embedded_file(), dtype) for dtype in (torch.bfloat16, torch.float32))
        if whole := next((one for one in copies if one.is_whole()), None):
            where, options = str(whole.folder), {}
    with _quiet(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where, **_NO_CODE, **options)
    return tokenizer


def fingerprint(model: PreTrainedModel) -> str:
    """Content hash of all weights with their names and dtypes: equal only for equal models."""
    digest = xxhash.xxh3_128()
    kept = {*model.state_dict(keep_vars=True)}
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in kept]
    for name, tensor in sorted([*model.named_parameters(), *buffers]):
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


def _embedding_rows(model: PreTrainedModel) -> int:
    weight: Any = model.get_input_embeddings().weight
    return int(weight.shape[0])


def most_positions(causal: Any) -> int | None:
    """Maximum number of tokens that a model can read at once; None if its configuration states no limit."""
    config = causal.config.get_text_config(decoder=True)
    found = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


def ordinary_tokens(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens for ordinary text, in ascending order.

    Raises:
        ModelError: If a token of the tokenizer has no row in the embedding.
    """
    rows = _embedding_rows(model)
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


def _locate(name: str) -> tuple[str, dict[str, Any]]:
    """Turns the name of a model into arguments of ``from_pretrained``."""
    path = embedded_file() if name == EMBEDDED else Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"model {name!r}: found no such file, expected a .gguf file")
        return str(path.parent), {"gguf_file": path.name}
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not (path / "config.json").is_file():
        raise ModelError(f"model {name!r}: found no config.json there, expected a folder with a model")
    return (str(path) if path.is_dir() else name), {}


_OTHER_PARTS = {
    "vision_config": "images",
    "vision_tower_config": "images",
    "vq_config": "images",
    "audio_config": "sound",
    "audio_encoder_config": "sound",
    "patcher_config": "patches of bytes",
}
"""Inputs besides text, by the entry of a configuration that describes the part that reads them."""

_NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Passed in every call; otherwise transformers asks on the terminal whether it may run a repository's code."""


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silences the library's progress bars and hints, and turns its many errors into ``ModelError``."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # the only way to silence the bar of .gguf conversion
            yield
    except Exception as error:  # a damaged or unsupported model may raise anything
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, ImportError):
            raise ModelError(f"model {name!r}: needs a package that is not installed ({first_line})") from error
        raise ModelError(
            f"model {name!r}: could not be loaded ({first_line}); expected {EMBEDDED!r}, or a folder, a .gguf file "
            "or the hub id of a causal language model"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


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


def _require_whole_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise ModelError(f"model {name!r}: its tokenizer has no chat template, expected an instruction-tuned model")
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model {name!r}: its tokenizer has no end-of-text token, expected one, because answers could not end "
            "without it"
        )


def _require_whole_weights(name: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
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


def _switch_dropout_off(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for attribute, value in vars(module).items():
            if "drop" in attribute and isinstance(value, float):
                setattr(module, attribute, 0.0)
