"""Every accepted row shape, understood as :class:`~lifealign.data.task.Pair`.

::

    standard        prompt, chosen, rejected             strings
    query           query, chosen, rejected              strings
    conversational  prompt, chosen, rejected             a prompt of messages, or answers of one assistant message each
    implicit        chosen, rejected                     whole conversations; what they share is the prompt
    transcript      any text prompt, or none as above    'Human: ... Assistant: ...' in flat text

Other columns are ignored. A text is a transcript if it starts with ``Human:``; its turns start at line starts, and
neighbouring turns of one speaker are one turn. Answers to a transcript lose a leading ``Assistant:``. A transcript
prompt that ends with the assistant's turn holds the beginning of an answer (hh files in circulation are cut like that).
That turn goes to the answers: to those that open no turn of their own with ``Assistant:``, or to both if both do.

A row of no accepted shape is a fault of the file and raises. Only two transcripts that part before their last answer
raise :class:`UnclearTranscript`, which cleaning counts and drops: flat text has such rows by nature.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from lifealign.data.files import read_rows
from lifealign.data.task import Message, Pair
from lifealign.errors import DataError, describe

TURN_START = re.compile(r"^(Human|Assistant):", re.MULTILINE)
ANSWER_START = re.compile(r"\A(?:\s*Assistant:)+")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
ROLES = ("system", "user", "assistant")
SHAPES = (
    "prompt/chosen/rejected, query/chosen/rejected, or chosen/rejected that hold whole conversations "
    "(message lists or 'Human: ... Assistant: ...' text)"
)

Fault = Callable[..., DataError]  # DataError with path and line filled in


class UnclearTranscript(DataError):
    """Two transcripts that differ before their last answer, so no prompt can be told."""


def read_pairs(path: str | Path) -> list[Pair]:
    """Reads every row of a file or hub dataset; drops nothing (see :func:`lifealign.data.checks.read_clean`).

    Raises:
        DataError: At the first row or file fault.
    """
    return [parse_row(row, path, line)[0] for line, row in read_rows(path)]


def parse_row(row: object, path: str | Path, line: int) -> tuple[Pair, str]:
    """Understands one row of any accepted shape.

    Args:
        row: The row as read, an object with string keys; anything else is a fault.
        path: File it came from, for messages and for ``Pair.source``.
        line: Its line, or its record number in formats without lines, from 1.

    Returns:
        The pair, and the name of its shape as in the table above. Texts may still be empty; cleaning sees to that.

    Raises:
        DataError: If the row has no accepted shape; names the field, what was found and what was expected.
        UnclearTranscript: If two transcripts differ before their last answer.

    Example:
        >>> pair, shape = parse_row({"query": "Human: Hi", "chosen": "Assistant: Hello!", "rejected": "What?"}, "f", 1)
        >>> shape, pair.prompt, pair.chosen
        ('transcript', (Message(role='user', content='Hi'),), 'Hello!')
    """
    fault = partial(DataError, path, line=line)
    if not isinstance(row, dict):
        raise fault(found=describe(row), expected="an object with " + SHAPES)
    for name in ("chosen", "rejected"):
        if name not in row:
            raise fault(field=name, found=_missing(row), expected=SHAPES)
    chosen, rejected = (_content(row[name], name, fault) for name in ("chosen", "rejected"))
    field = next((name for name in ("prompt", "query") if name in row), None)
    prompt = _content(row[field], field, fault) if field else None
    build = partial(Pair, source=f"{path}:{line}")

    if isinstance(chosen, tuple) and isinstance(rejected, tuple) and (field is None or len(chosen + rejected) > 2):
        # Whole conversations, prompt included. A prompt string beside them repeats a part of them, in one way or
        # another, and is ignored; a prompt of messages has to agree.
        messages, *answers = _part(chosen, rejected, fault)
        if isinstance(prompt, tuple) and prompt != messages:
            raise fault(
                field=field,
                found="messages that chosen and rejected do not begin with",
                expected="the conversation up to the answer, or answers of one message each",
            )
        return build(_alternating(messages, "chosen", fault), *answers), "implicit"

    if prompt is None or field is None:
        if isinstance(chosen, str) and isinstance(rejected, str):
            both = _turns(chosen), _turns(rejected)
            if all(both):
                return build(*_part(*both, partial(UnclearTranscript, path, line=line))), "transcript"
        raise fault(field="prompt", found=_missing(row), expected=SHAPES)

    texts = _answer(chosen, "chosen", fault), _answer(rejected, "rejected", fault)
    if isinstance(prompt, tuple):
        return build(_alternating(prompt, field, fault), *texts), "conversational"
    if turns := _turns(prompt):
        return build(*_answer_transcript(turns, *texts)), "transcript"
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        return build((Message("user", prompt),), *texts), "conversational"
    return build((Message("user", prompt),), *texts), "query" if field == "query" else "standard"


def _missing(row: dict[str, Any]) -> str:
    return "no such field among " + ", ".join(repr(str(key)[:40]) for key in list(row)[:12]) if row else "no fields"


def _content(value: object, field: str, fault: Fault) -> str | tuple[Message, ...]:
    """Checks the types of one field, whatever its place in a conversation."""
    if isinstance(value, str):
        return _clear_text(value, field, fault)
    if not isinstance(value, list) or not value:
        raise fault(field=field, found=describe(value), expected="a string or a list of messages")
    messages = []
    for index, message in enumerate(value):
        place = f"{field}[{index}]"
        if not isinstance(message, dict):
            raise fault(field=place, found=describe(message), expected="a message with role and content")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                found = describe(message[key]) if key in message else _missing(message)
                raise fault(field=f"{place}.{key}", found=found, expected="a string")
        if message["role"] not in ROLES:
            raise fault(
                field=f"{place}.role", found=describe(message["role"]), expected="'system', 'user' or 'assistant'"
            )
        messages.append(Message(message["role"], _clear_text(message["content"], f"{place}.content", fault)))
    return tuple(messages)


def _clear_text(text: str, field: str, fault: Fault) -> str:
    """Refuses what no tokenizer or file can carry faithfully."""
    if bad := re.search("[\0\ud800-\udfff]", text):
        kind = "a NUL character" if bad[0] == "\0" else f"half a character (lone surrogate U+{ord(bad[0]):04X})"
        raise fault(field=field, found=f"{kind} at position {bad.start()}", expected="text without it")
    return text


def _answer(content: str | tuple[Message, ...], field: str, fault: Fault) -> str:
    if isinstance(content, str):
        return content
    if len(content) != 1 or content[0].role != "assistant":
        roles = ", ".join(message.role for message in content[:6])
        raise fault(field=field, found=f"messages from {roles}", expected="one message, from the assistant")
    return content[0].content


def _alternating(prompt: tuple[Message, ...], field: str, fault: Fault) -> tuple[Message, ...]:
    start = 1 if prompt and prompt[0].role == "system" else 0
    for index in range(start, len(prompt)):
        role = ("user", "assistant")[(index - start) % 2]
        if prompt[index].role != role:
            raise fault(
                field=f"{field}[{index}].role",
                found=repr(prompt[index].role),
                expected=f"{role!r}: user and assistant take turns, after at most one system message",
            )
    if len(prompt) == start or prompt[-1].role != "user":
        found = "no turn of the user" if len(prompt) == start else "a last turn from the assistant"
        raise fault(field=field, found=found, expected="a prompt that ends with the user's turn")
    return prompt


def _part(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], fault: Fault
) -> tuple[tuple[Message, ...], str, str]:
    """Parts two conversations into the prompt they share and their last, differing answers."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    for field, turns in (("chosen", chosen), ("rejected", rejected)):
        if [message.role for message in turns[shared:]] != ["assistant"]:
            roles = ", ".join(message.role for message in turns[shared : shared + 6])
            found = f"{roles} after the {shared} turns that chosen and rejected share"
            raise fault(field=field, found=found, expected="one turn, the assistant's answer")
    return chosen[:shared], chosen[-1].content, rejected[-1].content


