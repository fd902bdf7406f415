"""Which of two answers is better, asked in both orders, and the win rate of one side with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from lifealign.data.pair import Message
from lifealign.evaluation.judge.question import preference_question
from lifealign.evaluation.judge.rubrics import Rubric
from lifealign.evaluation.judge.session import JudgeSession, Tally

CONFIDENCE = 0.95

Outcome = Literal["win", "tie", "loss"]
"""Of our answer."""
_FIRST: dict[str, Outcome] = {"A": "win", "tie": "tie", "B": "loss"}
_SECOND: dict[str, Outcome] = {"B": "win", "tie": "tie", "A": "loss"}


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one prompt.

    Attributes:
        prompt: The whole conversation, whose last message is answered.
        ours: Answer of the version that is measured.
        theirs: Answer of the one it is compared with: the base model, or another version.
        reference: A good answer, shown if the rubric names it.
        rubric: What to judge by; its marks are not used.
    """

    prompt: tuple[Message, ...]
    ours: str
    theirs: str
    reference: str
    rubric: Rubric


@dataclass(frozen=True)
class Preferences:
    """Outcomes of pairs of answers.

    Attributes:
        outcomes: In the order of the pairs; None for a missing one.
        reasons: Why an outcome is missing; empty if it is not.
        moved: Whether the verdict changed with the order of the two answers; None without two verdicts.
        tally: What they cost.
    """

    outcomes: tuple[Outcome | None, ...]
    reasons: tuple[str, ...]
    moved: tuple[bool | None, ...]
    tally: Tally


@dataclass(frozen=True)
class WinRate:
    """How often our answers are preferred.

    Attributes:
        wins: Pairs in which ours is better.
        ties: Pairs in which neither is better, or the verdict changed with the order.
        losses: Pairs in which theirs is better.
        missing: Pairs without an outcome; they are not counted.
        rate: Share of wins among the outcomes, in [0, 1]; a tie counts as half a win.
        low: Lower end of the 95 % interval of ``rate``.
        high: Upper end.
        moved: Share of the pairs with two verdicts in which the order of the answers changed the verdict; None if there
            are none. Near 0 for a judge that can be trusted; from 0.5 on, it judges positions, not answers.
    """

    wins: int
    ties: int
    losses: int
    missing: int
    rate: float
    low: float
    high: float
    moved: float | None


def compare_answers(pairs: Sequence[AnswerPair], session: JudgeSession) -> Preferences:
    """Compares pairs of answers with the judge, each twice with the positions swapped.

    A win or a loss counts only if both orders agree; everything else is a tie, including a win in one order and a tie
    in the other. This is the conservative rule of Zheng et al. 2023 (arXiv:2306.05685, Section 3.4), because judges
    favour a position, mostly the first. If one of the two verdicts is missing, so is the outcome. Answers that are
    equal apart from outer whitespace are a tie without asking.

    Args:
        pairs: The pairs.
        session: The judging session to use.

    Raises:
        JudgeError: If the judge cannot go on.
        ConfigError: If the client is not installed, or the key is missing.
    """
    questions = {
        number: (
            preference_question(pair.rubric, pair.prompt, pair.ours, pair.theirs, pair.reference),
            preference_question(pair.rubric, pair.prompt, pair.theirs, pair.ours, pair.reference),
        )
        for number, pair in enumerate(pairs)
        if pair.ours.strip() != pair.theirs.strip()
    }
    verdicts = session.verdicts_on(question for both in questions.values() for question in both)
    outcomes: list[Outcome | None] = ["tie"] * len(pairs)
    reasons = [""] * len(pairs)
    moved: list[bool | None] = [None] * len(pairs)
    for number, (ours_first, theirs_first) in questions.items():
        one, other = verdicts[ours_first], verdicts[theirs_first]
        if one.choice is None or other.choice is None:
            outcomes[number], reasons[number] = None, one.reason or other.reason
        else:
            first, second = _FIRST[one.choice], _SECOND[other.choice]
            outcomes[number], moved[number] = first if first == second else "tie", first != second
    return Preferences(tuple(outcomes), tuple(reasons), tuple(moved), session.tally)


def win_rate(preferences: Preferences, max_missing: float) -> WinRate | None:
    """Win rate with its interval; None if more than ``max_missing`` of the outcomes are missing, or all of them.

    The interval is Wilson's, with the rate in place of a share of successes and one trial per prompt. Unlike a
    bootstrap's, it is not empty when all outcomes are equal. With ties it is wider than necessary, which errs on the
    safe side: for a given mean, values between 0 and 1 vary most if they are all 0 or 1. It covers other prompts of the
    same kind, not another judge.

    Args:
        preferences: The outcomes, each of a different prompt.
        max_missing: Share that may be missing, in [0, 1].
    """
    there = [outcome for outcome in preferences.outcomes if outcome is not None]
    missing = len(preferences.outcomes) - len(there)
    if not there or missing > max_missing * len(preferences.outcomes):
        return None
    wins, ties, losses = (there.count(outcome) for outcome in ("win", "tie", "loss"))
    rate = (wins + ties / 2) / len(there)
    twice = [one for one in preferences.moved if one is not None]
    moved = sum(twice) / len(twice) if twice else None
    return WinRate(wins, ties, losses, missing, rate, *wilson_interval(rate, len(there)), moved)


def wilson_interval(rate: float, number: int) -> tuple[float, float]:
    r"""Wilson's 95 % interval of a share.

    .. math::  \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
        rate: The observed share p, in [0, 1].
        number: Number of trials n, at least 1.

    Example:
        >>> [tuple(round(end, 3) for end in wilson_interval(rate, 10)) for rate in (0.5, 0.9, 1.0)]
        [(0.237, 0.763), (0.596, 0.982), (0.722, 1.0)]

    Reference:
        Wilson 1927, J. Am. Stat. Assoc. 22, 209-212; recommended for small n by Brown, Cai and DasGupta 2001,
        Statistical Science 16, 101-133.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = rate + z * z / (2 * number)
    reach = z * math.sqrt(rate * (1 - rate) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
