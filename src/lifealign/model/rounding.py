"""What rounding may do: how far two computations of the same thing may differ, and computing with less of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

EXACT = 1e-3
"""Relative difference up to which two float32 computations of a hidden state differ by rounding alone. Rounding was
measured below 1e-5 on nearly every family; real faults are off by 1e-2 to 1."""
ROUNDED = 0.1
"""The same in bfloat16 and float16, for the median token: one rounding is 4e-3, and a state is the sum of many."""


def tolerance_in(dtype: torch.dtype) -> float:
    """Relative difference that rounding may cause between two computations of a hidden state in this dtype."""
    return EXACT if dtype == torch.float32 else ROUNDED


def distance(found: Tensor, expected: Tensor) -> Tensor:
    """Length of the difference relative to the expected vector's length, row by row; infinite if it is not finite."""
    distance = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12)
    return torch.where(distance.isfinite(), distance, torch.inf)


@contextmanager
def in_float32(causal: Any) -> Iterator[None]:
    """Computes in float32 within the context; weights of lower precision are widened, then narrowed without loss."""
    narrow = [
        (tensor, tensor.dtype)
        for tensor in (*causal.parameters(), *causal.buffers())
        if tensor.dtype in (torch.bfloat16, torch.float16)
    ]
    try:
        for tensor, _ in narrow:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in narrow:
            tensor.data = tensor.data.to(dtype)


def float32_fits(causal: Any) -> bool:
    """Whether every weight fits into free memory at four bytes, with some to spare; True if free memory is unknown."""
    needed = 1.2 * sum(2 * tensor.nbytes for tensor in causal.parameters() if tensor.dtype != torch.float32)
    if causal.device.type == "cuda":
        return bool(torch.cuda.mem_get_info(causal.device)[0] > needed)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    except (OSError, StopIteration, ValueError):
        return True
    return bool(available > needed)
