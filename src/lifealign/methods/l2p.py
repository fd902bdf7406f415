"""Learning to prompt: soft prompts in front of a frozen model, picked from a pool by the user's prompt."""

from __future__ import annotations

from typing import ClassVar, Self

from peft import PeftModel
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from lifealign.methods.base import Method, Paper, StepContext
from lifealign.model.prompt_pool import PromptPool, attach_pool, prompt_pool
from lifealign.training.moments import StageContext
from lifealign.training.objectives import BatchOutcome


class L2P(Method):
    """Learning to prompt: the model and its LoRA adapter stay frozen, and a shared pool of prompts is trained.

    The frozen model reads the user's prompt alone; the mean of its last hidden states picks the ``top_k`` soft prompts
    with the nearest keys. These are put in front of prompt and answer: the same for chosen and rejected, in both
    stages, in scoring and in generation. The reference is the model without them. ``pull_strength`` times the sum of
    1 - cosine between the query and the picked keys is added to the loss, which draws the keys to the queries that
    picked them.

    A version of such a life is not a PEFT adapter; it is loaded with ``Life.load``.

    Attributes:
        pool_size: Number of prompts in the pool.
        prompt_length: Number of virtual tokens in a prompt.
        top_k: Number of prompts picked for one user's prompt, at most ``pool_size``.
        pull_strength: λ of the paper, at least 0.
        rate_factor: Factor on the learning rates: soft prompts need higher ones than LoRA factors.
    """

    key: ClassVar[str] = "l2p"
    title: ClassVar[str] = "L2P"
    indivisible: ClassVar[str] = "a version is a pool of prompts, from which every input chooses"
    paper: ClassVar[Paper | None] = Paper(
        "Learning to Prompt for Continual Learning", "CVPR 2022", "https://arxiv.org/abs/2112.08654"
    )

    pool_size: int = Field(10, ge=1)  # paper, and released LifeAlign code
    prompt_length: int = Field(5, ge=1)  # paper, and released LifeAlign code
    top_k: int = Field(3, ge=1)  # released LifeAlign code; the paper's experiments take 5 or 4
    pull_strength: float = Field(0.5, ge=0)  # paper, and released LifeAlign code
    rate_factor: float = Field(10.0, gt=0)  # ours: 1e-4 becomes the 1e-3 from which prompts begin to learn

    _pool: PromptPool | None = PrivateAttr(None)
    _model: PeftModel | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _picks_from_the_pool(self) -> Self:
        if self.top_k > self.pool_size:
            raise ValueError(f"found top_k {self.top_k}, expected at most pool_size, which is {self.pool_size}")
        return self

    @property
    def learning_rate_factor(self) -> float:
        """``rate_factor``."""
        return self.rate_factor

    def prepare(self, model: PeftModel, seed: int) -> None:
        """Gives the model a prompt pool in place of the LoRA adapter."""
        attach_pool(model, self.pool_size, self.prompt_length, self.top_k, seed)

    def attach(self, context: StepContext) -> None:
        """Makes sure that only the pool is trained."""
        self._model, self._pool = context.runtime.model, prompt_pool(context.runtime.model)
        assert self._pool is not None
        self._model.requires_grad_(False)
        self._pool.requires_grad_(True)

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        """How far the picked keys are from the queries that picked them."""
        if self.pull_strength == 0:
            return None
        assert self._model is not None and self._pool is not None
        queries = self._pool.queries(self._model.get_base_model(), [pair.prompt for pair in outcome.pairs])
        cosines = self._pool.similarities(queries).gather(1, self._pool.pick(queries))
        return self.pull_strength * (1 - cosines).sum(dim=1).mean()
