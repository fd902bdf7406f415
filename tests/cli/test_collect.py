"""``lifealign collect`` as a person uses it: files, tables, and one line and exit code 2 for whatever is wrong."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from tests.cli.conftest import Command
from tests.data.collect.logs import BAD, GOOD, given, said
from tests.writers import write_jsonl

from lifealign.data.clean import read_clean

LOG = [given("a", BAD), said("a", edited=GOOD)]
LONE = [given("a", BAD), given("b", GOOD), said("a", thumb="down"), said("lost", thumb="up")]


@pytest.fixture
def collect(lifealign: Command) -> Command:
    """``lifealign collect`` with arguments."""
    return partial(lifealign, "collect")


def written() -> list[str]:
    """The files in the folder that are no logs."""
    return sorted(path.name for path in Path().iterdir() if not path.name.startswith("log"))


def test_pairs_are_written_and_what_happened_is_shown(collect: Command) -> None:
    write_jsonl(Path("log.jsonl"), [*LOG, *LONE[1:]])
    code, out, err = collect("log.jsonl", "--out", "pairs.jsonl")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines() if "log.jsonl" in line or "pairs.jsonl" in line] == [
        ["log.jsonl", "lifealign", "serve", "log", "2", "3", "1"],
        ["feedback", "about", "an", "unknown", "answer", "1", "log.jsonl:5", "(lost)"],
        ["thumbs", "that", "say", "what", "a", "pair", "says", "already", "1", "log.jsonl:4"],
        ["pairs.jsonl:", "1", "pair"],
        ["next:", "lifealign", "check", "pairs.jsonl"],
    ]
    assert [(pair.chosen, pair.rejected) for pair in read_clean("pairs.jsonl").pairs] == [(GOOD, BAD)]
    assert written() == ["pairs.jsonl"]


def test_the_same_logs_give_the_same_bytes(collect: Command) -> None:
    write_jsonl(Path("log.jsonl"), LOG)
    collect("log.jsonl", "--out", "one.jsonl")
    collect("log.jsonl", "--out", "two.jsonl")
    assert Path("one.jsonl").read_bytes() == Path("two.jsonl").read_bytes()


def test_undecided_prompts_are_written_beside_pairs_or_alone(collect: Command) -> None:
    write_jsonl(Path("log.jsonl"), [*LOG, given("b", GOOD + "!")])
    code, out, _ = collect("log.jsonl", "--out", "pairs.jsonl", "--undecided", "open.jsonl")
    assert (code, "open.jsonl: 1 prompt to decide\n" in out) == (0, True)
    assert json.loads(Path("open.jsonl").read_text())["answers"] == [BAD, GOOD + "!"]
    write_jsonl(Path("log.jsonl"), LONE)
    assert collect("log.jsonl", "--undecided", "only.jsonl").code == 0
    assert written() == ["only.jsonl", "open.jsonl", "pairs.jsonl"]


def test_where_nothing_is_undecided_the_file_says_so_by_being_empty(collect: Command) -> None:
    write_jsonl(Path("log.jsonl"), LOG)
    Path("open.jsonl").write_text("of last time")
    code, out, _ = collect("log.jsonl", "--out", "pairs.jsonl", "--undecided", "open.jsonl", "--force")
    assert (code, "open.jsonl: 0 prompts to decide" in out, Path("open.jsonl").read_text()) == (0, True, "")


def test_what_was_masked_is_counted_in_what_is_written(collect: Command) -> None:
    mail = [given("a", "Ask a@b.example."), said("a", edited="Ask c@d.example, or 030 1234567.")]
    write_jsonl(
        Path("log.jsonl"),
        [*mail, given("b", "Never written: e@f.example", messages=[{"role": "user", "content": "?"}])],
    )
    code, out, _ = collect("log.jsonl", "--out", "pairs.jsonl", "--mask", "phone,email")
    assert (code, "pairs.jsonl: 1 pair; masked: email 2, phone 1\n" in out) == (0, True)
    assert "example" not in Path("pairs.jsonl").read_text()


def test_no_pair_is_an_error_with_the_counts_and_nothing_is_written(collect: Command) -> None:
    write_jsonl(Path("log.jsonl"), LONE)
    code, out, err = collect("log.jsonl", "--out", "pairs.jsonl", "--undecided", "open.jsonl")
    assert (code, out) == (2, "")
    assert err == (
        "error: log.jsonl: found no pair (2 answers; 2 pieces of feedback; feedback about an unknown answer: 1; lone "
        "thumbs down: 1; 1 prompt to decide: --undecided FILE without --out writes them), expected an edit, a choice "
        "between two answers, or opposite thumbs on two answers to one prompt. Nothing was written\n"
    )
    assert written() == []


def test_a_file_that_exists_is_replaced_only_by_force(collect: Command) -> None:
    write_jsonl(Path("log.jsonl"), LOG)
    for option, others in (("--out", ()), ("--undecided", ("--out", "new.jsonl"))):
        Path("old.jsonl").write_text("old")
        code, out, err = collect("log.jsonl", option, "old.jsonl", *others)
        assert (code, out) == (2, "")
        assert err == "error: old.jsonl: exists; write to another file, or replace it with --force\n"
        assert (Path("old.jsonl").read_text(), written()) == ("old", ["old.jsonl"])
    assert collect("log.jsonl", "--out", "old.jsonl", "--force").code == 0
    assert read_clean("old.jsonl").rows == 1


def test_a_log_is_never_written_over(collect: Command) -> None:
    write_jsonl(Path("log.jsonl"), LOG)
    before = Path("log.jsonl").read_bytes()
    Path("log-link.jsonl").symlink_to("log.jsonl")
    for out in ("log.jsonl", "./log.jsonl", "log-link.jsonl"):
        code, _, err = collect("log.jsonl", "--out", out, "--force")
        assert (code, "found as a log and as a file to write" in err) == (2, True)
    assert Path("log.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "collect needs --out FILE for pairs, or --undecided FILE for what is to be decided, or both"),
        (["--out", "x", "--undecided", "./x"], "x: found as --out and as --undecided; write to two files"),
        (["log.jsonl", "--out", "x"], "log.jsonl: found twice among the logs; name each log once"),
        (["--undecided", "x"], "--undecided x: found no prompt to decide; nothing was written"),
        (
            ["--out", "x", "--mask", "name"],
            "--mask: found 'name', expected some of email, card, phone, with commas between them",
        ),
        (["none.jsonl", "--out", "x"], "none.jsonl: found no such file, expected"),
        (
            ["log-other.jsonl", "--out", "x"],
            "log-other.jsonl:1: found conversations (an object with 'messages'), expected one",
        ),
        (["--out", "log.jsonl/x"], "log.jsonl/x: could not be written: "),
        (["--out", ""], "--out: found an empty value"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(collect: Command, arguments: list[str], message: str) -> None:
    write_jsonl(Path("log.jsonl"), LOG)
    write_jsonl(Path("log-other.jsonl"), [{"messages": []}])
    code, _, err = collect("log.jsonl", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {message}")
    assert written() == []


def test_names_and_places_are_shown_as_they_are(collect: Command) -> None:
    name = "log [red]\x1b[31m.jsonl"
    write_jsonl(Path(name), [*LOG, said("[bold]lost\x07", thumb="up")])
    code, out, _ = collect(name, "--out", "pairs.jsonl")
    assert code == 0
    assert "log [red]\\x1b[31m.jsonl" in out and "[bold]lost\\x07" in out and "\x1b" not in out
