"""One row of the score matrix: a model on the held-out pairs and prompts of every task seen so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import xxhash

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Pair
from lifealign.evaluation.general import GeneralText, general_loss, passages_hash
from lifealign.evaluation.metrics import METRICS
from lifealign.evaluation.preference import held_out_margins, preference_outcomes
from lifealign.evaluation.rules import JOINT
from lifealign.evaluation.scores import HeldOut, Marks, Scores
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.evaluation.text import bleu, paper_bleu, paper_rouge_l, rouge_l
from lifealign.model.answer_cache import AnswerCache
from lifealign.model.generate import Prompt
from lifealign.model.reference import ReferenceCache
from lifealign.model.runtime import Runtime
from lifealign.model.sampling import Sampling
from lifealign.model.tokens import TokenizedPair, plain_pair, tokenize_pairs

PER_ANSWER: dict[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "paper_bleu": paper_bleu,
    "paper_rouge_l": paper_rouge_l,
}
"""Metrics of a generated and a chosen answer, whose mean over the prompts is the task's score."""
Draws = tuple[str, ...]
"""The answers to a prompt: one, or several samples."""


@dataclass(frozen=True)
class Evaluator:
    """Scores a model on tasks, reusing what the caches hold.

    Attributes:
        runtime: Model and device.
        reference: Reference log-probabilities by content hash.
        answers: Generated answers by content hash.
        settings: Metrics, batch size, answer length, number of prompts.
        beta: DPO temperature of the margins.
        max_length: Most tokens of prompt and completion.
        base: Fingerprint of the frozen base, the reference of every score whatever reference training uses.
        seed: Seed for sampled answers.
        judge: The judge that gives marks, or None.
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

    def score(self, tasks: Sequence[HeldOut], policy: str | None, scores: Scores | None = None) -> Scores:
        """Scores the model as it is now, or the base.

        An exception of any kind costs only the score it concerns, which becomes a hole with a reason. Only an interrupt
        or a judge that cannot go on ends the scoring; ``scores`` then holds what was measured so far.

        Args:
            tasks: Tasks to score; those without held-out pairs are skipped.
            policy: Fingerprint of the current adapter; None scores the base, with the adapter off.
            scores: Where to put the scores; None makes a new object.

        Returns:
            Every metric of the settings, and the judge's if there is one; ``adherence`` for tasks with a check, and
            ``joint_adherence`` for those that have rules to keep together, too.

        Raises:
            JudgeError: If the judge cannot go on.
        """
        scores = Scores() if scores is None else scores
        answers, failed = self._answered(tasks, policy)
        for task in tasks:
            pairs = self._answered_pairs(task)
            if pairs and task.name in failed:
                for metric in self._of_answers(task):
                    scores.fail(metric, task.name, failed[task.name])
            elif pairs:
                self._score_answers(task, pairs, [answers[pair.prompt] for pair in pairs], scores)
            if self._wants("pairs"):
                self._score_pairs(task, policy, scores)
        answered = [
            (task, {pair.prompt for pair in self._answered_pairs(task)}) for task in tasks if task.name not in failed
        ]
        scores.answers = [
            _answer_row(prompt, answer, [task for task, prompts in answered if prompt in prompts])
            | ({"draw": draw} if self.settings.draws > 1 else {})
            for prompt, draws in answers.items()
            for draw, answer in enumerate(draws)
        ]
        return scores

    def fail(self, tasks: Sequence[HeldOut], scores: Scores, error: BaseException) -> None:
        """Notes every score that :meth:`score` would have measured of some tasks and did not, as missing."""
        for task in tasks:
            for metric in [*(self._of_answers(task) if self._answered_pairs(task) else []), *self._wants("pairs")]:
                if task.pairs and task.name not in scores.holes.get(metric, {}):
                    scores.fail(metric, task.name, error)

    def new_tokens(self, task: HeldOut) -> int:
        """Most tokens of a generated answer to a task; 0 if none is generated."""
        return self.settings.max_new_tokens if self._answered_pairs(task) else 0

    def _answered(
        self, tasks: Sequence[HeldOut], policy: str | None
    ) -> tuple[Mapping[Prompt, Draws], dict[str, Exception]]:
        """Answers to the prompts of all tasks at once; if that fails, task by task. Also the errors, by task name.

        One prompt that breaks the model, or a batch that does not fit into memory, must not cost the other answers.
        """
        requested = {task.name: self._answered_pairs(task) for task in tasks}
        try:
            return self._drawn(requested, policy), {}
        except Exception as error:  # whatever the model, a library or the disk raises
            if len(tasks) == 1:
                return {}, {tasks[0].name: error}
        answers: dict[Prompt, Draws] = {}
        failed: dict[str, Exception] = {}
        for name, pairs in requested.items():
            try:
                answers |= self._drawn({name: pairs}, policy)
            except Exception as error:
                failed[name] = error
        return answers, failed

    def _drawn(self, requested: Mapping[str, Sequence[Pair]], policy: str | None) -> dict[Prompt, Draws]:
        """Every answer to each prompt; only the first if nobody but a judge reads them."""
        number = self.settings.draws if self._wants("check", "rules", "answers") else 1
        draws = [self.generated(requested, policy, draw) for draw in range(number)]
        return {prompt: tuple(answers[prompt] for answers in draws) for prompt in draws[0]}

    def generated(
        self, requested: Mapping[str, Sequence[Pair]], policy: str | None, draw: int = 0
    ) -> Mapping[Prompt, str]:
        """Answers of the model as it is now, or of the base (``policy`` None), to the prompts of each task's pairs."""
        prompts = [pair.prompt for pairs in requested.values() for pair in pairs]
        if policy is not None:
            return self._answers(prompts, policy, draw)
        with self.runtime.base_policy():
            return self._answers(prompts, self.base, draw)

    def general(self, passages: Sequence[str], policy: str | None) -> GeneralText:
        """Loss on general text, of the model as it is now or of the base (``policy`` None)."""
        size = self.settings.per_device_eval_batch_size
        if policy is None:
            with self.runtime.base_policy():
                return general_loss(self.runtime, passages, batch_size=size, max_length=self.max_length)
        return general_loss(self.runtime, passages, batch_size=size, max_length=self.max_length)

    def _wants(self, *measured_on: str) -> list[str]:
        """The requested metrics that are measured on these things, in the order of the tables."""
        requested = [*self.settings.metrics, *(["judge"] if self.judge is not None else [])]
        return [name for name, metric in METRICS.items() if name in requested and metric.measured_on in measured_on]

    def _of_answers(self, task: HeldOut) -> list[str]:
        """The requested metrics that are measured on a task's generated answers."""
        checked = ["check", *(["rules"] if task.rules else [])] if task.check is not None else []
        return self._wants("answers", "judge", *checked)

    def _answered_pairs(self, task: HeldOut) -> Sequence[Pair]:
        """Held-out pairs whose prompts get a generated answer."""
        if not self.settings.generate or not self._of_answers(task):
            return ()
        return task.pairs[: self.settings.prompts]

    def _answers(self, prompts: Sequence[Prompt], policy: str, draw: int) -> Mapping[Prompt, str]:
        settings = self.settings
        sampling = None
        if settings.do_sample:
            sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, draw_seed(self.seed, draw))
        return self.answers.answers(
            self.runtime,
            prompts,
            policy,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.per_device_eval_batch_size,
            sampling=sampling,
        )

    def _score_pairs(self, task: HeldOut, policy: str | None, scores: Scores) -> None:
        try:
            first = task.pairs[: self.settings.pairs]
            pairs, _ = tokenize_pairs(self.runtime.tokenizer, first, self.max_length, self.runtime.reasoning)
            outcomes = preference_outcomes(self._margins(pairs, policy)) if pairs else {}
            for metric in self._wants("pairs") if pairs else ():
                scores.add(metric, task.name, outcomes[metric])
        except Exception as error:
            for metric in self._wants("pairs"):
                scores.fail(metric, task.name, error)

    def _margins(self, pairs: Sequence[TokenizedPair], policy: str | None) -> list[float]:
        if policy is None:
            return [0.0] * len(pairs)  # the base against itself
        size = self.settings.per_device_eval_batch_size
        with self.runtime.base_policy():
            reference = self.reference.logps(self.runtime, pairs, self.base, size)
        return held_out_margins(self.runtime, pairs, reference, beta=self.beta, batch_size=size)

    def _score_answers(self, task: HeldOut, pairs: Sequence[Pair], answers: Sequence[Draws], scores: Scores) -> None:
        pairs = [plain_pair(self.runtime.tokenizer, pair, self.runtime.reasoning) for pair in pairs]
        for metric in self._of_answers(task):
            if metric == "judge":  # an error that stops the judge stops everything: it would hit every question
                assert self.judge is not None
                marks = self.judge(task, pairs, [draws[0] for draws in answers])
                scores.add_marks(metric, task.name, marks, self.max_missing)
                continue
            try:
                self._score_metric(metric, task, answers, [pair.chosen for pair in pairs], scores)
            except Exception as error:
                scores.fail(metric, task.name, error)

    def _score_metric(
        self, metric: str, task: HeldOut, answers: Sequence[Draws], chosen: Sequence[str], scores: Scores
    ) -> None:
        both = list(zip(answers, chosen, strict=True))
        if metric == "bleu":  # of the whole corpus, not a mean over examples
            corpus = [(answer, reference) for draws, reference in both for answer in draws]
            value = bleu([answer for answer, _ in corpus], [reference for _, reference in corpus])
            scores.add_value(metric, task.name, value, len(answers))
            return
        each = PER_ANSWER[metric] if metric in PER_ANSWER else _keeps(_asked_for(metric, task))
        scores.add(metric, task.name, [fmean(each(answer, reference) for answer in draws) for draws, reference in both])


