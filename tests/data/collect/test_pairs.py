"""What makes a pair and what does not: every rule on answers and opinions of no particular log."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifealign.data.collect.answered import Answer, Kind, LeftOut, Opinion
from lifealign.data.collect.pairs import (
    AGAIN,
    APART,
    CONFLICT,
    CUT,
    EMPTY,
    REPLACED,
    SAME,
    UNKNOWN,
    CollectedPair,
    pair_up,
    settle,
)
from lifealign.data.collect.thumbs import AGREES, BOTH, LONE_DOWN, LONE_UP
from lifealign.data.pair import Message

PROMPT, OTHER = (Message("user", "Where?"),), (Message("user", "When?"),)
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def answer(name: str, text: str | None = None, **more: object) -> Answer:
    """An answer to ``PROMPT`` which says its own name."""
    return Answer(**({"names": (name,), "prompt": PROMPT, "text": text or name, "source": f"log:{name}"} | more))  # type: ignore[arg-type]


def opinion(about: str, kind: Kind, number: int, minutes: int | None = None, **more: str) -> Opinion:
    """Opinion number so and so; it is in the same slot as others of its kind and aim."""
    time = None if minutes is None else NOON + timedelta(minutes=minutes)
    return Opinion(about, kind, f"log:{number}", f"{about} {kind} {more.get('over', '')}", time, **more)


def thumbs(*said: tuple[str, Kind]) -> list[Opinion]:
    """Thumbs, each in a slot of its own."""
    return [Opinion(about, kind, f"log:{number}", str(number)) for number, (about, kind) in enumerate(said)]


def made(answers: list[Answer], opinions: list[Opinion]) -> tuple[list[tuple[str, str, str]], LeftOut]:
    """The pairs as reason, better and worse answer, and what was left out."""
    left_out: LeftOut = {}
    pairs, _ = settle(pair_up(answers, opinions, left_out), left_out)
    return [(pair.why, pair.chosen, pair.rejected) for pair in pairs], left_out


A, B, C, D = (answer(name) for name in "abcd")


def test_pairs_are_in_the_order_of_their_opinions() -> None:
    opinions = [
        *thumbs(("c", "up"), ("d", "down")),
        opinion("a", "chosen", 2, over="b"),
        opinion("b", "edited", 3, edited="better"),
    ]
    assert made([D, C, B, A], opinions) == ([("thumbs", "c", "d"), ("chosen", "a", "b"), ("edited", "better", "b")], {})


# -- thumbs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "pairs", "left_out"),
    [
        ([("a", "up")], [], {LONE_UP: 1}),
        ([("a", "down")], [], {LONE_DOWN: 1}),
        ([("a", "up"), ("b", "up")], [], {LONE_UP: 2}),
        ([("a", "up"), ("b", "down")], [("a", "b")], {}),
        ([("b", "down"), ("a", "up")], [("a", "b")], {}),
        ([("a", "up"), ("b", "down"), ("c", "down")], [("a", "b")], {LONE_DOWN: 1}),
        ([("a", "up"), ("b", "down"), ("c", "up"), ("d", "down")], [("a", "b"), ("c", "d")], {}),
        ([("a", "up"), ("a", "down")], [], {BOTH: 2}),
        ([("a", "up"), ("a", "down"), ("b", "down")], [], {BOTH: 2, LONE_DOWN: 1}),
        ([("a", "up"), ("b", "down"), ("a", "up")], [("a", "b")], {AGREES: 1}),
    ],
)
def test_each_thumb_is_used_once(
    said: list[tuple[str, Kind]], pairs: list[tuple[str, str]], left_out: dict[str, int]
) -> None:
    found, reasons = made([A, B, C, D], thumbs(*said))
    assert found == [("thumbs", *pair) for pair in pairs]
    assert {reason: len(places) for reason, places in reasons.items()} == left_out


def test_thumbs_on_answers_to_different_prompts_make_no_pair() -> None:
    found, reasons = made([A, answer("b", prompt=OTHER)], thumbs(("a", "up"), ("b", "down")))
    assert (found, sorted(reasons)) == ([], [LONE_DOWN, LONE_UP])


def test_a_thumb_that_says_what_a_choice_says_is_not_lone() -> None:
    choice = opinion("a", "chosen", 9, over="b")
    assert made([A, B], [choice, *thumbs(("b", "down"))]) == ([("chosen", "a", "b")], {AGREES: ["log:0"]})
    assert made([A, B], [choice, *thumbs(("b", "up"))]) == ([("chosen", "a", "b")], {LONE_UP: ["log:0"]})


# -- choices and edits -------------------------------------------------------------------------------------------------


def test_a_choice_between_answers_to_different_prompts_is_no_pair() -> None:
    assert made([A, answer("b", prompt=OTHER)], [opinion("a", "chosen", 1, over="b")]) == ([], {APART: ["log:1"]})


def test_an_answer_that_was_cut_is_rejected_but_never_chosen() -> None:
    cut = answer("b", complete=False)
    rows = [
        opinion("b", "chosen", 1, over="a"),
        opinion("a", "chosen", 2, over="b"),
        opinion("b", "edited", 3, edited="x"),
    ]
    assert made([A, cut], rows) == ([("chosen", "a", "b"), ("edited", "x", "b")], {CUT: ["log:1"]})
    assert made([A, cut], thumbs(("b", "up"), ("a", "down"))) == ([], {CUT: ["log:0"], LONE_DOWN: ["log:1"]})
    assert made([A, cut], thumbs(("b", "down"), ("a", "up"))) == ([("thumbs", "a", "b")], {})


@pytest.mark.parametrize("edited", ["a", " a\n"])
def test_an_edit_that_changes_nothing_is_no_pair(edited: str) -> None:
    assert made([A], [opinion("a", "edited", 1, edited=edited)]) == ([], {SAME: ["log:1"]})


def test_empty_texts_make_no_pair() -> None:
    silent, mute = answer("s", " "), answer("m", prompt=(Message("user", " "),))
    rows = [
        opinion("a", "chosen", 1, over="s"),
        opinion("a", "edited", 2, edited=""),
        opinion("m", "edited", 3, edited="x"),
    ]
    assert made([A, silent, mute], rows) == ([], {EMPTY: ["log:1", "log:2", "log:3"]})


def test_what_is_said_of_an_answer_that_nothing_can_be_made_of_is_counted_with_its_reason() -> None:
    odd = Answer(("o",), (), "", "log:o", unusable="pictures")
    rows = [opinion("o", "up", 1), opinion("a", "chosen", 2, over="o"), opinion("a", "chosen", 3, over="gone")]
    assert made([A, odd], rows) == ([], {"pictures": ["log:1", "log:2"], UNKNOWN: ["log:3 (gone)"]})


# -- later feedback, repetitions, contradictions -----------------------------------------------------------------------


def test_the_latest_of_a_slot_counts_by_time_and_without_a_time_by_order() -> None:
    rows = [opinion("a", "edited", 1, 5, edited="late"), opinion("a", "edited", 2, 1, edited="early")]
    assert made([A], rows) == ([("edited", "late", "a")], {REPLACED: ["log:2"]})
    rows = [opinion("a", "edited", 1, edited="first"), opinion("a", "edited", 2, edited="second")]
    assert made([A], rows) == ([("edited", "second", "a")], {REPLACED: ["log:1"]})
    rows = [opinion("a", "edited", 1, 5, edited="timed"), opinion("a", "edited", 2, edited="at some time")]
    assert made([A], rows) == ([("edited", "timed", "a")], {REPLACED: ["log:2"]})


def test_an_edit_stays_if_a_thumb_follows_and_two_choices_of_one_answer_stand_side_by_side() -> None:
    rows = [
        opinion("a", "edited", 1, 1, edited="better"),
        opinion("a", "down", 2, 2),
        opinion("b", "chosen", 3, 3, over="c"),
        opinion("b", "chosen", 4, 4, over="d"),
    ]
    pairs, left_out = made([A, B, C, D], rows)
    assert pairs == [("edited", "better", "a"), ("chosen", "b", "c"), ("chosen", "b", "d")]
    assert left_out == {AGREES: ["log:2"]}


def test_the_same_pair_twice_is_one_and_the_first_is_kept() -> None:
    twin = answer("e", "b")
    rows = [
        opinion("a", "chosen", 1, over="b"),
        opinion("a", "chosen", 2, over="e"),
        opinion("b", "edited", 3, edited="a"),
    ]
    assert made([A, B, twin], rows) == ([("chosen", "a", "b")], {AGAIN: ["log:2", "log:3"]})


def test_of_a_contradiction_both_sides_and_their_repetitions_are_left_out() -> None:
    twin = answer("e", "b")
    rows = [
        opinion("a", "chosen", 1, over="b"),
        opinion("b", "chosen", 2, over="a"),
        opinion("a", "chosen", 3, over="e"),
        opinion("a", "chosen", 4, over="c"),
    ]
    left_out: LeftOut = {}
    pairs, against = settle(pair_up([A, B, C, twin], rows, left_out), left_out)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("a", "c")]
    assert [pair.source for pair in against] == ["log:1", "log:2", "log:3"]
    assert left_out == {CONFLICT: ["log:1", "log:2", "log:3"]}


def test_opposite_answers_to_different_prompts_are_no_contradiction() -> None:
    pairs = [
        CollectedPair(PROMPT, "a", "b", "chosen", "log:1"),
        CollectedPair(OTHER, "b", "a", "chosen", "log:2"),
    ]
    left_out: LeftOut = {}
    assert settle(pairs, left_out) == (pairs, [])
    assert left_out == {}


def test_a_row_says_when_in_utc_and_what_is_not_known_is_empty() -> None:
    pair = CollectedPair(PROMPT, "a", "b", "chosen", "log:1")
    assert (pair.as_row()["time"], pair.as_row()["model"]) == ("", "")
    timed = CollectedPair(PROMPT, "a", "b", "chosen", "log:1", time=NOON + timedelta(milliseconds=250))
    assert timed.as_row()["time"] == "2026-11-27T12:00:00.250000Z"


# -- nothing gets lost -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from("abcxyz")  # x, y and z are in no log
OPINIONS = st.lists(
    st.one_of(
        st.builds(lambda about, kind: (about, kind, {}), NAMES, st.sampled_from(["up", "down"])),
        st.builds(lambda about, text: (about, "edited", {"edited": text}), NAMES, st.sampled_from(["a", "b", "e", ""])),
        st.builds(lambda about, over: (about, "chosen", {"over": over}), NAMES, NAMES),
    ),
    max_size=12,
)


@given(OPINIONS, st.lists(st.booleans(), min_size=3, max_size=3))
def test_every_opinion_is_in_a_pair_or_left_out_for_one_reason(
    said: list[tuple[str, Kind, dict[str, str]]], whole: list[bool]
) -> None:
    answers = [answer(name, complete=complete) for name, complete in zip("abc", whole, strict=True)]
    opinions = [opinion(about, kind, number, **more) for number, (about, kind, more) in enumerate(said)]
    left_out: LeftOut = {}
    before = pair_up(answers, opinions, left_out)
    used = sum(2 if pair.why == "thumbs" else 1 for pair in before)
    assert used + sum(map(len, left_out.values())) == len(opinions)
    noted = sum(map(len, left_out.values()))
    pairs, _ = settle(before, left_out)
    assert len(pairs) + sum(map(len, left_out.values())) - noted == len(before)
    keys = Counter((pair.prompt, pair.chosen, pair.rejected) for pair in pairs)
    assert not keys or max(keys.values()) == 1
    assert not any((prompt, rejected, chosen) in keys for prompt, chosen, rejected in keys)
    assert all(pair.why == "edited" or whole["abc".index(pair.chosen)] for pair in pairs)
