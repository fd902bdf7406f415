"""A model's chat template: rendering a conversation as one text, and finding out by trial what the template does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import xxhash
from jinja2 import TemplateSyntaxError

from lifealign.data.pair import Message
from lifealign.errors import ModelError
from lifealign.model.reasoning import CHANNELS, THINK, Reasoning, Tags, tags_in, without_reasoning
from lifealign.model.template_sandbox import PINNED, OverBudget, TemplateSandbox

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASK = Message("user", "Zq1 asks & says <b>\"hi\"</b>, 'yes' {{ 2 }}")
ANSWER = Message("assistant", "Zq2 answers & says <b>\"hi\"</b>, 'no' {{ 3 }}")
ASK_AGAIN = Message("user", "Zq3 asks again")
RULE = Message("system", "Zq4 rules")
THOUGHT = "Zq5 thinks"
NO_THINKING = {"enable_thinking": False, "thinking": False}
"""Variables that tell a template to leave reasoning out: in Qwen3, GLM and SmolLM3, and in DeepSeek and Granite."""


class TemplateFault(ModelError):
    """A chat template that cannot be used, at all or for some messages; ``reason`` is the message without prefix."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"chat template: {reason}")


@dataclass(frozen=True)
class Shape:
    """What a template writes around an answer, after the text of the message before it.

    Attributes:
        bare: After the question, if nothing follows it.
        prompt: After the question, if an answer is asked for (``add_generation_prompt``).
        head: Between the question and its answer.
        tail: After the answer, if nothing follows it.
    """

    bare: str
    prompt: str
    head: str
    tail: str


