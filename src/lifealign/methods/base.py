"""A method is six optional moments around one shared training stage, and a state that survives a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from peft import PeftModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import Parameter

from lifealign.data.task import Task, step_name
from lifealign.memory.adapter import Adapter
from lifealign.memory.long_term import Consolidation, LongTermMemory, consolidate
from lifealign.training.batches import TokenizedPair
from lifealign.training.objectives import BatchOutcome, StageName


@dataclass(frozen=True)
class Paper:
    """Where a method comes from; used in tables and model cards."""

    title: str
    venue: str
    url: str


@dataclass(frozen=True)
class Step:
    """One turn of the lifelong loop: usually one task.

    Attributes:
        index: Number of the step, from 0.
        tasks: Tasks learnt in it.
    """

    index: int
    tasks: tuple[Task, ...]

    @property
    def name(self) -> str:
        """Name of the step's folders, ``02-tone``."""
        return step_name(self.index, [task.name for task in self.tasks])


@dataclass(frozen=True)
class Segment:
    """Stages that share one short-term update, and whether that update is consolidated."""

    label: str
    stages: tuple[StageName, ...]
    consolidated: bool = True


@dataclass(frozen=True)
class StageContext:
    """What a method may ask of the running stage.

    Attributes:
        stage: ``sft`` or ``preference``.
        step: The step of the lifelong loop.
        parameters: Trainable parameters by name.
        loss_of: Mean loss of any pairs under this stage's objective at the current parameters, with gradient.
    """

    stage: StageName
    step: Step
    parameters: Mapping[str, Parameter]
    loss_of: Callable[[Sequence[TokenizedPair]], Tensor]


@dataclass
class MethodState:
    """What a method must find again after a restart: tensors, and values that JSON can hold."""

    tensors: Adapter = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class Method(BaseModel):
    """Sequential fine-tuning with nothing added; every other method overrides the moments it needs.

    The fields of a subclass are its options: the constructor, the YAML and the table of options are one thing. Moments,
    in the order in which they run:

    ==================  ==========================================================================================
    ``plan``            once per stream: which tasks are learnt together, in which order
    ``attach``          before a step: which adapter is trained
    ``example_weights``  after a forward pass: a weight for every pair's loss
    ``penalty``         after a forward pass: a term added to the loss
    ``edit_gradients``  once per optimizer step, after accumulation and before clipping
    ``consolidate``     after training: what of the short-term update is kept
    ==================  ==========================================================================================
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[Paper | None] = None
    replays: ClassVar[bool] = False
    """Whether pairs of earlier tasks are replayed when the configuration does not say."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Which stages share a short-term update: by default all of a task's."""
        return (Segment("task", ("sft", "preference")),)

    def plan(self, stream: Sequence[Task], first_index: int = 0) -> list[Step]:
        """Orders a stream into steps.

        Args:
            stream: Tasks in the order in which they are met.
            first_index: Index of the first step: how many steps the life has already lived.
        """
        return [Step(first_index + number, (task,)) for number, task in enumerate(stream)]

    def attach(self, model: PeftModel, step: Step) -> None:
        """Prepares the adapter that the step trains, in place; by default the one adapter of the life goes on."""

    def example_weights(self, outcome: BatchOutcome) -> Float[Tensor, " pairs"] | None:
        """Weights that multiply the losses of a micro-batch, with gradient if they have one; None for 1."""
        return None

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        """A scalar added to the loss of the optimizer batch, averaged over its micro-batches; None for nothing."""
        return None

    def edit_gradients(self, context: StageContext) -> None:
        """Edits ``parameter.grad`` in place, when gradients are whole and not yet clipped."""

    def consolidate(self, update: Adapter, memory: LongTermMemory, step: Step) -> Consolidation:
        """Decides what of a short-term update is kept; by default all of it, with the figures that describe it."""
        return consolidate(update, memory, energy_kept=1.0, overlap_kept=1.0)

    def state(self) -> MethodState:
        """What a restart needs; called after each step."""
        return MethodState()

    def load_state(self, state: MethodState) -> None:
        """Takes back what :meth:`state` returned."""
