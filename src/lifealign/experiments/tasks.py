"""The tasks of an experiment, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from lifealign.data.suites.paper import ORDERS, load_catalog_tasks
from lifealign.data.suites.support_desk import RULES, load_suite
from lifealign.data.task import Task, require_earlier
from lifealign.errors import ConfigError
from lifealign.experiments.settings import ExperimentConfig, NotEmpty, TaskConfig
from lifealign.settings.faults import nearest
from lifealign.settings.section import Settings
from lifealign.settings.yaml_file import load_config


def load_tasks(experiment: ExperimentConfig) -> list[Task]:
    """The tasks of an experiment, in the order in which they are met.

    Raises:
        DataError: If a file cannot be used.
        ConfigError: If a suite has fewer pairs than requested, the order names a task that does not exist, or a task
            supersedes one that is not before it.
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
    stream = [tasks[name] for name in names]
    require_earlier(stream)
    return stream


class _Tasks(Settings):
    """A file of tasks, as an experiment has them."""

    tasks: Annotated[tuple[TaskConfig, ...], NotEmpty]


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a YAML file with ``tasks``, in the form in which an experiment has them.

    Raises:
        ConfigError: If the file is not such a file, two tasks have one name, or one supersedes another.
        DataError: If a file of a task cannot be used.
    """
    listed = load_config(path, _Tasks).tasks
    stream = [_load_task(task, None) for task in listed]
    require_earlier(stream)
    return stream


def order_of(experiment: ExperimentConfig) -> tuple[str, ...]:
    """Names of the tasks that an experiment meets, in order.

    Raises:
        ConfigError: If the order names a task twice or one that does not exist, or is not an order of the catalog.
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
        raise ConfigError(f"order: found {order!r}, expected a list of tasks; only the paper's suite has named orders")
    for number, name in enumerate(order):
        if name not in known or name in order[:number]:
            again = "again " if name in order[:number] else ""
            expected = f"each of its tasks at most once: {', '.join(known)}{nearest(name, known)}"
            raise ConfigError(f"order[{number}]: found {name!r} {again}in the order, expected {expected}")
    return order


def _load_task(task: TaskConfig, data_dir: Path | None) -> Task:
    def place(file: str, split: str) -> str | Path:
        return data_dir / task.name / f"{split}.jsonl" if data_dir is not None and file.startswith("hub:") else file

    whole = Task.from_files(
        task.name,
        place(task.train, "train"),
        None if task.test is None else place(task.test, "test"),
        check=task.check,
        supersedes=task.supersedes,
        gate=None if task.gate is None else place(task.gate, "gate"),
        max_loss=task.max_loss,
    )
    return replace(whole, train=whole.train[: task.max_train], test=whole.test[: task.max_test])
