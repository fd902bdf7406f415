"""Text that looks like a control token stays text: put into a template, and encoded, as ordinary characters.

Where a message holds ``<|im_end|>``, the conversation is rendered with a placeholder in its place: as long, of private
characters that no template strips, splits at or knows. In what comes out, the control tokens are the template's own.
Then a twin of the tokenizer, to which the control tokens are known under secret names, reads the whole in one go: the
template's under those names, the messages' as the characters they are. So everything else becomes the same tokens as
on the common way, spaces at the beginning of words included.
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
    """A text that this tokenizer or template cannot take as ordinary characters; the message says why."""


class ControlText:
    """The control tokens of a tokenizer, and how texts that hold them are encoded.

    Args:
        tokenizer: The tokenizer; its Rust part is kept, not itself.
        controls: The control tokens: no text of a message may become one of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, controls: Collection[str]) -> None:
        self.controls = frozenset(controls)
        self._kind, self._backend = type(tokenizer).__name__, getattr(tokenizer, "backend_tokenizer", None)
        self._found = _any_of(controls)
        self._added = _any_of(str(token) for token in tokenizer.added_tokens_decoder.values())

    def hide(self, texts: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str] | None]:
        """Puts placeholders where texts hold a control token.

        Returns:
            The texts, and what each placeholder stands for; the texts as they are and None where there is nothing to
            hide.
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

        # Private characters that a text has of its own are hidden too, so that a placeholder is always one of ours.
        either = re.compile(f"{self._found.pattern}|{PRIVATE.pattern}")
        return [either.sub(placeholder, text) for text in texts], meaning

    def encode(self, rendered: str, hidden: Mapping[str, str]) -> list[int]:
        """Token ids of a rendered conversation with placeholders; only the template's control tokens are ones.

        Raises:
            CannotEncode: If the template has taken a placeholder apart, or the tokenizer has no twin.
        """
        return self._ids(self._twin_text(rendered, hidden))

    def encode_after(self, before: str, rendered: str, hidden: Mapping[str, str] | None) -> list[int]:
        """Token ids of a text that follows another, no token of which reaches into it."""
        start, twin_text = self._twin_text(before, hidden or {}), self._twin_text(rendered, hidden or {})
        ids = self._ids(start + self._boundary + twin_text)
        return ids[ids.index(-1) + 1 :]

    def _ids(self, text: str) -> list[int]:
        twin, original = self._twin
        return [original.get(number, number) for number in twin.encode(text, add_special_tokens=False).ids]

    def _twin_text(self, rendered: str, hidden: Mapping[str, str]) -> str:
        """Secret names for the template's control tokens, then the texts' own characters for the placeholders."""

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
        """The tokenizer with secret names, and the ids that its added tokens have in the original; -1: the boundary."""
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
        """Some tokenizers know their control tokens in ways that a new name does not take over."""
        assert self._backend is not None
        text = " Hi there,\n an  example: 12 \u00e9 ".join(["", *sorted(self.controls)[:50], ""])
        self._backend.encode_special_tokens = False  # as for any text of a template; set before each encoding
        expected = self._backend.encode(text, add_special_tokens=False).ids
        found = twin.encode(self._twin_text(text, {}), add_special_tokens=False).ids
        if [original.get(number, number) for number in found] != expected:
            raise CannotEncode(f"its tokenizer ({self._kind}) cannot write a control token as ordinary characters")


def _renamed_model(model: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The model without the control tokens in its vocabulary: there too they would be found, as pieces of text."""
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
    """Matches any of some strings, the longest first, as tokenizers do."""
    ordered = sorted({token for token in tokens if token}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or "(?!)")
