"""What a step's gate stores: how its own tasks held when they were learnt, and what it has cost the tasks before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Message as PairMessage
from lifealign.data.pair import Pair
from lifealign.errors import LifeError
from lifealign.evaluation.retention import Flips, loss_text
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import Version
from lifealign.life.disk.pair_files import read_pairs
from lifealign.life.disk.step_files import Answer, Message, Prompt, read_answers, read_record
from lifealign.life.disk.typed_json import Count, Number, Record, validated
from lifealign.storage.files import read_json

VERDICTS = {"kept": "every earlier task kept", "lost": "LOST", "unproven": "too few prompts to tell"}
"""What a verdict says."""
Measure = Literal["adherence", "judge", "margin"]
"""What decides whether a prompt holds: the task's exact check of a greedy answer, a judge's mark of it, or a positive
preference margin."""


class Held(Record):
    """How a task's gate set did under the version that learnt it.

    Attributes:
        max_loss: The largest loss of the task that later steps may cost.
        measure: What decides whether a prompt holds.
        values: Of each gate prompt a number that is above 0 if it holds: 1 or 0 for adherence, the margin in nats, or
            a judge's points above the border, which lies half a mark below the lowest one with which an answer holds;
            None if a mark is missing. None in all if this could not be measured.
    """

    max_loss: Number
    measure: Measure
    values: list[Number | None] | None


class Loss(Record):
    """What a step has cost one earlier task, since the version that learnt it.

    Attributes:
        prompts: Number of gate prompts that were compared: those measured when the task was learnt.
        lost: Places of the gate prompts that held and no longer do.
        gained: Places of those that did not hold and do now.
        bound: Upper confidence bound of the loss.
        max_loss: The loss that is allowed.
        values: As in :class:`Held`, under the new version. A prompt whose mark is missing now does not hold.
    """

    prompts: Count
    lost: list[Count]
    gained: list[Count]
    bound: Number
    max_loss: Number
    values: list[Number | None]

    @property
    def flips(self) -> Flips:
        """The flips."""
        return Flips(self.prompts, tuple(self.lost), tuple(self.gained))

    @property
    def kept(self) -> bool:
        """Whether the bound is within what is allowed."""
        return self.bound <= self.max_loss

    @property
    def text(self) -> str:
        """What was lost, in words."""
        return loss_text(self.flips, self.bound, self.max_loss)


class Attempt(Record):
    """One scale of a step's update, tried on the gate sets of the tasks before it.

    Attributes:
        scale: The part of the update.
        alpha: The error probability that this attempt spends.
        losses: By task.
    """

    scale: Number
    alpha: Number
    losses: dict[str, Loss]

    @property
    def kept(self) -> bool:
        """Whether every earlier task is kept."""
        return all(loss.kept for loss in self.losses.values())


class Retention(Record):
    """``retention.json``: the gate's evidence for a step.

    Attributes:
        mode: ``warn`` or ``enforce``.
        confidence: Of the promise over the whole life.
        decision: Number of the decision in the life, from 1; 0 if there was no earlier task to lose.
        scale: The part of the update that was kept.
        attempts: What was tried, in order; the last one is what was decided on.
        selected: With several scales, the mean share of select prompts that hold, by scale.
        forced: Whether the step was kept although the gate refused it.
        held: The step's own tasks, when they were learnt.
        unbound: Tasks before the step that have no gate that was measured, so that nothing is known of what they lost.
        unmeasured: Why something could not be measured; empty if everything was.
    """

    mode: Literal["warn", "enforce"]
    confidence: Number
    decision: Count
    scale: Number
    attempts: list[Attempt]
    selected: dict[str, Number] = Field(default_factory=dict)
    forced: bool = False
    held: dict[str, Held]
    unbound: list[str] = Field(default_factory=list)
    unmeasured: str = ""

    @property
    def verdict(self) -> Literal["first", "kept", "unproven", "lost", "unmeasured"]:
        """What the evidence says of the tasks before the step.

        ``first``: there was nothing to lose. ``kept``: every bound is within what is allowed. ``lost``: more prompts
        flipped than is allowed. ``unproven``: neither; there are too few prompts to tell.
        """
        if self.unmeasured:
            return "unmeasured"
        if not self.losses:
            return "first"
        if all(loss.kept for loss in self.losses.values()):
            return "kept"
        return "lost" if any(loss.flips.change > loss.max_loss for loss in self.losses.values()) else "unproven"

    @property
    def losses(self) -> dict[str, Loss]:
        """By task, what the scale that was kept, or tried last, has cost."""
        return next((attempt.losses for attempt in self.attempts if attempt.scale == self.scale), {})

    @property
    def summary(self) -> list[str]:
        """The decision, and what it rests on, in words."""
        if self.unmeasured:
            return [f"retention: not measured ({self.unmeasured})"]
        bare = [f"retention: nothing is known of {task}, whose gate was not measured" for task in self.unbound]
        if not self.losses:
            return bare
        verdict = VERDICTS[self.verdict] + (", kept with --force" if self.forced else "")
        part = "" if self.scale == 1 else f", {self.scale:g} of the update kept"
        first = f"retention: {verdict}{part} (decision {self.decision})"
        return [first, *(f"  {line}" for line in self.lines), *bare]

    @property
    def lines(self) -> list[str]:
        """What the step has cost, in words, a line for each earlier task."""
        return [f"{task}: {loss.text}" for task, loss in self.losses.items()]


@dataclass(frozen=True)
class GateSet:
    """The gate of one task.

    Attributes:
        task: Name of the task.
        check: Its exact check, or None.
        max_loss: The loss that is allowed.
        pairs: Pairs that decide.
        select: Pairs that choose a scale.
        values: As in :class:`Held`; None before the task is learnt, or if they could not be measured.
        measure: What decides whether a prompt holds.
    """

    task: str
    check: AnswerCheck | None
    max_loss: float
    pairs: tuple[Pair, ...]
    select: tuple[Pair, ...] = ()
    values: tuple[float | None, ...] | None = None
    measure: Measure = "margin"


class Flipped(Record):
    """A gate prompt that held and no longer does: with the answers before and after, or the margins in nats."""

    prompt: Prompt
    before: str | Number
    after: str | Number


class Refusal(Record):
    """``refused-STEP.json``: a step that was learnt and refused, and the prompts that flipped, by task."""

    step: str
    retention: Retention
    flipped: dict[str, list[Flipped]]


def retention_of(directory: LifeDirectory, version: Version) -> Retention | None:
    """The gate's evidence for a step; None if its life had no gate."""
    file = names.retention(version.name)
    return read_record(directory, file, Retention) if file in version.files else None


