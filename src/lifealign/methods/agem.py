"""Averaged gradient episodic memory: one constraint on the mean over all memories instead of one per task."""

from __future__ import annotations

import random
from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr

from lifealign.methods.base import Method, Paper, StepContext
from lifealign.methods.gem import draw, random_of, random_progress
from lifealign.methods.gradients import apply_gradient, gradient_vector, project_to_halfspace
from lifealign.model.tokens import TokenizedPair
from lifealign.training.moments import MethodState, StageContext


class AGEM(Method):
    """A-GEM: like GEM, with a single memory gradient on a batch drawn from all earlier tasks' memories together.

    Attributes:
        memory_batch_size: Number of pairs from all memories together per optimizer step.
    """

    key: ClassVar[str] = "agem"
    title: ClassVar[str] = "A-GEM"
    paper: ClassVar[Paper | None] = Paper(
        "Efficient Lifelong Learning with A-GEM", "ICLR 2019", "https://arxiv.org/abs/1812.00420"
    )
    replays: ClassVar[bool] = True
    memory_use: ClassVar[Literal["mixed", "held", "none"]] = "held"

    memory_batch_size: int = Field(4, ge=1)  # ours, as GEM's per task; the paper takes 256 tiny images

    _memory: list[TokenizedPair] = PrivateAttr(default_factory=list)
    _random: random.Random | None = PrivateAttr(None)

    def attach(self, context: StepContext) -> None:
        """Gathers the memories of earlier tasks into one."""
        self._memory = [pair for pairs in context.memories.values() for pair in pairs]
        self._random = random.Random(context.seed)

    def edit_gradients(self, context: StageContext) -> None:
        """Removes from the gradient the part that would raise the loss on the memory batch."""
        if self._random is None or not self._memory:
            return
        parameters = list(context.parameters.values())
        loss = context.loss_of(draw(self._random, self._memory, self.memory_batch_size))
        memory = gradient_vector(parameters, torch.autograd.grad(loss, parameters))
        gradient = gradient_vector(parameters)
        context.figures["gem/violated"] = float(memory @ gradient < 0)
        apply_gradient(parameters, project_to_halfspace(gradient, memory))

    def progress(self) -> MethodState:
        """The generator that draws from the memories."""
        return random_progress(self._random)

    def load_progress(self, state: MethodState) -> None:
        """Restores it."""
        self._random = random_of(state)
