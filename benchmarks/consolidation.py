"""Seconds and memory of one consolidation after 1, 10, 100 and 1,000 remembered updates.

Plain is what the method's definition says: a singular value decomposition of the update, and one of all earlier
updates. Ours is :mod:`lifealign.memory`. Both get the same random updates in the shapes of SmolLM2-135M's LoRA factors:
two layers of its thirty. The plain side stops at 100.
"""

import time
from statistics import median
from typing import Any

import torch

from lifealign.memory.long_term import LongTermMemory, consolidate
from lifealign.memory.project import refine_update

SHAPES = {"q_A": (8, 576), "q_B": (576, 8), "v_A": (8, 576), "v_B": (192, 8)}
LAYERS = 2
COUNTS = (1, 10, 100, 1000)
PLAIN_UP_TO = 100


def updates(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = [(layer, name, shape) for layer in range(LAYERS) for name, shape in SHAPES.items()]
    return {f"{layer}.{name}": torch.randn(*shape, generator=generator) for layer, name, shape in names}


def measure() -> list[dict[str, Any]]:
    memory = LongTermMemory()
    earlier: list[dict[str, torch.Tensor]] = []
    rows: list[dict[str, Any]] = []
    for number in range(1, max(COUNTS) + 1):
        new = updates(number)
        if number in COUNTS:
            rows.append({"remembered": number, **_ours(new, memory), **_plain(new, earlier, number)})
            print(f"  {rows[-1]}", flush=True)
        memory.remember(new)
        if number <= PLAIN_UP_TO:
            earlier.append(new)
    return rows


def _ours(new: dict[str, torch.Tensor], memory: LongTermMemory) -> dict[str, Any]:
    held = sum(
        tensor.numel() * tensor.element_size()
        for history in memory.histories.values()
        for tensor in vars(history).values()
        if isinstance(tensor, torch.Tensor)
    )
    held += sum(tensor.numel() * 4 for update in memory.updates for tensor in update.values())
    taken = []
    for _ in range(3):
        copied = LongTermMemory(memory.limit, [*memory.updates], memory.remembered, {**memory.histories}, memory.shapes)
        start = time.perf_counter()
        copied.remember(consolidate(new, copied, energy_kept=0.9, overlap_kept=0.5).update)
        taken.append(time.perf_counter() - start)
    return {"ours_seconds": median(taken), "ours_megabytes": held / 1e6}


def _plain(new: dict[str, torch.Tensor], earlier: list[dict[str, torch.Tensor]], number: int) -> dict[str, Any]:
    if number > PLAIN_UP_TO:
        return {"plain_seconds": None}
    start = time.perf_counter()
    for name, update in new.items():
        left, singular, right = torch.linalg.svd(update, full_matrices=False)
        denoised = (left * singular) @ right
        history = torch.stack([one[name] for one in earlier]) if earlier else torch.empty(0, *update.shape)
        refine_update(denoised, history, 0.5)
    return {"plain_seconds": time.perf_counter() - start}
