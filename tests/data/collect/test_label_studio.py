"""Label Studio: which field is which answer, and people who skip, disagree or change their minds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.data.collect.logs import ASK, BAD, GOOD, Row, chose, collected, counts, task, texts
from tests.refusals import refusal

from lifealign.data.collect.label_studio import NO_CHOICE, SKIPPED


def test_the_side_that_was_selected_is_chosen(tmp_path: Path) -> None:
    assert texts(collected(tmp_path, [task(chose("right"))])) == [("chosen", GOOD, BAD)]
    assert texts(collected(tmp_path, [task(chose("left"))])) == [("chosen", BAD, GOOD)]


@pytest.mark.parametrize(
    ("to_name", "fields"),
    [
        ("first, second", {"first": BAD, "second": GOOD}),  # the fields that the tags are named after
        (["first", "second"], {"first": BAD, "second": GOOD}),
        ("txt-1,txt-2", {"text1": BAD, "text2": GOOD}),  # names of no field: those of the templates
        ("txt-1,txt-2", {"left": BAD, "right": GOOD}),
        (None, {"response1": BAD, "response2": GOOD}),
    ],
)
def test_the_fields_of_the_answers_are_told_by_their_names(tmp_path: Path, to_name: Any, fields: Row) -> None:
    row = task(chose("right", to_name=to_name), answer1=None, answer2=None, **fields)
    assert texts(collected(tmp_path, [row])) == [("chosen", GOOD, BAD)]


@pytest.mark.parametrize("name", ["prompt", "messages", "query", "instruction", "question"])
def test_the_prompt_may_be_a_text_or_messages(tmp_path: Path, name: str) -> None:
    for prompt in (ASK, [{"role": "user", "content": ASK}]):
        row = task(chose("right"), **({"prompt": None} | {name: prompt}))
        assert collected(tmp_path, [row]).pairs[0].prompt == (("user", ASK),)


def test_people_who_agree_make_one_pair_and_people_who_disagree_none(tmp_path: Path) -> None:
    agreed = collected(tmp_path, [task(chose("right"), chose("right", 2))])
    assert (texts(agreed), counts(agreed)) == ([("chosen", GOOD, BAD)], {"pairs that are there already": 1})
    torn = collected(tmp_path, [task(chose("right"), chose("left", 2))])
    assert (texts(torn), counts(torn)) == ([], {"pairs that contradict each other, both sides": 2})
    assert [one.why for one in torn.undecided] == ["conflict"]


def test_a_newer_export_replaces_an_annotation_and_another_installation_does_not(tmp_path: Path) -> None:
    old = task(chose("left", updated_at="2026-11-27T12:00:00Z"))
    new = task(chose("right", updated_at="2026-11-27T13:00:00Z"))
    found = collected(tmp_path, [new], [old])
    assert (texts(found), counts(found)) == ([("chosen", GOOD, BAD)], {"feedback replaced by later feedback": 1})
    elsewhere = task(chose("right"), prompt="When?", answer1="Now.", answer2="At nine.")
    assert len(collected(tmp_path, [new], [elsewhere]).pairs) == 2


def test_skipped_tasks_and_annotations_without_a_choice_are_counted(tmp_path: Path) -> None:
    rows = [
        task(chose("right", was_cancelled=True)),
        task(chose(None)),
        task({"id": 1, "result": [{"type": "choices", "value": {"choices": ["good"]}}]}),
        task({"id": 1, "result": []}),
        task(),
    ]
    found = collected(tmp_path, rows)
    assert (counts(found), found.files[0].feedback) == ({SKIPPED: 1, NO_CHOICE: 3}, 4)


def test_what_cannot_be_told_is_refused_with_the_names_that_would_do(tmp_path: Path) -> None:
    unnamed = task(chose("right", to_name="one,two"), answer1=None, answer2=None, a=BAD, b=GOOD)
    path, line, field, found, expected = refusal(lambda: collected(tmp_path, [task(chose("left")), unnamed]))
    assert (path, line, field) == (f"{tmp_path}/1.jsonl", 2, "data")
    assert found == "no such field among 'prompt', 'answer1', 'answer2', 'a', 'b'"
    assert expected == (
        "the two answers as one, two, as its tags are named, or answer1 and answer2 or text1 and text2 or response1 "
        "and response2 or left and right; rename the fields"
    )
    blank = task(chose("right"), prompt="")
    assert refusal(lambda: collected(tmp_path, [blank]))[2:] == (
        "data",
        "no such field among 'prompt', 'answer1', 'answer2'",
        "one of prompt, messages, query, instruction, question",
    )