class ChatTemplate:
    """A compiled chat template with the special tokens that are passed to it.

    Args:
        source: The template.
        special_tokens: Names (``bos_token``) and texts of the tokenizer's special tokens, plain strings.

    Raises:
        TemplateFault: If it cannot be compiled.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, Any]) -> None:
        self.source = source
        self.special_tokens = dict(special_tokens)
        self._sandbox = TemplateSandbox()
        self._shapes: dict[Reasoning, Shape] = {}
        try:
            self._template = self._sandbox.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateFault(f"line {error.lineno}: {error.message}") from error
        except Exception as error:  # the compiler may raise anything, such as RecursionError for deep nesting
            raise TemplateFault(f"it cannot be compiled ({type(error).__name__}: {error})") from error

    @property
    def fingerprint(self) -> str:
        """Content hash (xxh3, 128 bits, hexadecimal) of the template and the special tokens that it may write."""
        tokens = json.dumps(self.special_tokens, sort_keys=True)
        return xxhash.xxh3_128(f"{len(self.source)} {self.source}{tokens}".encode("utf-8", "surrogatepass")).hexdigest()

    def prompt(self, messages: Sequence[Message], reasoning: Reasoning = "strip") -> str:
        """Renders a conversation up to where the text of the answer starts.

        Args:
            messages: The conversation; its last message is the user's.
            reasoning: ``strip`` tells the template to leave reasoning out, and closes a reasoning block that it opens.

        Raises:
            TemplateFault: If the template refuses the messages, loses or rewrites the text of one, or is made for
                reasoning under ``refuse``.
        """
        self._allow(reasoning)
        text = self._checked(messages, True, reasoning)
        return text + self.closing if reasoning == "strip" else text

    def whole(self, messages: Sequence[Message], answer: str, reasoning: Reasoning = "strip") -> str:
        """Renders a conversation with its answer.

        Raises:
            TemplateFault: If the template refuses the messages, or loses or rewrites the text of one.
        """
        return self._checked([*messages, Message("assistant", answer)], False, reasoning)

    def without_reasoning(self, text: str) -> str:
        """An answer without its reasoning, in the template's own tags or in ``<think>``."""
        return without_reasoning(text, self.tags)

    def _allow(self, reasoning: Reasoning) -> None:
        if reasoning == "refuse" and self.reasons:
            raise TemplateFault(f"it is made for reasoning ({self.tags[0].open}), which data.reasoning: refuse forbids")

    def _checked(self, messages: Sequence[Message], ask: bool, reasoning: Reasoning) -> str:
        text = self.render(messages, ask=ask, reasoning=reasoning)
        for message in messages:
            if message.role != "assistant" and message.content.strip() not in text:
                raise TemplateFault(f"it loses or rewrites what the {message.role} says")
        return text

    def render(
        self, messages: Sequence[Message], *, ask: bool, reasoning: Reasoning = "keep", now: datetime = PINNED
    ) -> str:
        """Renders a conversation without checking the result.

        Args:
            messages: The conversation.
            ask: Whether it ends with the opening of an answer (``add_generation_prompt``).
            reasoning: ``strip`` tells the template to leave reasoning out; otherwise it does what its author intended.
            now: The date for a template that writes one.

        Raises:
            TemplateFault: If the template refuses the messages, fails in any other way, or does not end.
        """
        rows = [{"role": message.role, "content": message.content} for message in messages]
        variables = {**self.special_tokens, **(NO_THINKING if reasoning == "strip" else {})}
        variables |= {"messages": rows, "tools": None, "documents": None, "add_generation_prompt": ask}
        given = sum(len(message.content) for message in messages)
        try:
            return self._sandbox.rendered(self._template, variables, given=given, now=now)
        except OverBudget as error:
            raise TemplateFault(f"{error.message}, as if it never ended") from error
        except Exception as error:  # an expression of the template may raise anything
            what = str(error).strip().splitlines() or [type(error).__name__]
            raise TemplateFault(what[0]) from error

    # -- what it turns out to do when tried --------------------------------------------------------------------------

    @cached_property
    def opening(self) -> tuple[Message, ...]:
        """The shortest conversation that the template accepts: a question, in some only after a system message.

        Raises:
            TemplateFault: If it accepts neither.
        """
        try:
            self.render([ASK], ask=True)
        except TemplateFault:
            try:
                self.render([RULE, ASK], ask=True)
            except TemplateFault:
                pass
            else:
                return (RULE, ASK)
            raise
        return (ASK,)

    def shape(self, reasoning: Reasoning) -> Shape:
        """What the template writes around an answer.

        Raises:
            TemplateFault: If it refuses a question or an answer, or loses or rewrites its text.
        """
        if reasoning in self._shapes:
            return self._shapes[reasoning]
        texts = [
            self.render(self.opening, ask=False, reasoning=reasoning),
            self.render(self.opening, ask=True, reasoning=reasoning),
            self.render([*self.opening, ANSWER], ask=False, reasoning=reasoning),
        ]
        for text in texts:
            if ASK.content not in text:
                raise TemplateFault("it loses or rewrites what the user says")
        bare, prompt, whole = (text.rpartition(ASK.content)[2] for text in texts)
        if ANSWER.content not in whole:
            raise TemplateFault("it loses or rewrites what the assistant says")
        head, _, tail = whole.rpartition(ANSWER.content)
        return self._shapes.setdefault(reasoning, Shape(bare, prompt, head, tail))

    @cached_property
    def tail_before_question(self) -> str:
        """What the template writes between an answer and the next question; empty if it accepts only one question."""
        try:
            text = self.render([*self.opening, ANSWER, ASK_AGAIN], ask=False)
        except TemplateFault:
            return ""
        return text.rpartition(ASK_AGAIN.content)[0].rpartition(ANSWER.content)[2] if ANSWER.content in text else ""

    @cached_property
    def refuses_system(self) -> str | None:
        """Why the template accepts no system message, or None if it does."""
        try:
            text = self.render([RULE, ASK], ask=True)
        except TemplateFault as fault:
            return fault.reason
        return None if RULE.content in text else "it loses or rewrites what the system says"

    @cached_property
    def writes_date(self) -> bool:
        """Whether the template writes today's date, replaced by :data:`~lifealign.model.template_sandbox.PINNED`."""
        other = datetime(2031, 11, 2)
        tried = [self.opening, *([(RULE, ASK)] if self.refuses_system is None else [])]
        return any(self.render(one, ask=True) != self.render(one, ask=True, now=other) for one in tried)

    @cached_property
    def _reasoning_tags(self) -> Tags | None:
        """Tags of the reasoning that the template writes itself, or removes from earlier answers."""
        shapes = [self.shape("keep"), self.shape("strip")]
        for tags in tags_in(self.source):
            for shape in shapes:
                if _closed(tags, shape.prompt) or _closed(tags, shape.head) or _opened(tags, shape):
                    return tags
            block = f"{tags.open}\n{THOUGHT}\n{tags.close}\n\n{ANSWER.content}"
            try:
                history = self.render([*self.opening, Message("assistant", block), ASK_AGAIN], ask=True)
            except TemplateFault:
                continue
            if ANSWER.content in history and THOUGHT not in history:
                return tags
        return None

    @cached_property
    def tags(self) -> tuple[Tags, ...]:
        """Tags that mark reasoning in answers: the template's own first, and always ``<think>``."""
        own = self._reasoning_tags
        return (THINK,) if own is None else tuple(dict.fromkeys((own, THINK)))

    @cached_property
    def reasons(self) -> bool:
        """Whether the template is made for reasoning.

        It is if it opens or closes a reasoning block, has a switch for reasoning, or drops it from history.
        """
        return self._reasoning_tags is not None or self.shape("keep") != self.shape("strip")

    @cached_property
    def opens(self) -> Tags | None:
        """Tags of the reasoning block that the generation prompt opens when reasoning is not switched off, or None."""
        return next((tags for tags in self.tags if _opened(tags, self.shape("keep"))), None)

    @cached_property
    def closing(self) -> str:
        """What has to follow the generation prompt to get an answer without reasoning; may be empty."""
        shape = self.shape("strip")
        missing = shape.head.removeprefix(shape.prompt) if shape.head.startswith(shape.prompt) else ""
        for tags in self.tags:
            if tags.close in missing:  # it writes an empty block before an answer, or the channel of the answer
                return missing
            if _opened(tags, shape):
                return ("" if shape.prompt.endswith("\n") else "\n") + f"\n{tags.close}\n\n"
        return ""


