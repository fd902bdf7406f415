"""Running an experiment file: its tasks, its life, and its result file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifealign.errors import LifeError
from lifealign.experiments.result_file import write_result
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.settings import ExperimentConfig
from lifealign.experiments.tasks import load_tasks
from lifealign.life.disk import names
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.model.base_model import Base
from lifealign.settings.faults import differences
from lifealign.training.listeners import Listener


def run_experiment(
    experiment: ExperimentConfig,
    listener: Listener | None = None,
    *,
    base: Base | None = None,
    shared_cache: Path | None = None,
) -> Life:
    """Runs an experiment's stream; an interrupted one continues after its last finished task.

    Args:
        experiment: Settings and tasks.
        listener: Told what happens, or None.
        base: The base model, if it is loaded already; it is copied, not changed.
        shared_cache: Folder with reference log-probabilities and answers, shared by lives on the same base.

    Returns:
        The life, with ``result.json`` in its directory. Scores that could not be measured are holes in both; they do
        not stop the stream, because training is what takes time.

    Raises:
        DataError: If a task's file cannot be used.
        ConfigError: If the method cannot learn such a stream.
        LifeError: If ``output_dir`` holds a life with other settings or other data.
        TrainingError: If training went wrong; the tasks before it are kept.
    """
    tasks = load_tasks(experiment)
    experiment.method.plan(tasks)  # before a life is created
    life = open_or_create(experiment, base=base)
    if shared_cache is not None:
        life.workspace.borrow_cache(shared_cache)
    run_stream(life.workspace, tasks, listener)
    if shared_cache is not None:
        life.workspace.lend_cache(shared_cache)
    write_result(life.directory.path / names.RESULT, result_of(life))
    return life


def life_settings(experiment: ExperimentConfig) -> LifeConfig:
    """The settings of an experiment's life."""
    return LifeConfig.model_validate({name: getattr(experiment, name) for name in LifeConfig.model_fields})


def learning_settings(settings: LifeConfig) -> dict[str, Any]:
    """Settings that decide what a life learns and how it is scored: all but trackers, checkpoints and devices."""
    return settings.model_dump(mode="json", exclude={"report_to", "save_steps", "device"})


def other_settings(there: Mapping[str, Any], here: LifeConfig) -> list[str]:
    """Every setting that a life or result has otherwise than an experiment, as text.

    Args:
        there: What :func:`learning_settings` says of the life or result.
        here: Settings of the experiment; a dtype of ``auto`` is content with any.
    """
    found = differences(there, learning_settings(here))
    return [text for text in found if here.model.dtype != "auto" or not text.startswith("model.dtype:")]


def open_or_create(experiment: ExperimentConfig, *, base: Base | None = None) -> Life:
    """The life in ``output_dir``, created if missing; ``base`` as for :func:`run_experiment`.

    A dtype of ``auto`` is settled when the life is created. A life that is there keeps its own, wherever it was made.

    Raises:
        LifeError: If there is a life with other settings; the message names the first differences.
    """
    path = experiment.output_dir
    settings = life_settings(experiment)
    if not (path / names.MANIFEST).exists():
        return Life.create(path, settings, base=base)
    life = Life.open(path, base=base)
    life.workspace.report_to = settings.report_to  # trackers and devices may change; what is learnt may not
    life.workspace.sharding = settings.device.sharding
    differing = other_settings(learning_settings(life.config), settings)
    if differing:
        raise LifeError(
            f"{path}: found a life with other settings ({'; '.join(differing[:3])}), expected those of the experiment; "
            "choose another output_dir, or delete the life"
        )
    return life
