"""What a step does to the model: attach, train, consolidate, and read what was learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lifealign.errors import TrainingError
from lifealign.life.disk.memory import memory_tensors
from lifealign.life.mix import Examples
from lifealign.life.settings import derive_seed
from lifealign.life.workspace import Workspace
from lifealign.memory.long_term import Consolidation
from lifealign.memory.update import Adapter
from lifealign.methods.base import Segment, Step, StepContext
from lifealign.model.adapter import adapter_fingerprint, plain_adapter, read_adapter
from lifealign.model.tokens import TokenizedPair
from lifealign.training.listeners import StageListener
from lifealign.training.objectives import Logps, Objective, PreferenceObjective, StageName, SupervisedObjective
from lifealign.training.stage import train_stage
from lifealign.training.stage_state import Keeper, LogRow


@dataclass(frozen=True)
class Learnt:
    """What a step has learnt, on the CPU: this is committed, whatever happens afterwards.

    Attributes:
        adapter: The adapter.
        tensors: Tensors of the method's state.
        values: Values of the method's state.
        refined: Refined updates, in the form in which they are stored.
        consolidated: The result of consolidating each update, by the label of its segment.
        seconds: Time from the beginning of the step to the end of learning.
    """

    adapter: Adapter
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    refined: Mapping[str, Tensor]
    consolidated: Mapping[str, Consolidation]
    seconds: float


def step_seed(work: Workspace, step: Step, purpose: str = "") -> int:
    """The seed of a step, or of one purpose within it."""
    seed = derive_seed(work.config.seed, step.name)
    return derive_seed(seed, purpose) if purpose else seed


def attach(work: Workspace, step: Step, examples: Examples) -> StepContext:
    """Lets the method prepare the model, and looks up the reference for every pair whose loss it may compute.

    Returns:
        The step's context for the method, with the objective of each stage that is switched on; that of preferences
        follows in :func:`begin` where its reference is the policy at the start of its stage.
    """
    context = StepContext(
        step,
        work.runtime,
        examples.pairs,
        examples.memories,
        {},
        lambda pairs: _policy_logps(work, pairs),
        step_seed(work, step, "method"),
        work.config.evaluation.per_device_eval_batch_size,
    )
    work.method.attach(context)
    objectives: dict[StageName, Objective] = {}
    if work.config.sft.num_train_epochs:
        objectives["sft"] = SupervisedObjective()
    if work.config.preference.num_train_epochs and work.config.preference.reference != "stage_start":
        objectives["preference"] = _preference(work, context)
    if any("rehearsal" in segment.stages for segment in work.method.segments):
        objectives["rehearsal"] = SupervisedObjective("rehearsal")
    return replace(context, objectives=objectives)


def begin(work: Workspace, context: StepContext, stage: StageName) -> StepContext:
    """The context as a stage begins: with its objective, where that needs the policy as it is now."""
    preference = work.config.preference
    if stage == "preference" and preference.num_train_epochs and preference.reference == "stage_start":
        return replace(context, objectives={**context.objectives, stage: _preference(work, context)})
    return context


def train(
    work: Workspace,
    context: StepContext,
    stage: StageName,
    listeners: Sequence[StageListener],
    keeper: Keeper | None = None,
) -> list[LogRow]:
    """Runs one stage and returns its log, which is empty if the stage is switched off."""
    if stage not in context.objectives:
        return []
    return train_stage(
        work.runtime,
        work.method.choose_pairs(stage, context),
        context.objectives[stage],
        work.config.preference if stage == "preference" else work.config.sft,
        work.method,
        context.step.label,
        seed=step_seed(work, context.step, stage),
        listeners=listeners,
        keeper=keeper,
    )


def consolidate(
    work: Workspace, step: Step, segment: Segment, update: Adapter, logs: Mapping[StageName, Sequence[LogRow]]
) -> Consolidation | None:
    """Consolidates a short-term update and remembers it; if that fails, the raw update is not used either.

    Args:
        work: The life.
        step: The step of the lifelong loop.
        segment: The stages that produced the update.
        update: The short-term update.
        logs: Log rows of the optimizer steps so far, by stage.

    Returns:
        The refined update with its figures, or None if the method keeps this segment's update as it is.

    Raises:
        TrainingError: If consolidation fails.
    """
    if not segment.consolidated:
        return None
    try:
        refined = work.method.consolidate(update, work.memory, step)
    except (torch.linalg.LinAlgError, ValueError) as error:  # type: ignore[attr-defined]
        raise TrainingError(
            f"consolidation failed: {error}",
            task=step.label,
            stage=segment.label,
            step=len(logs[segment.stages[-1]]),
            way_out="The update was not kept, neither refined nor raw",
        ) from error
    work.memory.remember(refined.update)
    return refined


def remember(
    work: Workspace, context: StepContext, consolidated: Mapping[str, Consolidation], seconds: float
) -> Learnt:
    """Lets the method take what it needs from the finished model; learning ends here, scoring begins.

    Args:
        work: The life.
        context: The step's context for the method.
        consolidated: The result of consolidating each update.
        seconds: Time since the step began.
    """
    work.method.remember(context)
    state = work.method.state()
    tensors = {name: tensor.detach().cpu() for name, tensor in state.tensors.items()}
    refined = memory_tensors({label: result.update for label, result in consolidated.items()})
    return Learnt(read_adapter(work.runtime.model), tensors, state.values, refined, consolidated, seconds)


def _policy_logps(work: Workspace, pairs: Sequence[TokenizedPair]) -> Logps:
    """Log-probabilities under the model as it is now."""
    policy = f"{work.base_fingerprint} {adapter_fingerprint(plain_adapter(work.runtime.model))}"
    return work.reference.logps(work.runtime, pairs, policy, work.config.evaluation.per_device_eval_batch_size)


def _preference(work: Workspace, context: StepContext) -> PreferenceObjective:
    """DPO against the reference of the settings: the base, or the policy as it is now."""
    asked = list(context.pairs)
    if work.method.memory_use == "held":
        asked += [pair for remembered in context.memories.values() for pair in remembered]
    return PreferenceObjective(work.config.preference.beta, _reference(work, asked))


def _reference(work: Workspace, pairs: Sequence[TokenizedPair]) -> Logps:
    """Log-probabilities under the base, or under the policy as it is now."""
    if work.config.preference.reference != "base":
        return _policy_logps(work, pairs)
    with work.runtime.base_policy():
        size = work.config.evaluation.per_device_eval_batch_size
        return work.reference.logps(work.runtime, pairs, work.base_fingerprint, size)