def _turns(text: str) -> tuple[Message, ...]:
    """Splits a transcript into turns that alternate, the user's first; nothing if the text is no transcript."""
    text = text.strip()
    if not text.startswith("Human:"):
        return ()
    _, *parts = TURN_START.split(text)
    by_speaker = groupby(zip(parts[::2], parts[1::2], strict=True), key=lambda turn: turn[0])
    return tuple(Message(SPEAKERS[name], _join(*(words.strip() for _, words in turns))) for name, turns in by_speaker)


def _answer_transcript(turns: tuple[Message, ...], *answers: str) -> tuple[tuple[Message, ...], str, str]:
    """Strips speakers from the answers, and gives them the assistant's turn that the prompt ends with, if it does."""
    opens = [ANSWER_START.match(answer) is not None for answer in answers]
    chosen, rejected = (ANSWER_START.sub("", answer).strip() for answer in answers)
    if turns[-1].role == "user":
        return turns, chosen, rejected
    *prompt, (_, begun) = turns
    if not opens[0] or all(opens):
        chosen = _join(begun, chosen)
    if not opens[1] or all(opens):
        rejected = _join(begun, rejected)
    return tuple(prompt), chosen, rejected


def _join(*texts: str) -> str:
    return "\n".join(text for text in texts if text)
