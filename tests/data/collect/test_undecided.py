"""Prompts that somebody has to decide: which they are, and which answers are shown."""

from __future__ import annotations

from pathlib import Path

from tests.data.collect.logs import ASKED, BAD, GOOD, Row, collected, said
from tests.data.collect.logs import given as answered

OTHER = [{"role": "user", "content": "When do you open?"}]


def open_ones(folder: Path, *rows: Row, kinds: tuple[str, ...] = ()) -> list[Row]:
    return [one.as_row() for one in collected(folder, [*rows], kinds=kinds).undecided]


def test_two_answers_that_nobody_chose_between(tmp_path: Path) -> None:
    rows = [
        answered("a", BAD),
        answered("x", "At nine.", messages=OTHER),
        answered("b", GOOD),
        answered("c", BAD),
        said("a", thumb="down"),
    ]
    assert open_ones(tmp_path, *rows) == [
        {"prompt": ASKED, "answers": [BAD, GOOD], "why": "undecided", "source": f"{tmp_path}/1.jsonl:1"}
    ]


def test_a_choice_decides_and_an_edit_does_not(tmp_path: Path) -> None:
    both = [answered("a", BAD), answered("b", GOOD)]
    assert open_ones(tmp_path, *both, said("b", preferred_over="a")) == []
    assert open_ones(tmp_path, *both, said("a", thumb="down"), said("b", thumb="up")) == []
    assert len(open_ones(tmp_path, *both, said("a", edited="Tomorrow."))) == 1
    assert open_ones(tmp_path, *both, said("a", edited=GOOD)) == []  # what somebody wrote is the other answer


def test_a_contradiction_is_to_be_decided(tmp_path: Path) -> None:
    rows = [answered("a", BAD), answered("b", GOOD), said("a", preferred_over="b"), said("b", preferred_over="a")]
    assert [row["why"] for row in open_ones(tmp_path, *rows)] == ["conflict"]


def test_answers_that_must_not_be_chosen_are_not_shown(tmp_path: Path) -> None:
    rows = [
        answered("a", BAD),
        answered("b", "It has", finish_reason="length"),
        answered("c", "It", finish_reason="cancelled"),
        answered("d", " "),
    ]
    assert open_ones(tmp_path, *rows) == []
    assert [row["answers"] for row in open_ones(tmp_path, *rows, answered("e", GOOD))] == [[BAD, GOOD]]


def test_they_are_masked_like_pairs(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "I am ann@x.example"}]
    rows = [
        answered(name, text, messages=asked)
        for name, text in (("a", "Hi ann@x.example"), ("b", "Hi"), ("c", "Hi x@y.de"))
    ]
    (one,) = collected(tmp_path, rows, kinds=("email",)).undecided
    assert (one.prompt[0].content, one.answers, one.masked) == ("I am [email]", ("Hi [email]", "Hi"), {"email": 2})
