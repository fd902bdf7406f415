"""The LLM judge: marks for answers, preferences between answers, and what they cost."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lifealign.evaluation.judge.pointwise import Item
from lifealign.evaluation.judge.question import layout_fingerprint
from lifealign.evaluation.judge.rubrics import Rubric, known_rubrics, rubric_for

if TYPE_CHECKING:
    from lifealign.data.pair import Pair
    from lifealign.evaluation.scores import HeldOut

from pathlib import Path
from typing import Self

from lifealign.evaluation.judge.cache import VerdictCache
from lifealign.evaluation.judge.endpoint import Budget
from lifealign.evaluation.judge.pairwise import AnswerPair, Preferences, compare_answers
from lifealign.evaluation.judge.pointwise import Marks, give_marks
from lifealign.evaluation.judge.session import JudgeSession, Tally
from lifealign.evaluation.judge.settings import JudgeConfig

logger = logging.getLogger(__name__)


class Judge:
    """A model behind an OpenAI-compatible server, asked one strict question at a time.

    A verdict does not depend on what else was asked: every question stands alone, at temperature 0, and the cache only
    saves money. Still, the model behind a name may change; use a dated model, and judge what you compare within days.

    Args:
        config: Model, address, limits. ``max_requests`` counts over all calls of this object.
        cache_path: File that keeps the replies; None keeps them as long as this object.

    Raises:
        JudgeError: If the cache file cannot be used.

    Example:
        ::

            with Judge(JudgeConfig(model="gpt-4.1-mini-2025-04-14"), "verdicts.sqlite") as judge:
                marks = judge.marks([Item(pair.prompt, answer, pair.chosen, rubric_for("hc3"))])
            print(judge_score(marks.marks, max_missing=0.1), marks.tally)
    """

    def __init__(self, config: JudgeConfig, cache_path: str | Path | None = None) -> None:
        self.config = config
        self._cache = VerdictCache(None if cache_path is None else Path(cache_path))
        self._budget = Budget(config.max_requests)

    def marks(self, items: Sequence[Item]) -> Marks:
        """Marks answers from 1 to 10; see :func:`~lifealign.evaluation.judge.pointwise.give_marks`."""
        marks = give_marks(items, self._session())
        _log(self.config.model, len(items), marks.missing, marks.tally)
        return marks

    def preferences(self, pairs: Sequence[AnswerPair]) -> Preferences:
        """Compares pairs of answers; see :func:`~lifealign.evaluation.judge.pairwise.compare_answers`."""
        preferences = compare_answers(pairs, self._session())
        _log(self.config.model, len(pairs), preferences.outcomes.count(None), preferences.tally)
        return preferences

    def close(self) -> None:
        """Closes the cache file."""
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _session(self) -> JudgeSession:
        return JudgeSession(self.config, self._cache, self._budget)


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


class TaskJudge:
    """Gives points to answers by the rubric of their task, with the chosen answer as the reference.

    Args:
        judge: The judge.
        rubric: The rubric for every task; None takes the one named like the task, or the general one.

    Attributes:
        max_missing: Share of a task's marks that may be missing.
    """

    def __init__(self, judge: Judge, rubric: Rubric | None = None) -> None:
        self.judge, self.rubric = judge, rubric
        self.max_missing = judge.config.max_missing

    def __call__(self, task: HeldOut, pairs: Sequence[Pair], answers: Sequence[str]) -> list[float | None]:
        """Points from 10 to 100 for answers to the prompts of some pairs; None for a missing mark."""
        rubric = self.rubric or rubric_for(task.name)
        items = [Item(pair.prompt, answer, pair.chosen, rubric) for pair, answer in zip(pairs, answers, strict=True)]
        marks = self.judge.marks(items)
        if marks.missing:
            kinds = Counter(reason.partition(":")[0] for reason in marks.reasons if reason)
            counts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
            example = next(reason for reason in marks.reasons if reason)
            logger.warning(
                "%s: %d of %d marks are missing (%s); %s", task.name, marks.missing, len(items), counts, example
            )
        return list(marks.points)

    def identity(self) -> dict[str, Any]:
        """What decides a mark: model, address, settings of a request, and the wording of rubrics and layout."""
        config = self.judge.config
        rubrics = [self.rubric] if self.rubric is not None else [rubric_for(name) for name in known_rubrics()]
        words = " ".join([layout_fingerprint(), *(rubric.fingerprint for rubric in rubrics)])
        return {
            "judge": config.model,
            "place": config.place,
            "max_tokens": config.max_tokens,
            "seed": config.seed,
            "words": hashlib.sha256(words.encode()).hexdigest()[:16],
        }
