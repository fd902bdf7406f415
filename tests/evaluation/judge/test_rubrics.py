"""Rubrics: one for each task of the paper, complete, and a file of one's own read or refused with its line."""

from pathlib import Path

import pytest

from lifealign.data.suites.paper import CATALOG
from lifealign.errors import ConfigError
from lifealign.evaluation.judge import load_rubric, rubric_for
from lifealign.evaluation.judge.question import mark_question
from lifealign.evaluation.judge.rubrics import known_rubrics

MARKS = "\n".join(f"{mark}: as good as {mark}" for mark in range(1, 11))
GOOD = f"Judge the {{answer}} to the {{prompt}}.\n\n## Marks\n{MARKS}\n"


def test_every_task_of_the_paper_has_a_rubric_of_its_own_and_any_other_the_general_one() -> None:
    assert set(known_rubrics()) == {*CATALOG, "general"}
    rubrics = [rubric_for(name) for name in CATALOG]
    assert [rubric.name for rubric in rubrics] == list(CATALOG)
    assert len({rubric.fingerprint for rubric in rubrics}) == 6
    assert rubric_for("refunds").name == "general"
    for rubric in (*rubrics, rubric_for("general")):
        assert len(rubric.anchors) == len(set(rubric.anchors)) == 10
        assert rubric.shows_reference and "{" not in rubric.instructions() + rubric.marks_text()


def test_a_rubric_of_ones_own_and_the_reference_only_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.md"
    path.write_text(GOOD + "   with more words\n")
    own = load_rubric(path)
    assert (own.name, own.shows_reference, own.anchors[9]) == ("own", False, "as good as 10 with more words")
    assert "REFERENCE" not in mark_question(own, (), "answer", "secret").user
    path.write_text(GOOD.replace("Judge", "Against {reference}, judge"))
    assert "secret" in mark_question(load_rubric(path), (), "answer", "secret").user


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("{prompt}", "prompt"), r"found no \{prompt\} above '## Marks'"),
        (GOOD.replace("{answer}", "answer"), r"found no \{answer\}"),
        (GOOD.replace("{answer}", "{answer} {anser}"), r"placeholder \{anser\}, expected some of .*answer"),
        (GOOD.replace("## Marks", ""), "found the line '## Marks' 0 times"),
        (GOOD.replace("7: as", "6: as"), r"own\.md:10: found the mark 6 a second time"),
        (GOOD.replace("10: as", "11: as"), r"found the mark 11 outside 1 to 10"),
        (GOOD.replace("3: as good as 3\n", ""), "found no meaning of the marks 3"),
        (GOOD.replace("1: as good as 1\n", "well\n", 1), r"own\.md:4: found 'well', expected a mark with its meaning"),
        ("", "0 times"),
    ],
)
def test_a_rubric_with_a_fault_is_refused_with_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.md"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_rubric(path)


def test_a_rubric_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.md: could not be read"):
        load_rubric(tmp_path / "gone.md")
    (tmp_path / "bad.md").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 at offset 0"):
        load_rubric(tmp_path / "bad.md")