def draw_seed(seed: int, draw: int) -> int:
    """The seed of one of several answers to a prompt; the first one's is ``seed`` itself.

    Example:
        >>> draw_seed(42, 0), draw_seed(42, 1) == draw_seed(42, 1) != draw_seed(42, 2)
        (42, True)
    """
    return xxhash.xxh64(f"{seed} draw {draw}".encode()).intdigest() >> 1 if draw else seed


def _asked_for(metric: str, task: HeldOut) -> tuple[AnswerCheck, ...]:
    """The checks that an answer must meet to count in a metric of rules."""
    if metric == JOINT:
        return task.rules
    assert metric == "adherence" and task.check is not None
    return (task.check,)


def _keeps(checks: Sequence[AnswerCheck]) -> Callable[[str, str], float]:
    """Adherence of an answer: 1 if it meets every check, else 0."""
    return lambda answer, _: float(all(check.holds(answer) for check in checks))


def _answer_row(prompt: Prompt, answer: str, tasks: Sequence[HeldOut]) -> dict[str, Any]:
    """An answer, the tasks it belongs to, and the verdict of each of their checks."""
    verdicts = {task.name: task.check.holds(answer) for task in tasks if task.check is not None}
    return {
        "prompt": [message._asdict() for message in prompt],
        "answer": answer,
        "tasks": [task.name for task in tasks],
        "holds": verdicts,
    }


def general_record(
    evaluator: Evaluator, passages: Sequence[str], policy: str, base: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Loss and perplexity on general text of the current model, and of the base.

    Args:
        evaluator: The evaluator.
        passages: The text.
        policy: Fingerprint of the adapter as it is now.
        base: The base's figures, if known; None computes them.
    """
    now = evaluator.general(passages, policy)
    if base is None:
        of_base = evaluator.general(passages, None)
        base = {"loss": of_base.loss, "perplexity": of_base.perplexity}
    return {
        "loss": now.loss,
        "perplexity": now.perplexity,
        "tokens": now.tokens,
        "text": passages_hash(passages),
        "base": dict(base),
    }
