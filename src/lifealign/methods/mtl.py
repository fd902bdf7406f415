"""Multi-task learning: all tasks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from lifealign.data.task import Task
from lifealign.errors import ConfigError
from lifealign.methods.base import Method, Step


class MTL(Method):
    """Multi-task learning, the upper bound of most comparisons: the pairs of all tasks, shuffled, in one step.

    Both stages see every task's pairs as often as a sequential method's do, so the number of optimizer steps is the
    same up to the rounding of the last batch of an epoch.
    """

    key: ClassVar[str] = "mtl"
    title: ClassVar[str] = "MTL"
    memory_use: ClassVar[Literal["mixed", "held", "none"]] = "none"

    def plan(self, stream: Sequence[Task], first_index: int = 0) -> list[Step]:
        """One step with all tasks.

        Raises:
            ConfigError: If the stream has fewer than two tasks, or the life has already learnt something.
        """
        if first_index:
            raise ConfigError(
                f"method mtl: found a life that has learnt {first_index} step(s), expected a new one, because mtl "
                "learns all tasks together; run the whole stream into a new life, or choose a method that learns one "
                "task after another"
            )
        if len(stream) < 2:
            raise ConfigError(
                f"method mtl: found a stream of {len(stream)} {'task' if stream else 'tasks'}, expected at least 2, "
                "because mtl learns all tasks together; run the whole stream, or choose a method that learns one task "
                "after another"
            )
        return [Step(0, tuple(stream))]
