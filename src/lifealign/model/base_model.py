"""The frozen base model: loading it, checking that it can be used, and identifying it by content hashes."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ResolvedRevision
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import resolve_revision

from lifealign.errors import ModelError
from lifealign.model.auto_dtype import settled
from lifealign.model.causal import require_causal
from lifealign.model.completeness import (
    embedding_rows,
    ordinary_tokens,
    require_text_decoder,
    require_whole_tokenizer,
    require_whole_weights,
)
from lifealign.model.device import current_device
from lifealign.model.embedded import EMBEDDED_HUB_ID, EmbeddedCopy, embedded_file
from lifealign.model.identity import Identity, identity_of
from lifealign.model.proof import Proof, prove
from lifealign.model.quantized import compute_in_one_way, four_bit, require_known_quantisation
from lifealign.model.settings import EMBEDDED, Dtype
from lifealign.model.template_check import TemplateFacts, require_usable_template
from lifealign.storage.home import with_home

if TYPE_CHECKING:
    from lifealign.model.settings import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """A frozen base model.

    Attributes:
        name: What an exported adapter gives as its base: a hub id, or a folder or file.
        model: The model, with every parameter frozen and dropout switched off.
        tokenizer: Its tokenizer, with a chat template and a padding token.
        identity: Content hashes of its parts.
        template: What its chat template does.
        dtype: Dtype of its weights.
        proofs: Proofs made on it in this process, by adapted modules, row length and device.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: Identity
    template: TemplateFacts
    dtype: Dtype
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
    differ by what was learnt, not by noise. A dtype of ``auto`` is settled here
    (:func:`~lifealign.model.auto_dtype.auto_dtype`).

    Args:
        config: Name or path, revision, dtype, whether in 4 bits, attention implementation.

    Raises:
        ModelError: If the model cannot be found, is incomplete, or cannot be trained by this package: it is an encoder,
            reads images, has no chat template, no end-of-text token or tokens without an embedding, or its logits are
            not its hidden states times a head. Or if a revision is named of what has none, it is quantised in another
            way than the settings say, or they ask for 4 bits and bitsandbytes is not installed.
    """
    _refuse_a_revision_of_files(config)
    config = settled(config, current_device())
    name = config.model_name_or_path
    logger.info("loading %s", name)
    if name != EMBEDDED:
        return _load(config, *_locate(name))
    original = embedded_file()
    kept = EmbeddedCopy.of(original, _dtype(config))
    if kept.is_whole():
        return _load(config, str(kept.folder), {})
    plain = config.model_copy(update={"load_in_4bit": False})
    base = _load(plain, str(original.parent), {"gguf_file": original.name})
    kept.make(base.model, base.tokenizer, lambda folder: _load(plain, str(folder), {}).identity == base.identity)
    if not config.load_in_4bit:
        return base
    if not kept.is_whole():
        raise ModelError(
            f"model {name!r}: found load_in_4bit=true and no copy of the embedded model in {kept.folder.parent}, "
            "expected one, because its own file cannot be read in 4 bits; let that folder be written"
        )
    return _load(config, str(kept.folder), {})


def _load(config: ModelConfig, where: str, options: dict[str, Any]) -> Base:
    """Loads a base from a folder or hub id with options of ``from_pretrained``; errors name it as ``config`` does."""
    name = config.model_name_or_path
    revision = _commit_of(where, config.revision)
    options = options | {"revision": revision}
    with _quiet(name):
        settings = AutoConfig.from_pretrained(where, **_NO_CODE, **options)
    require_text_decoder(name, settings)
    with _quiet(name):
        tokenizer = AutoTokenizer.from_pretrained(where, **_NO_CODE, **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    require_whole_tokenizer(name, tokenizer)
    if "gguf_file" in options and config.load_in_4bit:
        raise ModelError(
            f"model {name!r}: found load_in_4bit=true, expected false, because the weights of a .gguf file are read as "
            "plain layers"
        )
    if "gguf_file" in options:
        options["quantization_config"] = GgufConfig(dequantize=True)
        options["config"] = settings  # read once: it takes seconds
    else:
        options["use_safetensors"] = True  # otherwise a .bin file is taken, which is a pickle
        if config.load_in_4bit:
            options["quantization_config"] = four_bit(name, _dtype(config))
    if config.attn_implementation != "auto":
        options["attn_implementation"] = config.attn_implementation
    with _quiet(name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=_dtype(config), output_loading_info=True, ignore_mismatched_sizes=True, **_NO_CODE, **options
        )
    model: PreTrainedModel = loaded[0]
    require_whole_weights(name, model, report=loaded[1])
    require_known_quantisation(name, model, in_4bit=config.load_in_4bit)
    compute_in_one_way(model, _dtype(config))
    model.requires_grad_(False)
    model.eval()
    _switch_dropout_off(model)
    ordinary = ordinary_tokens(name, model, tokenizer)
    facts = require_usable_template(tokenizer, name, embedding_rows=embedding_rows(model))
    require_causal(name, model, ordinary)
    identity = identity_of(model, tokenizer, revision)
    assert config.dtype != "auto"
    return Base(EMBEDDED_HUB_ID if name == EMBEDDED else name, model, tokenizer, identity, facts, config.dtype)


def _commit_of(where: str, revision: str | None) -> str | None:
    """The hub's commit that a revision names now, from which every file is then loaded; None for a folder.

    Where the hub does not say, the revision as it is: loading then says why.
    """
    found = resolve_revision(where, revision)
    return found.resolved if isinstance(found, ResolvedRevision) else found


def _dtype(config: ModelConfig) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads only the tokenizer of a model, for counting tokens.

    Raises:
        ModelError: If the model cannot be found.
    """
    where, options = _quickest(name)
    with _quiet(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where, **_NO_CODE, **options)
    return tokenizer


