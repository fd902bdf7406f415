"""The judge as evaluation uses it: answers to a task's held-out prompts in, points out."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lifealign.evaluation.judge.judge import Judge
from lifealign.evaluation.judge.pointwise import Item
from lifealign.evaluation.judge.question import layout_fingerprint
from lifealign.evaluation.judge.rubrics import Rubric, known_rubrics, rubric_for

if TYPE_CHECKING:
    from lifealign.data.task import Pair
    from lifealign.evaluation.evaluate import HeldOut

logger = logging.getLogger(__name__)


class TaskJudge:
    """Gives points to answers by the rubric of their task, with the chosen answer as the reference.

    Args:
        judge: Who is asked.
        rubric: The rubric of every task; None takes that of each task's name, or the general one.

    Attributes:
        max_missing: Share of a task's marks that may be missing.
    """

    def __init__(self, judge: Judge, rubric: Rubric | None = None) -> None:
        self.judge, self.rubric = judge, rubric
        self.max_missing = judge.config.max_missing

    def __call__(self, task: HeldOut, pairs: Sequence[Pair], answers: Sequence[str]) -> list[float | None]:
        """Points from 10 to 100 of answers to the prompts of some pairs; None where there is no mark."""
        rubric = self.rubric or rubric_for(task.name)
        items = [Item(pair.prompt, answer, pair.chosen, rubric) for pair, answer in zip(pairs, answers, strict=True)]
        marks = self.judge.marks(items)
        if marks.missing:
            kinds = Counter(reason.partition(":")[0] for reason in marks.reasons if reason)
            told = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
            example = next(reason for reason in marks.reasons if reason)
            logger.warning(
                "%s: %d of %d marks are missing (%s); %s", task.name, marks.missing, len(items), told, example
            )
        return list(marks.points)

    def identity(self) -> dict[str, Any]:
        """What decides a mark: model, place, what is sent with every question, and the words of rubrics and layout."""
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
