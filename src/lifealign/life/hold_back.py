"""Which pairs a step holds back for the gate, and what they can promise: settled before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lifealign.data.pair import Pair
from lifealign.data.set_aside import Prompt, set_aside, without
from lifealign.data.task import Task
from lifealign.errors import ConfigError, DataError
from lifealign.evaluation.held_out import scorable
from lifealign.evaluation.judge.endpoint import usable_key
from lifealign.evaluation.retention import alpha_of, promise, prompts_needed
from lifealign.evaluation.rules import retired
from lifealign.life.decisions import decisions_of
from lifealign.life.disk.gate_files import GateSet, Measure, gate_sets_of
from lifealign.life.settings import derive_seed
from lifealign.life.workspace import Workspace
from lifealign.methods.base import Step

SELECT_SHARE = 0.25
"""Share of the prompts held back that choose a scale; the others decide."""


@dataclass(frozen=True)
class HeldBack:
    """What a step holds back.

    Attributes:
        step: The step, without the training pairs whose prompts are held back.
        given: Its tasks, as given.
        new: Gates of its own tasks; empty without a gate.
        earlier: Gates of the tasks before it whose rules still count.
        unbound: Tasks before it whose rules still count and that have no gate that was measured: nothing bounds what
            they lose.
        prompts: Every prompt that a gate of the life holds back. Nothing is trained on it, replay included.
        notes: What to tell the user of it, a line each: what is set aside, and which gates are too small.
    """

    step: Step
    given: tuple[Task, ...]
    new: tuple[GateSet, ...] = ()
    earlier: tuple[GateSet, ...] = ()
    unbound: tuple[str, ...] = ()
    prompts: frozenset[Prompt] = frozenset()
    notes: tuple[str, ...] = ()


def hold_back(work: Workspace, step: Step, *, force: bool = False) -> HeldBack:
    """Sets a step's gate aside, and finds out what it can promise.

    Args:
        work: The life.
        step: The step, as given.
        force: Whether the step will be kept whatever it costs.

    Raises:
        ConfigError: If a task has a gate that the life would not use, or, with ``enforce``, a gate has too few prompts
            for the loss that is allowed. Or if a judge is to decide and its key or client is missing.
        DataError: If nothing is left to train on, or no gate pair can be scored.
        LifeError: If a gate of an earlier task is damaged.
    """
    settings = work.config.retention
    if settings.mode == "off" or not work.method.one_model:
        why = "off" if settings.mode == "off" else f"idle, because {work.method.title} has one model per task"
        for task in step.tasks:
            if task.gate or task.max_loss is not None:
                raise ConfigError(
                    f"task {task.name!r}: found a gate or max_loss, expected neither: the life's retention is {why}"
                )
        return HeldBack(step, step.tasks)
    before = [gate for version in work.steps for gate in gate_sets_of(work.directory, version)]
    replaced = retired([*(task for version in work.steps for task in version.tasks), *step.tasks])
    counting = [gate for gate in before if gate.task not in replaced]
    earlier = tuple(gate for gate in counting if gate.values is not None)
    unbound = tuple(gate.task for gate in counting if gate.values is None)
    new = tuple(_gate_of(work, task) for task in step.tasks)
    if settings.judge is not None and any(gate.measure == "judge" for gate in (*earlier, *new)):
        usable_key(settings.judge)  # after hours of training would be late to find out
    prompts = frozenset(pair.prompt for gate in (*before, *new) for pair in (*gate.pairs, *gate.select))
    tasks = tuple(_without(task, prompts) for task in step.tasks)
    notes = [note for task, gate in zip(step.tasks, new, strict=True) for note in _counted(task, gate, prompts)]
    decision = len(decisions_of(work.directory)) + 1
    notes += _too_small(work, earlier, decision, force) + _too_small(work, new, decision + bool(earlier), force)
    return HeldBack(replace(step, tasks=tasks), step.tasks, new, earlier, unbound, prompts, tuple(notes))


def _gate_of(work: Workspace, task: Task) -> GateSet:
    """The gate of a new task: its own pairs, or some of its training pairs."""
    settings = work.config.retention
    seed = derive_seed(work.config.seed, "gate")
    pairs = task.gate or set_aside(task.train, settings.set_aside, seed)[1]
    limits = {"max_length": work.config.data.max_length}
    measure: Measure = "adherence" if task.check else "margin" if settings.judge is None else "judge"
    limits["new_tokens"] = 0 if measure == "margin" else work.config.evaluation.max_new_tokens
    pairs = _one_a_prompt(scorable(work.runtime, task.name, pairs, **limits).pairs)
    select = set_aside(pairs, SELECT_SHARE, derive_seed(seed, "select"))[1] if settings.attempts > 1 else ()
    chosen = {pair.prompt for pair in select}
    max_loss = settings.max_loss if task.max_loss is None else task.max_loss
    return GateSet(task.name, task.check, max_loss, without(pairs, chosen), select, measure=measure)


def _one_a_prompt(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The first pair of each prompt: what decides are prompts, drawn one by one."""
    return tuple({pair.prompt: pair for pair in reversed(pairs)}.values())[::-1]


def _without(task: Task, prompts: frozenset[Prompt]) -> Task:
    """The task without the pairs that are held back."""
    left = without(task.train, prompts)
    if not left:
        raise DataError(
            task.train[0].source,
            found=f"only prompts that the life holds back for its gates, in all pairs of task {task.name!r}",
            expected="at least one pair to train on; give the gate as a file of its own",
        )
    return replace(task, train=left, gate=())


def _counted(task: Task, gate: GateSet, prompts: frozenset[Prompt]) -> list[str]:
    """How many of a task's prompts are set aside, and how many pairs other gates take from it."""
    own = {pair.prompt for pair in (*gate.pairs, *gate.select)}
    others = len(without(task.train, own)) - len(without(task.train, prompts))
    notes = []
    if not task.gate and own:
        total = len({pair.prompt for pair in task.train})
        notes.append(f"{task.name}: {len(own)} of {total} training prompts set aside for the gate")
    if others:
        total = len(task.train)
        notes.append(f"{task.name}: {others} of {total} training pairs left out: another gate holds their prompts")
    return notes


def _too_small(work: Workspace, gates: Sequence[GateSet], decision: int, force: bool) -> list[str]:
    """Says, or with ``enforce`` refuses, that a gate is too small for the loss that is allowed."""
    settings = work.config.retention
    alpha = alpha_of(settings.alpha, decision, 1, settings.attempts)
    notes = []
    for gate in gates:
        number, needed = len(gate.pairs), prompts_needed(gate.max_loss, alpha)
        if number >= needed or (not number and settings.mode == "warn"):
            continue
        counted = f"{number} gate {'prompt' if number == 1 else 'prompts'} of {gate.task}"
        if settings.mode == "enforce" and not force:
            raise ConfigError(
                f"{work.directory.path}: found {counted}, expected at least {needed}: with fewer, decision {decision} "
                f"cannot show a loss of at most {100 * gate.max_loss:.3g} %; give a task more with --gate FILE, allow "
                "more with --max-loss when it is learnt, or keep the step whatever it costs with --force"
            )
        least = 100 * promise(number, alpha)
        notes.append(f"{counted} can show a loss of at most {least:.1f} %; {100 * gate.max_loss:.3g} % needs {needed}")
    return notes
