"""Trackers: what TensorBoard finds on disk is what the life has logged, and a broken tracker costs nothing learnt."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import TensorBoardTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import NoTraining
from tests.tiny import letter_task

from lifealign.errors import ConfigError, TrainingError
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.settings.section import build_config
from lifealign.training import trackers

MakeLife = Callable[..., Life]
ONE, TWO = letter_task("one", "a", "b"), letter_task("two", "c", "d")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, the step and value of every scalar below a folder."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return found


def test_tensorboard_holds_every_optimizer_step_and_the_scores(make_life: MakeLife) -> None:
    life = make_life(report_to="tensorboard")
    for task in (ONE, TWO):
        life.learn(task)
    for number, version in enumerate(life.steps, start=1):
        found = scalars(life.directory.path / "logs" / version.name)
        log = life.directory.json(f"tasks/{version.name}/training.json")["stages"]
        for stage, rows in log.items():
            for figure in rows[0]:
                expected = [(step, pytest.approx(row[figure], rel=1e-6)) for step, row in enumerate(rows, start=1)]
                assert found[f"{stage}/{figure}"] == expected
        row = life.scores["margin"].rows[number - 1]
        for task_name, score in row.items():
            assert found[f"margin/{task_name}"] == [(number, pytest.approx(score, rel=1e-6))]
        assert "perplexity/general text" in found


def test_logs_of_steps_that_are_gone_go_too(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    life = make_life(report_to="tensorboard")
    for task in (ONE, TWO):
        life.learn(task)
    once = scalars(life.directory.path / "logs" / "02-two")
    life.rollback("01-one")
    assert [folder.name for folder in (life.directory.path / "logs").iterdir()] == ["01-one"]
    with monkeypatch.context() as patch:
        patch.setattr("lifealign.life.learn.score", None)  # killed after training, as far as the logs go
        with pytest.raises(TypeError):
            life.learn(TWO)
    life.learn(TWO)
    again = scalars(life.directory.path / "logs" / "02-two")
    assert {tag: len(points) for tag, points in again.items()} == {tag: len(points) for tag, points in once.items()}


def test_without_trackers_nothing_is_written_and_with_them_nothing_else_is_learnt(make_life: MakeLife) -> None:
    plain, told = make_life(), make_life(report_to=["tensorboard"])
    for life in (plain, told):
        life.learn(ONE)
    assert not (plain.directory.path / "logs").exists()
    assert all(
        (read_adapter_of(told.directory)[name] == factor).all()
        for name, factor in read_adapter_of(plain.directory).items()
    )


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_trained(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch, train_nothing: NoTraining
) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    life = make_life(report_to="wandb")
    with (
        train_nothing(),
        pytest.raises(ConfigError, match="found 'wandb', expected an installed tracker; `pip install wandb`"),
    ):
        life.learn(ONE)
    assert life.steps == []


def test_a_tracker_that_breaks_is_switched_off_and_the_task_is_learnt(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(TensorBoardTracker, "log", broken)
    life = make_life(report_to="tensorboard")
    with caplog.at_level(logging.WARNING):
        life.learn(ONE)
    assert [version.name for version in life.steps] == ["01-one"]
    assert [record.message for record in caplog.records if "tensorboard" in record.message] == [
        "tensorboard: switched off for this step: OSError: disk full"
    ]


def test_a_step_that_fails_closes_its_run(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    finish = TensorBoardTracker.finish
    monkeypatch.setattr(TensorBoardTracker, "finish", lambda self: (closed.append(self.run_name), finish(self)))
    life = make_life(report_to="tensorboard", sft={"learning_rate": 1e30})
    with pytest.raises(TrainingError):
        life.learn(ONE)
    assert closed == ["01-one"]


class Written:
    """A tracker that keeps the place and the figures of everything it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append((step, values))

    def finish(self) -> None: ...


@pytest.mark.parametrize(
    ("name", "places"), [("wandb", [1, 2, 3, 4, 5, 5]), ("trackio", [1, 2, 3, 4, 5, 5]), ("mlflow", [1, 2, 1, 2, 3, 7])]
)
def test_on_the_one_axis_of_a_run_no_figure_goes_back(
    name: str, places: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Written()  # two steps of SFT, two rehearsals of two and one steps, and the scores of the seventh task
    monkeypatch.setattr(trackers, "require_trackers", lambda names: None)
    monkeypatch.setattr(trackers, "_tracker", lambda *_: written)
    told = trackers.Trackers([name], life="bot", step="07-tone", folder=tmp_path, settings={})
    for stage, done in [("sft", 1), ("sft", 2), ("rehearsal", 1), ("rehearsal", 2), ("rehearsal", 1)]:
        told.update(stage, done, 2, {"loss": 0.5})
    told.finish({"adherence": {"tone": 0.9}}, 7)
    assert [place for place, _ in written.told] == places
    assert [next(iter(values)) for _, values in written.told] == [
        *["sft/loss"] * 2,
        *["rehearsal/loss"] * 3,
        "adherence/tone",
    ]


@pytest.mark.parametrize(("given", "kept"), [("none", ()), ("mlflow", ("mlflow",)), (["wandb", "trackio"], None)])
def test_one_name_stands_for_a_list_of_one(given: Any, kept: Any) -> None:
    config = build_config(LifeConfig, {"report_to": given})
    assert config.report_to == (tuple(given) if kept is None else kept)


def test_a_tracker_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"report_to.*tensorboard"):
        build_config(LifeConfig, {"report_to": ["clearml"]})


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow", "tensorboard"])
def test_every_tracker_can_be_made_with_the_life_and_the_step_in_its_place(name: str, tmp_path: Path) -> None:
    made = trackers._tracker(name, "my-bot", "01-one", tmp_path)
    if name == "mlflow":
        assert (made.experiment_name, made.run_name) == ("my-bot", "01-one")
    elif name == "tensorboard":
        assert (made.run_name, made.logging_dir_param) == ("01-one", str(tmp_path))
    else:
        assert (made.run_name, made.init_kwargs) == ("my-bot", {"name": "01-one"})
