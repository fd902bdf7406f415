"""Sends a life's figures to experiment trackers, by way of ``accelerate``: one run per step of the lifelong loop."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from lifealign.errors import ConfigError

logger = logging.getLogger(__name__)

ONE_AXIS = frozenset({"wandb", "trackio"})
"""Trackers whose runs have one axis for all figures; wandb drops what comes in at a place before the last one."""


class Trackers:
    """The trackers of one step; if none is configured, every call does nothing.

    A tracker that fails (no network, a full disk) is switched off with a warning, so that it never costs what was
    learnt.

    Args:
        report_to: Names of trackers.
        life: Name of the life, which trackers use as the name of the project or experiment.
        step: Name of the step, which trackers use as the name of the run.
        folder: Folder for trackers that write files.
        settings: The resolved settings, nested.

    Raises:
        ConfigError: If a tracker is not installed.
    """

    def __init__(
        self, report_to: Sequence[str], *, life: str, step: str, folder: Path, settings: Mapping[str, Any]
    ) -> None:
        require_trackers(report_to)
        self._trackers: dict[str, GeneralTracker] = {}
        self._steps: Counter[str] = Counter()  # optimizer steps of each stage, over all its repetitions
        for name in report_to:
            self._trackers[name] = _tracker(name, life, step, folder)
        self._each(lambda name: self._trackers[name].start())
        self._each(lambda name: self._trackers[name].store_init_configuration(flat(settings)))

    def update(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Logs the figures of an optimizer step, as ``stage/figure``.

        Their place on the axis is the number of the stage's optimizer steps so far, and of the whole run's where all
        figures of a run share an axis.
        """
        self._steps[stage] += 1
        self._log({f"{stage}/{name}": value for name, value in figures.items()}, self._steps[stage])

    def finish(self, scores: Mapping[str, Mapping[str, float]], number: int) -> None:
        """Logs the scores of the step, as ``metric/task``, and closes the run.

        Args:
            scores: Scores by metric, then task.
            number: Number of the step, from 1: the place of the scores on an axis of their own.
        """
        values = {f"{metric}/{task}": score for metric, by_task in scores.items() for task, score in by_task.items()}
        self._log(values, number)
        self.close()

    def close(self) -> None:
        """Closes the run, even after a failed step; a second call does nothing."""
        self._each(lambda name: self._trackers[name].finish())
        self._trackers.clear()

    def _log(self, values: Mapping[str, float], place: int) -> None:
        of_run = self._steps.total()
        self._each(lambda name: self._trackers[name].log(dict(values), step=of_run if name in ONE_AXIS else place))

    def _each(self, call: Callable[[str], None]) -> None:
        for name in list(self._trackers):
            try:
                with _process_state_as_found():
                    call(name)
            except Exception as error:  # a tracker's own library may raise anything
                logger.warning("%s: switched off for this step: %s: %s", name, type(error).__name__, error)
                del self._trackers[name]


@contextmanager
def _process_state_as_found() -> Iterator[None]:
    """Undoes a side effect of trackers: they set up the ``PartialState`` on which a program's own Accelerator is built.

    One that exists already is left as it is.
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
        ConfigError: If one is not installed; the message names the package.
    """
    available = {str(name.value) for name in get_available_trackers()}
    for name in report_to:
        if name not in available:
            raise ConfigError(
                f"report_to: found {name!r}, expected an installed tracker; `pip install {name}`, or leave it out"
            )


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str | float | int | bool]:
    """Flattens nested settings into one level, as trackers expect; values of other types become text.

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
