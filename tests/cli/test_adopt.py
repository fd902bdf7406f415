"""``lifealign adopt`` as a person uses it: what it prints, and one line and exit code 2 for whatever is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.cli.conftest import Command, Result
from tests.peft_adapters import trained
from tests.tiny import letter_task
from tests.writers import write_splits

QUICK = """\
model: {dtype: float32}
sft: {num_train_epochs: 1, learning_rate: 0.01}
preference: {num_train_epochs: 1, learning_rate: 0.01}
evaluation: {max_new_tokens: 4, metrics: [preference_accuracy]}
"""


@pytest.fixture
def adopt(lifealign: Command, tiny_folder: Path) -> Callable[..., Result]:
    """``lifealign adopt ... --base TINY`` in a folder with an adapter ``run``, the one before it, and two tasks."""
    trained(tiny_folder, Path("run"))
    trained(tiny_folder, Path("start"), seed=8)
    for name, letters in (("one", "ab"), ("two", "cd")):
        write_splits(Path(), letter_task(name, *letters, train=12))
    Path("quick.yaml").write_text(QUICK)
    Path("tasks.yaml").write_text(
        "tasks:\n  - {name: short, train: one-train.jsonl, test: one-test.jsonl, check: {max_words: 2}}\n"
    )
    return partial(lifealign, "adopt", "run", "bot", "--base", tiny_folder, "--config", "quick.yaml")


def test_a_life_begins_with_what_was_trained_elsewhere_and_goes_on(adopt: Command, lifealign: Command) -> None:
    made = adopt("--task", "one=one-train.jsonl,one-test.jsonl", "--method", "er")
    assert (made.code, made.err) == (0, ""), made
    assert "bot: a life that begins with run, method ER" in made.out
    assert "what its training has done to lora_A is not known without --before, and is taken to be nothing" in made.out
    assert made.out.endswith("adapter: bot/versions/01-one\n") and "preference accuracy" in made.out
    shown = lifealign("status", "bot").out
    assert re.search(r"  01-one: one \(\d+ pairs, 4 held out\)\n    came with an adapter from another trainer\n", shown)
    assert lifealign("learn", "bot", "two-train.jsonl", "--name", "two", "--test", "two-test.jsonl").code == 0
    forgotten = lifealign("forget", "bot", "one", "--rebuild")
    assert forgotten.code == 2 and "one was not learnt here but came with the adapter" in forgotten.err


def test_tasks_may_come_from_a_file_with_their_checks(adopt: Command, lifealign: Command) -> None:
    made = adopt("--tasks", "tasks.yaml", "--task", "two=two-train.jsonl", "--before", "start")
    assert made.code == 0 and "is not known" not in made.out
    assert "01-short+two: short (" in lifealign("status", "bot").out
    again = adopt("--tasks", "tasks.yaml", "--task", "two=two-train.jsonl", "--before", "start")
    assert again.code == 0 and "01-short+two" in again.out


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "adopt needs --task NAME=TRAIN[,TEST[,GATE]] or --tasks FILE"),
        (["--task", "one"], "--task: found 'one', expected NAME=TRAIN[,TEST[,GATE]], such as greet=greet.jsonl"),
        (["--task", "one=a,b,c,d"], "--task: found 'one=a,b,c,d', expected NAME=TRAIN"),
        (["--task", "one=nothing.jsonl"], "nothing.jsonl: found no such file"),
        (["--tasks", "nowhere.yaml"], "nowhere.yaml"),
        (["--task", "one=one-train.jsonl", "--before", "nowhere"], "nowhere: found no such folder"),
        (["--task", "one=one-train.jsonl", "--method", "olora"], "method: found olora, expected one whose versions"),
    ],
)
def test_what_is_wrong_is_one_line_and_makes_nothing(adopt: Command, arguments: list[str], fault: str) -> None:
    refused = adopt(*arguments)
    assert refused.code == 2 and fault in refused.err and refused.err.count("\n") <= 2, refused
    assert not Path("bot").exists()
