"""Every accepted row shape, converted to :class:`~lifealign.data.pair.Pair`.

::

    standard        prompt, chosen, rejected             strings
    query           query, chosen, rejected              strings
    instruction     instruction, chosen, rejected        strings; ``input`` is appended to the prompt, here and above
    conversational  prompt, chosen, rejected             a prompt of messages, or answers of one assistant message each
    implicit        chosen, rejected                     whole conversations; what they share is the prompt
    system prompt   prompt, chosen, rejected             whole conversations, and a prompt that is none of their turns
    transcript      any text prompt, or none as above    'Human: ... Assistant: ...' in flat text
    openai          input, preferred_output,             a request with messages, and lists of one assistant message;
                    non_preferred_output                 also of Azure, Fireworks and Together
    ms-swift        messages, rejected_response          a conversation that ends with the chosen answer, and the other
                                                         answer; or rejected_messages, a whole conversation
    llama-factory   conversations, chosen, rejected      turns with from and value, and answers as such turns or strings

The columns ``system`` and ``history`` go before the prompt of any shape. :mod:`lifealign.data.columns` describes what
happens to the others, :mod:`lifealign.data.messages` what a message may hold and when a text is read as a list of
messages, :mod:`lifealign.data.transcripts` what a transcript is, :mod:`lifealign.data.foreign_rows` what the last three
shapes, those of other trainers, may hold.

A prompt beside whole conversations is compared with them. It may repeat one of their user turns, their system message,
or everything up to the answer. A text that repeats nothing becomes their system message, provided that they have none
and that the text neither contains one of their turns nor is part of one. Anything else is refused, because either the
prompt or the conversation would be lost unnoticed.

A row of no accepted shape raises an error. Two transcripts that differ before their last answers raise
:class:`UnclearTranscript`, and cleaning counts and drops such rows: they are to be expected in flat text.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lifealign.data.columns import (
    ANSWERS,
    OPENAI,
    PROMPTS,
    Row,
    foreign_shape,
    history_of,
    input_of,
    prompt_of,
    refuse_what_is_not_text,
    system_of,
)
from lifealign.data.conversations import (
    Content,
    alternating,
    as_system,
    part,
    repeats,
    squeezed,
    with_history,
    with_system,
)
from lifealign.data.files import read_rows
from lifealign.data.foreign_rows import parse_foreign
from lifealign.data.messages import Fault, answer_of, content_of, is_nothing, missing
from lifealign.data.pair import Message, Pair
from lifealign.data.transcripts import answer_transcript, turns_of
from lifealign.errors import DataError, describe

SHAPES = (
    "chosen and rejected with a prompt (or query, or instruction), or chosen and rejected that hold whole "
    "conversations (message lists or 'Human: ... Assistant: ...' text), or a preference row of OpenAI, ms-swift or "
    "LLaMA-Factory"
)


class UnclearTranscript(DataError):
    """Two transcripts that differ before their last answers, so that it is unclear what the prompt is."""


def read_pairs(path: str | Path) -> list[Pair]:
    """Reads every row of a file or hub dataset; drops nothing (see :func:`lifealign.data.clean.read_clean`).

    Raises:
        DataError: At the first fault in the file or in a row.
    """
    return [parse_row(row, path, line)[0] for line, row in read_rows(path)]


def parse_row(row: object, path: str | Path, line: int) -> tuple[Pair, str]:
    """Converts one row of any accepted shape.

    Args:
        row: The row as read: an object with string keys; anything else is refused.
        path: File it came from, for messages and for ``Pair.source``.
        line: Its line, or its record number in formats without lines, from 1.

    Returns:
        The pair, and the name of its shape as in the table above. Texts may still be empty; cleaning drops such pairs.

    Raises:
        DataError: If the row has no accepted shape, or one of its meaningful columns cannot be used; the message names
            the field, what was found and what was expected.
        UnclearTranscript: If two transcripts differ before their last answers.

    Example:
        >>> pair, shape = parse_row({"query": "Human: Hi", "chosen": "Assistant: Hello!", "rejected": "What?"}, "f", 1)
        >>> shape, pair.prompt, pair.chosen
        ('transcript', (Message(role='user', content='Hi'),), 'Hello!')
    """
    fault = partial(DataError, path, line=line)
    if not isinstance(row, dict):
        raise fault(found=describe(row), expected="an object with " + SHAPES)
    if foreign := foreign_shape(row):
        messages, chosen, rejected, shape = *_understand_foreign(row, foreign, fault), foreign
    else:
        for name in ANSWERS:
            if name not in row:
                raise fault(field=name, found=missing(row), expected=SHAPES)
        refuse_what_is_not_text(row, fault)
        messages, chosen, rejected, shape = _understand(row, fault, partial(UnclearTranscript, path, line=line))
    messages = with_system(*system_of(row, fault), with_history(history_of(row, fault), messages, fault), fault)
    return Pair(messages, chosen, rejected, f"{path}:{line}"), shape


def _understand(row: Row, fault: Fault, unclear: Fault) -> tuple[tuple[Message, ...], str, str, str]:
    """Prompt, both answers and shape, not including what the columns ``system`` and ``history`` add."""
    chosen, rejected = (content_of(row[name], name, fault) for name in ANSWERS)
    field, prompt = prompt_of(row, fault)
    if whole := _whole_conversations(chosen, rejected, prompt, fault, unclear):
        messages, *answers = whole
        shape = "transcript" if isinstance(chosen, str) else "implicit"
        if field is not None and prompt is not None and not (is_nothing(prompt) or repeats(prompt, messages)):
            messages, shape = (as_system(field, prompt, messages, fault), *messages), "system prompt"
        _refuse_lost_input(row, messages, fault)
        return messages, answers[0], answers[1], shape
    if prompt is None or field is None:
        raise fault(field="prompt", found=missing(row), expected=SHAPES)

    texts = answer_of(chosen, "chosen", fault), answer_of(rejected, "rejected", fault)
    turns = turns_of(prompt) if isinstance(prompt, str) else ()
    if isinstance(prompt, str) and not turns:
        messages = (Message("user", _with_input(prompt, input_of(row, fault))),)
        plain = isinstance(chosen, str) and isinstance(rejected, str)
        return messages, *texts, ("standard" if field == "prompt" else field) if plain else "conversational"
    messages, *answers = answer_transcript(turns, *texts) if isinstance(prompt, str) else (prompt, *texts)
    messages = alternating(messages, field, fault)
    _refuse_lost_input(row, messages, fault)
    return messages, answers[0], answers[1], "transcript" if turns else "conversational"


def _understand_foreign(row: Row, shape: str, fault: Fault) -> tuple[tuple[Message, ...], str, str]:
    """The same of another trainer's row, whose conversation has to say what a prompt column beside it says."""
    refuse_what_is_not_text(row, fault)
    messages, chosen, rejected = parse_foreign(row, shape, fault)
    if not all(is_nothing(row.get(name)) for name in PROMPTS):
        field, prompt = prompt_of(row, fault)
        if prompt is not None and not repeats(prompt, messages):
            expected = f"what the conversation says, or no such column: the row is read as one of {shape}"
            raise fault(field=field, found="a different prompt", expected=expected)
    if shape != OPENAI:  # there, input is the request
        _refuse_lost_input(row, messages, fault)
    return messages, chosen, rejected


