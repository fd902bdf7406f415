"""From pairs to tensors: the chat template, tokens, and micro-batches that say which positions predict what."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor
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


@dataclass(frozen=True)
class Batch:
    """A micro-batch: rows of tokens, and for every completion token which position predicts it.

    Attributes:
        input_ids: ``(rows, length)``, padded on the right.
        position_ids: ``(rows, length)``; with shared prompts both completions count on from the prompt's end.
        attention_mask: ``(rows, length)`` of 0/1, or ``(rows, 1, length, length)`` of booleans for shared prompts.
        predicted_from: ``(tokens,)``, index into the flattened rows of the position whose output predicts the token.
        targets: ``(tokens,)``, the completion tokens.
        sequence: ``(tokens,)``, which completion a token belongs to, from 0.
        sequences: Number of completions: all chosen answers first, then all rejected.
        prompts: Token ids of the prompt that each row begins with.
    """

    input_ids: Int[Tensor, "rows length"]
    position_ids: Int[Tensor, "rows length"]
    attention_mask: Tensor
    predicted_from: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    sequence: Int[Tensor, " tokens"]
    sequences: int
    prompts: Sequence[tuple[int, ...]]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()
        }
        return Batch(**moved)


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


def collate(
    pairs: Sequence[TokenizedPair], completions: Sequence[str], *, pad_token_id: int, share_prefix: bool
) -> Batch:
    """Lays pairs out as one micro-batch.

    With ``share_prefix`` a pair is one row, prompt | chosen | rejected: the mask keeps the rejected answer from seeing
    the chosen one, its positions restart at the prompt's end, and the first token of both is predicted from the
    prompt's last position. Without, every completion is a row of its own with a copy of the prompt. The
    log-probabilities are the same (Wang et al., Accelerating DPO with prefix sharing, arXiv:2410.20305).

    Args:
        pairs: At least one tokenised pair.
        completions: ``("chosen",)`` or ``("chosen", "rejected")``.
        pad_token_id: Token that fills rows up.
        share_prefix: Whether the completions of a pair share one copy of the prompt.
    """
    shared = share_prefix and len(completions) > 1
    rows: list[tuple[TokenizedPair, list[tuple[int, str]]]] = []  # pair, [(sequence number, completion name)]
    if shared:
        for index, pair in enumerate(pairs):
            rows.append((pair, [(number * len(pairs) + index, name) for number, name in enumerate(completions)]))
    else:
        for number, name in enumerate(completions):
            rows += [(pair, [(number * len(pairs) + index, name)]) for index, pair in enumerate(pairs)]

    length = max(len(pair.prompt) + sum(len(getattr(pair, name)) for _, name in parts) for pair, parts in rows)
    input_ids = torch.full((len(rows), length), pad_token_id)
    position_ids = torch.zeros(len(rows), length, dtype=torch.long)
    branch = torch.full((len(rows), length), -1)  # 0 prompt, 1, 2 completions, -1 padding
    predicted_from: list[int] = []
    targets: list[int] = []
    sequence: list[int] = []
    for row, (pair, parts) in enumerate(rows):
        start = end = len(pair.prompt)
        input_ids[row, :end] = torch.tensor(pair.prompt)
        position_ids[row, :end] = torch.arange(end)
        branch[row, :end] = 0
        for part, (number, name) in enumerate(parts, start=1):
            tokens: tuple[int, ...] = getattr(pair, name)
            begin, end = end, end + len(tokens)
            input_ids[row, begin:end] = torch.tensor(tokens)
            position_ids[row, begin:end] = torch.arange(start, start + len(tokens))
            branch[row, begin:end] = part
            predicted_from += [row * length + start - 1, *range(row * length + begin, row * length + end - 1)]
            targets += tokens
            sequence += [number] * len(tokens)
    return Batch(
        input_ids,
        position_ids,
        _branch_mask(branch) if shared else (branch >= 0).long(),
        torch.tensor(predicted_from),
        torch.tensor(targets),
        torch.tensor(sequence),
        len(pairs) * len(completions),
        [pair.prompt for pair, _ in rows],
    )


def _branch_mask(branch: Int[Tensor, "rows length"]) -> Tensor:
    """Causal mask in which a completion sees the prompt and itself; padding sees itself, for a softmax without NaN."""
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = branch[:, :, None], branch[:, None, :]
    visible = ((key == 0) | (key == query)) & (query >= 0) & (key >= 0) & causal
    return (visible | torch.eye(length, dtype=torch.bool))[:, None]


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
