"""The gate: whether a step is kept, and how much of its update, by what the tasks before it have lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, get_args

from lifealign.errors import ConfigError, JudgeError, Refused
from lifealign.evaluation.evaluator import Evaluator
from lifealign.evaluation.judge import Judge, TaskJudge
from lifealign.evaluation.judge.pointwise import POINTS
from lifealign.evaluation.retention import alpha_of, flips
from lifealign.evaluation.scores import HeldOut, Scores
from lifealign.life.decisions import number_of
from lifealign.life.disk import names
from lifealign.life.disk.gate_files import (
    Attempt,
    GateSet,
    Held,
    Loss,
    Measure,
    Refusal,
    Retention,
    flipped_prompts,
)
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.step_files import as_json
from lifealign.life.hold_back import HeldBack
from lifealign.life.workspace import Workspace
from lifealign.memory.long_term import Consolidation
from lifealign.memory.update import Adapter, add, subtract
from lifealign.model.adapter import adapter_fingerprint, install_adapter, plain_adapter, read_adapter, write_adapter
from lifealign.storage.files import write_json


@dataclass(frozen=True)
class Gated:
    """What the gate has decided; the model is the one that is kept.

    Attributes:
        consolidated: The consolidated updates, as much of them as is kept.
        evidence: What the decision rests on; None without a gate.
        answers: Answers to the gate prompts of tasks that go by them.
        seconds: How long it took, which is no part of learning.
    """

    consolidated: Mapping[str, Consolidation]
    evidence: Retention | None = None
    answers: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """How one model does on gates.

    Attributes:
        values: Of every gate prompt, by task: as in :class:`~lifealign.life.disk.gate_files.Held`.
        answers: Answers to the prompts of tasks that go by them.
        why: Why something could not be measured; empty if everything was.
    """

    values: Mapping[str, Sequence[float | None]]
    answers: Sequence[Mapping[str, Any]]
    why: str


def gate(
    work: Workspace,
    held_back: HeldBack,
    consolidated: Mapping[str, Consolidation],
    say: Callable[[str], None],
    *,
    force: bool = False,
) -> Gated:
    """Decides about a step, with the model as it was learnt, and leaves the model that is kept.

    With ``warn`` the whole update is kept, and what it costs is said. With ``enforce`` the scale that does best on the
    select prompts is tried on the gate prompts, then each smaller one, until every earlier task is shown to have lost
    no more than is allowed since the version that learnt it.

    Args:
        work: The life, locked.
        held_back: What the step held back.
        consolidated: The result of consolidating each of its updates.
        say: Called with a line about each earlier task.
        force: Whether to keep the step in any case.

    Raises:
        Refused: If no scale is accepted. The prompts that flipped are in the life's folder ``retention``.
    """
    if not held_back.new:
        return Gated(consolidated)
    started = time.monotonic()
    settings, gates = work.config.retention, [*held_back.earlier, *held_back.new]
    learnt = read_adapter(work.runtime.model)
    decision = number_of(work.directory, adapter_fingerprint(learnt)) if held_back.earlier else 0
    scales, selected = [1.0], dict[str, float]()
    if decision and settings.mode == "enforce" and not work.method.indivisible:
        scales, selected = _ranked(work, learnt, gates)
    attempts, scale, seen = _tried(work, learnt, held_back, scales, decision)
    accepted = not seen.why and attempts[-1].kept
    if force and not accepted and scale != scales[0]:  # what is kept is then the best, not the least harmful
        scale = scales[0]
        _install(work, learnt, scale)
        seen = measure(work, gates)
    evidence = Retention(
        mode="enforce" if settings.mode == "enforce" else "warn",
        confidence=settings.confidence,
        decision=decision,
        scale=scale,
        attempts=attempts,
        selected=selected,
        forced=force and not accepted and settings.mode == "enforce",
        held={one.task: _held(one, seen) for one in held_back.new},
        unbound=list(held_back.unbound),
        unmeasured=seen.why,
    )
    for line in evidence.summary:
        say(line)
    if not accepted and settings.mode == "enforce" and not force:
        raise _refused(work, held_back, evidence, seen)
    if scale != 1:
        consolidated = {label: found.scaled(scale) for label, found in consolidated.items()}
        work.remember_instead([found.update for found in consolidated.values()])
    return Gated(consolidated, evidence, seen.answers, time.monotonic() - started)


def _tried(
    work: Workspace, learnt: Adapter, held_back: HeldBack, scales: Sequence[float], decision: int
) -> tuple[list[Attempt], float, Seen]:
    """Tries scales in turn, to the first that is accepted; the attempts, and scale and behaviour of the last model."""
    attempts: list[Attempt] = []
    for number, scale in enumerate(scales, start=1):
        _install(work, learnt, scale)
        seen = measure(work, [*held_back.earlier, *held_back.new])
        if seen.why:
            break
        alpha = alpha_of(work.config.retention.alpha, decision, number, len(scales)) if decision else 0.0
        losses = {one.task: loss_since(one, seen, alpha) for one in held_back.earlier}
        attempts.append(Attempt(scale=scale, alpha=alpha, losses=losses))
        if attempts[-1].kept:
            break
    return attempts, scale, seen


def measure(work: Workspace, gates: Sequence[GateSet], *, select: bool = False) -> Seen:
    """How the model does, as it is now, on the gate prompts of some tasks, or on their select prompts.

    Answers are greedy, whatever the life's own evaluation does: what flips is then the model's doing.
    """
    config = work.config.evaluation
    plain = {"do_sample": False, "draws": 1, "prompts": None, "pairs": None, "generate": True}
    policy = adapter_fingerprint(read_adapter(work.runtime.model))
    values: dict[str, Sequence[float | None]] = {}
    answers: list[Mapping[str, Any]] = []
    broken: list[str] = []
    for metric in get_args(Measure):
        asked = [
            HeldOut(one.task, one.select if select else one.pairs, one.check)
            for one in gates
            if one.measure == metric and (one.select if select else one.pairs)
        ]
        if not asked:
            continue
        measured = () if metric == "judge" else (metric,)
        evaluator = work.evaluator(config.model_copy(update=plain | {"metrics": measured}))
        scores = _judged(work, evaluator, asked, policy) if metric == "judge" else evaluator.score(asked, policy)
        values |= scores.outcomes.get(metric, {})
        answers += scores.answers
        broken += [f"{metric} of {task} ({why})" for task, why in scores.holes.get(metric, {}).items()]
    return Seen(values, answers, "; ".join(broken))


def _judged(work: Workspace, evaluator: Evaluator, asked: Sequence[HeldOut], policy: str) -> Scores:
    """Scores by the judge of the life's gates, whose outcomes are points above the border of what holds."""
    settings, scores = work.config.retention, Scores()
    if settings.judge is None:
        raise ValueError("found gates that a judge decides about, expected a judge in the life's settings")
    border = POINTS * (settings.least_mark - 0.5)
    try:
        with Judge(settings.judge, work.directory.inside(names.JUDGE_CACHE)) as judge:
            marker = TaskJudge(judge)
            replace(evaluator, judge=marker, max_missing=marker.max_missing).score(asked, policy, scores)
    except (JudgeError, ConfigError) as error:  # a judge that is gone costs the evidence, not what was learnt
        for task in asked:
            scores.fail("judge", task.name, error)
    above = {
        task: [None if points is None else points - border for points in row]
        for task, row in scores.outcomes.get("judge", {}).items()
    }
    scores.outcomes["judge"] = above
    return scores


