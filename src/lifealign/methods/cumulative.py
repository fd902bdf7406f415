"""Cumulative alignment: what earlier tasks taught chooses what is imitated while a new one is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr

from lifealign.memory.pattern import Pattern, agreement, draw, learn_pattern, tilt
from lifealign.methods.base import Paper, Segment, StepContext
from lifealign.methods.lifealign import LifeAlign
from lifealign.methods.own_answers import sample_own_answers, some_pairs
from lifealign.model.features import answer_features
from lifealign.model.tokens import TokenizedPair
from lifealign.training.moments import MethodState
from lifealign.training.objectives import StageName


class Cumulative(LifeAlign):
    r"""LifeAlign that retrieves its patterns while it learns a new one.

    Imitation forgets by its very optimum: a new task's chosen answers keep an earlier rule only as often as whoever
    wrote them happened to, and that share is what SFT ends at. So every task is also kept as a pattern, a direction in
    the features of the frozen base that tells its chosen answers from its rejected ones
    (:mod:`lifealign.memory.pattern`), and what is imitated is tilted by all of them:

    1. *Demonstrations chosen by memory*: SFT draws from the step's pairs, replayed ones included, with probabilities
       :math:`p(y) \propto \left[\prod_j \sigma(r_j(y))\right]^{1/\tau}`, as many as there are; :math:`\tau \ge 1` is
       the least that leaves an effective share ``demonstrations`` of them.
    2. The preference stage, as in LifeAlign.
    3. *Rehearsal*, ``rehearsals`` times: the model answers ``rehearsed_prompts`` of the task's prompts ``own_answers``
       times each. Of these answers and the given one, that on which all patterns agree best is kept for each prompt,
       and of the kept ones ``rehearsal_draws`` a prompt, tilted in the same way to an effective half, are imitated
       with the settings of SFT.

    Then consolidation, as in LifeAlign. A pattern whose rule a later task supersedes is dropped.

    Attributes:
        demonstrations: Least effective share of the pairs that SFT imitates, in (0, 1]; 1 takes each of them once.
        own_answers: Answers to each rehearsed prompt, at least 0; 0 rehearses nothing.
        rehearsals: Number of rehearsals after a task, at least 1; each has prompts of its own as far as there are any.
        rehearsed_prompts: Most prompts in one rehearsal, at least 1.
        rehearsal_draws: Number of answers that are imitated for each rehearsed prompt, on average, at least 1.
        temperature: Divides the logits when own answers are sampled.

    With ``demonstrations`` 1 and ``own_answers`` 0 this is LifeAlign, bit for bit.
    """

    key: ClassVar[str] = "cumulative"
    title: ClassVar[str] = "Cumulative"
    paper: ClassVar[Paper | None] = None

    demonstrations: float = Field(0.15, gt=0, le=1)  # ours, screened on dev pairs (docs/log.md)
    own_answers: int = Field(4, ge=0)  # ours, screened on dev pairs (docs/log.md)
    rehearsals: int = Field(2, ge=1)  # ours, screened on dev pairs (docs/log.md)
    rehearsed_prompts: int = Field(48, ge=1)  # ours
    rehearsal_draws: int = Field(2, ge=1)  # ours
    temperature: float = Field(1.0, gt=0)  # ours; answers as likely as they are

    _patterns: dict[str, Pattern] = PrivateAttr(default_factory=dict)
    _features: dict[str, torch.Tensor] = PrivateAttr(default_factory=dict)  # of the step's answers, by pair
    _rehearsals_done: int = PrivateAttr(0)  # in this step
    _rehearsed_own: float | None = PrivateAttr(None)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """LifeAlign's, the last with the rehearsals at its end."""
        *before, last = super().segments
        if not self.own_answers:
            return (*before, last)
        rehearsals: list[StageName] = ["rehearsal"] * self.rehearsals
        return (*before, Segment(last.label, (*last.stages, *rehearsals), last.consolidated))

    @property
    def needs_sft(self) -> bool:
        """Whether patterns decide anything: what they decide is what is imitated."""
        return self.demonstrations < 1 or self.own_answers > 0

    def attach(self, context: StepContext) -> None:
        """Learns the patterns of the step's tasks, and drops those that they supersede."""
        super().attach(context)
        self._rehearsals_done, self._features = 0, {}
        if not self.needs_sft:
            return
        for task in context.step.tasks:
            for name in task.supersedes:
                self._patterns.pop(name, None)
            own = {pair.key for pair in task.train}
            pairs = [pair for pair in context.pairs if pair.key in own]
            if pairs:
                chosen, rejected = answer_features(context.runtime, pairs, batch_size=context.batch_size)
                self._patterns[task.name] = learn_pattern(chosen, rejected)
                self._features |= {pair.key: row for pair, row in zip(pairs, chosen, strict=True)}

    def choose_pairs(self, stage: StageName, context: StepContext) -> Sequence[TokenizedPair]:
        """Pairs of the step as far as the patterns agree with them; own answers for the rehearsal."""
        if stage == "sft" and self.demonstrations < 1:
            return self._drawn(context, context.pairs, self.demonstrations, len(context.pairs))
        if stage == "rehearsal":
            return self._best_answers(context)
        return context.pairs

    def _best_answers(self, context: StepContext) -> Sequence[TokenizedPair]:
        """For each of some prompts the answer that the patterns agree with best, drawn by how far they agree."""
        given = {pair.key: pair for pair in context.pairs}
        asked = some_pairs(
            [pair for task in context.step.tasks for pair in task.train if pair.key in given],
            self.rehearsed_prompts,
            context.seed,
            skip=self.rehearsed_prompts * self._rehearsals_done,
        )
        self._rehearsals_done += 1
        own = sample_own_answers(
            context.runtime,
            asked,
            [given[pair.key] for pair in asked],
            draws=self.own_answers,
            temperature=self.temperature,
            batch_size=context.batch_size,
            seed=context.seed + self._rehearsals_done,
        )
        candidates = [[given[pair.key], *answers] for pair, answers in zip(asked, own, strict=True)]
        scores = self._agreement(context, [one for each in candidates for one in each]).split(
            list(map(len, candidates))
        )
        best = [int(score.argmax()) for score in scores]
        self._rehearsed_own = sum(index > 0 for index in best) / len(best)
        kept = [each[index] for each, index in zip(candidates, best, strict=True)]
        return self._drawn(context, kept, 0.5, self.rehearsal_draws * len(kept))

    def _drawn(
        self, context: StepContext, pairs: Sequence[TokenizedPair], share: float, number: int
    ) -> list[TokenizedPair]:
        probabilities = tilt(self._agreement(context, pairs), share * len(pairs))
        return [pairs[index] for index in draw(probabilities, number, torch.Generator().manual_seed(context.seed))]

    def _agreement(self, context: StepContext, pairs: Sequence[TokenizedPair]) -> torch.Tensor:
        new = [pair for pair in pairs if pair.key not in self._features]
        if new:
            (features,) = answer_features(context.runtime, new, ("chosen",), batch_size=context.batch_size)
            self._features |= {pair.key: row for pair, row in zip(new, features, strict=True)}
        return agreement(list(self._patterns.values()), torch.stack([self._features[pair.key] for pair in pairs]))

    def progress(self) -> MethodState:
        """How many rehearsals there were; the answers to rehearse are sampled again from the model before each."""
        return MethodState(values={"rehearsals": self._rehearsals_done, "own_answers_rehearsed": self._rehearsed_own})

    def load_progress(self, state: MethodState) -> None:
        """Restores it."""
        self._rehearsals_done = state.values["rehearsals"]
        self._rehearsed_own = state.values["own_answers_rehearsed"]

    def state(self) -> MethodState:
        """The patterns, a direction and two numbers each; and the share of own answers among those rehearsed last."""
        tensors = {f"{name}.direction": pattern.direction for name, pattern in self._patterns.items()}
        figures = {
            name: {"middle": pattern.middle, "accuracy": pattern.accuracy} for name, pattern in self._patterns.items()
        }
        return MethodState(tensors, {"patterns": figures, "own_answers_rehearsed": self._rehearsed_own})

    def load_state(self, state: MethodState) -> None:
        """Restores them."""
        self._rehearsed_own = state.values.get("own_answers_rehearsed")
        self._patterns = {
            name: Pattern(state.tensors[f"{name}.direction"], figures["middle"], figures["accuracy"])
            for name, figures in state.values.get("patterns", {}).items()
        }
