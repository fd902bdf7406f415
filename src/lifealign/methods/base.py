"""A method is a few optional moments around one shared training stage, and a state that survives a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from peft import PeftModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from lifealign.data.task import Task, step_name
from lifealign.memory.long_term import HISTORY_LIMIT, Consolidation, LongTermMemory, consolidate
from lifealign.memory.update import Adapter
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair
from lifealign.training.moments import MethodState, StageContext
from lifealign.training.objectives import BatchOutcome, Logps, Objective, StageName


@dataclass(frozen=True)
class Paper:
    """The paper that a method comes from; used in tables and model cards."""

    title: str
    venue: str
    url: str


@dataclass(frozen=True)
class Step:
    """One turn of the lifelong loop: usually one task.

    Attributes:
        index: Number of the step, from 0.
        tasks: The tasks learnt in it.
    """

    index: int
    tasks: tuple[Task, ...]

    @property
    def name(self) -> str:
        """Name of the step's folders, ``02-tone``."""
        return step_name(self.index, [task.name for task in self.tasks])

    @property
    def label(self) -> str:
        """Names of the step's tasks, for messages: ``tone``, or ``tone+refunds``."""
        return "+".join(task.name for task in self.tasks)


@dataclass(frozen=True)
class Segment:
    """Stages that share one short-term update, and whether that update is consolidated."""

    label: str
    stages: tuple[StageName, ...]
    consolidated: bool = True


@dataclass(frozen=True)
class StepContext:
    """What a step offers to a method, before its training (``attach``) and after it (``remember``).

    Attributes:
        step: The step of the lifelong loop.
        runtime: The model, and how to run it.
        pairs: Every pair that is trained on, replayed ones included.
        memories: Remembered pairs of each earlier task, oldest first, within the replay capacity.
        objectives: Stages that are switched on, in their order; empty before training.
        policy_logps: Log-probabilities of any pairs under the model as it is now; kept on disk by content.
        seed: Seed for what the method draws; the same whenever this step is run.
        batch_size: Pairs or prompts in one pass without gradient.
    """

    step: Step
    runtime: Runtime
    pairs: Sequence[TokenizedPair]
    memories: Mapping[str, Sequence[TokenizedPair]]
    objectives: Mapping[StageName, Objective]
    policy_logps: Callable[[Sequence[TokenizedPair]], Logps]
    seed: int
    batch_size: int

    @property
    def own_pairs(self) -> list[TokenizedPair]:
        """The pairs of the step's own tasks."""
        own = {pair.key for task in self.step.tasks for pair in task.train}
        return [pair for pair in self.pairs if pair.key in own]


class Method(BaseModel):
    """Sequential fine-tuning with nothing added; every other method overrides the moments it needs.

    The fields of a subclass are its options, in the constructor, in YAML and in the table of options alike. Moments, in
    the order in which they run:

    ==================  ==========================================================================================
    ``prepare``         once per loaded model: sets what is trained, if it is not LoRA
    ``plan``            once per stream: decides which tasks are learnt together, and in which order
    ``attach``          before a step's training: chooses the adapter to train, and looks up what it needs
    ``choose_pairs``    before a stage: decides which pairs it trains on
    ``example_weights``  after a forward pass: returns a weight for every pair's loss
    ``penalty``         after a forward pass: returns a term that is added to the loss
    ``edit_gradients``  once per optimizer step, after accumulation and before clipping
    ``consolidate``     after training: decides how much of the short-term update is kept
    ``remember``        after consolidation, before scoring: stores what is needed of the finished task
    ==================  ==========================================================================================
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[Paper | None] = None
    replays: ClassVar[bool] = False
    """Whether pairs of finished tasks are remembered when the configuration does not say."""
    memory_use: ClassVar[Literal["mixed", "held", "none"]] = "mixed"
    """What happens to remembered pairs: they are mixed into the training of later tasks, held for the method to use, or
    not used at all (``none``), in which case a configured replay is refused."""
    one_model: ClassVar[bool] = True
    """Whether one model answers for all tasks; otherwise each task is scored on the model that its own step made."""
    indivisible: ClassVar[str] = ""
    """Why a version is not the sum of what its steps have added to one adapter; empty if it is."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Which stages share a short-term update: by default all of a task's."""
        return (Segment("task", ("sft", "preference")),)

    @property
    def needs_sft(self) -> bool:
        """Whether the method has no effect without the stages that imitate, so that switching SFT off is refused."""
        return False

    @property
    def keeps_updates(self) -> bool:
        """Whether the refined updates of all tasks have to be kept, and so count as part of the method's state."""
        return False

    @property
    def updates_kept(self) -> int:
        """How many refined updates long-term memory keeps exactly before a sketch takes their place."""
        return HISTORY_LIMIT

    @property
    def learning_rate_factor(self) -> float:
        """Factor on the configured learning rates, for methods that train something other than LoRA factors."""
        return 1.0

    def prepare(self, model: PeftModel, seed: int) -> None:
        """Changes what is trained in a model, in place, before tensors are loaded; by default it is a LoRA adapter."""

    def plan(self, stream: Sequence[Task], first_index: int = 0) -> list[Step]:
        """Orders a stream into steps.

        Args:
            stream: Tasks in the order in which they are met.
            first_index: Index of the first step, which is the number of steps that the life has already learnt.

        Raises:
            ConfigError: If the method cannot learn such a stream.
        """
        return [Step(first_index + number, (task,)) for number, task in enumerate(stream)]

    def attach(self, context: StepContext) -> None:
        """Prepares the adapter that the step trains, in place; by default it continues with the life's one adapter."""

    def choose_pairs(self, stage: StageName, context: StepContext) -> Sequence[TokenizedPair]:
        """The pairs that a stage trains on, in any order and number; by default every pair of the step."""
        return context.pairs

    def example_weights(self, outcome: BatchOutcome) -> Float[Tensor, " pairs"] | None:
        """Weights that multiply the losses of a micro-batch; their gradient is used if they have one. None means 1."""
        return None

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        """A scalar that is added to the optimizer batch's loss, averaged over its micro-batches; None adds nothing."""
        return None

    def edit_gradients(self, context: StageContext) -> None:
        """Edits ``parameter.grad`` in place, after gradients are accumulated and before they are clipped."""

    def consolidate(self, update: Adapter, memory: LongTermMemory, step: Step) -> Consolidation:
        """Decides how much of a short-term update is kept; by default all of it, with figures that describe it."""
        return consolidate(update, memory, energy_kept=1.0, overlap_kept=1.0)

    def remember(self, context: StepContext) -> None:
        """Stores what later steps will need of the finished model."""

    def progress(self) -> MethodState:
        """Returns what going on within a step needs, besides what :meth:`attach` and :meth:`choose_pairs` make again.

        Called after optimizer steps, and at the beginning of each stage before its pairs are chosen.
        """
        return MethodState()

    def load_progress(self, state: MethodState) -> None:
        """Restores what :meth:`progress` returned."""

    def state(self) -> MethodState:
        """Returns what a restart needs; called after each step."""
        return MethodState()

    def load_state(self, state: MethodState) -> None:
        """Restores what :meth:`state` returned."""
