"""A pool of soft prompts with keys: what L2P trains in place of LoRA, as a module beside the frozen model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from lifealign.errors import ModelError
from lifealign.model.head import backbone

ATTRIBUTE = "prompt_pool"
PREFIX = f"{ATTRIBUTE}."
"""Prefix of the names of the pool's tensors, in an adapter and among a model's parameters."""

PromptIds = tuple[int, ...]


class PromptPool(nn.Module):
    """Soft prompts, each with a key; a query picks those whose keys are closest to it in direction.

    Attributes:
        prompts: The prompts, stacked, ``(pool_size * prompt_length, width)``, float32, in the space of the model's
            input embeddings.
        keys: One key per prompt, ``(pool_size, width)``, float32, in the space of the model's last hidden states.
        enabled: Whether the prompts are put in front of the model's input; off for the reference.

    Args:
        pool_size: Number of prompts.
        prompt_length: Number of virtual tokens in a prompt.
        top_k: Number of prompts that a query picks, at most ``pool_size``.
        width: Width of the model.

    Reference:
        Wang et al., Learning to Prompt for Continual Learning, CVPR 2022 (arXiv:2112.08654), Sec. 4.
    """

    def __init__(self, pool_size: int, prompt_length: int, top_k: int, width: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.zeros(pool_size * prompt_length, width))
        self.keys = nn.Parameter(torch.zeros(pool_size, width))
        self.prompt_length, self.top_k, self.enabled = prompt_length, top_k, True
        self._queries: dict[PromptIds, Tensor] = {}

    @property
    def tokens(self) -> int:
        """Number of virtual tokens in front of every sequence."""
        return self.top_k * self.prompt_length

    def shape(self) -> dict[str, int]:
        """Sizes that are needed to interpret the tensors."""
        return {"pool_size": len(self.keys), "prompt_length": self.prompt_length, "top_k": self.top_k}

    def similarities(self, queries: Float[Tensor, "rows width"]) -> Float[Tensor, "rows pool"]:
        """Cosine between queries and keys."""
        return cosine_similarity(queries[:, None], self.keys[None], dim=-1)

    def pick(self, queries: Float[Tensor, "rows width"]) -> Int[Tensor, "rows top_k"]:
        """Indices of the prompts each query picks, in the order of the pool, so that near ties do not reorder them."""
        return self.similarities(queries).topk(self.top_k, dim=-1).indices.sort(dim=-1).values

    def forward(self, queries: Float[Tensor, "rows width"]) -> Float[Tensor, "rows tokens width"]:
        """The virtual tokens that each query's row begins with."""
        offsets = torch.arange(self.prompt_length, device=queries.device)
        rows = self.pick(queries)[:, :, None] * self.prompt_length + offsets
        return self.prompts[rows.flatten(1)]

    @torch.no_grad()
    def queries(self, causal: Any, prompts: Sequence[PromptIds]) -> Float[Tensor, "prompts width"]:
        """The query of each prompt: the mean over its tokens of the frozen model's last hidden states.

        Each distinct prompt is read once, alone in its batch, so that its query does not depend on other prompts.

        Args:
            causal: The frozen causal language model.
            prompts: Token ids of the prompts, without any answer.
        """
        for prompt in prompts:
            if prompt not in self._queries:
                ids = torch.tensor([prompt], device=self.keys.device)
                hidden = backbone(causal)(input_ids=ids, use_cache=False).last_hidden_state
                self._queries[prompt] = hidden[0].float().mean(dim=0)
        return torch.stack([self._queries[prompt] for prompt in prompts])


def prompt_pool(model: PeftModel) -> PromptPool | None:
    """The pool of a model, or None if it has none."""
    pool = getattr(model, ATTRIBUTE, None)
    return pool if isinstance(pool, PromptPool) else None


def active_pool(model: PeftModel) -> PromptPool | None:
    """The pool of a model, or None if it has none or its pool is switched off."""
    pool = prompt_pool(model)
    return pool if pool is not None and pool.enabled else None


@contextmanager
def without_prompts(model: PeftModel) -> Iterator[None]:
    """Switches the prompts of a model's pool off within the context; does nothing without a pool."""
    pool = active_pool(model)
    if pool is not None:
        pool.enabled = False
    try:
        yield
    finally:
        if pool is not None:
            pool.enabled = True


def attach_pool(model: PeftModel, pool_size: int, prompt_length: int, top_k: int, seed: int) -> PromptPool:
    """Puts a pool on a model in place of its LoRA adapter, which is frozen at zero.

    Args:
        model: PEFT model with a new LoRA adapter.
        pool_size: Number of prompts.
        prompt_length: Number of virtual tokens in a prompt.
        top_k: Number of prompts that a query picks.
        seed: Seed of the initial values: prompts are embeddings of random tokens, keys uniform in [-1, 1].

    Returns:
        The pool, now part of the model.

    Raises:
        ModelError: If the model computes something else from embeddings than from their tokens, as models do that look
            tokens up more than once: prompts in front would change how it reads the text.
    """
    _require_embeddings_are_enough(model.get_base_model())
    embeddings: Tensor = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    pool = PromptPool(pool_size, prompt_length, top_k, embeddings.shape[1])
    tokens = torch.randint(len(embeddings), (pool_size * prompt_length,), generator=generator)
    keys = 2 * torch.rand(pool.keys.shape, generator=generator) - 1
    with torch.no_grad():
        pool.prompts.copy_(embeddings[tokens.to(embeddings.device)])
        pool.keys.copy_(keys)
    model.requires_grad_(False)
    setattr(model, ATTRIBUTE, pool.to(embeddings.device))
    return pool


@torch.no_grad()
def _require_embeddings_are_enough(causal: Any) -> None:
    table = causal.get_input_embeddings()
    ids = torch.arange(1, 13, device=causal.device)[None] % table.weight.shape[0]
    try:
        by_ids, by_embeddings = (
            backbone(causal)(use_cache=False, **read).last_hidden_state.float()
            for read in ({"input_ids": ids}, {"inputs_embeds": table(ids)})
        )
        apart = float((by_ids - by_embeddings).norm() / by_ids.norm())
    except Exception as error:  # some models need token ids in any case
        raise ModelError(
            f"l2p needs a model that reads embeddings; {type(causal).__name__} does not ({type(error).__name__})"
        ) from error
    if not apart < 1e-4:
        raise ModelError(
            f"l2p needs a model that reads embeddings as it reads their tokens; the hidden states of "
            f"{type(causal).__name__} differ by {apart:.2g} of their length"
        )
