"""O-LoRA: a new adapter for every task, orthogonal to the frozen ones of earlier tasks."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, PrivateAttr
from torch import Tensor

from lifealign.memory.update import Adapter
from lifealign.methods.base import Method, Paper, StepContext
from lifealign.model.adapter import freeze_adapter, lora_rank
from lifealign.training.moments import StageContext
from lifealign.training.objectives import BatchOutcome


class OLoRA(Method):
    r"""Orthogonal LoRA: each task trains an adapter of its own beside the frozen, still active ones of earlier tasks.

    In both stages ``strength`` times :math:`\sum_{i<t}\sum_{jk} |A_t A_i^\top|_{jk}`, over all modules, is added to the
    loss, which makes the rows of the new ``lora_A`` orthogonal to those of the old ones. All adapters together equal
    one plain adapter whose rank is the sum of theirs, and a version of the life stores that one.

    Attributes:
        strength: λ₁ of the paper, at least 0; with 0 earlier adapters are frozen, without a penalty.
    """

    key: ClassVar[str] = "olora"
    title: ClassVar[str] = "O-LoRA"
    indivisible: ClassVar[str] = "a version stacks the adapters of all its tasks, so its rank grows"
    paper: ClassVar[Paper | None] = Paper(
        "Orthogonal Subspace Learning for Language Model Continual Learning",
        "Findings of EMNLP 2023",
        "https://arxiv.org/abs/2310.14152",
    )

    strength: float = Field(0.5, ge=0)  # the paper's released scripts

    _rank: int = PrivateAttr(0)
    _frozen: Adapter = PrivateAttr(default_factory=dict)

    def attach(self, context: StepContext) -> None:
        """Freezes everything learnt so far and adds a new adapter beside it; the first task has nothing to freeze."""
        model = context.runtime.model
        if context.step.index:
            rank = lora_rank(model) // context.step.index  # after t steps the life's adapter has t times the rank
            device = context.runtime.device
            frozen = freeze_adapter(model, rank, context.seed)
            self._frozen = {name: factor.to(device) for name, factor in frozen.items() if ".lora_A." in name}

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        """How much the new adapter's input directions overlap those of earlier ones."""
        if not self._frozen or self.strength == 0:
            return None
        overlaps = [overlap(context.parameters[name], frozen) for name, frozen in self._frozen.items()]
        return self.strength * torch.stack(overlaps).sum()


def overlap(new: Float[Tensor, "r width"], frozen: Float[Tensor, "ranks width"]) -> Float[Tensor, ""]:
    r"""Sum of the absolute products of all rows, :math:`\sum_{jk} |A A_i^\top|_{jk}`; 0 if they are orthogonal.

    Example:
        >>> overlap(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        tensor(3.)
    """
    return (new @ frozen.T).abs().sum()
