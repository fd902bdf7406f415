"""Files of a step that somebody else has written: their hashes are right, and what they hold is told in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import letter_task
from tests.writers import write_general_text

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import LifeAlignError, LifeError
from lifealign.experiments.result_of_life import result_of
from lifealign.life.life import Life
from lifealign.life.measure import measure
from lifealign.life.settings import LifeConfig
from lifealign.report.page.life_page import life_page
from lifealign.settings.section import build_config
from lifealign.storage import files as storage

STEP = "tasks/01-one"
Break = Callable[[Any], Any]


@pytest.fixture(scope="module")
def life(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A life with one task, its own scores and two metrics that were measured later; tests copy it."""
    folder = tmp_path_factory.mktemp("received")
    small = {"num_train_epochs": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    sections = {
        "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
        "method": "cppo",
        "lora": {"lora_r": 4, "lora_alpha": 8},
        "sft": small,
        "preference": small,
        "evaluation": {"max_new_tokens": 4, "metrics": ["adherence", "margin"]},
    }
    made = Life.create(folder / "life", build_config(LifeConfig, sections))
    task = letter_task("one", "a", "b", test=2)
    made.learn(Task(task.name, task.train, task.test, AnswerCheck(max_words=1)))
    measure(made.workspace, ["rouge_l", "perplexity"], overrides=[f"general_text={write_general_text(folder)}"])
    return made.directory.path


def received(life: Path, folder: Path, file: str, change: Break) -> Path:
    """A copy of a life in which one file holds something else, under its right hash."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(life, folder)
    path = folder / file
    if path.suffix == ".jsonl":
        storage.write_rows(path, change(storage.read_rows(path)))
    else:
        storage.write_json(path, change(storage.read_json(path)))
    manifest = json.loads((folder / "life.json").read_text())
    manifest["versions"][1]["files"][file] = storage.file_record(path)
    del manifest["sha256"]
    storage.write_sealed_json(folder / "life.json", manifest)
    return folder


def everything(folder: Path) -> None:
    """Whatever reads the files of a step without the model."""
    life = Life.open(folder)
    result_of(life)
    life_page(life)
    assert life.workspace.method.key == "cppo"


FAULTS: list[tuple[str, Break, str]] = [
    ("scores.json", lambda _: [], "found a list of 0, expected an object"),
    ("scores.json", lambda own: own | {"scores": {"margin": 3}}, "scores.margin: found 3, expected an object"),
    (
        "scores.json",
        lambda own: own | {"scores": {"margin": {"one": "1"}}},
        "scores.margin.one: found '1', expected a n",
    ),
    (
        "scores.json",
        lambda own: own | {"outcomes": {"margin": None}},
        "outcomes.margin: found null, expected an object",
    ),
    ("scores.json", lambda own: own | {"extra": 1}, "extra: found an unknown key, expected one of scores, base"),
    (
        "evaluation/rouge_l.json",
        lambda later: {key: later[key] for key in later if key != "scores"},
        "scores: found nothing, expected an object",
    ),
    ("evaluation/rouge_l.json", lambda later: later | {"settings": []}, "settings: found a list of 0, expected an obj"),
    (
        "evaluation/rouge_l.json",
        lambda later: later | {"answers": [{}]},
        "answers[0].prompt: found nothing, expected a l",
    ),
    ("time.json", lambda time: time | {"seconds": None}, "seconds: found null, expected a number"),
    ("training.json", lambda log: log | {"stages": {"sft": [{}]}}, "stages.sft[0].loss: found nothing, expected a num"),
    ("training.json", lambda log: log | {"left_out": 3}, "left_out: found 3, expected a list of texts"),
    (
        "consolidation.json",
        lambda found: found | {"task": {}},
        "task.mean: found nothing, expected an object with rank",
    ),
    ("consolidation.json", lambda _: None, "found null, expected an object"),
    ("method.json", lambda _: [1], "found a list of 1, expected an object"),
    ("answers.jsonl", lambda rows: [rows[0], *rows[1:], {"answer": "x"}], ":"),
]


@pytest.mark.parametrize(("file", "change", "message"), FAULTS)
def test_what_does_not_fit_is_one_line_with_file_and_place(
    life: Path, tmp_path: Path, file: str, change: Break, message: str
) -> None:
    everything(life)
    folder = received(life, tmp_path / "copy", f"{STEP}/{file}", change)
    with pytest.raises(LifeError) as error:
        everything(folder)
    text = str(error.value)
    start = f"{folder / STEP / file}:" + ("" if message == ":" else f" {message}")
    assert text.startswith(start) and "\n" not in text
    if message == ":":  # of rows, the line is named
        assert text.endswith(": prompt: found nothing, expected a list of objects")


def test_a_state_that_the_method_did_not_write_is_one_line(life: Path, tmp_path: Path) -> None:
    folder = received(life, tmp_path / "copy", f"{STEP}/method.json", lambda found: found | {"values": {}})
    with pytest.raises(LifeError, match="found no state that CPPO can restore in tasks"):
        everything(folder)


def test_something_else_in_any_key_is_a_life_or_one_line(life: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    for file in (
        "scores",
        "time",
        "training",
        "consolidation",
        "method",
        "evaluation/rouge_l",
        "evaluation/perplexity",
    ):
        for key in storage.read_json(life / STEP / f"{file}.json"):
            for other in (None, 7, {}):
                received(life, folder, f"{STEP}/{file}.json", lambda content: content | {key: other})  # noqa: B023
                try:
                    everything(folder)
                except LifeAlignError as error:
                    assert "\n" not in str(error), (file, key, other)
