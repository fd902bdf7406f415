"""Running an experiment file: its tasks, its life, and the result file that says what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lifealign import storage
from lifealign.config import LifeConfig
from lifealign.config_experiment import ExperimentConfig, TaskConfig
from lifealign.config_words import differences, nearest
from lifealign.data.catalog import ORDERS, load_catalog_tasks
from lifealign.data.checks import read_clean
from lifealign.data.task import Task
from lifealign.demo.support_desk import RULES, load_suite
from lifealign.errors import ConfigError, LifeError
from lifealign.evaluation.metrics import PERPLEXITY
from lifealign.life import Life
from lifealign.lifelong import run_stream
from lifealign.model.base_model import Base
from lifealign.training.progress import Progress


def run_experiment(
    experiment: ExperimentConfig,
    progress: Progress | None = None,
    *,
    base: Base | None = None,
    shared_cache: Path | None = None,
) -> Life:
    """Lives through an experiment's stream; one that was interrupted goes on after its last finished task.

    Args:
        experiment: Settings and tasks.
        progress: Where to show progress, or None.
        base: The base model, where it is loaded already; it is copied, not changed.
        shared_cache: Folder of reference log-probabilities and answers that lives on the same base share.

    Returns:
        The life, with ``result.json`` in its directory. Scores that could not be measured are holes in both; the stream
        has gone on after them, since training is what takes the time.

    Raises:
        DataError: If a task's file cannot be used.
        ConfigError: If the method cannot learn such a stream.
        LifeError: If ``output_dir`` holds a life with other settings or other data.
        TrainingError: If training went wrong; the tasks before it are kept.
    """
    tasks = load_tasks(experiment)
    experiment.method.plan(tasks)  # before a life is made
    life = open_or_create(experiment, base=base)
    if shared_cache is not None:
        life.borrow_cache(shared_cache)
    run_stream(life, tasks, progress)
    if shared_cache is not None:
        life.lend_cache(shared_cache)
    storage.write_json(life.directory.path / "result.json", result_of(life))
    return life


def load_tasks(experiment: ExperimentConfig) -> list[Task]:
    """The tasks of an experiment, in the order in which they are met.

    Raises:
        DataError: If a file cannot be used.
        ConfigError: If a suite has fewer pairs than asked for, or the order names a task that is not there.
    """
    if experiment.suite == "paper":
        return load_catalog_tasks(
            order_of(experiment),
            data_dir=experiment.data_dir,
            train_pairs=experiment.suite_pairs,
            test_pairs=experiment.suite_test_pairs,
        )
    names = order_of(experiment)
    if experiment.suite == "support-desk":
        try:
            suite = load_suite(
                experiment.suite_pairs, test_pairs=experiment.suite_test_pairs, held_out=experiment.suite_held_out
            )
        except ValueError as error:
            raise ConfigError(f"suite_{str(error).replace('pairs_per_task', 'pairs')}") from error
        tasks = {task.name: task for task in suite}
    else:
        wanted = [task for task in experiment.tasks or () if task.name in names]
        tasks = {task.name: _load_task(task, experiment.data_dir) for task in wanted}
    return [tasks[name] for name in names]


def order_of(experiment: ExperimentConfig) -> tuple[str, ...]:
    """Names of the tasks that an experiment meets, in order.

    Raises:
        ConfigError: If the order names a task twice, or one that is not there, or is no order of the catalog.
    """
    order = experiment.order
    if experiment.suite == "paper":
        known: Sequence[str] = ORDERS["order1"]
        order = "order1" if order is None else order
        if isinstance(order, str):
            if order not in ORDERS:
                expected = f"one of {', '.join(ORDERS)}, or a list of tasks{nearest(order, ORDERS)}"
                raise ConfigError(f"order: found {order!r}, expected {expected}")
            return ORDERS[order]
    elif experiment.suite == "support-desk":
        known = [rule.name for rule in RULES]
    else:
        known = [task.name for task in experiment.tasks or ()]
    if order is None:
        return tuple(known)
    if isinstance(order, str):
        raise ConfigError(
            f"order: found {order!r}, expected a list of tasks; orders have names in the paper's suite only"
        )
    for number, name in enumerate(order):
        if name not in known or name in order[:number]:
            again = "again " if name in order[:number] else ""
            expected = f"each of its tasks at most once: {', '.join(known)}{nearest(name, known)}"
            raise ConfigError(f"order[{number}]: found {name!r} {again}in the order, expected {expected}")
    return order


def _load_task(task: TaskConfig, data_dir: Path | None) -> Task:
    def place(file: str, split: str) -> str | Path:
        return data_dir / task.name / f"{split}.jsonl" if data_dir is not None and file.startswith("hub:") else file

    train, test = place(task.train, "train"), None if task.test is None else place(task.test, "test")
    return Task(
        task.name,
        read_clean(train).pairs[: task.max_train],
        read_clean(test).pairs[: task.max_test] if test is not None else (),
        task.check,
    )


def life_settings(experiment: ExperimentConfig) -> LifeConfig:
    """The settings of the life that an experiment makes."""
    return LifeConfig.model_validate({name: getattr(experiment, name) for name in LifeConfig.model_fields})


def learning_settings(settings: LifeConfig) -> dict[str, Any]:
    """Settings that decide what a life learns and how it is scored: all but who is told of it."""
    return settings.model_dump(mode="json", exclude={"report_to"})


def open_or_create(experiment: ExperimentConfig, *, base: Base | None = None) -> Life:
    """The life in ``output_dir``, made if it is not there yet; ``base`` as for :func:`run_experiment`.

    Raises:
        LifeError: If a life is there that was made with other settings; the message names the first ones that differ.
    """
    path = experiment.output_dir
    settings = life_settings(experiment)
    if not (path / "life.json").exists():
        return Life.create(path, settings, base=base)
    life = Life.open(path, base=base)
    life.report_to = settings.report_to  # who is told may change; what is learnt does not
    differing = differences(learning_settings(life.config), learning_settings(settings))
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
                "method_state": directory.json(f"tasks/{version.name}/method.json").get("values", {}),
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
        "one_model": life.config.method.one_model,
        "scores": {metric: matrix.as_dict() for metric, matrix in life.scores.items()},
        "outcomes": _outcomes(life),
        "general_text": [record.general for record in life.records],
        "general_text_holes": {
            version.name: why
            for version, record in zip(life.steps, life.records, strict=True)
            for why in record.holes.get(PERPLEXITY, {}).values()
        },
        "cost": _cost(life),
        "steps": steps,
    }


def _outcomes(life: Life) -> dict[str, list[dict[str, list[float | None]]]]:
    """Per metric and step what every held-out example counted for, by task; nothing of lives of 0.1, which kept none.

    A step in which no task had a metric, such as one before the first task with a check, has an empty row there. A
    metric that is no mean over examples, such as BLEU of a corpus, is not there.
    """
    rows = [record.outcomes for record in life.records]
    return {
        metric: [
            {
                task: [None if one is None else round(one, 4) for one in outcomes]
                for task, outcomes in row.get(metric, {}).items()
            }
            for row in rows
            if row is not None
        ]
        for metric in life.scores
        if None not in rows and any(metric in row for row in rows if row is not None)
    }


def _cost(life: Life) -> dict[str, Any]:
    """What the method has taken: seconds of learning, bytes that have to be kept, most memory."""
    directory, method = life.directory, life.config.method
    times = [directory.json(f"tasks/{version.name}/time.json") for version in life.steps]
    peaks = [time["peak_memory_bytes"] for time in times if "peak_memory_bytes" in time]
    kept = [f"memory/{version.name}.safetensors" for version in life.steps] if method.keeps_updates else []
    kept += [f"replay/{version.name}.jsonl" for version in life.steps]
    sizes = {name: record.size for version in life.versions for name, record in version.files.items()}
    state = directory.tensors(f"memory/{life.steps[-1].name}.method.safetensors") if life.steps else {}
    last = f"versions/{life.versions[-1].name}/"
    tensors = [name for name in sizes if name.startswith(last) and name.endswith(".safetensors")]
    return {
        "seconds": sum(time.get("learning_seconds", time["seconds"]) for time in times),
        "seconds_with_scoring": sum(time["seconds"] for time in times),
        "state_bytes": sum(sizes[name] for name in kept) + sum(tensor.nbytes for tensor in state.values()),
        "adapter_bytes": sum(sizes[name] for name in tensors) * (1 if method.one_model else len(life.steps)),
        "peak_memory_bytes": max(peaks) if peaks else None,
    }


def _stage_summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """First and last optimizer step of a stage, and the mean over all: where it began, what it reached, what it met."""
    if not rows:
        return {"optimizer_steps": 0}
    mean = {name: round(fmean(row[name] for row in rows), 5) for name in rows[0] if all(name in row for row in rows)}
    return {"optimizer_steps": len(rows), "first": rows[0], "last": rows[-1], "mean": mean}


def _by_kind(factors: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Means of the figures over the layers, per target module and factor (``q_proj.lora_A``)."""
    kinds: dict[str, list[dict[str, float]]] = {}
    for name, figures in factors.items():
        kinds.setdefault(".".join(name.removesuffix(".weight").split(".")[-2:]), []).append(figures)
    return {
        kind: {figure: round(fmean(row[figure] for row in rows), 5) for figure in rows[0]}
        for kind, rows in kinds.items()
    }


def save_result(life: Life, path: Path) -> None:
    """Writes a life's result file to a place of its own, such as ``results/``."""
    storage.write_json(path, result_of(life))
