"""An experiment that leaves the dtype open takes that of what is there, and a comparison has one for all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MoveTo
from tests.writers import write_general_text, write_task

from lifealign.errors import ConfigError, LifeError
from lifealign.experiments.cells import Cell, cells_of, finished
from lifealign.experiments.compare import comparison_of, run_comparison
from lifealign.experiments.dtype import with_one_dtype
from lifealign.experiments.run import run_experiment
from lifealign.experiments.settings import ExperimentConfig
from lifealign.life.life import Life
from lifealign.settings.section import build_config


@pytest.fixture
def experiment(tmp_path: Path, tiny_folder: Path) -> Callable[..., ExperimentConfig]:
    """``experiment("auto")``: a stream of one task on the tiny model in that dtype, for two methods."""
    train, test = write_task(tmp_path, "one", "a", "b")
    stage = {"num_train_epochs": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4}

    def configured(dtype: str) -> ExperimentConfig:
        settings: dict[str, Any] = {
            "model": {"model_name_or_path": str(tiny_folder), "dtype": dtype},
            "sft": stage,
            "preference": stage,
            "evaluation": {"max_new_tokens": 2, "general_text": write_general_text(tmp_path)},
            "output_dir": str(tmp_path / "out"),
            "tasks": [{"name": "one", "train": str(train), "test": str(test)}],
            "method": "seqft",
            "compare": {"methods": ["seqft", "er"]},
        }
        return build_config(ExperimentConfig, settings)

    return configured


def test_an_experiment_goes_on_with_a_life_of_another_machine(
    experiment: Callable[..., ExperimentConfig], move_to: MoveTo
) -> None:
    move_to("float32")
    made = run_experiment(experiment("auto"))
    move_to("bfloat16")
    again = run_experiment(experiment("auto"))
    assert [step.name for step in again.steps] == [step.name for step in made.steps] == ["01-one"]
    assert again.config.model.dtype == again.workspace.base.dtype == "float32"
    assert run_experiment(experiment("float32")).config == made.config
    with pytest.raises(LifeError, match=r"model\.dtype: 'float32' there, 'bfloat16' here"):
        run_experiment(experiment("bfloat16"))


def dtypes(cells: list[Cell]) -> list[str]:
    return [Life.open(cell.experiment.output_dir).config.model.dtype for cell in cells]


def test_a_comparison_that_goes_on_elsewhere_keeps_to_one_dtype(
    experiment: Callable[..., ExperimentConfig], move_to: MoveTo
) -> None:
    cells, said = cells_of(experiment("auto")), list[str]()
    move_to("float32")
    assert not run_comparison(cells[:1], say=said.append)
    assert said[0] == "base weights in float32: on this processor a step takes 0.50 of its time in bfloat16"
    move_to("bfloat16")
    said.clear()
    assert not run_comparison(cells, say=said.append)
    assert dtypes(cells) == ["float32", "float32"]
    assert not [line for line in said if line.startswith("base weights")]
    assert all(finished(cell) is not None for cell in cells) and comparison_of(cells, None) is not None


def test_a_cell_that_is_only_begun_decides_as_well(
    experiment: Callable[..., ExperimentConfig], move_to: MoveTo
) -> None:
    cells = cells_of(experiment("auto"))
    move_to("float32")
    run_experiment(cells[1].experiment)
    move_to("bfloat16")
    settled = with_one_dtype(cells, say=lambda line: None)
    assert [cell.experiment.model.dtype for cell in settled] == ["float32", "float32"]


def test_a_dtype_that_is_named_is_left_alone_and_held_against_results(
    experiment: Callable[..., ExperimentConfig], move_to: MoveTo
) -> None:
    move_to("float32")
    run_comparison(cells_of(experiment("auto"))[:1], say=lambda line: None)
    named = cells_of(experiment("bfloat16"))
    assert with_one_dtype(named, say=lambda line: None) == named
    with pytest.raises(ConfigError, match=r"model\.dtype: 'float32' there, 'bfloat16' here"):
        finished(named[0])