def _whole_conversations(
    chosen: Content, rejected: Content, prompt: Content | None, fault: Fault, unclear: Fault
) -> tuple[tuple[Message, ...], str, str] | None:
    """Splits answers that are whole conversations into shared prompt and last answers; None if they are just answers.

    Beside a prompt, two transcripts count as whole conversations only if they repeat it: an answer may itself be a
    dialogue, because people do ask for dialogues.
    """
    if isinstance(chosen, tuple) and isinstance(rejected, tuple) and (prompt is None or len(chosen + rejected) > 2):
        messages, *answers = part(chosen, rejected, fault)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        both = turns_of(chosen), turns_of(rejected)
        if not all(both):
            return None
        try:
            messages, *answers = part(*both, unclear)
        except UnclearTranscript:
            if prompt is None:
                raise
            return None
        if prompt is not None and not repeats(prompt, messages):
            return None
    else:
        return None
    return alternating(messages, "chosen", fault), answers[0], answers[1]


def _with_input(prompt: str, text: str) -> str:
    """A prompt and its ``input`` joined as in Alpaca, unless the prompt already ends with the input."""
    if not text or prompt.strip() == text.strip() or prompt.rstrip().endswith("\n" + text.strip()):
        return prompt
    return f"{prompt}\n\n{text}" if prompt.strip() else text


def _refuse_lost_input(row: Row, messages: tuple[Message, ...], fault: Fault) -> None:
    text = input_of(row, fault)
    if text and not any(squeezed(text) == squeezed(message.content) for message in messages):
        expected = "a text that the conversation contains; input can only be appended to a prompt of plain text"
        raise fault(field="input", found=describe(text), expected=expected)
