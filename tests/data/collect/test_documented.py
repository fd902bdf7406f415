"""The examples of docs/collect.md, read as they are written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.data.collect.logs import BAD, GOOD, texts
from tests.writers import write_jsonl

from lifealign.data.clean import read_clean
from lifealign.data.collect.collection import collect_logs
from lifealign.data.collect.masking import KINDS
from lifealign.data.collect.recognise import SOURCES
from lifealign.storage.files import write_rows

PAGE = (Path(__file__).parents[3] / "docs" / "collect.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))


def lines_of(section: str) -> list[str]:
    (block,) = re.findall(r"^```jsonl\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return block.splitlines()


def test_every_format_has_a_section_and_an_example() -> None:
    assert len(SECTIONS) == len(SOURCES)


@pytest.mark.parametrize("name", SECTIONS)
def test_each_example_makes_the_one_pair(tmp_path: Path, name: str) -> None:
    found = collect_logs([write_jsonl(tmp_path / "log.jsonl", map(json.loads, lines_of(SECTIONS[name])))])
    assert [pair[1:] for pair in texts(found)] == [(GOOD, BAD)]
    assert found.pairs[0].prompt == (("user", "Where is my order?"),)
    assert set(found.left_out) <= {"pairs that are there already"}  # the preference rows say the same three times


def test_the_line_that_is_shown_is_the_line_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("served.jsonl"), map(json.loads, lines_of(SECTIONS["lifealign serve"])))
    write_rows("pairs.jsonl", [pair.as_row() for pair in collect_logs(["served.jsonl"]).pairs])
    (shown,) = lines_of(PAGE.partition("## What is written")[2].partition("## Logs")[0])
    assert Path("pairs.jsonl").read_text() == shown + "\n"
    clean = read_clean("pairs.jsonl")
    assert [(pair.chosen, pair.rejected) for pair in clean.pairs] == [(GOOD, BAD)]
    assert sorted(clean.ignored) == ["model", "source", "time", "why"]


def test_every_kind_that_can_be_masked_is_in_the_table() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|.*\| `\[\1\]` \|$", PAGE, re.MULTILINE)) == sorted(KINDS)
