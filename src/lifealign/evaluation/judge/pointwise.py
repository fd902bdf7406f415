"""Marks from 1 to 10 for single answers, and the score made of them: ten times their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lifealign.data.pair import Message
from lifealign.evaluation.judge.question import mark_question
from lifealign.evaluation.judge.rubrics import MARKS, Rubric
from lifealign.evaluation.judge.session import JudgeSession, Tally

POINTS = 10.0  # per mark, as in the paper: scores lie from 10 to 100


@dataclass(frozen=True)
class Item:
    """One answer to be judged.

    Attributes:
        prompt: The whole conversation, whose last message is answered.
        answer: The answer.
        reference: A good answer, usually the chosen one of the pair.
        rubric: What to judge it by.
    """

    prompt: tuple[Message, ...]
    answer: str
    reference: str
    rubric: Rubric


@dataclass(frozen=True)
class Marks:
    """Marks of answers.

    Attributes:
        marks: From 1 to 10, in the order of the items; None, never 0, for a missing mark.
        reasons: Why a mark is missing; empty if it is not. See
            :class:`~lifealign.evaluation.judge.session.Verdict`.
        tally: What they cost.
    """

    marks: tuple[int | None, ...]
    reasons: tuple[str, ...]
    tally: Tally

    @property
    def missing(self) -> int:
        """Number of missing marks."""
        return self.marks.count(None)

    @property
    def points(self) -> tuple[float | None, ...]:
        """The marks in points, whose mean is the score."""
        return tuple(None if mark is None else POINTS * mark for mark in self.marks)


def give_marks(items: Sequence[Item], session: JudgeSession) -> Marks:
    """Scores answers with the judge.

    An empty or blank answer is a failed answer: every rubric gives it a 1, so it gets 1 without asking. A judge that is
    shown an empty block tends to judge the reference instead.

    Args:
        items: The answers.
        session: The judging session to use.

    Raises:
        JudgeError: If the judge cannot go on.
        ConfigError: If the client is not installed, or the key is missing.
    """
    questions = {
        number: mark_question(item.rubric, item.prompt, item.answer, item.reference)
        for number, item in enumerate(items)
        if item.answer.strip()
    }
    verdicts = session.verdicts_on(questions.values())
    marks: list[int | None] = [MARKS[0]] * len(items)
    reasons = [""] * len(items)
    for number, question in questions.items():
        verdict = verdicts[question]
        marks[number] = None if verdict.choice is None else int(verdict.choice)
        reasons[number] = verdict.reason
    return Marks(tuple(marks), tuple(reasons), session.tally)


def judge_score(marks: Sequence[int | None], max_missing: float) -> float | None:
    """Ten times the mean of the marks, as in the paper; None if too many are missing.

    Args:
        marks: Marks from 1 to 10, None for a missing one.
        max_missing: Share that may be missing, in [0, 1]. The mean over the answers that a judge did mark is not the
            mean over all of them: refusals and truncated replies are not random.

    Returns:
        Points from 10 to 100; None if more than ``max_missing`` are missing, or all of them.

    Example:
        >>> judge_score([8, 6, None, 10], max_missing=0.25), judge_score([8, 6, None, None], max_missing=0.25)
        (80.0, None)
    """
    there = [mark for mark in marks if mark is not None]
    if not there or len(marks) - len(there) > max_missing * len(marks):
        return None
    return POINTS * fmean(there)
