"""Single-task learning: every task on a model of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from lifealign.methods.base import Method, StepContext
from lifealign.model.adapter import reset_adapter


class STL(Method):
    """Single-task learning: each task starts from an untrained adapter, so that none can disturb another.

    The result is one model per task, each scored on its own task: what could be achieved if the task of every prompt
    were known. Nothing is forgotten, by construction, so there is no backward transfer to report.
    """

    key: ClassVar[str] = "stl"
    title: ClassVar[str] = "STL"
    indivisible: ClassVar[str] = "each task has a model of its own"
    memory_use: ClassVar[Literal["mixed", "held", "none"]] = "none"
    one_model: ClassVar[bool] = False

    def attach(self, context: StepContext) -> None:
        """Starts with a new adapter, whatever came before."""
        reset_adapter(context.runtime.model, context.seed)
