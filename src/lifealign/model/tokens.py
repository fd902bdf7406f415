"""From pairs to tokens, through the model's chat template."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lifealign.data.task import Message, Pair
from lifealign.errors import DataError


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair as token ids; ``key`` is the pair's content hash, ``source`` where it came from."""

    key: str
    source: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def __len__(self) -> int:
        """Tokens of prompt and both completions: the cost of the pair with a shared prompt."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to where the assistant's answer starts.

    Text is data: where a message contains the text of a special token (``<|im_end|>``), it is tokenised as ordinary
    characters, so a message cannot end its turn or open another one.

    Args:
        tokenizer: Tokenizer with a chat template.
        prompt: Messages, the last one from the user.
    """
    return _encode(tokenizer, prompt, answer=None)


def tokenize_pair(tokenizer: PreTrainedTokenizerBase, pair: Pair, max_length: int) -> TokenizedPair | None:
    """Tokenises a pair through the model's chat template; each completion ends with the end-of-turn token.

    Completions are cut at ``max_length``; a cut completion has no end-of-turn token, so that the model does not learn
    to stop in mid-sentence. The prompt is never cut: it would no longer be what the answers were written for.

    Args:
        tokenizer: Tokenizer with a chat template.
        pair: Pair of plain text.
        max_length: Most tokens of prompt and one completion together.

    Returns:
        The tokenised pair, or None if the prompt leaves no room for a single completion token, or if the completions
        are equal once cut (nothing is left to prefer).
    """
    prompt = prompt_ids(tokenizer, pair.prompt)
    room = max_length - len(prompt)
    if room <= 0:
        return None
    chosen, rejected = (
        tuple(_completion_ids(tokenizer, pair.prompt, prompt, answer)[:room]) for answer in (pair.chosen, pair.rejected)
    )
    if chosen == rejected:
        return None
    return TokenizedPair(pair.key, pair.source, tuple(prompt), chosen, rejected)


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], max_length: int
) -> tuple[list[TokenizedPair], list[Pair]]:
    """Tokenises pairs; returns those that fit and those that had to be left out (see :func:`tokenize_pair`).

    Raises:
        DataError: If the chat template refuses a prompt, as some do that begins with a system message.
    """
    fitting: list[TokenizedPair] = []
    left_out: list[Pair] = []
    for pair in pairs:
        try:
            tokenized = tokenize_pair(tokenizer, pair, max_length)
        except TemplateError as error:
            found = f"a prompt that the model's chat template refuses ({error})"
            raise DataError(pair.source, field="prompt", found=found, expected="roles that the model knows") from error
        if tokenized is None:
            left_out.append(pair)
        else:
            fitting.append(tokenized)
    return fitting, left_out


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: str | None) -> list[int]:
    """Token ids of a conversation in the model's template, up to the answer or, if there is one, to its end."""
    messages = [*prompt, *([Message("assistant", answer)] if answer is not None else [])]
    controls = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    controls.update(tokenizer.all_special_tokens)
    if not any(control in message.content for message in messages for control in controls):
        rendered = _render(tokenizer, messages, add_generation_prompt=answer is None)
        return list(tokenizer.encode(rendered, add_special_tokens=False))
    # A text holds the text of a control token: render the template around placeholders, then encode the parts, texts as
    # ordinary characters. Only the template's own parts can become control tokens.
    marks = {f"text{uuid.uuid4().hex}": message for message in messages}
    placeholders = [Message(message.role, mark) for mark, message in marks.items()]
    rendered = _render(tokenizer, placeholders, add_generation_prompt=answer is None)
    ids: list[int] = []
    for part in re.split("(" + "|".join(marks) + ")", rendered):
        text, is_data = (marks[part].content, True) if part in marks else (part, False)
        ids += tokenizer.encode(text, add_special_tokens=False, split_special_tokens=is_data)
    return ids


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    rows: list[dict[str, Any]] = [message._asdict() for message in messages]
    rendered = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=add_generation_prompt)
    assert isinstance(rendered, str)
    return rendered


def _completion_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], ids: Sequence[int], answer: str
) -> list[int]:
    """Token ids of an answer with its end of turn; never a token of the prompt, never one after the end of turn."""
    whole = _encode(tokenizer, prompt, answer)
    if whole[: len(ids)] == list(ids):
        completion = whole[len(ids) :]
    else:  # the answer's first characters merge with the prompt's last ones, or the template drops a turn's opening
        completion = list(tokenizer.encode(answer, add_special_tokens=False, split_special_tokens=True))
    eos = tokenizer.eos_token_id
    # Templates close a turn with the end-of-turn token and often a newline, which is never generated.
    return completion[: completion.index(eos) + 1] if eos in completion else [*completion, eos]
