"""The main path: what happens to a model when it learns one more task. Reads like the framework figure of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lifealign.data.task import Task
from lifealign.errors import LifeError
from lifealign.life.disk.manifest import Version
from lifealign.life.step import Learning
from lifealign.memory.update import add, subtract
from lifealign.methods.base import Step
from lifealign.model.adapter import install_adapter, plain_adapter, read_adapter, write_adapter

if TYPE_CHECKING:
    from lifealign.life.life import Life
    from lifealign.report.progress import Progress


def learn_task(life: Life, task: Task, progress: Progress | None = None) -> Version:
    """Teaches a life one more task; see :meth:`lifealign.life.life.Life.learn`."""
    with life.writing():
        for version in life.steps:
            if task.name in (record.name for record in version.tasks):
                _require_same_data(life, version, (task,))
                return version
        (step,) = life.method.plan([task], first_index=len(life.steps))
        return learn_step(life, step, progress)


def run_stream(life: Life, stream: Sequence[Task], progress: Progress | None = None) -> list[Version]:
    """Teaches a life a whole stream; steps that it has already lived are not repeated.

    Args:
        life: A life, new or interrupted in this very stream.
        stream: Tasks in the order in which they are met.
        progress: Where to show progress, or None.

    Returns:
        One version per step.

    Raises:
        LifeError: If what the life has learnt is not the beginning of the stream.
        TrainingError: If training or consolidation went wrong; the steps before it are kept.
    """
    steps = life.method.plan(stream)
    with life.writing():
        for step, version in zip(steps, life.steps, strict=False):
            _require_same_data(life, version, step.tasks)
        if len(life.steps) > len(steps):
            raise LifeError(
                f"{life.directory.path}: found {len(life.steps)} steps, expected at most {len(steps)} in this stream"
            )
        for step in steps[len(life.steps) :]:
            learn_step(life, step, progress)
    return life.steps


def learn_step(life: Life, step: Step, progress: Progress | None = None) -> Version:
    """One turn of the lifelong loop: mix, train, difference, denoise, project, remember, score, commit.

    Args:
        life: The life, locked.
        step: What is learnt.
        progress: Where to show progress, or None.

    Raises:
        DataError: If a pair to learn or to score cannot be used; found before anything is trained.
        TrainingError: If a loss, gradient or consolidation went wrong. The life is as it was before the step.
        KeyboardInterrupt: If it came while the step was scored, after the step was committed without those scores.

    What goes wrong while the step is scored raises nothing: the version is committed with a hole, which its record
    names with the reason, and :func:`~lifealign.life.evaluate.evaluate_life` fills it.
    """
    learning = Learning(life, step, progress)
    try:
        model = learning.model
        install_adapter(model, life.adapter())  # whatever version was looked at last
        learning.hold_out()  # what cannot be scored afterwards is found before anything is trained
        learning.mix()  # this task, and what is remembered of the others
        learning.attach()
        for segment in life.method.segments:
            before = read_adapter(model)
            for stage in segment.stages:
                learning.train(stage)  # SFT, then the preference stage
            update = subtract(read_adapter(model), before)  # short-term update
            refined = learning.consolidate(update, segment)  # denoised and projected
            write_adapter(model, add(before, refined))
        install_adapter(model, plain_adapter(model))  # from here on the model is what will be saved
        learning.remember()
        measured = learning.evaluate()  # one row of the matrix
        version = learning.commit(measured)  # all or nothing
        if learning.interruption is not None:  # now that hours of training are safe
            raise learning.interruption
        return version
    except BaseException:
        life.forget_loaded()
        raise
    finally:
        learning.trackers.close()


def _require_same_data(life: Life, version: Version, tasks: Sequence[Task]) -> None:
    learnt = {record.name: record.data_hash for record in version.tasks}
    given = {task.name: task.data_hash for task in tasks}
    if list(learnt) != list(given):
        raise LifeError(
            f"{life.directory.path}: found {', '.join(learnt)} learnt in step {version.name}, expected "
            f"{', '.join(given)}; this life belongs to another stream"
        )
    for name in given:
        if learnt[name] != given[name]:
            raise LifeError(
                f"{life.directory.path}: found task {name!r} learnt from other data in step {version.name}, expected "
                "the same pairs and check; give the task another name (--name for `lifealign learn`), or roll back to "
                "before it"
            )
