"""Stored completions of OpenAI and of servers like it: each with the messages that it answers, a line for each.

::

    {"id": "chatcmpl-1", "object": "chat.completion", "created": 1795780800, "model": "...",
     "messages": [...], "choices": [{"index": 0, "finish_reason": "stop", "message": {...}}],
     "metadata": {"thumb": "up"}}

The interface hands out a completion without its messages; whoever saves it puts them beside it, as ``messages`` or
``input``. ``metadata`` may say what our own log says of an answer (``thumb``, ``edited``, ``preferred_over``), and so
may a file of feedback, by id. Of several choices, each is called by its id and its index: ``chatcmpl-1#0``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from lifealign.data.collect.answered import NOT_PLAIN, Answer, Reading, Source, answer, moment, optional, required
from lifealign.data.collect.serve_log import FEEDBACK, opinions
from lifealign.data.messages import Fault, is_nothing, missing
from lifealign.errors import DataError, describe


def recognises(row: dict[str, Any]) -> bool:
    """Whether a row is a completion."""
    return isinstance(row.get("choices"), list) and "id" in row


def read(path: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> Reading:
    """Reads completions.

    Raises:
        DataError: At the first row that is no completion, or has no messages beside it.
    """
    reading = Reading()
    for line, row in rows:
        fault, place = partial(DataError, path, line=line), f"{path}:{line}"
        if not recognises(row):
            raise fault(found=describe(row), expected="a completion with id and choices")
        given = list(_answers(row, place, fault))
        reading.answers += given
        metadata = row.get("metadata")
        if isinstance(metadata, dict) and any(not is_nothing(metadata.get(key)) for key in FEEDBACK):
            reading.feedback += 1
            reading.opinions += opinions(required(row, "id", fault), metadata, place, None, fault)
    return reading


def _answers(row: dict[str, Any], place: str, fault: Fault) -> Iterable[Answer]:
    name = required(row, "id", fault)
    asked = next((row[key] for key in ("messages", "input") if not is_nothing(row.get(key))), None)
    if asked is None:
        expected = "the messages that it answers beside it, from GET /chat/completions/ID/messages"
        raise fault(field="messages", found=missing(row), expected=expected)
    model, time = optional(row, "model"), moment(row.get("created"), "created", fault)
    for index, choice in enumerate(row["choices"]):
        if not isinstance(choice, dict):
            raise fault(field=f"choices[{index}]", found=describe(choice), expected="a choice with a message")
        names = (name,) if len(row["choices"]) == 1 else (f"{name}#{index}", name)
        if not is_nothing(row.get("tools")):
            yield Answer(names, (), "", place, unusable=NOT_PLAIN)
        else:
            complete = choice.get("finish_reason") == "stop"
            yield answer(names, asked, choice.get("message"), place, fault, model=model, time=time, complete=complete)


SOURCE = Source("OpenAI stored completions", recognises, read)
