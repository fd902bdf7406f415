"""A chat template with its tokenizer: which token ends a turn, which tokens are control tokens, and encoding to ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from lifealign.data.pair import Message
from lifealign.model.chat_template import ANSWER, ASK, ASK_AGAIN, RULE, TemplateFault, chat_template_of
from lifealign.model.control_text import CannotEncode, ControlText
from lifealign.model.reasoning import CHANNELS, Reasoning

Hidden = Mapping[str, str] | None
"""What each placeholder in some texts stands for; None if the texts contain no control token."""


class ChatCodec:
    """Turns conversations into token ids with a chat template and its tokenizer.

    Attributes:
        template: The chat template.
        end_token_id: The token that ends a turn of the assistant: the first added token that the template writes after
            an answer, or the tokenizer's end of text if it writes none.
        end_token: Its text, or None if the template does not write it.
        stop_token_ids: Tokens at which a generated answer ends: end of turn, end of text, and the first added token
            that the template writes between an answer and the next question.
        control: The control tokens, which the text of a message must never become: the special tokens of the tokenizer,
            and the added tokens, special or not, that the template writes. Reasoning tags are not among them.

    Args:
        tokenizer: Tokenizer with a chat template; it is not kept, and has to be passed to :meth:`encode` again.

    Raises:
        TemplateFault: If the template cannot be used at all, or no token ends its turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.template = template = chat_template_of(tokenizer)
        added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        tags = {part for pair in template.tags for part in pair}
        marks = {number: text for number, text in added.items() if not text.isspace() and text not in tags}
        eos = tokenizer.eos_token_id
        if isinstance(eos, int):
            marks.setdefault(eos, str(tokenizer.eos_token))

        def written(text: str) -> list[int]:
            return [number for number in tokenizer.encode(text, add_special_tokens=False) if number in marks]

        shape, between = template.shape("strip"), template.tail_before_question
        before = template.render(template.opening, ask=False).partition(ASK.content)[0]
        ends = written(shape.tail) or _without_header(
            written(between), written(before)
        )  # some templates leave the last turn open
        if not ends and not isinstance(eos, int):
            raise TemplateFault("no token ends its turns, and its tokenizer has no end-of-text token")
        self.end_token_id: int = ends[0] if ends else eos
        self.end_token = marks[ends[0]] if ends else None
        # Not in the harmony format: there the same token ends the analysis, and the answer is still to come.
        further = written(between)[:1] if template.tags[0] != CHANNELS else []
        stops = [self.end_token_id, eos, *further]
        self.stop_token_ids: tuple[int, ...] = tuple(dict.fromkeys(stop for stop in stops if isinstance(stop, int)))
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        seen = {number for text in self.probes() for number in written(text)}
        self.control = ControlText(
            tokenizer, {added[number] for number in marks.keys() & added.keys() & (special | seen)}
        )

    def probes(self) -> list[str]:
        """Rendered conversations, one of every form that the template accepts."""
        template = self.template
        texts = [template.prompt(template.opening), template.render(template.opening, ask=True)]
        texts.append(template.render([*template.opening, ANSWER], ask=False))
        if template.tail_before_question:
            texts.append(template.render([*template.opening, ANSWER, ASK_AGAIN], ask=True))
        if template.refuses_system is None:
            texts.append(template.render([RULE, ASK], ask=True))
        return texts

    def hide(self, messages: Sequence[Message], answers: Sequence[str] = ()) -> tuple[list[Message], list[str], Hidden]:
        """Replaces control tokens in messages and answers with placeholders, as :meth:`ControlText.hide` does."""
        texts, hidden = self.control.hide([*(message.content for message in messages), *answers])
        if hidden is None:
            return list(messages), list(answers), None
        renamed = [Message(message.role, text) for message, text in zip(messages, texts, strict=False)]
        return renamed, list(texts[len(messages) :]), hidden

    def encode(self, tokenizer: PreTrainedTokenizerBase, rendered: str, hidden: Hidden) -> list[int]:
        """Token ids of a rendered conversation.

        Raises:
            TemplateFault: If its texts cannot be encoded as ordinary characters.
        """
        if hidden is None:
            return list(tokenizer.encode(rendered, add_special_tokens=False))
        try:
            return self.control.encode(rendered, hidden)
        except CannotEncode as error:
            raise TemplateFault(str(error)) from error

    def encode_after(self, before: str, rendered: str, hidden: Hidden) -> list[int]:
        """Token ids of the text after a prompt, for when its first characters would merge with the prompt's last ones.

        Raises:
            TemplateFault: As :meth:`encode` does.
        """
        try:
            return self.control.encode_after(before, rendered, hidden)
        except CannotEncode as error:
            raise TemplateFault(str(error)) from error

    def continuation(
        self, messages: Sequence[Message], prompt: str, answer: str, reasoning: Reasoning
    ) -> tuple[str, bool]:
        """The text after a prompt: the answer as the template writes it, up to the end of its turn.

        Args:
            messages: The conversation up to the answer, with placeholders.
            prompt: The same conversation, rendered up to where the answer starts.
            answer: The answer, with placeholders.
            reasoning: The same as for the prompt.

        Returns:
            The text, and whether its last token is the end of turn (if not, the caller has to add it).
        """
        template = self.template
        whole = template.whole(messages, answer, reasoning)
        if whole.startswith(prompt):
            text = whole[len(prompt) :]
            # Reasoning that is kept may be laid out differently, so only the rest of the answer is compared.
            plain = answer if reasoning == "strip" else template.without_reasoning(answer)
            if plain.strip() not in text:
                raise TemplateFault("it loses or rewrites what the assistant says")
            tail = template.shape("strip").tail
        else:  # the prompt closes or opens a reasoning block that the template does not write before an answer
            before, _, tail = template.whole(messages, ANSWER.content, reasoning).rpartition(ANSWER.content)
            text = whole[len(before) :] if whole.startswith(before) and whole.endswith(tail) else answer + tail
            if answer.strip() not in text:  # keep the whole answer, even if the template would drop its reasoning
                text = answer + tail
            opened = template.opens if reasoning == "keep" else None
            if opened and text.lstrip().startswith(opened.open):
                text = text.lstrip()[len(opened.open) :].lstrip("\n")
        if self.end_token is not None and self.end_token in text:
            return text[: text.index(self.end_token) + len(self.end_token)], True
        return text.removesuffix(tail) if tail else text, False


def _without_header(between: list[int], before: list[int]) -> list[int]:
    """The tokens between an answer and a question, without those that open the question.

    The latter are the longest common ending with the tokens before a first question.
    """
    same = 0
    while same < min(len(between), len(before)) and between[-1 - same] == before[-1 - same]:
        same += 1
    return between[: len(between) - same]


def chat_codec_of(tokenizer: PreTrainedTokenizerBase) -> ChatCodec:
    """The codec of a tokenizer with its chat template, made once and cached.

    Raises:
        TemplateFault: As :class:`ChatCodec` does.
    """
    state = (chat_template_of(tokenizer), len(tokenizer), tokenizer.eos_token_id)
    known = _MADE.get(tokenizer)
    if known is None or known[0] != state:
        known = _MADE[tokenizer] = (state, ChatCodec(tokenizer))
    return known[1]


_MADE: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, ChatCodec]] = WeakKeyDictionary()
