"""Figures of a life for experiment trackers, through those of ``accelerate``: one run per step of the lifelong loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from lifealign.errors import ConfigError

logger = logging.getLogger(__name__)


class Trackers:
    """The trackers of one step; where none is configured, every call does nothing.

    A tracker that fails (no network, a full disk) is switched off with a warning: it must not cost what was learnt.

    Args:
        report_to: Names of trackers.
        life: Name of the life: the project, or the experiment, of trackers that have one.
        step: Name of the step: the run.
        folder: Where trackers that write files put them.
        settings: The resolved settings, nested.

    Raises:
        ConfigError: If a tracker is not installed.
    """

    def __init__(
        self, report_to: Sequence[str], *, life: str, step: str, folder: Path, settings: Mapping[str, Any]
    ) -> None:
        require_trackers(report_to)
        self._trackers: dict[str, GeneralTracker] = {}
        for name in report_to:
            self._trackers[name] = _tracker(name, life, step, folder)
        self._each(lambda tracker: tracker.start())
        self._each(lambda tracker: tracker.store_init_configuration(flat(settings)))

    def update(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Notes the figures of an optimizer step, as ``stage/figure``."""
        values = {f"{stage}/{name}": value for name, value in figures.items()}
        self._each(lambda tracker: tracker.log(values, step=done))

    def finish(self, scores: Mapping[str, Mapping[str, float]], number: int) -> None:
        """Notes the scores of the step, as ``metric/task``, and closes the run.

        Args:
            scores: By metric, then task.
            number: The step's number from 1: where on the axis the scores are.
        """
        values = {f"{metric}/{task}": score for metric, by_task in scores.items() for task, score in by_task.items()}
        self._each(lambda tracker: tracker.log(values, step=number))
        self.close()

    def close(self) -> None:
        """Closes the run, of a step that failed, too; a second time does nothing."""
        self._each(lambda tracker: tracker.finish())
        self._trackers.clear()

    def _each(self, call: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                with _process_state_as_found():
                    call(tracker)
            except Exception as error:  # whatever a tracker's own library raises
                logger.warning("%s: switched off for this step: %s: %s", name, type(error).__name__, error)
                del self._trackers[name]


@contextmanager
def _process_state_as_found() -> Iterator[None]:
    """Undoes what trackers do to the process: they set up the ``PartialState`` that a program's Accelerator is made of.

    One that is there already is only read.
    """
    there = bool(PartialState._shared_state)
    try:
        yield
    finally:
        if not there:
            PartialState._shared_state.clear()


def require_trackers(report_to: Sequence[str]) -> None:
    """Refuses a tracker that is not installed.

    Raises:
        ConfigError: It names the package.
    """
    available = {str(name.value) for name in get_available_trackers()}
    for name in report_to:
        if name not in available:
            raise ConfigError(f"report_to: found {name}, which is not installed; `pip install {name}`, or leave it out")


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str | float | int | bool]:
    """Nested settings in one level, as trackers take them; what is no number or boolean becomes text.

    Example:
        >>> flat({"lora": {"lora_r": 8, "modules": ["q", "v"]}, "seed": 1, "replay": None})
        {'lora/lora_r': 8, 'lora/modules': "['q', 'v']", 'seed': 1, 'replay': 'None'}
    """
    found: dict[str, str | float | int | bool] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}/")
        else:
            found[f"{before}{key}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return found


def _tracker(name: str, life: str, step: str, folder: Path) -> GeneralTracker:
    kind = LOGGER_TYPE_TO_CLASS[name]
    match name:
        case "tensorboard":  # a folder of event files per run
            return kind(step, str(folder))
        case "mlflow":
            return kind(experiment_name=life, run_name=step)
        case _:  # wandb, trackio: what accelerate calls run_name is the project
            return kind(life, name=step)
