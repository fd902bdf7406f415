"""Running an experiment file: its tasks, its life, and the result file that says what came out."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from lifealign import storage
from lifealign.config import ExperimentConfig, LifeConfig
from lifealign.data.checks import read_clean
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError
from lifealign.life import Life
from lifealign.lifelong import run_stream
from lifealign.training.progress import Progress


def run_experiment(experiment: ExperimentConfig, progress: Progress | None = None) -> Life:
    """Lives through an experiment's stream; one that was interrupted goes on after its last finished task.

    Args:
        experiment: Settings and tasks.
        progress: Where to show progress, or None.

    Returns:
        The life, with ``result.json`` in its directory.

    Raises:
        DataError: If a task's file cannot be used.
        LifeError: If ``output_dir`` holds a life with other settings or other data.
        TrainingError: If training went wrong; the tasks before it are kept.
    """
    tasks = load_tasks(experiment)
    life = open_or_create(experiment)
    run_stream(life, tasks, progress)
    storage.write_json(life.directory.path / "result.json", result_of(life))
    return life


def load_tasks(experiment: ExperimentConfig) -> list[Task]:
    """The tasks of an experiment, in order.

    Raises:
        DataError: If a file cannot be used.
        ConfigError: If a suite has fewer pairs than asked for.
    """
    if experiment.suite is not None:
        from lifealign.demo.support_desk import load_suite

        try:
            return load_suite(
                experiment.suite_pairs, test_pairs=experiment.suite_test_pairs, held_out=experiment.suite_held_out
            )
        except ValueError as error:
            raise ConfigError(f"suite_{str(error).replace('pairs_per_task', 'pairs')}") from error
    return [
        Task(
            task.name,
            read_clean(task.train).pairs[: task.max_train],
            read_clean(task.test).pairs[: task.max_test] if task.test is not None else (),
            task.check,
        )
        for task in experiment.tasks or ()
    ]


def open_or_create(experiment: ExperimentConfig) -> Life:
    """The life in ``output_dir``, made if it is not there yet.

    Raises:
        LifeError: If a life is there that was made with other settings; the message names the first ones that differ.
    """
    path = experiment.output_dir
    settings = LifeConfig.model_validate({name: getattr(experiment, name) for name in LifeConfig.model_fields})
    if not (path / "life.json").exists():
        return Life.create(path, settings)
    life = Life.open(path)
    differing = _differences(life.config.model_dump(mode="json"), settings.model_dump(mode="json"))
    if differing:
        raise LifeError(
            f"{path}: found a life with other settings ({'; '.join(differing[:3])}), expected those of the experiment; "
            "choose another output_dir, or delete the life"
        )
    return life


def result_of(life: Life) -> dict[str, Any]:
    """Everything a result file needs: settings, matrices with summaries, consolidation figures, sizes and times."""
    directory = life.directory
    steps = []
    for version in life.steps:
        training = directory.json(f"tasks/{version.name}/training.json")
        figures = directory.json(f"tasks/{version.name}/consolidation.json")
        steps.append(
            {
                "name": version.name,
                "tasks": [task.model_dump(mode="json", exclude={"check"}) for task in version.tasks],
                "replayed_pairs": training["replayed_pairs"],
                "left_out": len(training["left_out"]),
                "stages": {stage: _stage_summary(rows) for stage, rows in training["stages"].items()},
                "losses": {
                    stage: [round(row["loss"], 5) for row in rows] for stage, rows in training["stages"].items()
                },
                "consolidation": {segment: content["mean"] for segment, content in figures.items()},
                "consolidation_by_factor": {
                    segment: _by_kind(content["factors"]) for segment, content in figures.items()
                },
                "seconds": directory.json(f"tasks/{version.name}/time.json")["seconds"],
            }
        )
    return {
        "method": life.config.method.key,
        "settings": life.config.model_dump(mode="json"),
        "environment": directory.manifest.environment,
        "base": directory.manifest.base.model_dump(mode="json"),
        "scores": {metric: matrix.as_dict() for metric, matrix in life.scores.items()},
        "steps": steps,
    }


def _stage_summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """First and last optimizer step of a stage: where it began and what it reached."""
    return {"optimizer_steps": len(rows), "first": rows[0], "last": rows[-1]} if rows else {"optimizer_steps": 0}


def _by_kind(factors: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Means of the figures over the layers, per target module and factor (``q_proj.lora_A``)."""
    kinds: dict[str, list[dict[str, float]]] = {}
    for name, figures in factors.items():
        kinds.setdefault(".".join(name.removesuffix(".weight").split(".")[-2:]), []).append(figures)
    return {
        kind: {figure: round(fmean(row[figure] for row in rows), 5) for figure in rows[0]}
        for kind, rows in kinds.items()
    }


def _differences(old: Any, new: Any, place: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in (*old, *(key for key in new if key not in old))]
        parts = [_differences(old.get(key), new.get(key), f"{place}.{key}" if place else key) for key in keys]
        return [text for part in parts for text in part]
    return [] if old == new else [f"{place}: {old!r} there, {new!r} here"]


def save_result(life: Life, path: Path) -> None:
    """Writes a life's result file to a place of its own, such as ``results/``."""
    storage.write_json(path, result_of(life))
