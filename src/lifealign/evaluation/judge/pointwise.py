"""Marks from 1 to 10 for single answers, and the score of a cell: ten times their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lifealign.data.pair import Message
from lifealign.evaluation.judge.question import mark_question
from lifealign.evaluation.judge.rubrics import MARKS, Rubric
from lifealign.evaluation.judge.session import Judging, Tally

POINTS = 10.0  # per mark, as in the paper: scores lie from 10 to 100


@dataclass(frozen=True)
class Item:
    """One answer to be judged.

    Attributes:
        prompt: The whole conversation, whose last message is answered.
        answer: The answer.
        reference: A good answer, usually the chosen one of the pair.
        rubric: What to look at.
    """

    prompt: tuple[Message, ...]
    answer: str
    reference: str
    rubric: Rubric


@dataclass(frozen=True)
class Marks:
    """Marks of answers.

    Attributes:
        marks: From 1 to 10, in the order of the items; None where there is none, which is never a 0.
        reasons: Why a mark is missing, empty where it is there; see
            :class:`~lifealign.evaluation.judge.session.Verdict`.
        tally: What they have cost.
    """

    marks: tuple[int | None, ...]
    reasons: tuple[str, ...]
    tally: Tally

    @property
    def missing(self) -> int:
        """Number of marks that are missing."""
        return self.marks.count(None)

    @property
    def points(self) -> tuple[float | None, ...]:
        """The marks in points, whose mean is the score."""
        return tuple(None if mark is None else POINTS * mark for mark in self.marks)


def give_marks(items: Sequence[Item], judging: Judging) -> Marks:
    """Has answers marked.

    An empty or blank answer is an answer, and a failed one: every rubric has it at 1, so it gets 1 and nobody is asked.
    A judge that is shown an empty block tends to judge the reference instead.

    Args:
        items: The answers.
        judging: Whom to ask.

    Raises:
        JudgeError: If the judge cannot go on.
        ConfigError: If the client is not installed, or the key is missing.
    """
    questions = {
        number: mark_question(item.rubric, item.prompt, item.answer, item.reference)
        for number, item in enumerate(items)
        if item.answer.strip()
    }
    verdicts = judging.verdicts_on(questions.values())
    marks: list[int | None] = [MARKS[0]] * len(items)
    reasons = [""] * len(items)
    for number, question in questions.items():
        verdict = verdicts[question]
        marks[number] = None if verdict.choice is None else int(verdict.choice)
        reasons[number] = verdict.reason
    return Marks(tuple(marks), tuple(reasons), judging.tally)


def judge_score(marks: Sequence[int | None], max_missing: float) -> float | None:
    """Ten times the mean of the marks that are there, as in the paper; None where too many are not.

    Args:
        marks: Marks from 1 to 10, None where there is none.
        max_missing: Share that may be missing, in [0, 1]. A mean over what a judge happened to answer is not the mean
            over all: refusals and cut replies do not come at random.

    Returns:
        Points from 10 to 100, or None if more are missing, or all, or there are no marks.

    Example:
        >>> judge_score([8, 6, None, 10], max_missing=0.25), judge_score([8, 6, None, None], max_missing=0.25)
        (80.0, None)
    """
    there = [mark for mark in marks if mark is not None]
    if not there or len(marks) - len(there) > max_missing * len(marks):
        return None
    return POINTS * fmean(there)
