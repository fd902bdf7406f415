"""Feedback exported from Open WebUI: an array with a record for each rated answer and the chat that it is in.

::

    {"type": "rating", "data": {"rating": 1}, "meta": {"message_id": "b"}, "created_at": 1795780800,
     "snapshot": {"chat": {"chat": {"params": {}, "history": {"messages": {
         "a": {"role": "user", "content": "...", "parentId": null, "childrenIds": ["b", "c"]},
         "b": {"role": "assistant", "content": "...", "parentId": "a", "model": "my-bot"}, ...}}}}}}

A thumb up beside other answers to the same message (two models side by side, the arena, an answer generated again)
chooses the answer over each of them, as the program's own leaderboard counts it. A thumb down says no more than that
the answer is bad. An answer that was edited in its place (``originalContent``) is an edit.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from lifealign.data.collect.answered import NOT_PLAIN, Answer, Opinion, Reading, Source, answer, moment, optional
from lifealign.data.messages import Fault, is_nothing
from lifealign.errors import DataError, describe

NO_CHAT = "feedback without the chat that it is about"
NO_THUMB = "ratings that are neither 1 nor -1"
HIDDEN = '<details type="'  # how the program writes thoughts, tool calls and code into the content of a message
Messages = dict[str, Any]


def recognises(row: dict[str, Any]) -> bool:
    """Whether a row is a record of feedback."""
    return isinstance(row.get("data"), dict) and isinstance(row.get("meta"), dict) and "type" in row


def read(path: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> Reading:
    """Reads an export of feedback.

    Raises:
        DataError: At the first row that is no record of feedback.
    """
    reading = Reading()
    for number, row in rows:
        fault, place = partial(DataError, path, line=number), f"{path}:{number}"
        if not recognises(row):
            raise fault(found=describe(row), expected="feedback with type, data and meta")
        reading.feedback += 1
        messages, system = _chat(row.get("snapshot"))
        rated = messages.get(str(row["meta"].get("message_id")))
        if not isinstance(rated, dict):
            reading.leave_out(NO_CHAT, place)
            continue
        siblings = _siblings(rated, messages)
        answers = [_answer(one, messages, system, place, fault) for one in (rated, *siblings)]
        reading.answers += answers
        said = list(_opinions(row, rated, answers, place, fault))
        reading.opinions += said
        if not said:
            reading.leave_out(NO_THUMB, place)
    return reading


def _opinions(
    row: dict[str, Any], rated: dict[str, Any], answers: list[Answer], place: str, fault: Fault
) -> Iterable[Opinion]:
    said = partial(
        Opinion,
        answers[0].names[0],
        source=place,
        slot=f"feedback {row.get('id') or place}",
        time=moment(row.get("updated_at") or row.get("created_at"), "updated_at", fault),
    )
    rating = str(row["data"].get("rating"))
    if not is_nothing(rated.get("originalContent")):
        yield said(kind="edited", edited=optional(rated, "content"))
    elif rating == "1" and len(answers) > 1:
        for other in answers[1:]:
            yield said(kind="chosen", over=other.names[0])
    elif rating in ("1", "-1"):
        yield said(kind="up" if rating == "1" else "down")


def _answer(message: dict[str, Any], messages: Messages, system: str, place: str, fault: Fault) -> Answer:
    """An answer as it was generated. Its name begins with its place: each record has a snapshot of its own."""
    original = message.get("originalContent")
    said = message.get("content") if is_nothing(original) else original
    before = _before(message, messages)
    turns: list[Any] = [{"role": "system", "content": system}] if system else []
    turns += [{"role": one.get("role"), "content": one.get("content")} for one in before]
    name = (f"{place} {message.get('id')}",)
    hidden = any(HIDDEN in str(text) for text in (said, *(one.get("content") for one in before)))
    if hidden or any(not is_nothing(one.get("files")) for one in before):
        return Answer(name, (), "", place, unusable=NOT_PLAIN)
    return answer(
        name,
        turns,
        said,
        place,
        fault,
        model=optional(message, "selectedModelId", "model"),
        time=moment(message.get("timestamp"), "timestamp", fault),
        complete=message.get("done") is not False and is_nothing(message.get("error")),
    )


def _chat(snapshot: Any) -> tuple[Messages, str]:
    """The messages of a chat by id, and its system message; nothing if there is no chat."""
    chat = snapshot.get("chat") if isinstance(snapshot, dict) else None
    if isinstance(chat, dict) and isinstance(chat.get("chat"), dict):
        chat = chat["chat"]
    history = chat.get("history") if isinstance(chat, dict) else None
    messages = history.get("messages") if isinstance(history, dict) else None
    if not isinstance(chat, dict) or not isinstance(messages, dict):
        return {}, ""
    params = chat.get("params")
    return messages, optional(params, "system") if isinstance(params, dict) else ""


def _siblings(rated: dict[str, Any], messages: Messages) -> list[dict[str, Any]]:
    """The other answers to the message that a rated one answers, in the order in which they are shown."""
    parent = messages.get(str(rated.get("parentId")))
    children = parent.get("childrenIds") if isinstance(parent, dict) else None
    found = [messages.get(str(name)) for name in children] if isinstance(children, list) else []
    return [one for one in found if isinstance(one, dict) and one is not rated and one.get("role") == "assistant"]


def _before(message: dict[str, Any], messages: Messages) -> list[dict[str, Any]]:
    """The messages that lead to one, first to last; none if they lead in a circle."""
    found: list[dict[str, Any]] = []
    parent = messages.get(str(message.get("parentId")))
    while isinstance(parent, dict):
        if len(found) == len(messages):
            return []
        found.append(parent)
        parent = messages.get(str(parent.get("parentId")))
    return found[::-1]


SOURCE = Source("Open WebUI feedback", recognises, read)
