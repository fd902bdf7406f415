"""Gradient episodic memory: to first order, no step may raise the loss on any earlier task's memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr

from lifealign.methods.base import Method, Paper, StepContext
from lifealign.methods.gradients import apply_gradient, gradient_vector, project_to_cone
from lifealign.model.tokens import TokenizedPair
from lifealign.training.moments import MethodState, StageContext


class GEM(Method):
    """Gradient episodic memory: the gradient is replaced by the nearest one that agrees with every memory's gradient.

    The memory is the replay store, as large as ER's, but held for this purpose and not mixed in. At every optimizer
    step, after accumulation and before clipping, the stage's own loss is differentiated on a batch of each earlier
    task's memory, at the current parameters and with respect to all of them at once; if the new gradient has a negative
    product with any of these gradients, a quadratic program with one unknown per task finds the replacement. The
    guarantee holds for plain gradient steps; it does not cover what AdamW does with the gradient afterwards.

    Attributes:
        margin: Lower bound of the program's unknowns, at least 0: above 0 the replacement leans towards the memories.
        memory_batch_size: Number of pairs of each earlier task per optimizer step.
    """

    key: ClassVar[str] = "gem"
    title: ClassVar[str] = "GEM"
    paper: ClassVar[Paper | None] = Paper(
        "Gradient Episodic Memory for Continual Learning", "NeurIPS 2017", "https://arxiv.org/abs/1706.08840"
    )
    replays: ClassVar[bool] = True
    memory_use: ClassVar[Literal["mixed", "held", "none"]] = "held"

    margin: float = Field(0.5, ge=0)  # paper's experiments, "memory strength"
    memory_batch_size: int = Field(4, ge=1)  # ours; the paper takes the whole memory, 256 examples of tiny images

    _memories: list[list[TokenizedPair]] = PrivateAttr(default_factory=list)
    _random: random.Random | None = PrivateAttr(None)

    def attach(self, context: StepContext) -> None:
        """Stores the memories of earlier tasks."""
        self._memories = [list(pairs) for pairs in context.memories.values() if pairs]
        self._random = random.Random(context.seed)

    def edit_gradients(self, context: StageContext) -> None:
        """Projects the gradient onto the cone in which no memory's loss grows."""
        if self._random is None or not self._memories:
            return
        batches = [draw(self._random, memory, self.memory_batch_size) for memory in self._memories]
        parameters = list(context.parameters.values())
        gradient = gradient_vector(parameters)
        memories = torch.stack(
            [gradient_vector(parameters, torch.autograd.grad(context.loss_of(batch), parameters)) for batch in batches]
        )
        context.figures["gem/violated"] = float((memories @ gradient < 0).float().mean())
        apply_gradient(parameters, project_to_cone(gradient, memories, self.margin))

    def progress(self) -> MethodState:
        """The generator that draws from the memories."""
        return random_progress(self._random)

    def load_progress(self, state: MethodState) -> None:
        """Restores it."""
        self._random = random_of(state)


def random_progress(source: random.Random | None) -> MethodState:
    """The state of a generator, in a form that JSON can hold."""
    if source is None:
        return MethodState()
    version, numbers, _ = source.getstate()  # the third is half of a pair of normal numbers, which nobody draws
    return MethodState(values={"random": [version, list(numbers)]})


def random_of(state: MethodState) -> random.Random | None:
    """The generator of a state that :func:`random_progress` returned."""
    if "random" not in state.values:
        return None
    version, numbers = state.values["random"]
    source = random.Random()
    source.setstate((version, tuple(numbers), None))
    return source


def draw(source: random.Random, memory: Sequence[TokenizedPair], size: int) -> list[TokenizedPair]:
    """A batch of distinct pairs from a memory; the whole memory if it is smaller."""
    return source.sample(list(memory), min(size, len(memory)))
