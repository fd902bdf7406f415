"""Which log is which: by content alone, and what is said of those that are none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.collect.logs import (
    BAD,
    GOOD,
    chat,
    chose,
    collected,
    given,
    observed,
    rated,
    said,
    score,
    stored,
    task,
    texts,
)
from tests.refusals import refusal
from tests.writers import write_jsonl

from lifealign.data.collect.collection import collect_logs
from lifealign.data.collect.recognise import SOURCES, read_log

PAIR = {"prompt": "Where is my order?", "chosen": GOOD, "rejected": BAD}
ROWS = {
    "lifealign serve log": [given("a", BAD), said("a", thumb="up")],
    "Open WebUI feedback": [rated("b", 1, chat({"a": BAD, "b": GOOD}))],
    "Label Studio tasks": [task(chose("left"))],
    "Langfuse export": [observed("o-1", BAD), score()],
    "OpenAI stored completions": [stored("a", BAD)],
    "preference rows": [PAIR, {"messages": [], "rejected_response": ""}],
}
ACCEPTED = "one of: " + ", ".join(ROWS)


def test_a_row_is_of_one_format(tmp_path: Path) -> None:
    assert [source.name for source in SOURCES] == [*ROWS]
    for name, rows in ROWS.items():
        for row in rows:
            assert [source.name for source in SOURCES if source.recognises(row)] == [name]


@pytest.mark.parametrize("name", ["feedback.json", "log.txt"])
def test_neither_the_name_nor_the_kind_of_the_file_matters(tmp_path: Path, name: str) -> None:
    rows = [task(chose("right"))]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for content in (lines.encode(), json.dumps(rows, indent=2).encode(), gzip.compress(lines.encode())):
        (tmp_path / name).write_bytes(content)
        assert texts(collect_logs([tmp_path / name])) == [("chosen", GOOD, BAD)]


def test_logs_of_several_formats_make_one_collection(tmp_path: Path) -> None:
    found = collected(tmp_path, [given("a", BAD), said("a", edited=GOOD)], [PAIR], [stored("c", BAD)])
    assert [(file.format, file.answers, file.feedback, file.pairs) for file in found.files] == [
        ("lifealign serve log", 1, 1, 1),
        ("preference rows", 2, 1, 0),
        ("OpenAI stored completions", 1, 0, 0),
    ]
    assert {reason: len(places) for reason, places in found.left_out.items()} == {"pairs that are there already": 1}


@pytest.mark.parametrize(
    ("row", "found", "advice"),
    [
        ({"resourceSpans": []}, "spans of OpenTelemetry (an object with 'resourceSpans')", None),
        (
            {"id": "r", "run_type": "llm", "inputs": {}},
            "runs of LangSmith (an object with 'id', 'run_type', 'inputs')",
            None,
        ),
        (
            {"prompt": "Hi", "annotation_id": 1, "lead_time": 2},
            "a Label Studio export as JSON-MIN or CSV (an object with 'prompt', 'annotation_id', 'lead_time')",
            "export it as JSON",
        ),
        (
            {"messages": [], "label": True},
            "conversations (an object with 'messages', 'label')",
            "nobody says in them which answer is better",
        ),
        (
            {"object": "list", "data": []},
            "a page of a list (an object with 'object', 'data')",
            "write what is in data as one object per line",
        ),
        ({"prompt": "Hi", "answers": ["a", "b"]}, "an object with 'prompt', 'answers'", ""),
        ({"id": "a", "kind": "metric"}, "an object with 'id', 'kind'", ""),
        ({}, "an object with no keys", ""),
    ],
)
def test_another_log_is_refused_with_what_it_seems_to_be(
    tmp_path: Path, row: dict[str, Any], found: str, advice: str | None
) -> None:
    path = write_jsonl(tmp_path / "log.jsonl", [row])
    where, line, field, seen, expected = refusal(lambda: read_log(path))
    assert (where, line, field, seen) == (str(path), 1, None, found)
    if advice is None:  # there is one, of no interest here
        assert expected.startswith(f"{ACCEPTED}; ")
    else:
        assert expected == ACCEPTED + (f"; {advice}" if advice else "")


@pytest.mark.parametrize("row", [7, [1], "text", None])
def test_a_row_that_is_no_object_is_refused(tmp_path: Path, row: Any) -> None:
    for rows, line in (([row], 1), ([given("a", BAD), row], 2)):
        path = write_jsonl(tmp_path / "log.jsonl", rows)
        assert refusal(lambda path=path: read_log(path))[1::3] == (line, "an object")  # type: ignore[misc]


def test_a_file_that_cannot_be_read_is_refused_as_everywhere(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "cut.jsonl").write_text(json.dumps(given("a", BAD)) + '\n{"kind": "feedb')
    assert refusal(lambda: read_log(tmp_path / "none.jsonl"))[3] == "no such file"
    assert refusal(lambda: read_log(tmp_path / "empty.jsonl"))[3] == "no rows"
    assert refusal(lambda: read_log(tmp_path / "cut.jsonl"))[1] == 2