def load_outline(config: ModelConfig) -> PreTrainedModel:
    """A model without its weights, for counting them: on the meta device, whatever its size.

    Raises:
        ModelError: If the model cannot be found, or is no causal language model.
    """
    name = config.model_name_or_path
    where, options = _quickest(name)
    options = options | {"revision": config.revision}
    with _quiet(name):
        settings = AutoConfig.from_pretrained(where, **_NO_CODE, **options)
    require_text_decoder(name, settings)
    with _quiet(name), torch.device("meta"):
        outline: PreTrainedModel = AutoModelForCausalLM.from_config(settings, **_NO_CODE)
    return outline


def most_positions(causal: Any) -> int | None:
    """Maximum number of tokens that a model can read at once; None if its configuration states no limit."""
    config = causal.config.get_text_config(decoder=True)
    found = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


def _refuse_a_revision_of_files(config: ModelConfig) -> None:
    """Refuses a revision of what has none: it would change nothing, and be recorded as if it had."""
    name, revision = config.model_name_or_path, config.revision
    if revision is not None and (name == EMBEDDED or Path(_locate(name)[0]).is_dir()):
        raise ModelError(
            f"model {name!r}: found revision {revision!r}, expected none; only a model of the hub has revisions"
        )


def _locate(name: str) -> tuple[str, dict[str, Any]]:
    """Turns the name of a model into arguments of ``from_pretrained``."""
    path = embedded_file() if name == EMBEDDED else with_home(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"model {name!r}: found no such file, expected a .gguf file")
        return str(path.parent), {"gguf_file": path.name}
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not (path / "config.json").is_file():
        raise ModelError(f"model {name!r}: found no config.json there, expected a folder with a model")
    return (str(path) if path.is_dir() else name), {}


def _quickest(name: str) -> tuple[str, dict[str, Any]]:
    """As :func:`_locate`; for the embedded model its copy, if there is one in any dtype."""
    if name == EMBEDDED:
        copies = (EmbeddedCopy.of(embedded_file(), dtype) for dtype in (torch.bfloat16, torch.float32))
        if whole := next((one for one in copies if one.is_whole()), None):
            return str(whole.folder), {}
    return _locate(name)


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


def _switch_dropout_off(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for attribute, value in vars(module).items():
            if "drop" in attribute and isinstance(value, float):
                setattr(module, attribute, 0.0)
