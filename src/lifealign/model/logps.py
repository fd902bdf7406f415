"""Log-probabilities of completions: the one forward pass that training, reference and evaluation share."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lifealign.errors import ModelError
from lifealign.model.batch import Batch
from lifealign.model.head import OutputHead, backbone, output_head
from lifealign.model.prompt_pool import active_pool
from lifealign.model.sharing import Sharing

CHUNK = 1024
"""Number of completion positions whose logits exist at a time; bounds memory to CHUNK x vocabulary float32 numbers."""


class CompletionLogps(nn.Module):
    """Scores the completions of a batch under a model: logits are computed at completion positions only.

    If the model has an active prompt pool, its virtual tokens come first in every row. The prompt alone decides which
    ones, so they are the same for both answers of a pair.

    This is a module so that it can be moved and wrapped like any model; gradients flow through its ``forward``.

    Args:
        model: Causal language model with a LoRA adapter and a frozen linear output head.
        sharing: How the model takes batches with shared prompts; None if it never gets one.
    """

    def __init__(self, model: PeftModel, sharing: Sharing | None = Sharing()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.model, self.sharing = model, sharing

    def forward(self, batch: Batch) -> Float[Tensor, " sequences"]:
        """Sums of token log-probabilities, one per completion, float32, nats."""
        return self.summed(self.predicting(batch), batch)

    def summed(self, hidden: Float[Tensor, "tokens width"], batch: Batch) -> Float[Tensor, " sequences"]:
        """Sums of token log-probabilities, from hidden states that :meth:`predicting` has returned."""
        token_logps = linear_logps(hidden, self.head(), batch.targets)
        return token_logps.new_zeros(batch.sequences).index_add(0, batch.sequence, token_logps)

    @torch.no_grad()
    def sample_targets(self, batch: Batch, generator: torch.Generator) -> Int[Tensor, " tokens"]:
        """Draws a token at every completion position from the model's own prediction there.

        With these as ``targets`` the gradient of the log-probability is a sample of the model's own score function,
        whose mean square is the true Fisher information given the contexts of the batch.

        Args:
            batch: The batch; its completions serve as context only, not as targets.
            generator: Source of randomness, on the CPU.
        """
        hidden, head, drawn = self.predicting(batch), self.head(), []
        for start in range(0, len(hidden), CHUNK):
            probabilities = head.logits(hidden[start : start + CHUNK]).softmax(dim=-1)
            drawn.append(torch.multinomial(probabilities.cpu(), 1, generator=generator).squeeze(1))
        return torch.cat(drawn).to(batch.targets.device)

    def predicting(self, batch: Batch, *, middle: bool = False) -> Float[Tensor, "tokens width"]:
        """Hidden states at the positions that predict the completion tokens: the last, or those of the middle layer.

        Raises:
            ModelError: If those of the middle layer are asked for and the model does not return them.
        """
        causal: Any = self.model.get_base_model()
        mask: Any = batch.attention_mask
        positions = batch.position_ids
        read: dict[str, Any] = {"input_ids": batch.input_ids}
        pool = active_pool(self.model)
        if batch.spans:
            assert self.sharing is not None and pool is None  # virtual tokens would have to go in front of every pair
            mask, read["packed_spans"] = self.sharing.unused_masks(batch.input_ids.device), batch.spans
        elif pool is not None:
            embedded = causal.get_input_embeddings()(batch.input_ids)
            virtual = pool(pool.queries(causal, batch.prompts)).to(embedded.dtype)
            read = {"inputs_embeds": torch.cat((virtual, embedded), dim=1)}
            positions = torch.cat((_counting(batch, pool.tokens), positions + pool.tokens), dim=1)
            mask = _see_prefix(mask, pool.tokens)
        if not batch.spans and mask.dim() == 4:
            assert self.sharing is not None
            mask = self.sharing.masks(mask, positions, causal.dtype)
        output = backbone(causal)(
            position_ids=positions, attention_mask=mask, use_cache=False, output_hidden_states=middle, **read
        )
        hidden = _middle(output, causal) if middle else output.last_hidden_state
        if pool is not None:
            hidden = hidden[:, pool.tokens :]
        return hidden.flatten(0, 1)[batch.predicted_from]

    def head(self) -> OutputHead:
        """The model's output head.

        Raises:
            ValueError: If it is not a single matrix; such a model is already refused when it is loaded.
        """
        head = output_head(self.model.get_base_model())
        if head is None:
            raise ValueError(
                "model: found no output head that is a single matrix, expected a model that load_base accepts"
            )
        return head


def _middle(output: Any, causal: Any) -> Tensor:
    """The middle one of the hidden states between embedding and last layer."""
    states = getattr(output, "hidden_states", None)
    if not states:
        raise ModelError(
            f"model: found no hidden states of the layers of {type(causal).__name__}, expected a model that returns "
            "them; another method does not need them"
        )
    return states[len(states) // 2]  # type: ignore[no-any-return]


def _counting(batch: Batch, length: int) -> Int[Tensor, "rows length"]:
    """Positions 0, 1, ... for every row."""
    return torch.arange(length, device=batch.input_ids.device).expand(len(batch.input_ids), length)


def _see_prefix(mask: Tensor, length: int) -> Tensor:
    """Extends a mask of either form by a prefix that every real token sees, and that sees itself causally."""
    if mask.dim() == 2:
        return torch.cat((mask.new_ones(len(mask), length), mask), dim=1)
    rows, _, size, _ = mask.shape
    real = mask.any(dim=-1, keepdim=True)
    below = torch.cat((real.expand(rows, 1, size, length), mask), dim=-1)
    causal = mask.new_ones(length, length).tril().expand(rows, 1, length, length)
    return torch.cat((torch.cat((causal, mask.new_zeros(rows, 1, length, size)), dim=-1), below), dim=2)


def linear_logps(
    hidden: Float[Tensor, "tokens width"], head: OutputHead, targets: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    r"""Log-probability of each target under a frozen output head, :math:`z_y - \log\sum_v \exp z_v`.

    Works through the tokens in chunks and keeps no logits: the gradient with respect to the hidden state,
    :math:`\sum_v (1_{v=y} - p_v)\, \partial z_v / \partial h`, is formed while the chunk's logits exist. With scale s
    and soft cap c, :math:`\partial z_v / \partial h = s (1 - z_v^2 / c^2) W_v`. The head itself gets no gradient.

    Args:
        hidden: Last hidden states at the predicting positions.
        head: The output head; must not require gradient.
        targets: Token ids to score.

    Returns:
        Log-probabilities, float32, nats.

    Raises:
        ValueError: If the head requires gradient: it would silently get none.

    Example:
        >>> linear_logps(torch.zeros(1, 3), OutputHead(torch.zeros(4, 3)), torch.tensor([2])).exp()
        tensor([0.2500])
    """
    if head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad):
        raise ValueError("head: found an output head that requires gradient, expected it frozen, without an adapter")
    logps: Tensor = _LinearLogps.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return logps


class _LinearLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: OutputHead, targets: Tensor) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if needs_gradient else None
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            logits = head.logits(hidden[part])
            normaliser = logits.logsumexp(dim=-1)
            logps[part] = logits.gather(1, targets[part, None]).squeeze(1) - normaliser
            if gradient is not None:
                gradient[part] = _hidden_gradient(logits, normaliser, head, targets[part])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (upstream[:, None] * gradient.float()).to(gradient.dtype), None, None


def _hidden_gradient(logits: Tensor, normaliser: Tensor, head: OutputHead, targets: Tensor) -> Tensor:
    """Gradient of the targets' log-probabilities with respect to the hidden states; overwrites the logits."""
    weight = head.weight
    if head.soft_cap is None:
        slope_at_targets = None
        spread = logits.sub_(normaliser[:, None]).exp_()
    else:
        slopes = 1 - (logits / head.soft_cap).square()
        slope_at_targets = slopes.gather(1, targets[:, None])
        spread = logits.sub_(normaliser[:, None]).exp_().mul_(slopes)
    towards = weight[targets]
    if slope_at_targets is not None:
        towards = towards * slope_at_targets.to(weight.dtype)
    gradient = towards - spread.to(weight.dtype) @ weight
    return gradient if head.scale == 1.0 else gradient * head.scale
