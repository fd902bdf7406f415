"""One optimisation stage: the same loop for SFT and preference, for every method."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_cosine_schedule_with_warmup

from lifealign.errors import TrainingError
from lifealign.model.adapter import trainable_parameters
from lifealign.model.runtime import Runtime
from lifealign.model.seeded import seeded
from lifealign.model.tokens import TokenizedPair
from lifealign.training.listeners import StageListener
from lifealign.training.mastery import Mastery
from lifealign.training.moments import Moments, StageContext
from lifealign.training.objectives import Objective, PreferenceObjective
from lifealign.training.settings import PreferenceConfig, StageConfig
from lifealign.training.stage_state import Keeper, LogRow, restore, stage_state


@dataclass(frozen=True)
class OptimizerBatch:
    """The pairs behind one optimizer step, the shortest first.

    Attributes:
        epoch: Epochs trained once the step is taken.
        pairs: The pairs.
    """

    epoch: float
    pairs: list[TokenizedPair]


def plan_batches(pairs: Sequence[TokenizedPair], settings: StageConfig, seed: int) -> list[OptimizerBatch]:
    """Decides every batch of a stage before it starts: a pure function of its arguments, so a stage can be continued.

    Each epoch is a fresh permutation cut into optimizer batches of ``per_device_train_batch_size`` times
    ``gradient_accumulation_steps``; the last one of an epoch may be smaller. Inside an optimizer batch, pairs are
    ordered by length, so that micro-batches of neighbours need little padding. This changes nothing else, because
    losses are divided by the size of the whole optimizer batch.

    Args:
        pairs: Training pairs.
        settings: Epochs and batch sizes.
        seed: Seed of the permutations.
    """
    whole = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    shuffle = random.Random(seed).sample
    batches: list[OptimizerBatch] = []
    for epoch in range(settings.num_train_epochs):
        order = shuffle(range(len(pairs)), len(pairs))
        for start in range(0, len(order), whole):
            chosen = sorted((pairs[index] for index in order[start : start + whole]), key=len)
            batches.append(OptimizerBatch(epoch + min(1.0, (start + whole) / len(order)), chosen))
    return batches


def train_stage(
    runtime: Runtime,
    pairs: Sequence[TokenizedPair],
    objective: Objective,
    settings: StageConfig,
    method: Moments,
    task: str,
    *,
    seed: int,
    listeners: Sequence[StageListener] = (),
    keeper: Keeper | None = None,
) -> list[LogRow]:
    """Trains the active adapter on pairs under one objective; optimiser and schedule start fresh.

    Args:
        runtime: Model and device.
        pairs: Training pairs, replayed ones included.
        objective: SFT or preference.
        settings: Learning rate, epochs, batch sizes and the like of this stage.
        method: The method, whose moments are called during the stage.
        task: Name of what is learnt, for messages.
        seed: Determines the order of pairs and the dropout.
        listeners: Receive the figures of each optimizer step.
        keeper: Keeps the stage's state after each optimizer step, and may have one to go on from.

    Returns:
        One row per optimizer step: ``loss`` (what was minimised: weighted, with the penalty), ``grad_norm`` (before
        clipping), ``learning_rate``; ``penalty`` if the method has one, and the figures that the method adds; in the
        preference stage ``rewards/margins`` and ``rewards/accuracies``. Where mastered pairs are skipped, ``skipped``
        is the share of the step's pairs that took no backward pass; the margins are then those that were last seen. A
        batch of mastered pairs only takes no optimizer step: its loss and gradient norm are 0, and neither weights nor
        moments change, only the schedule goes on.

    Raises:
        TrainingError: If a loss or gradient is NaN or infinite; the message names task, stage and optimizer step, and
            the step is not taken.
    """
    batches = plan_batches(pairs, settings, seed)
    if not batches:
        return []
    model = runtime.model
    parameters = trainable_parameters(model)
    for parameter in parameters.values():
        parameter.grad = None  # a stage that failed in this process may have left gradients
    warmup = min(math.ceil(settings.warmup_ratio * len(batches)), len(batches) - 1)  # a single step has the full rate
    rate = settings.learning_rate * method.learning_rate_factor
    optimizer = AdamW(parameters.values(), lr=rate, weight_decay=settings.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, len(batches))
    mastery = None
    if isinstance(settings, PreferenceConfig) and settings.skip_mastered:
        assert isinstance(objective, PreferenceObjective)
        mastery = Mastery(objective, method, settings.skip_mastered)
    stage = _Stage(runtime, objective, method, parameters, settings.per_device_train_batch_size, mastery)

    log: list[LogRow] = []
    model.train()
    with (
        seeded(seed, runtime.device),
        _gradient_checkpointing(runtime, settings.gradient_checkpointing),
        nullcontext() if keeper is None else keeper.running(),
    ):
        everything = parameters, optimizer, mastery, method, runtime.device
        if keeper is not None and keeper.resumed is not None:
            log = restore(keeper.resumed, *everything)
            for _ in log:
                _advance(schedule)
        for number, batch in enumerate(batches[len(log) :], start=len(log)):
            figures = _Figures()
            learning = stage.learning(batch, figures)
            for loss in stage.losses(batch, learning, figures):
                _require_finite(loss, "loss", task, objective, number)
                loss.backward()
            norm = torch.zeros(())
            if learning:
                method.edit_gradients(stage.context)
                norm = clip_grad_norm_(parameters.values(), settings.max_grad_norm)
            _require_finite(norm, "gradient norm", task, objective, number)
            row = {"epoch": batch.epoch, "grad_norm": float(norm), "learning_rate": schedule.get_last_lr()[0]}
            if learning:
                optimizer.step()
                optimizer.zero_grad()
            _advance(schedule)
            log.append(figures.row() | row | stage.context.figures)
            stage.context.figures.clear()
            for listener in listeners:
                listener.update(objective.stage, number + 1, len(batches), log[-1])
            if keeper is not None:
                keeper.keep(partial(stage_state, log, *everything))
    model.eval()
    return log


@dataclass
class _Stage:
    """Turns an optimizer batch into losses to differentiate."""

    runtime: Runtime
    objective: Objective
    method: Moments
    parameters: dict[str, torch.nn.Parameter]
    micro: int
    mastery: Mastery | None

    def __post_init__(self) -> None:
        self.context = StageContext(self.objective.stage, self.parameters, self.loss_of)

    def learning(self, batch: OptimizerBatch, figures: _Figures) -> list[TokenizedPair]:
        """The pairs of a batch that take part in its step: all, or those that are not mastered."""
        if self.mastery is None:
            return batch.pairs
        unseen = self.mastery.unseen(batch.pairs)
        if unseen:
            scores = self.runtime.score(unseen, self.micro)
            self.runtime.model.train()
            self.mastery.saw(unseen, torch.tensor(scores, device=self.runtime.device).T.flatten())
        learning = self.mastery.unmastered(batch.pairs)
        figures.skipped = 1 - len(learning) / len(batch.pairs)
        return learning

    def losses(self, batch: OptimizerBatch, learning: Sequence[TokenizedPair], figures: _Figures) -> Iterator[Tensor]:
        """One loss per round; they add up to the loss of the whole optimizer batch, mastered pairs left out."""
        denominator = sum(self.objective.size(pair) for pair in batch.pairs)
        for shares in self.runtime.rounds(learning, self.objective.completions, self.micro):
            part = [pair for share in shares for pair in share]
            logps = self.runtime.logps(shares, self.objective.completions)
            outcome = self.objective.outcome(logps, part)
            weights = self.method.example_weights(outcome)
            weighted = outcome.losses if weights is None else weights * outcome.losses
            loss = weighted.sum() / denominator
            penalty = self.method.penalty(outcome, self.context)
            if penalty is not None:
                penalty = penalty * (len(part) / len(batch.pairs))
                loss = loss + penalty
            figures.add(loss, penalty, outcome.margins)
            if self.mastery is not None:
                self.mastery.saw(part, logps)
            yield loss
        if self.mastery is not None:
            figures.margins = self.mastery.margins(batch.pairs)

    def loss_of(self, pairs: Sequence[TokenizedPair]) -> Tensor:
        """Mean unweighted loss of any pairs at the current parameters, with gradient."""
        logps = self.runtime.logps(self.runtime.shares(pairs), self.objective.completions)
        outcome = self.objective.outcome(logps, pairs)
        return outcome.losses.sum() / sum(self.objective.size(pair) for pair in pairs)


class _Figures:
    """Accumulates the figures of one optimizer batch."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.penalties: list[float] = []
        self.margins: list[float] = []
        self.skipped: float | None = None

    def add(self, loss: Tensor, penalty: Tensor | None, margins: Tensor | None) -> None:
        self.loss += float(loss.detach())
        if penalty is not None:
            self.penalties.append(float(penalty.detach()))
        if margins is not None:
            self.margins += margins.detach().tolist()

    def row(self) -> LogRow:
        row = {"loss": self.loss}
        if self.penalties:
            row["penalty"] = sum(self.penalties)
        if self.margins:
            row["rewards/margins"] = sum(self.margins) / len(self.margins)
            row["rewards/accuracies"] = sum(margin > 0 for margin in self.margins) / len(self.margins)
        if self.skipped is not None:
            row["skipped"] = self.skipped
        return row


def _advance(schedule: LRScheduler) -> None:
    """Moves the schedule on by one batch, also past one that took no optimizer step, which torch would warn of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        schedule.step()


@contextmanager
def _gradient_checkpointing(runtime: Runtime, wanted: bool) -> Iterator[None]:
    """Recomputes activations in the backward pass while the stage runs."""
    base: Any = runtime.model.get_base_model()
    if wanted:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        if wanted:
            base.gradient_checkpointing_disable()


def _require_finite(value: Tensor, name: str, task: str, objective: Objective, number: int) -> None:
    if not torch.isfinite(value).all():
        raise TrainingError(
            f"the {name} is {float(value.detach())}, expected a finite number",
            task=task,
            stage=objective.stage,
            step=number + 1,
            way_out="Nothing of this task was kept; a lower learning_rate or float32 may help",
        )
