"""What there is to decide, on which side an answer is, and what is refused or not asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.refusals import refusal
from tests.writers import write_jsonl

from lifealign.data.pair import Message
from lifealign.service.review.candidates import Candidate, read_candidates


def answers(candidate: Candidate) -> set[str]:
    return {candidate.a, candidate.b}


def read(folder: Path, *rows: Any) -> tuple[Candidate, ...]:
    return read_candidates(write_jsonl(folder / "rows.jsonl", rows)).candidates


def test_pairs_of_any_shape_and_undecided_rows_are_asked_in_the_order_of_the_file(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}]
    found = read(
        tmp_path,
        {"query": "One?", "chosen": "1", "rejected": "2"},
        {
            "chosen": [*talk, {"role": "assistant", "content": "y"}],
            "rejected": [*talk, {"role": "assistant", "content": "n"}],
        },
        {"prompt": "Three?", "system": "Be brief.", "answers": ["5", "6"]},
    )
    assert [candidate.prompt for candidate in found] == [
        (Message("user", "One?"),),
        (Message("user", "Hi"),),
        (Message("system", "Be brief."), Message("user", "Three?")),
    ]
    assert [answers(candidate) for candidate in found] == [{"1", "2"}, {"y", "n"}, {"5", "6"}]
    assert [found[0].answer(found[0].chosen or "a"), found[1].answer(found[1].chosen or "a")] == ["1", "y"]
    assert found[2].chosen is None and found[2].source == f"{tmp_path / 'rows.jsonl'}:3"


def test_more_than_two_answers_are_asked_in_neighbours_so_that_all_are_seen(tmp_path: Path) -> None:
    found = read(tmp_path, {"prompt": "p", "answers": ["1", "2", "3", "4"]})
    assert [answers(candidate) for candidate in found] == [{"1", "2"}, {"2", "3"}, {"3", "4"}]
    assert {candidate.source[-2:] for candidate in found} == {":1"}


def test_the_side_tells_neither_what_is_chosen_nor_where_it_was(tmp_path: Path) -> None:
    """Of 400 fair coins, 160 to 240 show heads but in one of 20 000 cases; and turning a row round moves nothing."""
    rows = [{"prompt": f"{n}", "chosen": f"good {n}", "rejected": f"a bad {n}"} for n in range(400)]
    found = read(tmp_path, *rows)
    assert 160 < sum(candidate.chosen == "a" for candidate in found) < 240
    turned = read(tmp_path, *({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows))
    assert [(one.key, one.a, one.b) for one in turned] == [(one.key, one.a, one.b) for one in found]
    assert all(one.chosen != other.chosen for one, other in zip(found, turned, strict=True))


def test_the_key_is_of_the_content_and_of_nothing_else(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "x", "rejected": "y"}
    (plain,) = read(tmp_path, row)
    (moved,) = read_candidates(write_jsonl(tmp_path / "other.jsonl", [{**row, "note": 7}])).candidates
    assert moved.key == plain.key
    for change in ({"prompt": "q"}, {"chosen": "z"}, {"rejected": "z"}, {"system": "s"}):
        assert read(tmp_path, row | change)[0].key != plain.key


def test_what_need_not_be_asked_is_counted_with_its_line(tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "x", "rejected": "y"}
    file = write_jsonl(
        tmp_path / "rows.jsonl",
        [
            good,
            good,
            {"prompt": "p", "answers": ["y", "x"]},  # the same question
            {"prompt": "p", "answers": ["x", " x", "z"]},
            {"prompt": " ", "chosen": "x", "rejected": "y"},
            {"prompt": "p", "chosen": "", "rejected": "y"},
            {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: d"},
        ],
    )
    found = read_candidates(file)
    assert [answers(candidate) for candidate in found.candidates] == [{"x", "y"}, {" x", "z"}]
    lines = {reason: [place.rpartition(":")[2] for place in places] for reason, places in found.dropped.items()}
    assert lines == {
        "repeated": ["2", "3"],
        "identical answers": ["4"],
        "empty prompt": ["5"],
        "empty answer": ["6"],
        "unclear transcript": ["7"],
    }


@pytest.mark.parametrize(
    ("row", "field", "found"),
    [
        ({"prompt": "p", "answers": "x"}, "answers", "the string 'x'"),
        ({"prompt": "p", "answers": ["x"]}, "answers", "a list of 1"),
        ({"prompt": "p", "answers": ["x", 7]}, "answers[1]", "a number (7)"),
        ({"prompt": "p", "answers": ["x", "y", "a\0"]}, "answers[2]", "a NUL character at position 1"),
        ({"answers": ["x", "y"]}, "prompt", "no such field among 'answers'"),
        ({"prompt": "p"}, None, "no such field among 'prompt'"),
        (
            {"prompt": "p", "chosen": "x", "answers": ["x", "y"]},
            "rejected",
            "no such field among 'prompt', 'chosen', 'answers'",
        ),
        ({"prompt": "p", "answers": ["x", "y"], "tools": ["t"]}, "tools", "a list of 1"),
        ([1], None, "a list of 1"),
    ],
)
def test_a_row_that_cannot_be_asked_is_one_error_in_its_own_words(
    tmp_path: Path, row: Any, field: str | None, found: str
) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "p", "chosen": "x", "rejected": "y"}, row])
    assert refusal(lambda: read_candidates(file))[:4] == (str(file), 2, field, found)


def test_a_file_with_nothing_to_decide_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "p", "answers": ["x", "x"]}])
    path, line, field, found, _ = refusal(lambda: read_candidates(file))
    assert (path, line, field, found) == (str(file), 1, None, "nothing to decide (here: identical answers)")
