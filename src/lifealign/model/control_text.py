"""Keeps text that looks like a control token ordinary text, in the chat template and in the tokenizer.

Where a message contains ``<|im_end|>``, the conversation is rendered with a placeholder of the same length in its
place, made of private-use characters that no template strips, splits at or recognises. The control tokens in the result
are then all the template's own. A twin of the tokenizer, which knows the control tokens under secret names, encodes the
whole text in one go: the template's control tokens under those names, those in messages as plain characters. All other
text becomes the same tokens as usual, spaces at the beginning of words included.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

FIRST, LAST, FILLER = "\U000f0000", "\U000ffffd", "\U0010fffd"
PRIVATE = re.compile(f"[{FIRST}-{LAST}\U00100000-{FILLER}]")
PLACEHOLDER = re.compile(f"([{FIRST}-{LAST}])({FILLER}*)")


class CannotEncode(Exception):
    """A text that cannot be encoded as ordinary characters with this tokenizer or template; the message says why."""


class ControlText:
    """Encodes texts that contain control tokens of a tokenizer.

    Args:
        tokenizer: The tokenizer; only its Rust part is kept.
        controls: The control tokens, which no text of a message may become.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, controls: Collection[str]) -> None:
        self.controls = frozenset(controls)
        self._kind, self._backend = type(tokenizer).__name__, getattr(tokenizer, "backend_tokenizer", None)
        self._found = _any_of(controls)
        self._added = _any_of(str(token) for token in tokenizer.added_tokens_decoder.values())

    def hide(self, texts: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str] | None]:
        """Replaces the control tokens in texts with placeholders.

        Returns:
            The new texts, and what each placeholder stands for; or the texts as they are and None if there is nothing
            to hide.
        """
        if not any(map(self._found.search, texts)):
            return texts, None
        meaning: dict[str, str] = {}
        marks: dict[str, str] = {}

        def placeholder(match: re.Match[str]) -> str:
            hidden = match.group()
            if hidden not in marks:
                marks[hidden] = chr(ord(FIRST) + len(marks))
                meaning[marks[hidden]] = hidden
            return marks[hidden] + FILLER * (len(hidden) - 1)

        # Private-use characters already in the texts are hidden too, so that every placeholder is one of ours.
        either = re.compile(f"{self._found.pattern}|{PRIVATE.pattern}")
        return [either.sub(placeholder, text) for text in texts], meaning

    def encode(self, rendered: str, hidden: Mapping[str, str]) -> list[int]:
        """Token ids of a rendered conversation with placeholders; only those of the template stay control tokens.

        Raises:
            CannotEncode: If the template has split a placeholder, or the tokenizer can have no twin.
        """
        return self._ids(self._twin_text(rendered, hidden))

    def encode_after(self, before: str, rendered: str, hidden: Mapping[str, str] | None) -> list[int]:
        """Token ids of a text that follows another, without any token that spans the boundary."""
        start, twin_text = self._twin_text(before, hidden or {}), self._twin_text(rendered, hidden or {})
        ids = self._ids(start + self._boundary + twin_text)
        return ids[ids.index(-1) + 1 :]

    def _ids(self, text: str) -> list[int]:
        twin, original = self._twin
        return [original.get(number, number) for number in twin.encode(text, add_special_tokens=False).ids]

    def _twin_text(self, rendered: str, hidden: Mapping[str, str]) -> str:
        """Replaces the template's control tokens with their secret names, then placeholders with the original text."""

        def renamed(match: re.Match[str]) -> str:
            return self._names.get(match.group(), match.group())

        def restored(match: re.Match[str]) -> str:
            meant = hidden.get(match.group(1))
            if meant is None:
                return match.group()
            used = meant[: 1 + len(match.group(2))]
            return used + match.group(2)[len(used) - 1 :]

        text = self._added.sub(renamed, rendered)
        if not hidden:
            return text
        text = PLACEHOLDER.sub(restored, text)
        if FILLER in text and FILLER not in "".join(hidden.values()):
            raise CannotEncode("it cuts a text within a control token")
        return text

    @cached_property
    def _names(self) -> dict[str, str]:
        nonce = secrets.token_hex(16)
        return {
            control: f"\U00100000{nonce}-{number}\U00100001" for number, control in enumerate(sorted(self.controls))
        }

    @cached_property
    def _boundary(self) -> str:
        return f"\U00100000{secrets.token_hex(16)}\U00100001"

    @cached_property
    def _twin(self) -> tuple[Tokenizer, dict[int, int]]:
        """The tokenizer with secret names, and the original id of each of its added tokens; -1 is the boundary."""
        if not isinstance(self._backend, Tokenizer):
            raise CannotEncode(f"its tokenizer ({self._kind}) cannot write a control token as ordinary characters")
        state = json.loads(self._backend.to_str())
        state |= {"truncation": None, "padding": None, "post_processor": None}
        state["model"] = _renamed_model(state["model"], self._names)
        for token in state["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        twin = Tokenizer.from_str(json.dumps(state))
        original: dict[Any, int] = {twin.token_to_id(token["content"]): token["id"] for token in state["added_tokens"]}
        twin.add_special_tokens([AddedToken(self._boundary, special=True, normalized=False)])
        original[twin.token_to_id(self._boundary)] = -1
        self._require_alike(twin, original)
        return twin, original

    def _require_alike(self, twin: Tokenizer, original: Mapping[Any, int]) -> None:
        """Refuses tokenizers that recognise their control tokens in ways that renaming does not carry over."""
        assert self._backend is not None
        text = " Hi there,\n an  example: 12 \u00e9 ".join(["", *sorted(self.controls)[:50], ""])
        self._backend.encode_special_tokens = False  # as for any rendered text; transformers sets it in every encoding
        expected = self._backend.encode(text, add_special_tokens=False).ids
        found = twin.encode(self._twin_text(text, {}), add_special_tokens=False).ids
        if [original.get(number, number) for number in found] != expected:
            raise CannotEncode(f"its tokenizer ({self._kind}) cannot write a control token as ordinary characters")


def _renamed_model(model: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The model with the control tokens in its vocabulary renamed, as it would find them there as pieces of text."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:  # Unigram: pieces with their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        split = [one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"]]
        model["merges"] = [both for both in split if not {*both, "".join(both)} & names.keys()]
    return model


def _any_of(tokens: Collection[str] | Any) -> re.Pattern[str]:
    """A pattern that matches any of the strings, the longest first, as tokenizers do."""
    ordered = sorted({token for token in tokens if token}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or "(?!)")
