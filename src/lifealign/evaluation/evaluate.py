"""One row of the score matrix: a model on the held-out pairs and prompts of every task seen so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lifealign.data.task import Pair
from lifealign.evaluation.adherence import AnswerCheck
from lifealign.evaluation.general import GeneralText, general_loss
from lifealign.evaluation.metrics import METRICS
from lifealign.evaluation.preference import held_out_margins, preference_outcomes
from lifealign.evaluation.text import bleu, paper_bleu, paper_rouge_l, rouge_l
from lifealign.model.generate import AnswerCache, Prompt, Sampling
from lifealign.model.reference import ReferenceCache
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair, plain_pair, tokenize_pairs

if TYPE_CHECKING:
    from lifealign.config import EvaluationConfig

PER_ANSWER: dict[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "paper_bleu": paper_bleu,
    "paper_rouge_l": paper_rouge_l,
}
"""Metrics of a generated and a chosen answer, whose mean over the prompts is the task's score."""


@dataclass(frozen=True)
class HeldOut:
    """What a task is scored on: its held-out pairs, and its exact check if it has one."""

    name: str
    pairs: tuple[Pair, ...]
    check: AnswerCheck | None = None


Marks = Callable[[HeldOut, Sequence[Pair], Sequence[str]], Sequence[float | None]]
"""A judge: marks of a task's answers to some of its pairs' prompts, in points; None where there is none."""


