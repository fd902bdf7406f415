"""Open WebUI: what a rating means beside other answers, edits, and chats that no pair can carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.data.collect.logs import ASK, BAD, GOOD, Row, chat, collected, counts, rated, texts
from tests.refusals import refusal

from lifealign.data.collect.answered import NOT_PLAIN
from lifealign.data.collect.open_webui import NO_CHAT, NO_THUMB

LONE_UP, LONE_DOWN = "lone thumbs up", "lone thumbs down"


BOTH = chat({"a": BAD, "b": GOOD})


@pytest.mark.parametrize("rating", [1, "1"])
def test_a_thumb_up_beside_another_answer_chooses(tmp_path: Path, rating: Any) -> None:
    found = collected(tmp_path, [rated("b", rating, BOTH)])
    assert texts(found) == [("chosen", GOOD, BAD)]
    assert (found.pairs[0].model, found.pairs[0].as_row()["time"]) == ("m", "2026-11-27T12:00:01Z")
    assert "user-1" not in str(found)


def test_a_vote_among_three_is_two_pairs_and_one_feedback(tmp_path: Path) -> None:
    found = collected(tmp_path, [rated("b", 1, chat({"a": BAD, "b": GOOD, "c": "Ask later."}))])
    assert texts(found) == [("chosen", GOOD, BAD), ("chosen", GOOD, "Ask later.")]
    assert (found.files[0].answers, found.files[0].feedback, found.files[0].pairs) == (3, 1, 2)


def test_a_thumb_down_beside_another_answer_says_nothing_of_that_one(tmp_path: Path) -> None:
    assert counts(collected(tmp_path, [rated("a", -1, BOTH)])) == {LONE_DOWN: 1}


def test_a_thumb_up_with_no_other_answer_is_lone_and_with_an_opposite_one_it_is_a_pair(tmp_path: Path) -> None:
    up, down = rated("b", 1, chat({"b": GOOD})), rated("a", -1, chat({"a": BAD}), 2)
    assert counts(collected(tmp_path, [up])) == {LONE_UP: 1}
    assert texts(collected(tmp_path, [up, down])) == [("thumbs", GOOD, BAD)]


def test_praise_of_both_answers_contradicts_itself(tmp_path: Path) -> None:
    found = collected(tmp_path, [rated("a", 1, BOTH), rated("b", 1, BOTH, 2)])
    assert (texts(found), counts(found)) == ([], {"pairs that contradict each other, both sides": 2})


def test_a_newer_export_of_the_same_feedback_replaces_the_older_whatever_the_order(tmp_path: Path) -> None:
    old, new = rated("b", 1, BOTH), rated("b", -1, BOTH) | {"updated_at": 1795790000}
    for logs in ([[old], [new]], [[new], [old]]):
        found = collected(tmp_path, *logs)
        assert (texts(found), counts(found)) == ([], {"feedback replaced by later feedback": 1, LONE_DOWN: 1})


def test_an_answer_edited_in_its_place_is_an_edit_whatever_its_rating(tmp_path: Path) -> None:
    edited = {"content": GOOD, "originalContent": BAD}
    for rating in (1, -1, None):
        found = collected(tmp_path, [rated("a", rating, chat({"a": edited, "b": "Ask later."}))])
        assert texts(found) == [("edited", GOOD, BAD)]


def test_an_edited_sibling_counts_as_it_was_generated(tmp_path: Path) -> None:
    siblings = {"a": {"content": "Edited.", "originalContent": BAD}, "b": GOOD}
    assert texts(collected(tmp_path, [rated("b", 1, chat(siblings))])) == [("chosen", GOOD, BAD)]


def test_earlier_turns_and_the_system_message_of_the_chat_are_the_prompt(tmp_path: Path) -> None:
    snapshot = chat({"a": BAD, "b": GOOD}, system="Be kind.", before=("Hi", "Hello!"))
    assert collected(tmp_path, [rated("b", 1, snapshot)]).pairs[0].prompt == (
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", ASK),
    )


def test_a_snapshot_that_holds_the_history_itself_is_read_too(tmp_path: Path) -> None:
    record = rated("b", 1, None) | {"snapshot": {"chat": BOTH["chat"]}}
    assert texts(collected(tmp_path, [record])) == [("chosen", GOOD, BAD)]


@pytest.mark.parametrize(
    "snapshot",
    [
        chat({"a": BAD, "b": GOOD}, files=[{"type": "image"}]),
        chat({"a": BAD, "b": '<details type="reasoning" done="true">\n> It\'s late.\n</details>\n' + GOOD}),
        chat({"a": BAD, "b": GOOD}, before=("Hi", '<details type="tool_calls"></details>')),
        chat({"a": BAD, "b": [GOOD]}),
    ],
)
def test_files_thoughts_and_tools_are_left_out(tmp_path: Path, snapshot: Row) -> None:
    assert counts(collected(tmp_path, [rated("b", 1, snapshot)])) == {NOT_PLAIN: 1}


def test_an_unfinished_answer_is_not_chosen_but_may_be_rejected(tmp_path: Path) -> None:
    stopped = {"content": "It", "done": False}
    assert texts(collected(tmp_path, [rated("b", 1, chat({"a": stopped, "b": GOOD}))])) == [("chosen", GOOD, "It")]
    found = collected(tmp_path, [rated("a", 1, chat({"a": stopped, "b": GOOD}))])
    assert counts(found) == {"votes for an answer that was cancelled or cut": 1}


@pytest.mark.parametrize("snapshot", [None, {}, {"chat": {}}, {"chat": {"history": {"messages": {}}}}])
def test_feedback_without_its_chat_is_counted(tmp_path: Path, snapshot: Row | None) -> None:
    assert counts(collected(tmp_path, [rated("b", 1, snapshot)])) == {NO_CHAT: 1}


@pytest.mark.parametrize("rating", [None, 0, 5, "good", [1]])
def test_a_rating_that_is_no_thumb_is_counted(tmp_path: Path, rating: Any) -> None:
    assert counts(collected(tmp_path, [rated("b", rating, BOTH)])) == {NO_THUMB: 1}


def test_a_chat_that_leads_in_a_circle_ends(tmp_path: Path) -> None:
    snapshot = chat({"a": BAD, "b": GOOD})
    snapshot["chat"]["history"]["messages"]["q"]["parentId"] = "b"
    assert counts(collected(tmp_path, [rated("b", 1, snapshot)])) == {NOT_PLAIN: 1}


def test_a_row_of_another_kind_is_named(tmp_path: Path) -> None:
    assert refusal(lambda: collected(tmp_path, [rated("b", 1, BOTH), {"id": 1}])) == (
        f"{tmp_path}/1.jsonl",
        2,
        None,
        "an object with 'id'",
        "feedback with type, data and meta",
    )
