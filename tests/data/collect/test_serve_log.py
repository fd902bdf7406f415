"""Our own log: what each line says, in one file or in several, and what is said of lines that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.data.collect.logs import ASK, BAD, GOOD, collected, counts, given, said, texts
from tests.refusals import refusal

from lifealign.data.collect.answered import NOT_PLAIN
from lifealign.data.collect.pairs import SEVERAL, UNKNOWN
from lifealign.data.collect.serve_log import COMMENT


@pytest.mark.parametrize(
    ("rows", "why", "line"),
    [
        ([given("a", BAD), said("a", edited=GOOD)], "edited", 2),
        ([given("a", BAD), given("b", GOOD), said("b", preferred_over="a")], "chosen", 3),
        ([said("b", preferred_over="a"), given("a", BAD), given("b", GOOD)], "chosen", 1),
        ([given("a", BAD), given("b", GOOD), said("a", thumb="down"), said("b", thumb="up")], "thumbs", 4),
    ],
)
def test_an_edit_a_choice_and_opposite_thumbs_are_the_same_pair(
    tmp_path: Path, rows: list[dict[str, Any]], why: str, line: int
) -> None:
    found = collected(tmp_path, rows)
    assert [pair.as_row() for pair in found.pairs] == [
        {
            "prompt": [{"role": "user", "content": ASK}],
            "chosen": GOOD,
            "rejected": BAD,
            "why": why,
            "source": f"{tmp_path}/1.jsonl:{line}",
            "model": "my-bot@02-tone",
            "time": "2026-11-27T12:01:00Z",
        }
    ]
    assert found.left_out == {}


def test_feedback_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    answers, feedback = [given("a", BAD), given("b", GOOD)], [said("a", edited=GOOD), said("b", thumb="up")]
    for logs in ((answers, feedback), (feedback, answers)):
        found = collected(tmp_path, *logs)
        assert texts(found) == [("edited", GOOD, BAD)]
        by_answers = sorted((file.answers, file.feedback, file.pairs) for file in found.files)
        assert by_answers == [(0, 2, 1), (2, 0, 0)]


def test_one_line_may_hold_a_thumb_and_an_edit(tmp_path: Path) -> None:
    found = collected(tmp_path, [given("a", BAD), said("a", thumb="down", edited=GOOD)])
    assert texts(found) == [("edited", GOOD, BAD)]
    assert counts(found) == {"thumbs that say what a pair says already": 1}


def test_later_feedback_replaces_its_own_kind_only(tmp_path: Path) -> None:
    answers = [given("a", BAD), given("b", GOOD), given("c", "Ask later.")]
    feedback = [
        said("a", edited="Soon."),
        said("a", edited="Tomorrow.", time="2026-11-27T12:02:00Z"),
        said("a", thumb="up", time="2026-11-27T12:03:00Z"),
        said("a", thumb="down", time="2026-11-27T12:04:00Z"),
        said("b", preferred_over="a", time="2026-11-27T12:05:00Z"),
        said("b", preferred_over="c", time="2026-11-27T12:06:00Z"),
    ]
    found = collected(tmp_path, answers, feedback)
    assert texts(found) == [("edited", "Tomorrow.", BAD), ("chosen", GOOD, BAD), ("chosen", GOOD, "Ask later.")]
    assert counts(found) == {
        "feedback replaced by later feedback": 2,
        "thumbs that say what a pair says already": 1,
    }


def test_feedback_without_its_answer_is_counted_and_its_id_named(tmp_path: Path) -> None:
    rows = [given("a", BAD), given("b", GOOD), said("lost", thumb="up"), said("b", preferred_over="gone")]
    found = collected(tmp_path, rows)
    assert found.left_out == {UNKNOWN: [f"{tmp_path}/1.jsonl:3 (lost)", f"{tmp_path}/1.jsonl:4 (gone)"]}


def test_two_answers_of_one_id_are_not_guessed_between_and_a_copied_line_is_one_answer(tmp_path: Path) -> None:
    torn = collected(tmp_path, [given("a", BAD)], [given("a", "Another answer."), said("a", edited=GOOD)])
    assert (texts(torn), counts(torn)) == ([], {SEVERAL: 1})
    copied = collected(tmp_path, [given("a", BAD)], [given("a", BAD), said("a", edited=GOOD)])
    assert texts(copied) == [("edited", GOOD, BAD)]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "tool", "content": "7 °C"}],
        [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hello?"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "assistant", "content": "Hi", "tool_calls": [{}]}, {"role": "user", "content": "Hi"}],
        [],
    ],
)
def test_a_conversation_that_no_pair_can_carry_costs_only_what_was_said_of_it(
    tmp_path: Path, messages: list[Any]
) -> None:
    rows = [given("a", BAD, messages=messages), said("a", edited=GOOD), given("b", BAD), said("b", edited=GOOD)]
    found = collected(tmp_path, rows)
    assert texts(found) == [("edited", GOOD, BAD)]
    assert found.left_out == {NOT_PLAIN: [f"{tmp_path}/1.jsonl:2"]}


def test_a_comment_alone_judges_nothing(tmp_path: Path) -> None:
    found = collected(tmp_path, [given("a", BAD), said("a", comment="Hm."), said("a", edited=GOOD, comment="Like so.")])
    assert (texts(found), counts(found)) == ([("edited", GOOD, BAD)], {COMMENT: 1})


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (said("a", thumb="sideways"), ("thumb", "the string 'sideways'", "'up' or 'down'")),
        (
            {"kind": "feedback", "id": "a"},
            ("thumb", "no such field among 'kind', 'id'", "one of thumb, edited, preferred_over"),
        ),
        (said("a", edited=7), ("edited", "a number (7)", "a text")),
        (said("", thumb="up"), ("id", "an empty string", "a text")),
        (
            said("a", thumb="up", time="yesterday"),
            ("time", "the string 'yesterday'", "a time, such as '2026-11-27T12:00:00Z'"),
        ),
        ({"kind": "note", "id": "a"}, ("kind", "the string 'note'", "'answer' or 'feedback'")),
        ({"id": "a"}, ("kind", "no such field among 'id'", "'answer' or 'feedback'")),
        (given("a", BAD, messages="Hi"), ("messages", "the string 'Hi'", "a list of messages")),
        (given("a", None), ("answer", "null", "a string")),  # type: ignore[arg-type]
        (given("a", BAD, model=None), ("model", "null", "a text")),
        (given("a", BAD, time=True), ("time", "a boolean (true)", "a time, such as '2026-11-27T12:00:00Z'")),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, row: dict[str, Any], fault: tuple[str, str, str]) -> None:
    assert refusal(lambda: collected(tmp_path, [given("x", BAD), row])) == (f"{tmp_path}/1.jsonl", 2, *fault)
