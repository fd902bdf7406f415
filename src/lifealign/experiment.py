"""Running an experiment file: its tasks, its life, and the result file that says what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifealign.config import LifeConfig
from lifealign.config_experiment import ExperimentConfig, TaskConfig
from lifealign.config_words import differences, nearest
from lifealign.data.catalog import ORDERS, load_catalog_tasks
from lifealign.data.checks import read_split
from lifealign.data.task import Task
from lifealign.demo.support_desk import RULES, load_suite
from lifealign.errors import ConfigError, LifeError
from lifealign.experiments.result import write_result
from lifealign.experiments.result_of_life import result_of
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
    write_result(life.directory.path / "result.json", result_of(life))
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

    train, test = read_split(place(task.train, "train"), None if task.test is None else place(task.test, "test"))
    return Task(task.name, train[: task.max_train], test[: task.max_test], task.check)


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
