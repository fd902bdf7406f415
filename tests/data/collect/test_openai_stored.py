"""Stored completions: what was said in their metadata or elsewhere, and several choices of one request."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.collect.logs import ASK, ASKED, BAD, GOOD, Row, collected, counts, said, stored, texts
from tests.refusals import refusal

from lifealign.data.collect.answered import NOT_PLAIN
from lifealign.data.collect.pairs import CUT, SEVERAL


def test_metadata_may_say_what_our_own_feedback_says(tmp_path: Path) -> None:
    found = collected(tmp_path, [stored("a", BAD, metadata={"edited": GOOD, "topic": "orders"})])
    assert texts(found) == [("edited", GOOD, BAD)]
    assert (found.pairs[0].model, found.pairs[0].as_row()["time"]) == ("gpt", "2026-11-27T12:00:00Z")
    rows = [stored("a", BAD, metadata={"thumb": "down"}), stored("b", GOOD, metadata={"thumb": "up"})]
    assert texts(collected(tmp_path, rows)) == [("thumbs", GOOD, BAD)]


def test_feedback_lines_of_ours_name_a_completion_by_its_id(tmp_path: Path) -> None:
    found = collected(tmp_path, [stored("a", BAD), stored("b", GOOD)], [said("b", preferred_over="a")])
    assert texts(found) == [("chosen", GOOD, BAD)]


def test_of_several_choices_each_has_an_id_and_without_feedback_they_are_to_be_decided(tmp_path: Path) -> None:
    both = stored("a", BAD, GOOD)
    assert [(one.answers, one.why) for one in collected(tmp_path, [both]).undecided] == [((BAD, GOOD), "undecided")]
    assert texts(collected(tmp_path, [both], [said("a#1", preferred_over="a#0")])) == [("chosen", GOOD, BAD)]
    assert counts(collected(tmp_path, [both], [said("a", thumb="up")])) == {SEVERAL: 1}


def test_the_messages_may_be_called_input_and_may_come_from_a_developer(tmp_path: Path) -> None:
    asked = [{"role": "developer", "content": "Be kind."}, *ASKED]
    row = stored("a", BAD, messages=None, input=asked, metadata={"edited": GOOD})
    assert collected(tmp_path, [row]).pairs[0].prompt == (("system", "Be kind."), ("user", ASK))


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_an_answer_that_was_cut_is_not_chosen(tmp_path: Path, finish: str) -> None:
    rows = [stored("a", BAD), stored("b", "It has", finish=finish)]
    assert counts(collected(tmp_path, rows, [said("b", preferred_over="a")])) == {CUT: 1}
    assert texts(collected(tmp_path, rows, [said("a", preferred_over="b")])) == [("chosen", BAD, "It has")]


def test_tools_are_left_out(tmp_path: Path) -> None:
    row = stored("a", BAD, tools=[{"type": "function"}], metadata={"edited": GOOD})
    assert counts(collected(tmp_path, [row])) == {NOT_PLAIN: 1}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"id": "b"}, (None, "an object with 'id'", "a completion with id and choices")),
        (stored("b", BAD, choices=["x"]), ("choices[0]", "the string 'x'", "a choice with a message")),
        (stored("b", BAD, metadata={"thumb": "7"}), ("thumb", "the string '7'", "'up' or 'down'")),
        (
            {"id": "b", "choices": []},
            (
                "messages",
                "no such field among 'id', 'choices'",
                "the messages that it answers beside it, from GET /chat/completions/ID/messages",
            ),
        ),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, row: Row, fault: tuple[str | None, str, str]) -> None:
    assert refusal(lambda: collected(tmp_path, [stored("a", BAD), row])) == (f"{tmp_path}/1.jsonl", 2, *fault)
