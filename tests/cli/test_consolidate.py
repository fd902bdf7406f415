"""``lifealign consolidate`` as a person uses it: what it prints, and one line and exit code 2 for whatever is wrong."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from tests.cli.conftest import Command
from tests.peft_adapters import moved, random_factors, write_folder

from lifealign.model.peft_folder import read_peft_folder


@pytest.fixture
def consolidate(lifealign: Command) -> Command:
    """``lifealign consolidate`` in a folder with adapters ``start`` and ``sft``."""
    write_folder(Path("start"), random_factors(0))
    write_folder(Path("sft"), moved(random_factors(0), 1))
    return partial(lifealign, "consolidate")


def test_a_chain_of_two_trainings(consolidate: Command) -> None:
    first = consolidate("start", "sft", "--memory", "memory", "--out", "01-refunds")
    assert (first.code, first.err) == (0, "")
    lines = first.out.splitlines()
    assert lines[0] == "memory: 01-refunds taken, 1 update in all"
    assert re.fullmatch(
        r"  rank kept [1-4]\.\d  energy kept 9\d\.\d%  overlap with earlier updates 0\.0%  norm 0\.1\d+ to 0\.1\d+  "
        r"\(means of 8 factors\)",
        lines[1],
    )
    assert lines[2:] == ["next: train from that adapter, and give it as BEFORE", "", "adapter: 01-refunds"]
    after = write_folder(Path("dpo"), moved(read_peft_folder("01-refunds").factors, 2))
    write_folder(after / "ref", random_factors(0))
    how = ("--energy-kept", "1", "--overlap-kept", "0", "--name", "tone")
    second = consolidate("01-refunds", after, "--memory", "memory", "--out", "out", *how)
    assert second.out.splitlines()[:2] == [
        "dpo: not read, because adapters of their own: ref",
        "memory: 02-tone taken, 2 updates in all",
    ]
    assert "energy kept 100.0%" in second.out and "overlap with earlier updates 0.0%" not in second.out
    again = consolidate("01-refunds", after, "--memory", "memory", "--out", "out", *how)
    assert again.code == 0
    assert "memory: has this update already, as 02-tone; nothing was taken twice" in again.out


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            ["none", "sft", "--memory", "memory", "--out", "out"],
            "before: found none, expected the folder of the adapter",
        ),
        (
            ["start", "nothing", "--memory", "memory", "--out", "out"],
            "nothing: found no such folder, expected the folder",
        ),
        (
            ["start", "start", "--memory", "memory", "--out", "out"],
            "start: found the same factors as in start, expected",
        ),
        (
            ["start", "sft", "--memory", "memory", "--out", "sft"],
            "sft: found a directory that is not empty, expected an",
        ),
        (["start", "sft", "--memory", "sft", "--out", "out"], "sft: found 'adapter_config.json' and no memory.json"),
        (
            ["start", "sft", "--memory", "memory", "--out", "out", "--energy-kept", "0"],
            "energy_kept: found 0.0, expected",
        ),
        (["start", "sft", "--memory", "memory", "--out", "a b"], "name: found 'a b', expected 1 to 64 letters"),
        (["start", "sft", "--out", "out"], "Missing option"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    consolidate: Command, tmp_path: Path, arguments: list[str], fault: str
) -> None:
    result = consolidate(*arguments)
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]*\n", result.err) and fault in result.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("memory", "out")) == []


def test_names_from_elsewhere_are_not_obeyed(consolidate: Command) -> None:
    after = write_folder(Path("dpo"), moved(random_factors(0), 2))
    write_folder(after / "ref\x1b[31m[red]", random_factors(0))
    result = consolidate("start", after, "--memory", "memory", "--out", "out")
    assert result.code == 0 and "\x1b" not in result.out and "[red]" in result.out
