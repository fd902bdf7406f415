"""Which rules an answer is asked to keep together: those of every task learnt so far that no later one replaces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from lifealign.evaluation.scores import HeldOut

JOINT = "joint_adherence"
"""Name of the metric."""


class Ruled(Protocol):
    """A learnt task."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def check(self) -> object:
        """Its exact check, or None."""

    @property
    def supersedes(self) -> Sequence[str]:
        """Names of the earlier tasks whose rule it replaces."""


AnyRuled = TypeVar("AnyRuled", bound=Ruled)


def counting(tasks: Iterable[AnyRuled]) -> list[AnyRuled]:
    """The tasks whose rule counts after the last of them: those with a check that no later task supersedes.

    Args:
        tasks: Tasks in the order in which they were learnt.

    Example:
        >>> from lifealign.data.answer_check import AnswerCheck
        >>> short, long = AnswerCheck(max_words=5), AnswerCheck(min_words=9)
        >>> tasks = [HeldOut("short", (), short), HeldOut("free", ()), HeldOut("long", (), long, ("short",))]
        >>> [[task.name for task in counting(tasks[:number])] for number in (1, 2, 3)]
        [['short'], ['short'], ['long']]
    """
    learnt = list(tasks)
    gone = retired(learnt)
    return [task for task in learnt if task.check is not None and task.name not in gone]


def retired(tasks: Iterable[Ruled]) -> set[str]:
    """Names of the tasks whose rule a later one replaces."""
    return {name for task in tasks for name in task.supersedes}


def apart_text(method: str) -> str:
    """Why a method with one model per task has no such scores, in one line.

    Example:
        >>> apart_text("STL")
        'joint_adherence: left out, because STL has one model per task, and no model is to keep the rules together'
    """
    return f"{JOINT}: left out, because {method} has one model per task, and no model is to keep the rules together"


def kept_together(steps: Sequence[Sequence[HeldOut]]) -> list[HeldOut]:
    """Every task of some steps, in order, with the rules that count after the last step."""
    tasks = [task for step in steps for task in step]
    rules = tuple(task.check for task in counting(tasks) if task.check is not None)
    return [replace(task, rules=rules) for task in tasks]


def kept_when_learnt(steps: Sequence[Sequence[HeldOut]]) -> list[HeldOut]:
    """Every task of some steps, in order, with the rules that count after its own step: what the base is asked for."""
    found: list[HeldOut] = []
    learnt: list[HeldOut] = []
    for step in steps:
        learnt += step
        rules = tuple(task.check for task in counting(learnt) if task.check is not None)
        found += [replace(task, rules=rules) for task in step]
    return found
