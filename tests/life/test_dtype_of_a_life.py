"""The dtype of a life is settled when it is made, and stays, whatever the machine or the cache says later."""

import json
from pathlib import Path

import pytest
import yaml
from tests.conftest import MakeLife, MoveTo
from tests.tiny import letter_task

from lifealign.errors import LifeError, ModelError
from lifealign.life.life import Life
from lifealign.model.base_model import load_base
from lifealign.model.settings import ModelConfig
from lifealign.storage.files import read_sealed_json, write_sealed_json


@pytest.mark.parametrize(("here", "there"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_life_keeps_its_dtype_on_another_machine(
    make_life: MakeLife, move_to: MoveTo, caplog: pytest.LogCaptureFixture, here: str, there: str
) -> None:
    caplog.set_level("INFO", logger="lifealign")
    move_to(here)
    made = make_life("bot", model={"dtype": "auto"})
    assert sum(line.startswith(f"base weights in {here}: on this processor") for line in caplog.messages) == 1
    assert made.config.model.dtype == made.shown.model.dtype == here
    folder = made.directory.path
    assert json.loads((folder / "life.json").read_text())["config"]["model"]["dtype"] == here
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["dtype"] == here
    caplog.clear()
    move_to(there)
    moved = Life.open(folder)
    assert moved.config == made.config
    assert str(moved.workspace.base.model.dtype) == f"torch.{here}"
    moved.learn(letter_task("one", "a", "b"))
    assert not [line for line in caplog.messages if line.startswith("base weights")]


def test_a_base_that_is_given_decides_what_auto_is(make_life: MakeLife, tiny_folder: Path, move_to: MoveTo) -> None:
    settings = make_life("other", model={"dtype": "float32"}).config
    open_to_all = settings.model_copy(update={"model": ModelConfig(model_name_or_path=str(tiny_folder))})
    base = load_base(settings.model)
    move_to("bfloat16")
    life = Life.create(tiny_folder.parent / "given", open_to_all, base=base)
    assert life.config.model.dtype == base.dtype == "float32"
    assert Life.open(life.directory.path).workspace.base.fingerprint == base.fingerprint


def test_a_create_that_is_repeated_on_another_machine_finds_its_life(make_life: MakeLife, move_to: MoveTo) -> None:
    move_to("float32")
    make_life("bot", model={"dtype": "auto"})
    move_to("bfloat16")
    again = make_life("bot", model={"dtype": "auto"})
    assert again.config.model.dtype == again.workspace.base.dtype == "float32"
    with pytest.raises(LifeError, match="not empty"):
        make_life("bot", model={"dtype": "bfloat16"})


def test_a_life_that_was_stored_with_auto_is_in_bfloat16(make_life: MakeLife, move_to: MoveTo) -> None:
    made = make_life("bot", model={"dtype": "bfloat16"})
    manifest = made.directory.path / "life.json"
    stored = read_sealed_json(manifest)
    stored["config"]["model"]["dtype"] = "auto"
    write_sealed_json(manifest, stored)
    move_to("float32")
    old = Life.open(manifest.parent)
    assert old.config.model.dtype == old.shown.model.dtype == "bfloat16"
    assert old.workspace.base.fingerprint == made.workspace.base_fingerprint


def test_another_dtype_is_another_base(make_life: MakeLife) -> None:
    made = make_life("bot", model={"dtype": "float32"})
    other = load_base(made.config.model.model_copy(update={"dtype": "bfloat16"}))
    with pytest.raises(ModelError, match="expected the one this life was made with"):
        Life.open(made.directory.path, base=other)
