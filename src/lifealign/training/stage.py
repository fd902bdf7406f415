"""One optimisation stage: the same loop for SFT and preference, for every method."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from transformers import get_cosine_schedule_with_warmup

from lifealign.errors import TrainingError
from lifealign.model.adapter import trainable_parameters
from lifealign.model.runtime import Runtime
from lifealign.model.seeded import seeded
from lifealign.model.tokens import TokenizedPair
from lifealign.training.listeners import StageListener
from lifealign.training.moments import Moments, StageContext
from lifealign.training.objectives import Objective
from lifealign.training.settings import StageConfig

LogRow = dict[str, float]


@dataclass(frozen=True)
class OptimizerBatch:
    """The pairs behind one optimizer step, already split into micro-batches of similar length."""

    epoch: float
    micro_batches: list[list[TokenizedPair]]


def plan_batches(pairs: Sequence[TokenizedPair], settings: StageConfig, seed: int) -> list[OptimizerBatch]:
    """Decides every batch of a stage before it starts: a pure function of its arguments, so a stage can be continued.

    Each epoch is a fresh permutation cut into optimizer batches of ``per_device_train_batch_size`` times
    ``gradient_accumulation_steps``; the last one of an epoch may be smaller. Inside an optimizer batch, pairs are
    ordered by length before they are split into micro-batches, which saves padding and changes nothing else, because
    losses are divided by the size of the whole optimizer batch.

    Args:
        pairs: Training pairs.
        settings: Epochs and batch sizes.
        seed: Seed of the permutations.
    """
    micro = settings.per_device_train_batch_size
    whole = micro * settings.gradient_accumulation_steps
    shuffle = random.Random(seed).sample
    batches: list[OptimizerBatch] = []
    for epoch in range(settings.num_train_epochs):
        order = shuffle(range(len(pairs)), len(pairs))
        for start in range(0, len(order), whole):
            chosen = sorted((pairs[index] for index in order[start : start + whole]), key=len)
            parts = [chosen[first : first + micro] for first in range(0, len(chosen), micro)]
            batches.append(OptimizerBatch(epoch + min(1.0, (start + whole) / len(order)), parts))
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

    Returns:
        One row per optimizer step: ``loss`` (what was minimised: weighted, with the penalty), ``grad_norm`` (before
        clipping), ``learning_rate``; ``penalty`` if the method has one, and the figures that the method adds; in the
        preference stage ``rewards/margins`` and ``rewards/accuracies``.

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
    stage = _Stage(runtime, objective, method, parameters)

    log: list[LogRow] = []
    model.train()
    with seeded(seed, runtime.device), _gradient_checkpointing(runtime, settings.gradient_checkpointing):
        for number, batch in enumerate(batches):
            figures = _Figures()
            for loss in stage.losses(batch, figures):
                _require_finite(loss, "loss", task, objective, number)
                loss.backward()
            method.edit_gradients(stage.context)
            norm = clip_grad_norm_(parameters.values(), settings.max_grad_norm)
            _require_finite(norm, "gradient norm", task, objective, number)
            row = {"epoch": batch.epoch, "grad_norm": float(norm), "learning_rate": schedule.get_last_lr()[0]}
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            log.append(figures.row() | row | stage.context.figures)
            stage.context.figures.clear()
            for listener in listeners:
                listener.update(objective.stage, number + 1, len(batches), log[-1])
    model.eval()
    return log


@dataclass
class _Stage:
    """Turns an optimizer batch into losses to differentiate."""

    runtime: Runtime
    objective: Objective
    method: Moments
    parameters: dict[str, torch.nn.Parameter]

    def __post_init__(self) -> None:
        self.context = StageContext(self.objective.stage, self.parameters, self.loss_of)

    def losses(self, batch: OptimizerBatch, figures: _Figures) -> Iterator[Tensor]:
        """One loss per micro-batch; they add up to the loss of the whole optimizer batch."""
        everything = [pair for part in batch.micro_batches for pair in part]
        denominator = sum(self.objective.size(pair) for pair in everything)
        for part in batch.micro_batches:
            outcome = self.objective.outcome(self.runtime.policy(self._batch(part)), part)
            weights = self.method.example_weights(outcome)
            weighted = outcome.losses if weights is None else weights * outcome.losses
            loss = weighted.sum() / denominator
            penalty = self.method.penalty(outcome, self.context)
            if penalty is not None:
                penalty = penalty * (len(part) / len(everything))
                loss = loss + penalty
            figures.add(loss, penalty, outcome.margins)
            yield loss

    def loss_of(self, pairs: Sequence[TokenizedPair]) -> Tensor:
        """Mean unweighted loss of any pairs at the current parameters, with gradient."""
        outcome = self.objective.outcome(self.runtime.policy(self._batch(pairs)), pairs)
        return outcome.losses.sum() / sum(self.objective.size(pair) for pair in pairs)

    def _batch(self, pairs: Sequence[TokenizedPair]) -> object:
        return self.runtime.batch(pairs, self.objective.completions)


class _Figures:
    """Accumulates the figures of one optimizer batch."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.penalties: list[float] = []
        self.margins: list[float] = []

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
        return row


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
