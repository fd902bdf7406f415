"""The main path: what happens to a model when it learns one more task. Reads like the framework figure of the paper."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing

from lifealign.data.task import Task, require_earlier
from lifealign.errors import LifeError
from lifealign.life.commit import commit
from lifealign.life.disk import names
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.manifest import Version
from lifealign.life.gate import gate
from lifealign.life.hold_back import hold_back
from lifealign.life.keys import make_keys, tell_apart
from lifealign.life.mix import mix
from lifealign.life.progress import Progress
from lifealign.life.score import hold_out, score
from lifealign.life.step import attach, begin, consolidate, remember, train
from lifealign.life.workspace import Workspace
from lifealign.memory.update import add, subtract
from lifealign.methods.base import Step
from lifealign.model.adapter import install_adapter, plain_adapter, read_adapter, write_adapter
from lifealign.training.listeners import Listener, StageListener
from lifealign.training.peak_memory import reset_peak_memory
from lifealign.training.trackers import Trackers

logger = logging.getLogger(__name__)


def learn_task(work: Workspace, task: Task, listener: Listener | None = None, *, force: bool = False) -> Version:
    """Teaches a life one more task; see :meth:`lifealign.life.life.Life.learn`."""
    with work.writing():
        for version in work.steps:
            if task.name in (record.name for record in version.tasks):
                _require_same_data(work, version, (task,))
                return version
        require_earlier([task], [record.name for version in work.steps for record in version.tasks])
        (step,) = work.method.plan([task], first_index=len(work.steps))
        return learn_step(work, step, listener, force=force)


def run_stream(work: Workspace, stream: Sequence[Task], listener: Listener | None = None) -> list[Version]:
    """Teaches a life a whole stream; steps that it has already learnt are not repeated.

    Args:
        work: A life that is new, or was interrupted in the same stream.
        stream: Tasks in the order in which they are met.
        listener: Follows what happens, or None.

    Returns:
        One version per step.

    Raises:
        LifeError: If what the life has learnt is not the beginning of the stream.
        ConfigError: If a task supersedes one that is not before it.
        TrainingError: If training or consolidation went wrong; earlier steps are kept.
    """
    require_earlier(stream)
    steps = work.method.plan(stream)
    with work.writing():
        for step, version in zip(steps, work.steps, strict=False):
            _require_same_data(work, version, step.tasks)
        if len(work.steps) > len(steps):
            raise LifeError(
                f"{work.directory.path}: found {len(work.steps)} steps, expected at most {len(steps)} in this stream"
            )
        for step in steps[len(work.steps) :]:
            learn_step(work, step, listener)
    return work.steps


def learn_step(work: Workspace, step: Step, listener: Listener | None = None, *, force: bool = False) -> Version:
    """One turn of the lifelong loop: mix, train, difference, denoise, project, gate, remember, score, commit.

    Args:
        work: The life, locked.
        step: The step to learn.
        listener: Follows what happens, or None.
        force: Whether the step is kept although the gate refuses it.

    Raises:
        DataError: If a pair to learn or to score cannot be used; this is found before anything is trained.
        ConfigError: If a tracker is not installed, or the general text differs from that of earlier steps,
            or a gate is too small for what it is to promise.
        TrainingError: If a loss, gradient or consolidation went wrong. The life is as it was before the step.
        Refused: If the tasks before it may have lost too much. The life is as it was, too.
        KeyboardInterrupt: If it came while the step was scored; it is raised after the step was committed without the
            missing scores.

    A failure while the step is scored raises nothing: the version is committed with a hole, its record gives the
    reason, and :func:`~lifealign.life.evaluate.evaluate_life` fills it.
    """
    started = time.monotonic()
    reset_peak_memory()
    if listener is not None:
        listener.begin(step.name)
    say = _warn if listener is None else lambda text: listener.say(f"  {text}")
    model = work.runtime.model
    try:
        install_adapter(model, read_adapter_of(work.directory))  # another version may have been loaded
        held_back = hold_back(work, step, force=force)  # what the gate will ask, and nothing is trained on
        step = held_back.step
        held_out = hold_out(work, step, say)  # before training, so that what cannot be scored is found first
        examples = mix(work, step, say, held_back.prompts)  # this task, and the remembered pairs of others
        for note in held_back.notes:
            say(note)
        with closing(_trackers(work, step)) as trackers:
            listeners: list[StageListener] = [trackers] if listener is None else [listener, trackers]
            context = attach(work, step, examples)
            progress = Progress(work, held_back, say)  # from the beginning, or from where an interrupted run has come
            logs, consolidated = progress.logs, progress.consolidated
            for segment, before in progress.segments():
                for stage in progress.stages(segment):
                    context = begin(work, context, stage)
                    log = train(work, context, stage, listeners, progress)  # SFT, preference, rehearsals if it has any
                    logs[stage] = logs.get(stage, []) + log
                update = subtract(read_adapter(model), before)  # short-term update
                refined = consolidate(work, step, segment, update, logs)  # denoised and projected
                if refined is not None:
                    consolidated[segment.label], update = refined, refined.update
                write_adapter(model, add(before, update))
            install_adapter(model, plain_adapter(model))  # from here on the model is the one that will be saved
            gated = gate(work, held_back, consolidated, say, force=force)  # kept, kept in part, or refused
            seconds = progress.seconds + time.monotonic() - started - gated.seconds
            learnt = remember(work, context, gated.consolidated, seconds)
            keys = make_keys(work, step, examples, say)  # by which prompts like its own will be recalled
            apart = tell_apart(work, step, keys, say)
            measured = score(work, step, held_out, learnt, say)  # one row of the matrix
            version = commit(  # all or nothing
                work, held_back, held_out, examples, logs, gated, learnt, keys, apart, measured, started, say
            )
            progress.finish()
            trackers.finish(measured.tracked(), len(work.steps))
            if listener is not None:
                listener.scored(measured.scores.values)
        if measured.interruption is not None:  # raised only now that the training is committed
            raise measured.interruption
        return version
    except BaseException:
        work.forget_loaded()
        raise


def _trackers(work: Workspace, step: Step) -> Trackers:
    return Trackers(
        work.report_to,
        life=work.directory.path.absolute().name,
        step=step.name,
        folder=work.directory.inside(f"{names.LOGS}/{step.name}").parent,
        settings=work.config.model_dump(mode="json"),
    )


def _warn(text: str) -> None:
    """Logs a line for the user when there is no listener."""
    logger.warning("%s", text)


def _require_same_data(work: Workspace, version: Version, tasks: Sequence[Task]) -> None:
    learnt = {record.name: record.data_hash for record in version.tasks}
    given = {task.name: task.data_hash for task in tasks}
    if list(learnt) != list(given):
        raise LifeError(
            f"{work.directory.path}: found {', '.join(learnt)} learnt in step {version.name}, expected "
            f"{', '.join(given)}; this life belongs to another stream"
        )
    for name in given:
        if learnt[name] != given[name]:
            raise LifeError(
                f"{work.directory.path}: found task {name!r} learnt from other data in step {version.name}, expected "
                "the same pairs, check and superseded tasks; give the task another name (--name for `lifealign "
                "learn`), or roll back to the version before that step"
            )
