"""General ability: the loss on text unrelated to any task. What it loses to alignment is the alignment tax."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash

from lifealign.errors import DataError, TrainingError, describe
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair

GREATEST = 700.0
"""Nats per token; beyond it, the perplexity overflows a float, and the model is useless."""
SHIPPED = Path(__file__).with_name("general_text.jsonl")
"""Passages of sixteen kinds of text, written for this project, so that no earlier model was trained on them."""


@dataclass(frozen=True)
class GeneralText:
    """How well a model predicts general text.

    Attributes:
        loss: Mean negative log-likelihood of a token, in nats.
        tokens: Number of predicted tokens.
        per_passage: The mean of each passage, in nats per token.
    """

    loss: float
    tokens: int
    per_passage: tuple[float, ...]

    @property
    def perplexity(self) -> float:
        """``exp(loss)``: 1 is a perfect prediction, the size of the vocabulary a blind guess."""
        return math.exp(self.loss)


def general_passages(path: Path | None = None) -> tuple[str, ...]:
    """Passages of general text.

    Args:
        path: Your own file: ``.jsonl`` with a field ``text``, or text with a blank line between passages. None for the
            passages that come with the package.

    Raises:
        DataError: If the file is missing, not UTF-8, malformed or without a passage.
    """
    path = SHIPPED if path is None else path
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at offset {error.start}"
        raise DataError(path, found=found, expected="general text in UTF-8") from error
    except OSError as error:
        found = f"nothing that can be read ({error.strerror})"
        raise DataError(path, found=found, expected="a file of general text") from error
    passages = _rows(path, content) if path.suffix == ".jsonl" else re.split(r"\n[ \t]*\n", content)
    kept = tuple(stripped for passage in passages if (stripped := passage.strip()))
    if not kept:
        raise DataError(path, found="no passage", expected="at least one, with a blank line between passages")
    return kept


def passages_hash(passages: Sequence[str]) -> str:
    """Content hash (xxh3, 128 bits, hexadecimal) of passages: perplexities are comparable only on the same text."""
    digest = xxhash.xxh3_128()
    for passage in passages:
        encoded = passage.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def general_loss(runtime: Runtime, passages: Sequence[str], *, batch_size: int, max_length: int) -> GeneralText:
    """Loss of the current model on passages, each read on its own, as plain text without a chat template.

    The first token of a passage is not predicted. It also serves as the query to a prompt pool, as the prompt does
    elsewhere.

    Args:
        runtime: Model and device.
        passages: Plain text; those of fewer than two tokens have nothing to predict and are left out.
        batch_size: Passages in one forward pass, similar lengths together.
        max_length: Most tokens of a passage; a longer one is cut.

    Returns:
        The mean over all predicted tokens, so long passages count for more.

    Raises:
        ValueError: If no passage has two tokens.
        TrainingError: If the loss is not finite, or so large that the perplexity would not be.
    """
    rows = [_as_pair(runtime, passage, max_length) for passage in passages]
    rows = [row for row in rows if row.chosen]
    if not rows:
        raise ValueError(f"found {len(passages)} passages, none of two tokens or more, expected at least one")
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))  # similar lengths, little padding
    found: list[float] = []
    runtime.model.eval()
    with torch.no_grad():
        for part in runtime.micro_batches([rows[index] for index in by_length], ("chosen",), batch_size):
            found += (-runtime.policy(runtime.batch(part, ("chosen",)))).tolist()
    in_order = dict(zip(by_length, found, strict=True))
    losses = [in_order[index] for index in range(len(rows))]
    tokens = sum(len(row.chosen) for row in rows)
    loss = math.fsum(losses) / tokens
    if not loss <= GREATEST:  # NaN too
        raise TrainingError(f"the loss on general text is {loss}", task="", stage="evaluation")
    return GeneralText(loss, tokens, tuple(each / len(row.chosen) for each, row in zip(losses, rows, strict=True)))


def require_predictable(runtime: Runtime, passages: Sequence[str], path: Path | None, max_length: int) -> None:
    """Refuses passages that are all shorter than two tokens for this model, before anything is trained.

    Raises:
        DataError: It names the file.
    """
    if not any(_as_pair(runtime, passage, max_length).chosen for passage in passages):
        found = f"{len(passages)} passages of fewer than two tokens"
        raise DataError(SHIPPED if path is None else path, found=found, expected="at least one that is longer")


def _as_pair(runtime: Runtime, passage: str, max_length: int) -> TokenizedPair:
    """A passage in the form of a completion: its first token as prompt, the rest as answer."""
    ids = runtime.tokenizer.encode(passage, add_special_tokens=False, split_special_tokens=True)[:max_length]
    return TokenizedPair("", "", tuple(ids[:1]), tuple(ids[1:]), ())


def _rows(path: Path, content: str) -> list[str]:
    passages = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            found = f"invalid JSON ({error})"
            raise DataError(path, found=found, expected='a row such as {"text": "..."}', line=number) from error
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            found = describe(text if isinstance(row, dict) else row)
            raise DataError(path, found=found, expected="a string", line=number, field="text")
        if any("\ud800" <= character <= "\udfff" for character in text):  # JSON can spell it, UTF-8 cannot
            raise DataError(path, found="half of a surrogate pair", expected="a string", line=number, field="text")
        passages.append(text)
    return passages
