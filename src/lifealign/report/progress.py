"""Progress of a life on the terminal: one bar per stage with its loss, margin and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lifealign.evaluation.metrics import METRICS
from lifealign.report.printing import one_line, say

SHOWN = {"adherence": "keeps", "preference_accuracy": "prefers"}
"""Metrics of which a finished step shows one, and what a model does that scores on it."""
MOST_SCORES = 16
"""Most tasks whose scores it shows, the latest ones."""


class Progress:
    """Shows what is running; if the console is not a terminal, prints only one line per finished stage.

    Args:
        console: Console to draw on.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.title = ""
        self._bars = Bars(
            TextColumn("  {task.description:<26}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, title: str) -> None:
        """Sets the title of what is shown next; removes a bar that an unfinished stage has left behind."""
        self.title = one_line(title)
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None

    def say(self, text: str) -> None:
        """Prints a line above the bar, as it is."""
        say(self._bars.console, text)

    def update(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Moves the bar of a stage; opens it at its first step and closes it at its last."""
        text = f"loss {figures['loss']:.3f}"
        if "rewards/margins" in figures:
            text += f"  margin {figures['rewards/margins']:+.2f}  accuracy {figures['rewards/accuracies']:.0%}"
        if "skipped" in figures:
            text += f"  mastered {figures['skipped']:.0%}"
        if self._bar is None:
            self._bar = self._bars.add_task(f"{self.title} {stage}".strip(), total=total, figures=text)
        self._bars.update(self._bar, completed=done, figures=text)
        if done == total:
            self._bars.remove_task(self._bar)
            self._bar = None
            self.say(f"  {f'{self.title} {stage}'.strip():<26} {total} steps  {text}")

    def scored(self, values: Mapping[str, Mapping[str, float]]) -> None:
        """Prints a finished step's scores on every task so far, under the first metric that it has of :data:`SHOWN`."""
        metric = next((name for name in SHOWN if values.get(name)), None)
        if metric is not None:
            found = list(values[metric].items())
            each = [f"{task} {METRICS[metric].text(value)}" for task, value in found[-MOST_SCORES:]]
            more = [f"({len(found) - MOST_SCORES} earlier ones)"] if len(found) > MOST_SCORES else []
            self.say(f"  {f'{self.title} {SHOWN[metric]}':<26} {one_line('  '.join([*more, *each]))}")
