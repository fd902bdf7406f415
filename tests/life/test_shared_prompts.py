"""Held-out prompts that another task is trained on are said before training, in both directions."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import MakeLife
from tests.tiny import letter_task

from lifealign.data.task import Task
from lifealign.life.learn import run_stream
from lifealign.life.life import Life

ONE, TWO = letter_task("one", "a", "b"), letter_task("two", "c", "d")
PARTLY = "{}: {} in the training pairs of {}; scores of {} after {} are partly of prompts that were trained on"


def said(caplog: pytest.LogCaptureFixture, life: Life, *tasks: Task) -> list[str]:
    """What is said of shared prompts while a stream is learnt."""
    caplog.set_level(logging.WARNING, logger="lifealign")
    caplog.clear()
    run_stream(life.workspace, tasks)
    return [line for line in caplog.messages if "trained on" in line or "taught before" in line]


def test_tasks_that_share_no_prompt_are_learnt_without_a_word(
    make_life: MakeLife, caplog: pytest.LogCaptureFixture
) -> None:
    assert said(caplog, make_life(keep_training_pairs=True), ONE, TWO) == []


def test_a_later_task_that_trains_on_what_an_earlier_one_is_scored_on(
    make_life: MakeLife, caplog: pytest.LogCaptureFixture
) -> None:
    """One of the two pairs has the answers the other way round: it is the prompt that counts."""
    first, second, *_ = ONE.test
    turned = replace(second, chosen=second.rejected, rejected=second.chosen)
    two = replace(TWO, train=(*TWO.train, first, turned))
    expected = [PARTLY.format("one", "2 of 4 held-out prompts are", "two", "one", "two")]
    assert said(caplog, make_life(), ONE, two) == expected


@pytest.mark.parametrize("kept", [True, False])
def test_a_later_task_that_is_scored_on_what_an_earlier_one_was_taught(
    make_life: MakeLife, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    """Known where the life keeps what it was taught with; it cannot be where it does not."""
    two = replace(TWO, test=(*TWO.test, ONE.train[0]))
    expected = [PARTLY.format("two", "1 of 5 held-out prompts is", "one", "two", "one")]
    assert said(caplog, make_life(keep_training_pairs=kept), ONE, two) == expected * kept


def test_tasks_that_are_learnt_in_one_step(make_life: MakeLife, caplog: pytest.LogCaptureFixture) -> None:
    one = replace(ONE, train=(*ONE.train, TWO.test[0]))
    expected = [PARTLY.format("two", "1 of 4 held-out prompts is", "one", "two", "one")]
    assert said(caplog, make_life(method="mtl"), one, TWO) == expected


def test_a_task_under_another_name(make_life: MakeLife, caplog: pytest.LogCaptureFixture) -> None:
    again = replace(ONE, name="again", train=ONE.train[:5], test=TWO.test)
    expected = ["again: all its training pairs were taught before, as one"]
    assert said(caplog, make_life(keep_training_pairs=True), ONE, again) == expected


def test_only_tasks_that_are_scored_again_are_looked_at(make_life: MakeLife, caplog: pytest.LogCaptureFixture) -> None:
    three = replace(letter_task("three", "e", "f"), train=(ONE.test[0], TWO.test[0]))
    expected = [PARTLY.format("two", "1 of 4 held-out prompts is", "three", "two", "three")]
    assert said(caplog, make_life(evaluation={"evaluate_last": 1}), ONE, TWO, three) == expected


def test_a_life_and_its_data_are_found_in_the_home_folder(
    make_life: MakeLife, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``~`` that no shell has replaced: in Python, in a notebook, in settings."""
    made = make_life("bot")
    monkeypatch.setenv("HOME", str(made.directory.path.parent))
    monkeypatch.chdir(tmp_path)
    assert Life.open("~/bot").directory.path == made.directory.path
    assert Life.create("~/other", made.config).directory.path == made.directory.path.parent / "other"
    assert not Path("~").exists()
