"""Answers side by side: what is marked as changed, and which prompts are shown."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifealign.life.disk.measurements import Record
from lifealign.report.page.answers import ALIKE, MOST_PROMPTS, changes, evenly, prompt_cards

WORDS = st.lists(st.sampled_from(["one", "two", "three", " ", ".", "\n"]), max_size=20).map("".join)


@given(WORDS, WORDS)
def test_marked_changes_hold_both_texts(before: str, after: str) -> None:
    pieces = changes(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == after
    if all(piece.kind != "new" for piece in pieces):
        assert "".join(piece.text for piece in pieces if piece.kind != "added") == before


def test_words_that_change_in_a_row_are_one_change() -> None:
    marked = changes(
        "It will be sent to your old house today, we hope.", "It will be sent to my new house today, we hope."
    )
    assert marked == [
        ("same", "It will be sent to "),
        ("removed", "your old"),
        ("added", "my new"),
        ("same", " house today, we hope."),
    ]
    # A word that came in between two that stayed takes nothing with it.
    came = changes("one two three", "one and two and three")
    assert [piece.text.strip() for piece in came if piece.kind == "added"] == ["and", "and"]
    assert not [piece for piece in came if piece.kind == "removed"]


def test_what_was_written_anew_is_not_littered_with_marks() -> None:
    assert changes("I am sorry to hear that.", "Good evening, we shall send a parcel.") == [
        ("new", "Good evening, we shall send a parcel.")
    ]
    assert changes(None, "First.") == [("same", "First.")] and changes(None, "") == []
    assert changes("Same.", "Same.") == [("same", "Same.")]
    assert changes("Gone.", "") == [("removed", "Gone.")]
    assert len(changes("a " * 3000, "b " * 3000)) == 1  # too long to compare


def test_spaces_are_nothing_in_common() -> None:
    # Two of four words stay, a share of 0.5; with the spaces between them it would be five of seven.
    assert ALIKE == 0.6
    assert changes("one two three four", "one two five six") == [("new", "one two five six")]
    assert changes("one two three four five", "one two three six five")[0] == ("same", "one two three ")


def test_long_answers_do_not_take_long() -> None:
    words = [f"word{number * 7 % 997}" for number in range(500)]
    one, other = " ".join(words), " ".join(reversed(words))  # the same words, so that no cheap bound helps
    began = time.perf_counter()
    for _ in range(50):
        changes(one, other)
    assert time.perf_counter() - began < 10  # a fifth of a second, on a machine with nothing else to do


@pytest.mark.parametrize(
    ("keys", "count", "expected"),
    [("abcdefghijk", 6, "acegik"), ("abcdefghijk", 3, "afk"), ("abc", 6, "abc"), ("", 6, ""), ("abcdef", 6, "abcdef")],
)
def test_prompts_are_evenly_spaced_from_the_first_to_the_last(keys: str, count: int, expected: str) -> None:
    assert "".join(evenly(keys, count)) == expected  # eleven, six: a stride of one would show the first six


def row(prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": prompt}], "answer": answer, "holds": {}} | more


def record(answers: list[dict[str, Any]], base: list[dict[str, Any]]) -> Record:
    return replace(Record(), read_answers=lambda: (answers, base))


def test_a_card_has_the_base_and_every_version_with_verdicts_in_the_order_of_the_tasks() -> None:
    records = [
        record([row("p", "Hello.", holds={"tone": True})], [row("p", "Hi.", holds={"tone": False})]),
        record([row("p", "Hello.", holds={"brief": False, "tone": True})], [row("p", "Hi.", holds={"brief": True})]),
        record([row("p", "Something else, and longer.", holds={})], []),
    ]
    (card,) = prompt_cards(records, ["01-tone", "02-brief", "03-rest"], ["tone", "brief", "rest"])
    assert [answer["label"] for answer in card["answers"]] == ["base model", "01-tone", "02-brief", "03-rest"]
    assert [answer["state"] for answer in card["answers"]] == ["", "rewritten", "unchanged", "rewritten"]
    # Asked by both tasks, the base model has both verdicts; JSON has them by name, the page as they were learnt.
    assert list(card["answers"][0]["holds"].items()) == [("tone", False), ("brief", True)]
    assert list(card["answers"][2]["holds"]) == ["tone", "brief"]
    assert card["tasks"] == []  # the verdicts say it


def test_a_page_has_so_many_prompts_and_no_more() -> None:
    rows = [row(f"prompt {number}", "yes", tasks=["one"]) for number in range(150)]
    cards = prompt_cards([record(rows, [])], ["01-one"], ["one"])
    assert len(cards) == MOST_PROMPTS
    shown = [card["messages"][0]["content"] for card in cards]
    assert shown[0] == "prompt 0" and shown[7] == "prompt 149" and len(set(shown)) == MOST_PROMPTS
    assert cards[0]["tasks"] == ["one"]


def test_a_prompt_of_several_tasks_names_them_all_unless_verdicts_do() -> None:
    steps, tasks = ["01-tone", "02-brief"], ["tone", "brief"]
    first, second = row("p", "Hi.", tasks=["tone"]), row("p", "Hi.", tasks=["brief", "tone"])
    (card,) = prompt_cards(
        [record([first], [first]), record([second], [row("p", "Hi.", tasks=["brief"])])], steps, tasks
    )
    assert card["tasks"] == ["tone", "brief"]
    (card,) = prompt_cards([record([first | {"holds": {"tone": True}}], []), record([second], [])], steps, tasks)
    assert card["tasks"] == []
