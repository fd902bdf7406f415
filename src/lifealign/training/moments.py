"""What a training stage asks of a method: three moments and a factor, so that one loop serves every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter

from lifealign.model.tokens import TokenizedPair
from lifealign.training.objectives import BatchOutcome, StageName


@dataclass(frozen=True)
class StageContext:
    """What the running stage offers to a method.

    Attributes:
        stage: ``sft``, ``preference`` or ``rehearsal``.
        parameters: Trainable parameters, by the names of an :data:`~lifealign.memory.update.Adapter`.
        loss_of: Mean loss of any pairs under this stage's objective at the current parameters, with gradient.
        figures: Numbers that the method adds to the log row of the optimizer step, by name.
    """

    stage: StageName
    parameters: Mapping[str, Parameter]
    loss_of: Callable[[Sequence[TokenizedPair]], Tensor]
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class MethodState:
    """What a method needs after a restart: tensors, and values that JSON can hold."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class Moments(Protocol):
    """The part of a method that runs inside a stage; see :class:`lifealign.methods.base.Method` for the whole."""

    @property
    def learning_rate_factor(self) -> float:
        """The factor that the configured learning rate is multiplied by."""

    def example_weights(self, outcome: BatchOutcome) -> Float[Tensor, " pairs"] | None:
        """Weights that multiply the losses of a micro-batch; None means 1."""

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        """A scalar that is added to the loss of the optimizer batch; None adds nothing."""

    def edit_gradients(self, context: StageContext) -> None:
        """Edits ``parameter.grad`` in place, after gradients are accumulated and before they are clipped."""

    def progress(self) -> MethodState:
        """What the method needs to go on within the stage, besides what it had when the step began."""

    def load_progress(self, state: MethodState) -> None:
        """Restores what :meth:`progress` returned."""
