"""The LLM judge: marks for answers, preferences between answers, and what they cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lifealign.evaluation.judge.asking import Judging, Tally
from lifealign.evaluation.judge.config import JudgeConfig
from lifealign.evaluation.judge.endpoint import Budget
from lifealign.evaluation.judge.pairwise import AnswerPair, Preferences, compare_answers
from lifealign.evaluation.judge.pointwise import Item, Marks, give_marks
from lifealign.evaluation.judge.verdicts import Verdicts

logger = logging.getLogger(__name__)


class Judge:
    """A model behind an OpenAI-compatible server, asked one strict question at a time.

    Which verdicts there are does not depend on what was asked before or beside it: every question stands alone, at
    temperature 0, and the cache only saves its price. A judge may nevertheless change behind its name; a cell is best
    judged within days, by a dated model.

    Args:
        config: Model, address, limits. Its budget of requests is that of this object, over all calls.
        cache_path: File that keeps verdicts; None keeps them as long as this object.

    Raises:
        JudgeError: If the file of the cache cannot be used.

    Example:
        ::

            with Judge(JudgeConfig(model="gpt-4.1-mini-2025-04-14"), "verdicts.sqlite") as judge:
                marks = judge.marks([Item(pair.prompt, answer, pair.chosen, rubric_for("hc3"))])
            print(judge_score(marks.marks, max_missing=0.1), marks.tally)
    """

    def __init__(self, config: JudgeConfig, cache_path: str | Path | None = None) -> None:
        self.config = config
        self._verdicts = Verdicts(None if cache_path is None else Path(cache_path))
        self._budget = Budget(config.max_requests)

    def marks(self, items: Sequence[Item]) -> Marks:
        """Marks answers from 1 to 10; see :func:`~lifealign.evaluation.judge.pointwise.give_marks`."""
        marks = give_marks(items, self._judging())
        _log(self.config.model, len(items), marks.missing, marks.tally)
        return marks

    def preferences(self, pairs: Sequence[AnswerPair]) -> Preferences:
        """Compares pairs of answers; see :func:`~lifealign.evaluation.judge.pairwise.compare_answers`."""
        preferences = compare_answers(pairs, self._judging())
        _log(self.config.model, len(pairs), preferences.outcomes.count(None), preferences.tally)
        return preferences

    def close(self) -> None:
        """Closes the file of the cache."""
        self._verdicts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judging(self) -> Judging:
        return Judging(self.config, self._verdicts, self._budget)


def _log(model: str, number: int, missing: int, tally: Tally) -> None:
    logger.info(
        "judge %s: %d answers, %d without a verdict; %d questions asked, %d from the cache, %d requests",
        model,
        number,
        missing,
        tally.asked,
        tally.cached,
        tally.requests,
    )
