"""Log-probabilities of completions: the one forward pass that training, reference and evaluation share."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lifealign.training.batches import Batch

CHUNK = 1024
"""Completion positions whose logits exist at a time; bounds memory at CHUNK x vocabulary float32."""


class CompletionLogps(nn.Module):
    """Scores the completions of a batch under a model: logits are computed at completion positions only.

    A module, so that ``accelerate`` can wrap it like any model: its ``forward`` is the one that gradients pass.

    Args:
        model: Causal language model with a LoRA adapter and a frozen linear output head.
    """

    def __init__(self, model: PeftModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Float[Tensor, " sequences"]:
        """Sums of token log-probabilities, one per completion, float32, nats."""
        causal: Any = self.model.get_base_model()
        mask = batch.attention_mask
        if mask.dim() == 4:  # eager attention adds its mask, SDPA accepts an added one too
            mask = torch.zeros_like(mask, dtype=causal.dtype).masked_fill(~mask, torch.finfo(causal.dtype).min)
        hidden = causal.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        token_logps = linear_logps(
            hidden.flatten(0, 1)[batch.predicted_from], causal.get_output_embeddings().weight, batch.targets
        )
        return token_logps.new_zeros(batch.sequences).index_add(0, batch.sequence, token_logps)


def linear_logps(
    hidden: Float[Tensor, "tokens width"], weight: Float[Tensor, "vocabulary width"], targets: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    r"""Log-probability of each target under a frozen output head, :math:`h^\top W_y - \log\sum_v \exp h^\top W_v`.

    Works through the tokens in chunks and keeps no logits: the gradient with respect to the hidden state,
    :math:`W_y - \sum_v p_v W_v`, is formed while the chunk's logits exist. The head itself gets no gradient.

    Args:
        hidden: Last hidden states at the predicting positions.
        weight: Rows of the output head; must not require gradient.
        targets: Token ids to score.

    Returns:
        Log-probabilities, float32, nats.

    Raises:
        ValueError: If ``weight`` requires gradient: it would silently get none.

    Example:
        >>> linear_logps(torch.zeros(1, 3), torch.zeros(4, 3), torch.tensor([2])).exp()
        tensor([0.2500])
    """
    if weight.requires_grad:
        raise ValueError("weight: the output head requires gradient, expected a frozen head (no adapter on lm_head)")
    logps: Tensor = _LinearLogps.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return logps


class _LinearLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if needs_gradient else None
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            logits = (hidden[part] @ weight.T).float()
            normaliser = logits.logsumexp(dim=-1)
            logps[part] = logits.gather(1, targets[part, None]).squeeze(1) - normaliser
            if gradient is not None:
                probabilities = logits.sub_(normaliser[:, None]).exp_().to(weight.dtype)
                gradient[part] = weight[targets[part]] - probabilities @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (upstream[:, None] * gradient.float()).to(gradient.dtype), None, None
