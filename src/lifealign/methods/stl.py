"""Single-task learning: every task on a model of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from lifealign.methods.base import Method, StepContext
from lifealign.model.adapter import reset_adapter


class STL(Method):
    """Single-task learning: each task from the untrained adapter, so that none can disturb another.

    What comes out is one model per task, each scored on its own task: what could be had if the task were known when a
    question is asked. Nothing is forgotten, by construction, so there is no backward transfer to speak of.
    """

    key: ClassVar[str] = "stl"
    title: ClassVar[str] = "STL"
    memory_use: ClassVar[Literal["mixed", "held", "none"]] = "none"
    one_model: ClassVar[bool] = False

    def attach(self, context: StepContext) -> None:
        """Begins with a new adapter, whatever came before."""
        reset_adapter(context.runtime.model, context.seed)
