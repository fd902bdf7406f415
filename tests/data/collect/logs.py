"""Small logs for the tests of collecting: answers to one question, and what was said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.writers import write_jsonl

from lifealign.data.collect.collection import Collected, collect_logs

ASK = "Where is my order?"
GOOD, BAD = "It has left our house; you have it tomorrow.", "No idea."
ASKED = [{"role": "user", "content": ASK}]

Row = dict[str, Any]


def given(name: str, text: str, **more: Any) -> Row:
    """An answer in our own log."""
    return {
        "kind": "answer",
        "id": name,
        "time": "2026-11-27T12:00:00Z",
        "model": "my-bot@02-tone",
        "messages": ASKED,
        "answer": text,
        "finish_reason": "stop",
    } | more


def said(name: str, **what: str) -> Row:
    """Feedback in our own log."""
    return {"kind": "feedback", "id": name, "time": "2026-11-27T12:01:00Z"} | what


def chat(answers: dict[str, Any], system: str = "", before: tuple[str, str] | None = None, **asked: Any) -> Row:
    """A chat of Open WebUI with one question and several answers to it, after one earlier turn of each side."""
    messages: dict[str, Any] = {}
    parent = None
    if before is not None:
        messages["u"] = {"id": "u", "parentId": None, "childrenIds": ["v"], "role": "user", "content": before[0]}
        messages["v"] = {"id": "v", "parentId": "u", "childrenIds": ["q"], "role": "assistant", "content": before[1]}
        parent = "v"
    messages["q"] = {"id": "q", "parentId": parent, "childrenIds": [*answers], "role": "user", "content": ASK} | asked
    for name, said in answers.items():
        message = said if isinstance(said, dict) else {"content": said}
        messages[name] = {"id": name, "parentId": "q", "childrenIds": [], "role": "assistant", "model": "m"} | message
    return {"chat": {"params": {"system": system}, "history": {"messages": messages}}}


def rated(name: str, rating: Any, snapshot: Row | None, number: int = 1, **more: Any) -> Row:
    """A record of Open WebUI."""
    return {
        "id": f"feedback-{number}",
        "user_id": "user-1",
        "type": "rating",
        "data": {"rating": rating},
        "meta": {"message_id": name, "chat_id": "c"},
        "snapshot": snapshot and {"chat": snapshot},
        "created_at": 1795780800,
        "updated_at": 1795780800 + number,
    } | more


def observed(name: str, output: Any, trace: str = "t-1", **more: Any) -> Row:
    """An observation of Langfuse."""
    return {
        "id": name,
        "trace_id": trace,
        "type": "GENERATION",
        "start_time": "2026-11-27 12:00:00.000000",
        "provided_model_name": "my-bot",
        "input": json.dumps(ASKED),
        "output": output,
    } | more


def score(**more: Any) -> Row:
    """A correction of Langfuse."""
    row = {"id": "s", "trace_id": "t-1", "observation_id": "o-1", "name": "output", "timestamp": "2026-11-27 12:01:00"}
    return row | {"data_type": "CORRECTION", "string_value": GOOD} | more


def thumb(observation: str, value: Any, name: str = "user-feedback", **more: Any) -> Row:
    """A thumb of Langfuse."""
    row = {"id": f"s-{observation}", "trace_id": "t-1", "observation_id": observation, "name": name, "value": value}
    return row | {"data_type": "BOOLEAN", "source": "API"} | more


def task(*annotations: Row, **data: Any) -> Row:
    """A task of Label Studio."""
    return {"id": 7, "data": {"prompt": ASK, "answer1": BAD, "answer2": GOOD} | data, "annotations": [*annotations]}


def chose(side: Any, who: int = 1, to_name: Any = "answer1,answer2", **more: Any) -> Row:
    """An annotation of Label Studio."""
    result = {"type": "pairwise", "from_name": "pw", "to_name": to_name, "value": {"selected": side}}
    return {"id": who, "completed_by": who, "was_cancelled": False, "result": [result]} | more


def stored(name: str, *answers: str, finish: str = "stop", **more: Any) -> Row:
    """A stored completion of OpenAI."""
    choices = [
        {"index": index, "finish_reason": finish, "message": {"role": "assistant", "content": text, "tool_calls": None}}
        for index, text in enumerate(answers)
    ]
    row = {"id": name, "object": "chat.completion", "created": 1795780800, "model": "gpt", "metadata": {}}
    return row | {"messages": ASKED, "choices": choices} | more


def collected(folder: Path, *logs: list[Row], kinds: tuple[str, ...] = ()) -> Collected:
    """What is made of some logs, which are written as ``1.jsonl``, ``2.jsonl``, ..."""
    return collect_logs([write_jsonl(folder / f"{number}.jsonl", rows) for number, rows in enumerate(logs, 1)], kinds)


def texts(found: Collected) -> list[tuple[str, str, str]]:
    """Each pair as its reason, the better answer and the worse one."""
    return [(pair.why, pair.chosen, pair.rejected) for pair in found.pairs]


def counts(found: Collected) -> dict[str, int]:
    """How many were left out for each reason."""
    return {reason: len(places) for reason, places in found.left_out.items()}