def gate_sets_of(directory: LifeDirectory, version: Version) -> list[GateSet]:
    """The gates of a step's tasks; of a task that has none, nothing."""
    evidence = retention_of(directory, version)
    if evidence is None:
        return []
    checks = {task.name: AnswerCheck(**task.check) if task.check else None for task in version.tasks}

    def pairs(file: str) -> tuple[Pair, ...]:
        return read_pairs(directory, file) if file in version.files else ()

    if strange := evidence.held.keys() - checks.keys():
        path = directory.path / names.retention(version.name)
        raise LifeError(f"{path}: held: found {sorted(strange)[0][:80]!r}, expected tasks learnt in {version.name}")
    sets = [
        GateSet(
            task,
            checks[task],
            held.max_loss,
            pairs(names.gate_pairs(version.name, task)),
            pairs(names.select_pairs(version.name, task)),
            None if held.values is None else tuple(held.values),
            held.measure,
        )
        for task, held in evidence.held.items()
    ]
    for one in sets:
        if one.values is not None and len(one.values) != len(one.pairs):
            found = f"found {len(one.values)} values, expected one for each of {len(one.pairs)} gate pairs"
            raise LifeError(f"{directory.path / names.retention(version.name)}: held.{one.task}: {found}")
    return sets


def gate_answers_of(directory: LifeDirectory, version: Version) -> list[Answer]:
    """Greedy answers of a version to the gate prompts of tasks with a check."""
    file = names.gate_answers(version.name)
    return read_answers(directory, file) if file in version.files else []


def flipped_prompts(
    directory: LifeDirectory, gates: Sequence[GateSet], evidence: Retention, answers: Sequence[Mapping[str, Any]]
) -> dict[str, list[Flipped]]:
    """The gate prompts that a step has lost, with what the model said before and says now.

    Args:
        directory: The life's files.
        gates: Gates of the tasks before the step.
        evidence: The gate's evidence for the step.
        answers: Answers of the step's model to the gate prompts.

    Returns:
        By task; tasks that lost nothing are left out.
    """
    now = {_prompt(row["prompt"]): row["answer"] for row in answers}
    before = {}
    for version in directory.steps:
        for row in gate_answers_of(directory, version):
            for task in row.tasks:
                if task in {own.name for own in version.tasks}:
                    before[task, _prompt([message.model_dump() for message in row.prompt])] = row.answer
    found: dict[str, list[Flipped]] = {}
    for gate in gates:
        loss = evidence.losses.get(gate.task)
        for place in loss.lost if loss else ():
            pair, key = gate.pairs[place], gate.pairs[place].prompt
            was: str | float = before.get((gate.task, key), "")
            became: str | float = now.get(key, "")
            if gate.measure == "margin" and loss is not None:
                was, became = (values[place] or 0.0 for values in (gate.values or (), loss.values))
            prompt = [Message(**message._asdict()) for message in pair.prompt]
            found.setdefault(gate.task, []).append(Flipped(prompt=prompt, before=was, after=became))
    return found


def _prompt(messages: Sequence[Mapping[str, str]]) -> tuple[PairMessage, ...]:
    return tuple(PairMessage(message["role"], message["content"]) for message in messages)


def read_refusal(path: str | Path) -> Refusal:
    """Reads the evidence for a step that was refused.

    Raises:
        LifeError: If there is none, or it is damaged.
    """
    return validated(path, read_json(path), Refusal)
