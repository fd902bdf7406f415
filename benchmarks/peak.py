r"""How much of this machine's measured matrix-product peak our preference step reaches.

Floating-point operations of a step by formula, with :math:`N` weights in the frozen linear layers, head :math:`dV`,
prompt p and completions of C tokens together, per pair and epoch:

.. math::  \underbrace{2 N (p + C) + 2 dV C}_{\text{forward}} + \underbrace{2 N (p + C) + 2 dV C}_{\text{backward}}

since frozen weights take no gradient of their own, and once a forward pass for the reference; attention and LoRA's own
products, a few per cent, are left out, so the share is a little too low. The peak is the best of square products of
several sizes, in the dtype of the base.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch


def step_flops(weights: int, head: int, prompts: Sequence[int], completions: Sequence[int], epochs: int) -> float:
    """Operations of the preference stage on pairs with these numbers of prompt and completion tokens.

    >>> step_flops(weights=10, head=5, prompts=[3], completions=[4], epochs=1)  # 2*10*7 + 2*5*4 = 180, three times
    540.0
    """
    forward = sum(2.0 * weights * (p + c) + 2.0 * head * c for p, c in zip(prompts, completions, strict=True))
    return forward * (2 * epochs + 1)


def padded_flops(weights: int, head: int, answers: Sequence[tuple[int, int]], batch: int, epochs: int) -> float:
    """Operations of a trainer whose every answer has a row of its own, as long as the longest of its batch.

    The head is taken at every position, as a CPU does in TRL; the reference is in every step.

    Args:
        weights: Weights in the frozen linear layers.
        head: Weights of the head.
        answers: Tokens of prompt and chosen, and of prompt and rejected, pair by pair, in the order of training.
        batch: Pairs in a batch.
        epochs: How often each pair is met.

    >>> padded_flops(weights=10, head=5, answers=[(5, 7), (4, 4)], batch=2, epochs=1)  # 4 rows of 7: 2 * 15 * 28, x 3
    2520.0
    """
    batches = [answers[start : start + batch] for start in range(0, len(answers), batch)]
    positions = sum(2 * len(part) * max(map(max, part)) for part in batches)
    return 2.0 * (weights + head) * positions * 3 * epochs


def linear_weights(model: Any) -> tuple[int, int]:
    """Weights of a model's frozen linear layers, and of its head."""
    head = model.get_output_embeddings().weight.numel()
    layers = [module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return sum(layer.weight.numel() for layer in layers) - head, head


def peak_flops(dtype: torch.dtype) -> float:
    """The most operations per second that square products reach."""
    best = 0.0
    for size in (512, 1024, 1536, 2048):
        one, two = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        one @ two
        for _ in range(5):
            start = time.perf_counter()
            one @ two
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
