"""Preference rows of other trainers: OpenAI and those who share its files, ms-swift, LLaMA-Factory.

::

    openai         {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}
    ms-swift       {"messages": [..., the chosen answer], "rejected_response": a text or [a message]}
                   {"messages": [..., the chosen answer], "rejected_messages": [..., the rejected answer]}
    llama-factory  {"conversations": [{"from": "human", "value": ...}, ...], "chosen": {...}, "rejected": {...}}

Each answer is one message of the assistant: a row in which an answer calls a tool, or consists of several messages, is
refused. :func:`lifealign.data.columns.foreign_shape` says which shape a row has.
"""

from __future__ import annotations

from typing import Any

from lifealign.data.columns import ANSWERS, LLAMA_FACTORY, OPENAI, Row
from lifealign.data.conversations import alternating, part
from lifealign.data.messages import Fault, answer_of, content_of, is_nothing, missing
from lifealign.data.pair import Message
from lifealign.errors import DataError, describe

SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""Who speaks a turn of LLaMA-Factory, as a role; the others speak to and for tools."""

Parsed = tuple[tuple[Message, ...], str, str]  # prompt, chosen, rejected


def parse_foreign(row: Row, shape: str, fault: Fault) -> Parsed:
    """Prompt and answers of a row of another trainer.

    Args:
        row: The row.
        shape: Which one's, from :func:`lifealign.data.columns.foreign_shape`.
        fault: Makes the error to raise.

    Raises:
        DataError: Made by ``fault``, if a part of the row is missing or is no plain text.
    """
    if shape == OPENAI:
        return _openai(row, fault)
    return _llama_factory(row, fault) if shape == LLAMA_FACTORY else _ms_swift(row, fault)


def with_system_role(messages: object) -> object:
    """Messages as they are, except that OpenAI's role ``developer`` is what it is elsewhere: ``system``."""
    if not isinstance(messages, list):
        return messages
    return [
        turn | {"role": "system"} if isinstance(turn, dict) and turn.get("role") == "developer" else turn
        for turn in messages
    ]


def _openai(row: Row, fault: Fault) -> Parsed:
    request = row.get("input")
    if not isinstance(request, dict):
        found = describe(request) if "input" in row else missing(row)
        raise fault(field="input", found=found, expected="an object with messages")
    if not is_nothing(request.get("tools")):
        expected = "no such key: only text is learnt; drop the rows that need tools"
        raise fault(field="input.tools", found=describe(request["tools"]), expected=expected)
    prompt = _messages(with_system_role(request.get("messages")), "input.messages", fault)
    answers = [_answer(row, name, fault) for name in ("preferred_output", "non_preferred_output")]
    return alternating(prompt, "input.messages", fault), answers[0], answers[1]


def _ms_swift(row: Row, fault: Fault) -> Parsed:
    if not is_nothing(row.get("objects")):
        expected = "no such column: only text is learnt; drop the rows about pictures"
        raise fault(field="objects", found=describe(row["objects"]), expected=expected)
    talk = _messages(row.get("messages"), "messages", fault)
    if is_nothing(row.get("rejected_messages")):
        prompt, chosen = talk[:-1], answer_of(talk[-1:], "messages", fault)
        return alternating(prompt, "messages", fault), chosen, _answer(row, "rejected_response", fault)
    if not is_nothing(row.get("rejected_response")):
        raise fault(field="rejected_messages", found="rejected_response beside it", expected="one of the two")
    other = _messages(row["rejected_messages"], "rejected_messages", fault)
    names = dict(zip(ANSWERS, ("messages", "rejected_messages"), strict=True))

    def named(*, field: str, **said: str) -> DataError:
        return fault(field=names[field], **said)

    prompt, chosen, rejected = part(talk, other, named)
    return alternating(prompt, "messages", fault), chosen, rejected


def _llama_factory(row: Row, fault: Fault) -> Parsed:
    turns = row["conversations"]
    if not isinstance(turns, list):
        raise fault(field="conversations", found=describe(turns), expected="a list of turns with from and value")
    spoken = [_spoken(turn, f"conversations[{index}]", fault) for index, turn in enumerate(turns)]
    prompt = alternating(_messages(spoken, "conversations", fault), "conversations", fault)
    answers = []
    for name in ANSWERS:
        said = row[name]
        content = content_of([_spoken(said, name, fault)] if isinstance(said, dict) else said, name, fault)
        answers.append(answer_of(content, name, fault))
    return prompt, answers[0], answers[1]


def _spoken(turn: Any, place: str, fault: Fault) -> dict[str, Any]:
    """A turn with from and value (or with role and content already) as a message."""
    if not isinstance(turn, dict):
        raise fault(field=place, found=describe(turn), expected="a turn with from and value")
    if "from" not in turn:
        return turn
    role = SPEAKERS.get(turn["from"]) if isinstance(turn["from"], str) else None
    if role is None:
        raise fault(field=f"{place}.from", found=describe(turn["from"]), expected="'system', 'human' or 'gpt'")
    if not isinstance(turn.get("value"), str):
        found = describe(turn["value"]) if "value" in turn else missing(turn)
        raise fault(field=f"{place}.value", found=found, expected="a string")
    return {"role": role, "content": turn["value"]}


def _messages(value: object, field: str, fault: Fault) -> tuple[Message, ...]:
    content = content_of(value, field, fault)
    if isinstance(content, str):
        raise fault(field=field, found=describe(content), expected="a list of messages")
    return content


def _answer(row: Row, name: str, fault: Fault) -> str:
    if name not in row:
        raise fault(field=name, found=missing(row), expected="the other answer")
    return answer_of(content_of(row[name], name, fault), name, fault)