def _ranked(work: Workspace, learnt: Adapter, gates: Sequence[GateSet]) -> tuple[list[float], dict[str, float]]:
    """The scales to try, in order: the best on the select prompts, the larger of equals, then each smaller one."""
    shares: dict[float, float] = {}
    if len(work.config.retention.scales) == 1:
        return [*work.config.retention.scales], {}
    for scale in sorted(work.config.retention.scales, reverse=True):
        _install(work, learnt, scale)
        seen = measure(work, gates, select=True)
        holding = [fmean(_holds(value) for value in values) for values in seen.values.values()]
        shares[scale] = fmean(holding) if holding and not seen.why else 0.0
    best = max(shares, key=lambda scale: (shares[scale], scale))
    return [scale for scale in shares if scale <= best], {f"{scale:g}": share for scale, share in shares.items()}


def _install(work: Workspace, learnt: Adapter, scale: float) -> None:
    """Makes the model the last version plus a part of what the step has added to it."""
    model = work.runtime.model
    if scale == 1:
        install_adapter(model, learnt)
        return
    before = read_adapter_of(work.directory)
    whole = subtract(learnt, before)
    write_adapter(model, add(before, {name: scale * factor for name, factor in whole.items()}))
    install_adapter(model, plain_adapter(model))


def loss_since(one: GateSet, seen: Seen, alpha: float) -> Loss:
    """What a model has lost of a gate that was measured when its task was learnt.

    Prompts whose mark was missing then are left out; one whose mark is missing now does not hold.

    Args:
        one: The gate.
        seen: How the model does on it.
        alpha: Probability that the true loss is above the bound, at most.
    """
    assert one.values is not None
    now = seen.values[one.task]
    places = [place for place, value in enumerate(one.values) if value is not None]
    found = flips([_holds(one.values[place]) for place in places], [_holds(now[place]) for place in places])
    return Loss(
        prompts=found.prompts,
        lost=[places[number] for number in found.lost],
        gained=[places[number] for number in found.gained],
        bound=found.bound(alpha),
        max_loss=one.max_loss,
        values=list(now),
    )


def _holds(value: float | None) -> bool:
    return value is not None and value > 0


def _held(one: GateSet, seen: Seen) -> Held:
    values = seen.values.get(one.task)
    return Held(max_loss=one.max_loss, measure=one.measure, values=None if values is None else list(values))


def _refused(work: Workspace, held_back: HeldBack, evidence: Retention, seen: Seen) -> Refused:
    """The error for a refused step, once the prompts that flipped are written down."""
    step, path = held_back.step.name, work.directory.inside(names.refusal(held_back.step.name))
    flipped = flipped_prompts(work.directory, held_back.earlier, evidence, seen.answers)
    write_json(path, as_json(Refusal(step=step, retention=evidence, flipped=flipped)))
    lines = evidence.lines or [f"the gate could not be measured ({evidence.unmeasured})"]
    too_much = [line for (task, loss), line in zip(evidence.losses.items(), lines, strict=False) if not loss.kept]
    return Refused(work.directory.path, step, too_much or lines, path)