@dataclass
class Scores:
    """Scores of one model, by metric, then task, and what they are made of.

    Attributes:
        values: The scores.
        outcomes: What every held-out example counted for, where the score is their mean; None where it has no mark.
        holes: Why a score is not there that was asked for.
        answers: The generated answers, with the tasks they were asked for and the verdict of every check.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    holes: dict[str, dict[str, str]] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, metric: str, task: str, outcomes: Sequence[float]) -> None:
        """Notes one score, the mean of its outcomes: one per held-out pair or prompt, at least one."""
        self.values.setdefault(metric, {})[task] = fmean(outcomes)
        self.outcomes.setdefault(metric, {})[task] = list(outcomes)

    def add_marks(self, metric: str, task: str, marks: Sequence[float | None], max_missing: float) -> None:
        """Notes a score that some examples may lack; a hole where more than a share of them do, or all."""
        there = [mark for mark in marks if mark is not None]
        missing = len(marks) - len(there)
        if there and missing <= max_missing * len(marks):
            self.values.setdefault(metric, {})[task] = fmean(there)
            self.outcomes.setdefault(metric, {})[task] = list(marks)
        else:
            self.holes.setdefault(metric, {})[task] = f"{missing} of {len(marks)} marks are missing"

    def carry(self, earlier: Mapping[str, Any]) -> None:
        """Puts scores of another model, as a step has written them, before these."""
        for metric, values in earlier["scores"].items():
            self.values[metric] = {**values, **self.values.get(metric, {})}
        for metric, outcomes in (earlier["outcomes"] or {}).items():  # lives of 0.1 kept none
            self.outcomes[metric] = {**outcomes, **self.outcomes.get(metric, {})}


@dataclass(frozen=True)
class Evaluator:
    """Scores a model on tasks; what has been computed before is taken from the caches.

    Attributes:
        runtime: Model and device.
        reference: Reference log-probabilities by content hash.
        answers: Generated answers by content hash.
        settings: Metrics, batch size, answer length, number of prompts.
        beta: DPO temperature of the margins.
        max_length: Most tokens of prompt and completion.
        base: Fingerprint of the frozen base, the reference of every score, whatever the training's reference is.
        seed: Of answers that are drawn.
        judge: Who gives marks, or None.
        max_missing: Share of a task's marks that may be missing.
    """

    runtime: Runtime
    reference: ReferenceCache
    answers: AnswerCache
    settings: EvaluationConfig
    beta: float
    max_length: int
    base: str
    seed: int = 0
    judge: Marks | None = None
    max_missing: float = 0.0

    def score(self, tasks: Sequence[HeldOut], policy: str | None) -> Scores:
        """Scores the model as it is now, or the base.

        Args:
            tasks: Tasks to score; one without held-out pairs is left out.
            policy: Fingerprint of the adapter as it is now; None scores the base, with the adapter off.

        Returns:
            Every metric of the settings, the judge's too if there is one; ``adherence`` of the tasks with a check.
        """
        scores = Scores()
        answers = self.generated({task.name: self._asked(task) for task in tasks}, policy)
        for task in tasks:
            given = [(pair, answers[pair.prompt]) for pair in self._asked(task)]
            if given:
                self._score_answers(task, [pair for pair, _ in given], [answer for _, answer in given], scores)
            if self._wants("pairs"):
                self._score_pairs(task, policy, scores)
        asked = [(task, {pair.prompt for pair in self._asked(task)}) for task in tasks]
        scores.answers = [
            _answer_row(prompt, answer, [task for task, prompts in asked if prompt in prompts])
            for prompt, answer in answers.items()
        ]
        return scores

    def generated(self, asked: Mapping[str, Sequence[Pair]], policy: str | None) -> Mapping[Prompt, str]:
        """Answers to the prompts of some pairs, by task, of the model as it is now or of the base (``policy`` None)."""
        prompts = [pair.prompt for pairs in asked.values() for pair in pairs]
        if policy is not None:
            return self._answers(prompts, policy)
        with self.runtime.base_policy():
            return self._answers(prompts, self.base)

    def general(self, passages: Sequence[str], policy: str | None) -> GeneralText:
        """Loss on general text, of the model as it is now or of the base (``policy`` None)."""
        size = self.settings.per_device_eval_batch_size
        if policy is None:
            with self.runtime.base_policy():
                return general_loss(self.runtime, passages, batch_size=size, max_length=self.max_length)
        return general_loss(self.runtime, passages, batch_size=size, max_length=self.max_length)

    def _wants(self, *measured_on: str) -> list[str]:
        """Metrics asked for that are measured on something, in the order of tables."""
        asked = [*self.settings.metrics, *(["judge"] if self.judge is not None else [])]
        return [name for name, metric in METRICS.items() if name in asked and metric.measured_on in measured_on]

    def _asked(self, task: HeldOut) -> Sequence[Pair]:
        """Held-out pairs whose prompts get a generated answer."""
        kinds = ["answers", "judge", *(["check"] if task.check is not None else [])]
        if not self.settings.generate or not self._wants(*kinds):
            return ()
        return task.pairs[: self.settings.prompts]

    def _answers(self, prompts: Sequence[Prompt], policy: str) -> Mapping[Prompt, str]:
        settings = self.settings
        sampling = None
        if settings.do_sample:
            sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, self.seed)
        return self.answers.answers(
            self.runtime,
            prompts,
            policy,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.per_device_eval_batch_size,
            sampling=sampling,
        )

    def _score_pairs(self, task: HeldOut, policy: str | None, scores: Scores) -> None:
        asked = task.pairs[: self.settings.pairs]
        pairs, _ = tokenize_pairs(self.runtime.tokenizer, asked, self.max_length, self.runtime.reasoning)
        if pairs:
            outcomes = preference_outcomes(self._margins(pairs, policy))
            for metric in self._wants("pairs"):
                scores.add(metric, task.name, outcomes[metric])

    def _margins(self, pairs: Sequence[TokenizedPair], policy: str | None) -> list[float]:
        if policy is None:
            return [0.0] * len(pairs)  # the base against itself
        size = self.settings.per_device_eval_batch_size
        with self.runtime.base_policy():
            reference = self.reference.logps(self.runtime, pairs, self.base, size)
        return held_out_margins(self.runtime, pairs, reference, beta=self.beta, batch_size=size)

    def _score_answers(self, task: HeldOut, pairs: Sequence[Pair], answers: Sequence[str], scores: Scores) -> None:
        pairs = [plain_pair(self.runtime.tokenizer, pair, self.runtime.reasoning) for pair in pairs]
        chosen = [pair.chosen for pair in pairs]
        for metric in self._wants("check", "answers", "judge"):
            if metric == "adherence":
                if task.check is not None:
                    scores.add(metric, task.name, [float(task.check.holds(answer)) for answer in answers])
            elif metric == "bleu":  # of the whole corpus, not a mean over examples
                scores.values.setdefault(metric, {})[task.name] = bleu(answers, chosen)
            elif metric == "judge":
                assert self.judge is not None
                scores.add_marks(metric, task.name, self.judge(task, pairs, answers), self.max_missing)
            else:
                each = PER_ANSWER[metric]
                scores.add(metric, task.name, [each(*both) for both in zip(answers, chosen, strict=True)])


def _answer_row(prompt: Prompt, answer: str, tasks: Sequence[HeldOut]) -> dict[str, Any]:
    """An answer with the tasks it was asked for and the verdict of every check."""
    verdicts = {task.name: task.check.holds(answer) for task in tasks if task.check is not None}
    return {
        "prompt": [message._asdict() for message in prompt],
        "answer": answer,
        "tasks": [task.name for task in tasks],
        "holds": verdicts,
    }
