"""Exact adherence: what an answer check accepts, refuses and counts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lifealign.data.answer_check import MAX_CHARACTERS, AnswerCheck


@pytest.mark.parametrize(
    ("answer", "holds"),
    [
        ("one two three", True),
        ("one two three four", False),
        ("  one\ttwo\n\nthree ", True),
        ("one-two-three four", True),
    ],
)
def test_words_are_what_whitespace_separates(answer: str, holds: bool) -> None:
    assert AnswerCheck(max_words=3).holds(answer) is holds


def test_min_words_is_a_limit_of_its_own() -> None:
    check = AnswerCheck(min_words=3)
    assert not check.holds("one two")
    assert check.holds("one two three")


def test_all_matches_must_be_found_whatever_their_case() -> None:
    check = AnswerCheck(matches=(r"^hello\b", "thank"))
    assert check.holds("HELLO, and Thank you")
    assert not check.holds("Hello")
    assert not check.holds("Thank you, hello")


def test_none_of_lacks_may_be_found() -> None:
    check = AnswerCheck(lacks=("refund", "money"))
    assert check.holds("We will look into it.")
    assert not check.holds("Your MONEY is safe.")


@pytest.mark.parametrize("answer", ["", " ", "\n\t "])
@pytest.mark.parametrize(
    "check", [AnswerCheck(max_words=3), AnswerCheck(lacks=("refund",)), AnswerCheck(matches=("^",))]
)
def test_an_empty_answer_never_holds(check: AnswerCheck, answer: str) -> None:
    assert check.holds(answer) is False


def test_only_the_first_characters_are_judged() -> None:
    check = AnswerCheck(matches=("end",))
    assert check.holds("." * (MAX_CHARACTERS - 3) + "end")
    assert not check.holds("." * (MAX_CHARACTERS - 2) + "end")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a condition"),
        ({"min_words": 1}, "needs a condition"),
        ({"max_words": 0}, "greater than or equal to 1"),
        ({"max_words": 2, "min_words": 3}, "min_words 3 above max_words 2"),
        ({"matches": ("fine", "(open")}, r"'\(open'"),
        ({"lacks": ("[a-",)}, r"'\[a-'"),
        ({"lacks": ("",)}, "empty pattern"),
        ({"most_words": 3}, "most_words"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as error:
        AnswerCheck.model_validate(settings)
    assert isinstance(error.value, ValueError)


def test_a_check_is_frozen_and_survives_json() -> None:
    check = AnswerCheck(max_words=25, matches=(r"\bhi\b",))
    assert AnswerCheck.model_validate_json(check.model_dump_json()) == check
    assert hash(check) == hash(check.model_copy())
    with pytest.raises(ValidationError):
        check.max_words = 30  # type: ignore[misc]
