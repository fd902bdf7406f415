"""What every log is turned into: the answers that models gave, and what people said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from lifealign.data.conversations import alternating
from lifealign.data.foreign_rows import with_system_role
from lifealign.data.messages import Fault, answer_of, content_of, is_nothing, missing
from lifealign.data.pair import Message
from lifealign.errors import DataError, describe

NOT_PLAIN = "feedback about a conversation that is not plain text in turns"
"""Why nothing can be made of an answer that calls tools, shows pictures, or follows two turns of one speaker."""
MILLISECONDS = 10**11  # seconds since 1970 reach this number in the year 5138, milliseconds did in 1973

Kind = Literal["up", "down", "edited", "chosen"]
LeftOut = dict[str, list[str]]
"""Places of what makes no pair, by reason."""


def note(left_out: LeftOut, reason: str, place: str) -> None:
    """Notes the place of something that makes no pair."""
    left_out.setdefault(reason, []).append(place)


@dataclass(frozen=True)
class Answer:
    """An answer that a model gave.

    Attributes:
        names: What opinions may call it, its own id first. A name may belong to several answers, as that of a trace
            does; an opinion that uses it then fits none of them.
        prompt: The conversation that it answers; empty if ``unusable``.
        text: What it says; empty if ``unusable``.
        source: Where it was found, ``file:line``.
        model: Which model gave it, if the log says so.
        time: When it was given, if the log says so.
        complete: False if it was cancelled or cut: it may be rejected, never chosen.
        unusable: Why no pair can be made of what is said of it, if so.
    """

    names: tuple[str, ...]
    prompt: tuple[Message, ...]
    text: str
    source: str
    model: str = ""
    time: datetime | None = None
    complete: bool = True
    unusable: str = ""


@dataclass(frozen=True)
class Opinion:
    """One thing that somebody said of an answer.

    Attributes:
        about: A name of the answer.
        kind: ``up`` or ``down`` (a thumb), ``edited`` (somebody wrote a better answer), or ``chosen`` (somebody chose
            it over another answer).
        source: Where it was found, ``file:line``.
        slot: What a later opinion replaces: of all opinions with the same slot, those from the latest place count.
        time: When it was said, if the log says so.
        edited: The better answer, if ``edited``.
        over: A name of the other answer, if ``chosen``.
    """

    about: str
    kind: Kind
    source: str
    slot: str
    time: datetime | None = None
    edited: str = ""
    over: str = ""


@dataclass
class Reading:
    """What one file holds.

    Attributes:
        answers: The answers, in file order.
        opinions: What was said of them, in file order.
        feedback: How often somebody said something; a vote among three answers is two opinions and one feedback.
        left_out: Places of the feedback that is no opinion, by reason.
    """

    answers: list[Answer] = field(default_factory=list)
    opinions: list[Opinion] = field(default_factory=list)
    feedback: int = 0
    left_out: LeftOut = field(default_factory=dict)

    def leave_out(self, reason: str, place: str) -> None:
        """Notes feedback that is no opinion."""
        note(self.left_out, reason, place)


class Source(NamedTuple):
    """A format of logs.

    Attributes:
        name: What people call it.
        recognises: Whether a row, an object, is one of this format.
        read: Reads the numbered rows of a file, whose name it gets for messages and sources; raises ``DataError`` at
            the first row that is not of the format.
    """

    name: str
    recognises: Callable[[dict[str, Any]], bool]
    read: Callable[[str, Iterable[tuple[int, dict[str, Any]]]], Reading]


def answer(names: tuple[str, ...], messages: object, said: object, source: str, fault: Fault, **more: Any) -> Answer:
    """An answer whose conversation and text are those of a log; unusable if they are not plain text in turns.

    Args:
        names: Its names.
        messages: The conversation that it answers: a list of messages, or what a user said.
        said: What it says: a text, a message of the assistant, or a list of one.
        source: Where it was found.
        fault: Makes errors about its row.
        **more: The other attributes.
    """
    try:
        return Answer(names, conversation(messages, fault), text_of(said, fault), source, **more)
    except DataError:
        return Answer(names, (), "", source, unusable=NOT_PLAIN, **more)


def conversation(messages: object, fault: Fault) -> tuple[Message, ...]:
    """A prompt from the messages of a log, or from what a user said.

    Raises:
        DataError: Made by ``fault``, if it is not plain text in turns that ends with the user's.
    """
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else with_system_role(messages)
    content = content_of(turns, "messages", fault)
    if isinstance(content, str):
        raise fault(field="messages", found=describe(messages), expected="a list of messages")
    return alternating(content, "messages", fault)


def text_of(said: object, fault: Fault) -> str:
    """The text of an answer: of a string, of a message of the assistant, or of a list of one such message.

    Raises:
        DataError: Made by ``fault``, if it is anything else.
    """
    if isinstance(said, str):
        said = {"role": "assistant", "content": said}
    return answer_of(content_of([said] if isinstance(said, dict) else said, "answer", fault), "answer", fault)


def required(row: dict[str, Any], key: str, fault: Fault) -> str:
    """The string that a row has to have.

    Raises:
        DataError: Made by ``fault``, if it is missing, empty or no string.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise fault(field=key, found=describe(value) if key in row else missing(row), expected="a text")
    return value


def optional(row: dict[str, Any], *keys: str) -> str:
    """The first string among some keys of a row, or an empty one."""
    return next((row[key] for key in keys if isinstance(row.get(key), str)), "")


def moment(value: object, key: str, fault: Fault) -> datetime | None:
    """A time in UTC: of a text in ISO 8601 (UTC if it names no zone), of seconds or milliseconds since 1970, or itself.

    Raises:
        DataError: Made by ``fault``, if it is neither and not nothing.

    Example:
        >>> from functools import partial
        >>> fault = partial(DataError, "f", line=1)
        >>> moment("2026-11-27T13:00:00+01:00", "time", fault) == moment(1795780800, "time", fault)
        True
    """
    if is_nothing(value):
        return None
    try:
        found = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if isinstance(found, datetime):  # as Parquet holds it, or now read
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value >= MILLISECONDS else value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise fault(field=key, found=describe(value), expected="a time, such as '2026-11-27T12:00:00Z'") from None
