"""The cells of a comparison, and which of them are finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lifealign.data.task import Task
from lifealign.errors import ConfigError
from lifealign.experiments.result import RunResult
from lifealign.experiments.result_file import load_result
from lifealign.experiments.run import learning_settings, life_settings, other_settings
from lifealign.experiments.settings import ExperimentConfig, Variant
from lifealign.experiments.tasks import load_tasks, order_of
from lifealign.life.settings import STORED_AUTO, LifeConfig
from lifealign.settings.faults import differences


@dataclass(frozen=True)
class Cell:
    """One method on one order with one seed.

    Attributes:
        variant: The method and its label.
        order: Name of the order.
        experiment: The cell as an experiment, with a folder of its own.
        data: Content hash of each task, by name, in the order in which they are met.
        result: Its result file; the cell is finished once it exists.
    """

    variant: Variant
    order: str
    experiment: ExperimentConfig
    data: Mapping[str, str]
    result: Path

    @property
    def name(self) -> str:
        """``ER, order1, seed 42``."""
        return f"{self.variant.label}, {self.order}, seed {self.experiment.seed}"


def cells_of(experiment: ExperimentConfig, results: Path | None = None) -> list[Cell]:
    """Every cell of an experiment's comparison, seed by seed, so that an interrupted comparison has complete rows.

    Args:
        experiment: Settings, stream, and what to compare.
        results: Folder of the result files; ``results`` in the experiment's ``output_dir`` by default.

    Raises:
        ConfigError: If a method cannot learn one of the streams, or has no use for a section that is set; or if steps
            could be refused, so that methods would be compared on other tasks.
        DataError: If a task's file cannot be used.
    """
    if experiment.retention.mode == "enforce":
        raise ConfigError(
            "retention: found enforce, expected warn or off: a comparison needs every step of every method; with warn "
            "its tables say which steps would have been refused"
        )
    folder = results or experiment.output_dir / "results"
    streams = _streams(experiment)
    cells = []
    for seed in experiment.compare.seeds or (experiment.seed,):
        for order, (setting, tasks) in streams.items():
            for variant in experiment.compare.methods:
                variant.method.plan(tasks)
                name = f"{order}--{variant.slug}--seed{seed}"
                changes = {
                    "method": variant.method,
                    "seed": seed,
                    "order": setting,
                    "output_dir": experiment.output_dir / "lives" / name,
                    "replay": variant.replay or (experiment.replay if variant.method.replays else None),
                } | variant.stage_settings(experiment)
                own = experiment.model_copy(update=changes)
                data = {task.name: task.data_hash for task in tasks}
                cells.append(Cell(variant, order, own, data, folder / f"{name}.json"))
    return cells


def _streams(experiment: ExperimentConfig) -> dict[str, tuple[Any, list[Task]]]:
    """For each order, by name: the setting that selects it, and its tasks."""
    orders = experiment.compare.orders
    named: dict[str, Any] = {}
    if orders is None:
        named[experiment.order if isinstance(experiment.order, str) else "stream"] = experiment.order
    else:
        named |= orders if isinstance(orders, dict) else {name: name for name in orders}
    streams = {}
    for name, setting in named.items():
        own = experiment.model_copy(update={"order": setting})
        try:
            order_of(own)
        except ConfigError as error:
            if orders is None:
                raise
            raise ConfigError(f"compare.orders: {name}: {error}") from error  # the file has no setting "order"
        streams[name] = (setting, load_tasks(own))
    return streams


def finished(cell: Cell) -> RunResult | None:
    """The result of a finished cell, or None if it is not finished.

    Raises:
        ConfigError: If the result file exists but belongs to other settings or other data.
        LifeError: If it cannot be read, is not a result file, or was changed after it was written.
    """
    if not cell.result.exists():
        return None
    result = load_result(cell.result)
    there = {
        "label": result.label,
        "order": result.order,
        "tasks": [task.name for task in result.learnt],
        "data": {task.name: task.data_hash for task in result.learnt},
    }
    here = {"label": cell.variant.label, "order": cell.order, "tasks": list(cell.data), "data": dict(cell.data)}
    differing = other_settings(_completed(result.settings), life_settings(cell.experiment))
    if differing := differing + differences(there, here):
        raise ConfigError(
            f"{cell.result}: found a result of other settings or data ({'; '.join(differing[:3])}), expected those of "
            f"{cell.name}; choose another output_dir or --results, or delete the file"
        )
    return result


def _completed(settings: Any) -> Any:
    """Settings of a result file, with defaults for settings that did not exist when it was written."""
    try:
        return learning_settings(LifeConfig.model_validate(settings).settled(STORED_AUTO))
    except ValidationError:
        return settings  # from a later version, or damaged: the comparison will show it
