"""``lifealign export`` as a person uses it: what it prints, and one line and exit code 2 for whatever is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.cli.conftest import Command
from tests.tiny import letter_task

from lifealign.life.life import Life

TASKS = [letter_task("one", "a", "b"), letter_task("two", "c", "d")]


@pytest.fixture
def bot(lived: Callable[..., Life]) -> Path:
    return lived(TASKS, method="lifealign").directory.path


@pytest.fixture
def export(lifealign: Command) -> Command:
    """``lifealign export`` with arguments."""
    return partial(lifealign, "export")


def test_an_adapter_a_model_and_a_file_for_llama_cpp(export: Command, bot: Path, tiny_folder: Path) -> None:
    plain = export(bot, "adapter")
    assert (plain.code, plain.err) == (0, "")
    assert plain.out == f"{bot}: 02-two for {tiny_folder}, float32\n\nadapter: adapter\n"
    merged = export(bot, "deep/merged", "--merged", "--as-of", "01-one", "--dtype", "bfloat16")
    assert (merged.code, merged.err) == (0, "")
    assert merged.out == f"{bot}: 01-one merged into {tiny_folder}, bfloat16\n\nmodel: deep/merged\n"
    assert json.loads(Path("deep/merged/config.json").read_text())["dtype"] == "bfloat16"
    gguf = export(bot, "llama", "--gguf")
    assert (gguf.code, gguf.err) == (0, "")
    assert gguf.out == f"{bot}: 02-two for {tiny_folder}, float32\n\nadapter: llama/adapter.gguf\n"
    assert Path("llama/adapter.gguf").read_bytes().startswith(b"GGUF")


def test_a_composition_says_what_is_in_it_and_that_it_was_not_scored(export: Command, bot: Path) -> None:
    made = export(bot, "out", "--without", "one", "--weight", "two=0.5", "--merged")
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith("  01-one: weight 0\n  02-two: weight 0.5\nnot scored: no version ever was this model; ")
    assert ": a composition merged into " in made.out
    same = export(bot, "same", "--without", "two")
    assert "not scored" not in same.out and ": 01-one for " in same.out


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--merged", "--gguf"], "export: found --merged and --gguf, expected one of them"),
        (["--dtype", "bfloat16"], "an adapter for PEFT is float32"),
        (["--merged", "--dtype", "int8"], "dtype: found 'int8', expected one of float32, bfloat16, float16"),
        (["--as-of", "03-three"], "found no version '03-three', expected one of: 00-base, 01-one, 02-two"),
        (["--as-of", "00-base"], "found 00-base, in which nothing was learnt"),
        (["--without", "on"], "found 'on', expected a task that was learnt: one, two; did you mean one?"),
        (["--weight", "one"], "--weight: found 'one', expected TASK=NUMBER, such as greet=0.5"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    export: Command, bot: Path, tmp_path: Path, arguments: list[str], fault: str
) -> None:
    result = export(bot, "out", *arguments)
    assert (result.code, result.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]*\n", result.err) and fault in result.err
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_no_life_is_named(export: Command, tmp_path: Path) -> None:
    result = export(tmp_path, "out")
    assert result.code == 2 and "found a directory without life.json, expected a life" in result.err
