"""Langfuse: observations and scores, from its export to blob storage or its public API, in one file or in several.

::

    {"id": "obs-1", "trace_id": "t-1", "type": "GENERATION", "input": [...], "output": "...", "start_time": "..."}
    {"id": "s-1", "trace_id": "t-1", "observation_id": "obs-1", "name": "output", "data_type": "CORRECTION",
     "string_value": "..."}

Only generations are answers. Of the scores, a correction is an edit, and one that is named after feedback and is 1 for
good, 0 or -1 for bad is a thumb; what any other score means, its name does not say. A score of a whole trace is about
its one generation. Keys may be in snake case, as in the export, or in camel case, as from the API.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

from lifealign.data.collect.answered import NOT_PLAIN, Answer, Opinion, Reading, Source, answer, moment, optional
from lifealign.data.json_rows import unique_keys
from lifealign.data.messages import Fault, is_nothing
from lifealign.errors import DataError, describe

OTHER_SCORE = "scores that are neither a correction nor a thumb"
NO_TARGET = "scores of no trace"
NO_TEXT = "corrections without a text"
THUMBS = {"feedback", "user_feedback", "thumb", "thumbs"}
"""Names of scores that are thumbs, in lower case, with underscores between words."""
GOOD, BAD = (1, True), (0, -1, False)


def recognises(row: dict[str, Any]) -> bool:
    """Whether a row is an observation or a score."""
    return _is_observation(row) or _is_score(row)


def read(path: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> Reading:
    """Reads an export of observations, of scores, or of both.

    Raises:
        DataError: At the first row that is neither.
    """
    reading = Reading()
    for line, row in rows:
        fault, place = partial(DataError, path, line=line), f"{path}:{line}"
        if _is_score(row):
            reading.feedback += 1
            said = _opinion(row, place, fault)
            if isinstance(said, Opinion):
                reading.opinions.append(said)
            else:
                reading.leave_out(said, place)
        elif not _is_observation(row):
            raise fault(found=describe(row), expected="an observation (trace_id, type) or a score (name, data_type)")
        elif row["type"] == "GENERATION":
            reading.answers.append(_answer(row, place, fault))
    return reading


def _is_observation(row: dict[str, Any]) -> bool:
    return "id" in row and ("trace_id" in row or "traceId" in row) and isinstance(row.get("type"), str)


def _is_score(row: dict[str, Any]) -> bool:
    return "name" in row and ("data_type" in row or "dataType" in row) and "type" not in row


def _answer(row: dict[str, Any], place: str, fault: Fault) -> Answer:
    names = (f"observation {row['id']}", f"trace {optional(row, 'trace_id', 'traceId')}")
    asked, said = _parsed(row.get("input")), _parsed(row.get("output"))
    if isinstance(asked, dict):
        if not is_nothing(asked.get("tools")):
            return Answer(names, (), "", place, unusable=NOT_PLAIN)
        asked = asked.get("messages", [asked])
    return answer(
        names,
        asked,
        said,
        place,
        fault,
        model=optional(row, "provided_model_name", "providedModelName", "model"),
        time=moment(row.get("start_time", row.get("startTime")), "start_time", fault),
        complete=row.get("level") != "ERROR",
    )


def _opinion(row: dict[str, Any], place: str, fault: Fault) -> Opinion | str:
    """What a score says of an answer, or the reason why it is left out."""
    observation, trace = (
        optional(row, *keys) for keys in (("observation_id", "observationId"), ("trace_id", "traceId"))
    )
    if not (observation or trace):
        return NO_TARGET
    about = f"observation {observation}" if observation else f"trace {trace}"
    name = str(row["name"]).strip().lower().replace("-", "_").replace(" ", "_")
    time = moment(row.get("timestamp"), "timestamp", fault)
    if optional(row, "data_type", "dataType") == "CORRECTION":
        better = optional(row, "string_value", "stringValue", "long_string_value", "value")
        return Opinion(about, "edited", place, f"{about} edited", time, edited=better) if better.strip() else NO_TEXT
    value = row.get("value")
    if name in THUMBS and row.get("source") != "EVAL" and value in (*GOOD, *BAD):  # EVAL: a model as judge
        author = optional(row, "author_user_id", "authorUserId")
        return Opinion(about, "up" if value in GOOD else "down", place, f"{about} {name} {author}", time)
    return OTHER_SCORE


def _parsed(value: Any) -> Any:
    """A payload: the export writes JSON as text, and plain text as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{", '"'):
        try:
            return json.loads(value, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError):
            return value
    return value


SOURCE = Source("Langfuse export", recognises, read)
