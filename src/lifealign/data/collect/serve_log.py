"""Our own log: a line for each answer of ``lifealign serve --log`` and for each thing said about one.

::

    {"kind": "answer", "id": "chatcmpl-1", "time": "...", "model": "my-bot@02-tone", "messages": [...],
     "answer": "...", "finish_reason": "stop"}
    {"kind": "feedback", "id": "chatcmpl-1", "time": "...", "thumb": "up"}

Feedback is ``thumb`` (``up`` or ``down``), ``edited`` (a better answer) or ``preferred_over`` (the id of the other
answer). It may be in a file of its own, and may be about answers of other logs, whose ids it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any

from lifealign.data.collect.answered import Answer, Opinion, Reading, Source, answer, moment, required
from lifealign.data.messages import Fault, is_nothing, missing
from lifealign.errors import DataError, describe

COMMENT = "comments without a judgement"
FEEDBACK = ("thumb", "edited", "preferred_over")


def recognises(row: dict[str, Any]) -> bool:
    """Whether a row is an answer or feedback of ours."""
    return row.get("kind") in ("answer", "feedback") and "id" in row


def read(path: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> Reading:
    """Reads a log of ours.

    Raises:
        DataError: At the first row that is neither an answer nor feedback.
    """
    reading = Reading()
    for line, row in rows:
        fault, place = partial(DataError, path, line=line), f"{path}:{line}"
        if row.get("kind") == "answer":
            reading.answers.append(_answer(row, place, fault))
        elif row.get("kind") == "feedback":
            reading.feedback += 1
            said = opinions(required(row, "id", fault), row, place, moment(row.get("time"), "time", fault), fault)
            reading.opinions += said
            if not said:
                if is_nothing(row.get("comment")):
                    raise fault(field="thumb", found=missing(row), expected="one of " + ", ".join(FEEDBACK))
                reading.leave_out(COMMENT, place)
        else:
            found = describe(row["kind"]) if "kind" in row else missing(row)
            raise fault(field="kind", found=found, expected="'answer' or 'feedback'")
    return reading


def opinions(about: str, row: dict[str, Any], place: str, time: datetime | None, fault: Fault) -> list[Opinion]:
    """What the keys ``thumb``, ``edited`` and ``preferred_over`` of a row say of an answer.

    A later thumb replaces an earlier one, and a later edit an earlier one; an answer may be preferred over several.

    Raises:
        DataError: Made by ``fault``, if one of them holds something else than it may.
    """
    found = []
    if not is_nothing(thumb := row.get("thumb")):
        if thumb not in ("up", "down"):
            raise fault(field="thumb", found=describe(thumb), expected="'up' or 'down'")
        found.append(Opinion(about, thumb, place, f"{about} thumb", time))
    if not is_nothing(row.get("edited")):
        better = required(row, "edited", fault)
        found.append(Opinion(about, "edited", place, f"{about} edited", time, edited=better))
    if not is_nothing(row.get("preferred_over")):
        over = required(row, "preferred_over", fault)
        found.append(Opinion(about, "chosen", place, f"{about} over {over}", time, over=over))
    return found


def _answer(row: dict[str, Any], place: str, fault: Fault) -> Answer:
    for key, kind, expected in (("messages", list, "a list of messages"), ("answer", str, "a string")):
        if not isinstance(row.get(key), kind):
            raise fault(field=key, found=describe(row[key]) if key in row else missing(row), expected=expected)
    return answer(
        (required(row, "id", fault),),
        row["messages"],
        row["answer"],
        place,
        fault,
        model=required(row, "model", fault),
        time=moment(row.get("time"), "time", fault),
        complete=row.get("finish_reason") == "stop",
    )


SOURCE = Source("lifealign serve log", recognises, read)
