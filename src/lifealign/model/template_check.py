"""Checks whether a chat template can be used with its tokenizer and model, before anything is made with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from transformers import PreTrainedTokenizerBase

from lifealign.data.pair import Message
from lifealign.errors import ModelError
from lifealign.model.chat_codec import ChatCodec, chat_codec_of
from lifealign.model.chat_template import ANSWER, ASK, RULE, ChatTemplate, TemplateFault, chat_template_of
from lifealign.model.reasoning import Reasoning
from lifealign.model.template_sandbox import PINNED

CONTROL_SHAPED = re.compile(r"<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|</s>|<(?:eos|end_of_turn|end_of_text)>")


@dataclass(frozen=True)
class TemplateFacts:
    """What a usable template does; none of it is a fault.

    Attributes:
        fingerprint: Content hash of the template and the special tokens that it may write.
        end_token_id: The token that ends a turn of the assistant, and so each completion.
        stop_token_ids: Tokens at which a generated answer ends, besides those of the generation config.
        refuses_system: Why rows with a system message are refused, or None.
        writes_date: Whether it writes today's date, which is pinned.
        reasons: Whether it is made for reasoning.
        closing: What is appended to prompts under ``strip``, so that an answer without reasoning follows.
    """

    fingerprint: str
    end_token_id: int
    stop_token_ids: tuple[int, ...]
    refuses_system: str | None
    writes_date: bool
    reasons: bool
    closing: str

    def notes(self, reasoning: Reasoning = "strip") -> tuple[str, ...]:
        """Facts that the user should be told once, one sentence each."""
        found = []
        if self.refuses_system is not None:
            found.append(
                f"The chat template accepts no system message ({self.refuses_system}); rows with one are refused."
            )
        if self.writes_date:
            found.append(f"The chat template writes today's date; here it is always {PINNED:%d %B %Y}.")
        if self.reasons and reasoning == "strip":
            how = f"prompts end with {self.closing!r}" if self.closing else "it is told to leave it out"
            found.append(f"The chat template is made for reasoning; {how} (data.reasoning: strip).")
        return tuple(found)


def require_usable_template(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    embedding_rows: int | None = None,
    reasoning: Reasoning = "strip",
) -> TemplateFacts:
    """Tries a chat template with conversations of every form.

    Args:
        tokenizer: Tokenizer of the model.
        name: Name of the model, for the message.
        embedding_rows: Number of rows of the model's input embedding; None if there is no model to compare with.
        reasoning: The life's ``data.reasoning``.

    Returns:
        What the template does.

    Raises:
        ModelError: In one line, if the template is broken, refuses a plain question, requires a system message, loses
            or rewrites a text, does not lead into the assistant's turn, does not end, renders differently than in
            transformers, ends its turns with text that is not a token of the tokenizer, writes tokens outside the
            embedding, or is made for reasoning under ``refuse``.
    """
    try:
        template = chat_template_of(tokenizer)
        _require_question(template)
        _require_lead(template)
        _require_history(template)
        if reasoning == "refuse" and template.reasons:
            raise TemplateFault(
                f"it is made for reasoning ({template.tags[0].open}), which data.reasoning: refuse forbids; strip "
                "leaves reasoning out, keep learns it"
            )
        _require_agreement(template, tokenizer)
        _require_end(template, tokenizer)
        codec = chat_codec_of(tokenizer)
        if embedding_rows is not None:
            _require_rows(codec, tokenizer, embedding_rows)
        return TemplateFacts(
            template.fingerprint,
            codec.end_token_id,
            codec.stop_token_ids,
            template.refuses_system,
            template.writes_date,
            template.reasons,
            template.closing,
        )
    except TemplateFault as fault:
        raise ModelError(f"model {name!r}: its chat template cannot be used: {fault.reason}") from fault


def _require_question(template: ChatTemplate) -> None:
    if template.opening != (ASK,):
        try:
            template.render([ASK], ask=True)
        except TemplateFault as fault:
            raise TemplateFault(
                f"it requires a system message ({fault.reason}), expected it to accept a question alone"
            ) from fault
    template.shape("keep")
    template.shape("strip")


def _require_lead(template: ChatTemplate) -> None:
    """Refuses prompts that do not lead into the assistant's turn: the model would choose who speaks next."""
    for reasoning in ("keep", "strip"):
        shape = template.shape(reasoning)
        prompt, head = shape.prompt.rstrip(), shape.head.rstrip()
        if shape.prompt == shape.bare and len(head) > len(prompt):
            raise TemplateFault(f"it has no generation prompt, expected {head!r} where an answer is asked for")
        if not head.startswith(prompt) and not prompt.startswith(head):
            raise TemplateFault(
                f"its generation prompt is {prompt!r}, expected one that begins an answer as {head!r} does"
            )


def _require_history(template: ChatTemplate) -> None:
    """A template may refuse a second question, but it may not lose what was said before it."""
    again = Message("user", "Zq3 asks again")
    try:
        text = template.render([*template.opening, ANSWER, again], ask=True)
    except TemplateFault:
        return
    for message in (ASK, ANSWER, again):
        if message.content not in text:
            raise TemplateFault(f"it loses or rewrites earlier turns of the {message.role}")


def _require_agreement(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> None:
    """Our sandbox must write what transformers writes, today's date included; the template is known to end by now."""
    forms: list[tuple[Sequence[Message], bool]] = [([ASK], True), ([ASK, ANSWER], False)]
    if template.tail_before_question:
        forms.append(([ASK, ANSWER, ASK], True))
    if template.refuses_system is None:
        forms.append(([RULE, ASK], True))
    for messages, ask in forms:
        rows = [message._asdict() for message in messages]
        for _ in range(2):  # a second time, in case midnight passed in between
            ours = template.render(messages, ask=ask, now=datetime.now())
            theirs = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=ask)
            if ours == theirs:
                break
        else:
            place = next((at for at, pair in enumerate(zip(ours, str(theirs), strict=False)) if len(set(pair)) > 1), 0)
            found, expected = str(theirs)[place : place + 20], ours[place : place + 20]
            raise TemplateFault(f"transformers writes {found!r} where we write {expected!r}, expected the same text")


def _require_end(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses an end of turn that is not a token of the tokenizer: it could not be learnt as one, nor stopped at."""
    tail = template.shape("strip").tail
    shaped = CONTROL_SHAPED.search(tail)
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()} | {str(tokenizer.eos_token)}
    if shaped and not any(token in tail for token in added):
        raise TemplateFault(f"it ends turns with {shaped.group()!r}, expected a token that its tokenizer knows")


def _require_rows(codec: ChatCodec, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    used = {number for text in codec.probes() for number in tokenizer.encode(text, add_special_tokens=False)}
    used |= {codec.end_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    for number in sorted(number for number in used if isinstance(number, int)):
        if number >= rows:
            token = tokenizer.convert_ids_to_tokens(number)
            raise TemplateFault(
                f"token {token!r} has the id {number}, expected one below the {rows} rows of the embedding"
            )
