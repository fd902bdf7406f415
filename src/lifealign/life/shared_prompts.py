"""Prompts that one task is scored on and another is trained on: such a score measures memory, not preference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lifealign.data.clean import count_text
from lifealign.data.pair import Pair
from lifealign.data.set_aside import Prompt
from lifealign.data.task import Task
from lifealign.evaluation.scores import HeldOut
from lifealign.life.disk.learnt import read_taught
from lifealign.life.workspace import Workspace
from lifealign.methods.base import Step


def shared_prompts(work: Workspace, step: Step, earlier: Sequence[HeldOut]) -> Iterator[str]:
    """Says of a step's tasks which held-out prompts of theirs and of other tasks are trained on.

    A task's own training pairs never have its held-out prompts (:func:`~lifealign.data.clean.read_split`); those of
    another task may. They are kept, because they may be all that teaches the other task, and said. So is a task that
    was taught before under another name.

    Args:
        work: The life. What earlier tasks were taught with is only known if it keeps training pairs.
        step: The step, before it is trained.
        earlier: Held-out pairs of the earlier tasks that are scored again; only these are looked at.

    Yields:
        A line for each two tasks.
    """
    names = {task.name for task in earlier}
    taught = {
        task.name: task
        for version in work.steps
        if any(record.name in names for record in version.tasks)
        for task in read_taught(work.directory, version)
        if task.name in names
    }
    for place, task in enumerate(step.tasks):
        prompts = {pair.prompt for pair in task.train}
        own = _prompts(task.test)
        for other in earlier:
            yield from _trained_on(other.name, _prompts(other.pairs), task.name, prompts)
            if (known := taught.get(other.name)) is not None:
                yield from _trained_on(task.name, own, other.name, _prompts(known.train))
                yield from _taught_again(task, known)
        for beside in (*step.tasks[:place], *step.tasks[place + 1 :]):
            yield from _trained_on(beside.name, _prompts(beside.test), task.name, prompts)


def _trained_on(scored: str, held_out: set[Prompt], trained: str, prompts: set[Prompt]) -> Iterator[str]:
    if shared := len(held_out & prompts):
        yield (
            f"{scored}: {shared} of {count_text(len(held_out), 'held-out prompt', 'held-out prompts')} "
            f"{'is' if shared == 1 else 'are'} in the training pairs of {trained}; scores of {scored} after {trained} "
            "are partly of prompts that were trained on"
        )


def _taught_again(task: Task, known: Task) -> Iterator[str]:
    if not {pair.key for pair in task.train} - {pair.key for pair in known.train}:
        yield f"{task.name}: all its training pairs were taught before, as {known.name}"


def _prompts(pairs: Sequence[Pair]) -> set[Prompt]:
    return {pair.prompt for pair in pairs}