def chat_template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The chat template of a tokenizer, compiled once and cached.

    Raises:
        TemplateFault: If there is none, or it cannot be compiled.
    """
    source = tokenizer.chat_template
    if isinstance(source, dict):  # several named templates, such as for tools or retrieval
        source = source.get("default")
    if not isinstance(source, str):
        raise TemplateFault("found none, expected that of an instruction-tuned model")
    special_tokens = {name: _plain(value) for name, value in tokenizer.special_tokens_map.items()}
    known = _COMPILED.get(tokenizer)
    if known is None or known.source != source or known.special_tokens != special_tokens:
        known = _COMPILED[tokenizer] = ChatTemplate(source, special_tokens)
    return known


def template_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Content hash of a tokenizer's chat template and of the special tokens that it may write.

    Raises:
        TemplateFault: If there is none, or it cannot be compiled.
    """
    return chat_template_of(tokenizer).fingerprint


_COMPILED: WeakKeyDictionary[PreTrainedTokenizerBase, ChatTemplate] = WeakKeyDictionary()


def _closed(tags: Tags, text: str) -> bool:
    """Whether a text contains an empty reasoning block, or switches to the channel of the answer."""
    before, found, _ = text.partition(tags.close)
    return bool(found) and (before.rstrip().endswith(tags.open) or tags == CHANNELS)


def _opened(tags: Tags, shape: Shape) -> bool:
    """Whether the generation prompt ends by opening a reasoning block that is not there before a given answer."""
    return shape.prompt.rstrip().endswith(tags.open) and not shape.head.rstrip().endswith(tags.open)


def _plain(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)
