"""Turns pairs into tokens, through the model's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from lifealign.data.pair import Message, Pair
from lifealign.errors import DataError
from lifealign.model.chat_codec import ChatCodec, Hidden, chat_codec_of
from lifealign.model.chat_template import TemplateFault
from lifealign.model.reasoning import Reasoning


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair as token ids; ``key`` is the pair's content hash, ``source`` says where it came from."""

    key: str
    source: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def __len__(self) -> int:
        """Number of tokens in prompt and both completions: the cost of the pair with a shared prompt."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], reasoning: Reasoning = "strip"
) -> list[int]:
    """Token ids of a conversation up to where the text of the assistant's answer starts.

    Text is data: where a message contains the text of a control token (``<|im_end|>``), it is tokenised as ordinary
    characters, so a message cannot end its turn or open another one.

    Args:
        tokenizer: Tokenizer with a chat template.
        prompt: Messages, the last one from the user.
        reasoning: ``strip`` removes reasoning from earlier answers, and closes a reasoning block that the template
            opens.

    Raises:
        TemplateFault: If the chat template refuses the prompt, or loses or rewrites one of its texts.
    """
    codec = chat_codec_of(tokenizer)
    messages, _, hidden = codec.hide(_history(codec, prompt, reasoning))
    return codec.encode(tokenizer, codec.template.prompt(messages, reasoning), hidden)


def tokenize_pair(
    tokenizer: PreTrainedTokenizerBase, pair: Pair, max_length: int, reasoning: Reasoning = "strip"
) -> TokenizedPair | None:
    """Tokenises a pair through the model's chat template; each completion ends with the same end-of-turn token.

    Completions are cut at ``max_length``; a cut completion has no end-of-turn token, so that the model does not learn
    to stop mid-sentence. The prompt is never cut, because the answers were written for the whole of it.

    Args:
        tokenizer: Tokenizer with a chat template.
        pair: Pair of plain text.
        max_length: Maximum number of tokens in the prompt and one completion together.
        reasoning: ``strip`` removes the reasoning from both answers, ``keep`` leaves it, ``refuse`` raises.

    Returns:
        The tokenised pair, or None if the prompt leaves no room for a single completion token, if the completions are
        equal once cut (nothing is left to prefer), or if an answer was nothing but reasoning.

    Raises:
        TemplateFault: If the chat template refuses the pair, or loses or rewrites one of its texts.
    """
    codec = chat_codec_of(tokenizer)
    answers = [_answer(codec, name, getattr(pair, name), reasoning) for name in ("chosen", "rejected")]
    if any(
        not answer.strip() and given.strip()
        for answer, given in zip(answers, (pair.chosen, pair.rejected), strict=True)
    ):
        return None
    messages, answers, hidden = codec.hide(_history(codec, pair.prompt, reasoning), answers)
    rendered = codec.template.prompt(messages, reasoning)
    prompt = codec.encode(tokenizer, rendered, hidden)
    room = max_length - len(prompt)
    if room <= 0:
        return None
    chosen, rejected = (
        tuple(_completion_ids(tokenizer, codec, messages, rendered, prompt, answer, hidden, reasoning)[:room])
        for answer in answers
    )
    if chosen == rejected:
        return None
    return TokenizedPair(pair.key, pair.source, tuple(prompt), chosen, rejected)


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], max_length: int, reasoning: Reasoning = "strip"
) -> tuple[list[TokenizedPair], list[Pair]]:
    """Tokenises pairs; returns those that fit and those that had to be left out (see :func:`tokenize_pair`).

    Raises:
        DataError: If the chat template refuses a pair, as some templates do if the prompt begins with a system message,
            or if ``reasoning`` is ``refuse`` and an answer contains some.
    """
    fitting: list[TokenizedPair] = []
    left_out: list[Pair] = []
    for pair in pairs:
        try:
            tokenized = tokenize_pair(tokenizer, pair, max_length, reasoning)
        except BroughtReasoning as error:
            raise DataError(
                pair.source,
                field=error.name,
                found=error.reason,
                expected="a plain answer, because data.reasoning is refuse; strip removes reasoning, keep learns it",
            ) from error
        except TemplateFault as error:
            found = f"a prompt that the model's chat template refuses ({error.reason})"
            raise DataError(pair.source, field="prompt", found=found, expected="roles that the model knows") from error
        if tokenized is None:
            left_out.append(pair)
        else:
            fitting.append(tokenized)
    return fitting, left_out


class BroughtReasoning(TemplateFault):
    """An answer with reasoning where none is allowed; ``name`` is ``chosen`` or ``rejected``."""

    def __init__(self, name: str, tag: str) -> None:
        self.name = name
        super().__init__(f"an answer with reasoning ({tag})")


def plain_pair(tokenizer: PreTrainedTokenizerBase, pair: Pair, reasoning: Reasoning = "strip") -> Pair:
    """A pair with its answers as they are learnt: under ``strip`` without their reasoning."""
    if reasoning != "strip":
        return pair
    plain = chat_codec_of(tokenizer).template.without_reasoning
    return replace(pair, chosen=plain(pair.chosen), rejected=plain(pair.rejected))


def count_reasoning(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> tuple[int, int]:
    """How many answers of some pairs contain reasoning, and how many of these contain nothing else."""
    template = chat_codec_of(tokenizer).template
    with_some = [
        plain
        for pair in pairs
        for answer in (pair.chosen, pair.rejected)
        if (plain := template.without_reasoning(answer)) != answer
    ]
    return len(with_some), sum(not plain.strip() for plain in with_some)


def _answer(codec: ChatCodec, name: str, answer: str, reasoning: Reasoning) -> str:
    """An answer as it is learnt."""
    if reasoning == "keep":
        return answer
    plain = codec.template.without_reasoning(answer)
    if reasoning == "refuse" and plain != answer:
        raise BroughtReasoning(
            name, next(tags.open for tags in codec.template.tags if tags.close in answer or tags.open in answer)
        )
    return plain


def _history(codec: ChatCodec, prompt: Sequence[Message], reasoning: Reasoning) -> Sequence[Message]:
    """A conversation with its earlier answers in the form in which answers are learnt."""
    if reasoning != "strip" or all(message.role != "assistant" for message in prompt):
        return prompt
    plain = codec.template.without_reasoning
    return [Message(role, plain(content) if role == "assistant" else content) for role, content in prompt]


def _completion_ids(
    tokenizer: PreTrainedTokenizerBase,
    codec: ChatCodec,
    messages: Sequence[Message],
    rendered: str,
    prompt: Sequence[int],
    answer: str,
    hidden: Hidden,
    reasoning: Reasoning,
) -> list[int]:
    """Token ids of an answer with its end of turn; no token of the prompt, and none after the end of turn."""
    text, ended = codec.continuation(messages, rendered, answer, reasoning)
    whole = codec.encode(tokenizer, rendered + text, hidden)
    if whole[: len(prompt)] == list(prompt):
        completion = whole[len(prompt) :]
    else:  # the answer's first characters merge with the prompt's last ones
        completion = codec.encode_after(rendered, text, hidden)
    return completion if ended else [*completion, codec.end_token_id]
