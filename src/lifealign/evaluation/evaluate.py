"""One row of the score matrix: a model on the held-out pairs and prompts of every task seen so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lifealign.data.task import Pair
from lifealign.evaluation.adherence import AnswerCheck
from lifealign.evaluation.generate import AnswerCache, Prompt
from lifealign.evaluation.preference import held_out_margins, preference_outcomes
from lifealign.training.batches import TokenizedPair, tokenize_pairs
from lifealign.training.reference import ReferenceCache
from lifealign.training.runtime import Runtime

if TYPE_CHECKING:
    from lifealign.config import EvaluationConfig


@dataclass(frozen=True)
class HeldOut:
    """What a task is scored on: its held-out pairs, and its exact check if it has one."""

    name: str
    pairs: tuple[Pair, ...]
    check: AnswerCheck | None = None


@dataclass
class Scores:
    """Scores of one model, by metric, then task; the outcome of every held-out example; and the answers behind them."""

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, metric: str, task: str, outcomes: Sequence[float]) -> None:
        """Notes one score, the mean of its outcomes: one per held-out pair or prompt, at least one."""
        self.values.setdefault(metric, {})[task] = fmean(outcomes)
        self.outcomes.setdefault(metric, {})[task] = list(outcomes)

    def carry(self, earlier: Mapping[str, Any]) -> None:
        """Puts scores of another model, as a step has written them, before these."""
        for metric, values in earlier["scores"].items():
            self.values[metric] = {**values, **self.values.get(metric, {})}
        for metric, outcomes in earlier["outcomes"].items():
            self.outcomes[metric] = {**outcomes, **self.outcomes.get(metric, {})}


@dataclass(frozen=True)
class Evaluator:
    """Scores a model on tasks; what has been computed before is taken from the caches.

    Attributes:
        runtime: Model and device.
        reference: Reference log-probabilities by content hash.
        answers: Generated answers by content hash.
        settings: Batch size, answer length, number of prompts.
        beta: DPO temperature of the margins.
        max_length: Most tokens of prompt and completion.
        base: Fingerprint of the frozen base, the reference of every score, whatever the training's reference is.
    """

    runtime: Runtime
    reference: ReferenceCache
    answers: AnswerCache
    settings: EvaluationConfig
    beta: float
    max_length: int
    base: str

    def score(self, tasks: Sequence[HeldOut], policy: str | None) -> Scores:
        """Scores the model as it is now, or the base.

        Args:
            tasks: Tasks to score; one without held-out pairs is left out.
            policy: Fingerprint of the adapter as it is now; None scores the base, with the adapter off.

        Returns:
            ``preference_accuracy`` and ``margin`` of every task, ``adherence`` of those with a check.
        """
        scores = Scores()
        if policy is None:
            with self.runtime.base_policy():
                self._score_answers(tasks, self.base, scores)
        else:
            self._score_answers(tasks, policy, scores)
        for task in tasks:
            pairs, _ = tokenize_pairs(self.runtime.tokenizer, task.pairs[: self.settings.pairs], self.max_length)
            if pairs:
                for metric, outcomes in preference_outcomes(self._margins(pairs, policy)).items():
                    scores.add(metric, task.name, outcomes)
        return scores

    def _margins(self, pairs: Sequence[TokenizedPair], policy: str | None) -> list[float]:
        if policy is None:
            return [0.0] * len(pairs)  # the base against itself
        size = self.settings.per_device_eval_batch_size
        with self.runtime.base_policy():
            reference = self.reference.logps(self.runtime, pairs, self.base, size)
        return held_out_margins(self.runtime, pairs, reference, beta=self.beta, batch_size=size)

    def _score_answers(self, tasks: Sequence[HeldOut], policy: str, scores: Scores) -> None:
        prompts: dict[str, list[Prompt]] = {
            task.name: [pair.prompt for pair in task.pairs][: self.settings.prompts]
            for task in tasks
            if task.check is not None and task.pairs and self.settings.generate
        }
        answers = self.answers.answers(
            self.runtime,
            [prompt for listed in prompts.values() for prompt in listed],
            policy,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.per_device_eval_batch_size,
        )
        for task in tasks:
            if task.check is not None and task.name in prompts:
                given = [answers[prompt] for prompt in prompts[task.name]]
                scores.add("adherence", task.name, [float(task.check.holds(answer)) for answer in given])
        scores.answers = [_answer_row(prompt, answer, tasks, prompts) for prompt, answer in answers.items()]


def _answer_row(
    prompt: Prompt, answer: str, tasks: Sequence[HeldOut], prompts: Mapping[str, Sequence[Prompt]]
) -> dict[str, Any]:
    """An answer with the verdict of every check that was asked of it."""
    verdicts = {
        task.name: task.check.holds(answer)
        for task in tasks
        if task.check is not None and prompt in prompts.get(task.name, ())
    }
    return {"prompt": [message._asdict() for message in prompt], "answer": answer, "holds": verdicts}
