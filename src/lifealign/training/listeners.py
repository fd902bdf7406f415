"""Listeners, which follow what is learnt: a progress bar, experiment trackers, or a program of yours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class StageListener(Protocol):
    """Is called after every optimizer step."""

    def update(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Called after each optimizer step.

        Args:
            stage: ``sft`` or ``preference``.
            done: Optimizer steps taken in this stage, from 1.
            total: Number of optimizer steps in this stage.
            figures: The row that :func:`~lifealign.training.stage.train_stage` logs for the step.
        """


class Listener(StageListener, Protocol):
    """Follows what a life does; :class:`lifealign.report.progress.Progress` is one."""

    def begin(self, title: str) -> None:
        """Called when a step of the lifelong loop begins.

        Args:
            title: The step's name, ``02-tone``.
        """

    def say(self, text: str) -> None:
        """Called with a line for the user to read, such as how many pairs were left out."""

    def scored(self, values: Mapping[str, Mapping[str, float]]) -> None:
        """Called when a step of the lifelong loop is finished.

        Args:
            values: What its model scored on every task so far, by metric, then task.
        """
