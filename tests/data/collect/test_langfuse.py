"""Langfuse: corrections, thumbs by name, scores of traces, and both spellings of its keys."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from tests.data.collect.logs import ASK, ASKED, BAD, GOOD, Row, collected, counts, observed, score, texts, thumb
from tests.refusals import refusal

from lifealign.data.collect.answered import NOT_PLAIN
from lifealign.data.collect.collection import collect_logs
from lifealign.data.collect.langfuse import NO_TARGET, NO_TEXT, OTHER_SCORE
from lifealign.data.collect.pairs import SEVERAL


@pytest.mark.parametrize(
    ("asked", "output"),
    [
        (json.dumps(ASKED), BAD),
        (ASKED, {"role": "assistant", "content": BAD}),
        (json.dumps({"messages": ASKED}), json.dumps({"role": "assistant", "content": BAD})),
        (json.dumps({"messages": ASKED, "tools": []}), json.dumps([{"role": "assistant", "content": BAD}])),
        (json.dumps(ASKED[0]), json.dumps(BAD)),
        (ASK, BAD),
    ],
)
def test_a_correction_is_an_edit_however_the_payload_is_written(tmp_path: Path, asked: Any, output: Any) -> None:
    found = collected(tmp_path, [observed("o-1", output, input=asked)], [score()])
    assert texts(found) == [("edited", GOOD, BAD)]
    row = found.pairs[0].as_row()
    assert (row["prompt"], row["model"], row["time"]) == (ASKED, "my-bot", "2026-11-27T12:01:00Z")


def test_keys_may_be_in_camel_case(tmp_path: Path) -> None:
    answer = {"id": "o-1", "traceId": "t-1", "type": "GENERATION", "input": ASKED, "output": BAD, "model": "my-bot"}
    said = {
        "id": "s",
        "traceId": "t-1",
        "observationId": "o-1",
        "name": "output",
        "dataType": "CORRECTION",
        "value": GOOD,
    }
    assert texts(collected(tmp_path, [answer, said])) == [("edited", GOOD, BAD)]


def test_a_score_of_a_trace_is_about_its_one_generation(tmp_path: Path) -> None:
    span = observed("root", BAD, type="SPAN")
    of_trace = score(observation_id=None)
    assert texts(collected(tmp_path, [span, observed("o-1", BAD), of_trace])) == [("edited", GOOD, BAD)]
    found = collected(tmp_path, [observed("o-1", BAD), observed("o-2", "Ask later."), of_trace])
    assert (texts(found), counts(found)) == ([], {SEVERAL: 1})


@pytest.mark.parametrize("good", [1, True, 1.0])
@pytest.mark.parametrize("bad", [0, False, -1])
@pytest.mark.parametrize("name", ["user-feedback", "User Feedback", "thumbs"])
def test_scores_named_after_feedback_are_thumbs(tmp_path: Path, good: Any, bad: Any, name: str) -> None:
    rows = [observed("o-1", GOOD), observed("o-2", BAD), thumb("o-1", good, name), thumb("o-2", bad, name)]
    assert texts(collected(tmp_path, rows)) == [("thumbs", GOOD, BAD)]


@pytest.mark.parametrize(
    "row",
    [
        thumb("o-1", 1, "toxicity"),
        thumb("o-1", 1, source="EVAL"),
        thumb("o-1", 0.7),
        thumb("o-1", "1"),
        thumb("o-1", None),
    ],
)
def test_no_other_score_is_taken_for_a_thumb(tmp_path: Path, row: Row) -> None:
    assert counts(collected(tmp_path, [observed("o-1", BAD), row])) == {OTHER_SCORE: 1}


def test_one_persons_thumb_replaces_the_earlier_one_and_two_peoples_contradict(tmp_path: Path) -> None:
    answers = [observed("o-1", GOOD), observed("o-2", BAD), thumb("o-2", 0)]
    ann, ben = {"author_user_id": "ann"}, {"author_user_id": "ben"}
    one = collected(tmp_path, [*answers, thumb("o-1", 0, **ann), thumb("o-1", 1, **ann)])
    assert (texts(one), counts(one)) == ([("thumbs", GOOD, BAD)], {"feedback replaced by later feedback": 1})
    two = collected(tmp_path, [*answers, thumb("o-1", 0, **ann), thumb("o-1", 1, **ben)])
    assert counts(two) == {"thumbs up and down on one text": 2, "lone thumbs down": 1}


@pytest.mark.parametrize(
    "row",
    [
        observed("o-1", BAD, input=json.dumps({"messages": ASKED, "tools": [{"type": "function"}]})),
        observed("o-1", BAD, input=json.dumps({"question": ASK})),
        observed("o-1", BAD, input=""),
        observed("o-1", json.dumps({"role": "assistant", "content": None, "tool_calls": [{}]})),
        observed("o-1", None),
    ],
)
def test_payloads_that_are_no_text_are_left_out(tmp_path: Path, row: Row) -> None:
    assert counts(collected(tmp_path, [row, score()])) == {
        "pairs with an empty text" if row["input"] == "" else NOT_PLAIN: 1
    }


def test_text_that_only_looks_like_json_stays_text(tmp_path: Path) -> None:
    found = collected(tmp_path, [observed("o-1", "[sic] no idea"), score()])
    assert texts(found) == [("edited", GOOD, "[sic] no idea")]


def test_scores_of_nothing_and_corrections_of_nothing_are_counted(tmp_path: Path) -> None:
    rows = [observed("o-1", BAD), score(trace_id=None, observation_id=None), score(string_value=None)]
    assert counts(collected(tmp_path, rows)) == {NO_TARGET: 1, NO_TEXT: 1}


def test_an_export_may_be_parquet(tmp_path: Path) -> None:
    """As new exports are by default; there, a time is a time."""
    for name, row in (("observations", observed("o-1", BAD)), ("scores", score())):
        key = "start_time" if name == "observations" else "timestamp"
        row[key] = datetime.fromisoformat(row[key])
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / name)
    found = collect_logs([tmp_path / "observations", tmp_path / "scores"])
    assert (texts(found), found.pairs[0].as_row()["time"]) == ([("edited", GOOD, BAD)], "2026-11-27T12:01:00Z")


def test_a_row_of_another_kind_is_named(tmp_path: Path) -> None:
    assert refusal(lambda: collected(tmp_path, [observed("o-1", BAD), {"id": "x"}])) == (
        f"{tmp_path}/1.jsonl",
        2,
        None,
        "an object with 'id'",
        "an observation (trace_id, type) or a score (name, data_type)",
    )
