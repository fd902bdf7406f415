"""One pass, forward and backward, over the same batches in every layout, and how far the results differ.

Batches of eight random pairs, as a stage would draw them; the layouts take turns on every batch. ``plain`` has a row
for every answer, ``shared`` a row for every pair and a mask, ``packed`` one row without padding or mask.
"""

import random
import time
from collections.abc import Sequence
from typing import Any, get_args

import torch
from benchmarks.sides import BETA, MAX_LENGTH, SEED

from lifealign.data.pair import Pair
from lifealign.model.adapter import attach_lora, read_adapter, write_adapter
from lifealign.model.base_model import load_base
from lifealign.model.batch import Layout, collate, positions
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.tokens import tokenize_pairs

BOTH, BATCH = ("chosen", "rejected"), 8
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def measure(model_name: str, dtype: Any, raw: Sequence[Pair], threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    base = load_base(ModelConfig(model_name_or_path=model_name, dtype=dtype))
    model = attach_lora(base, AdapterConfig(), SEED)
    runtime = Runtime.prepare(model, base.tokenizer, base.proven(model, MAX_LENGTH))
    generator = torch.Generator().manual_seed(SEED)
    moved = {name: torch.randn(one.shape, generator=generator) * 0.01 for name, one in read_adapter(model).items()}
    write_adapter(model, moved)  # in a new adapter half of the gradients are zero
    pairs, _ = tokenize_pairs(base.tokenizer, raw, MAX_LENGTH)
    random.Random(SEED).shuffle(pairs)
    batches = [pairs[start : start + BATCH] for start in range(0, len(pairs) - BATCH + 1, BATCH)]
    parameters = [one for one in model.parameters() if one.requires_grad]
    model.train()

    def step(part: Any, layout: Layout) -> tuple[float, torch.Tensor, torch.Tensor]:
        for one in parameters:
            one.grad = None
        start = time.perf_counter()
        pad = base.tokenizer.pad_token_id
        logps = runtime.policy(collate(part, BOTH, pad_token_id=pad, layout=layout))
        chosen, rejected = logps.chunk(2)
        (-torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).sum()).backward()
        taken = time.perf_counter() - start
        return taken, logps.detach(), torch.cat([one.grad.flatten() for one in parameters if one.grad is not None])

    step(batches[0], "packed")
    seconds: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    apart = {layout: [0.0, 0.0] for layout in LAYOUTS}
    for part in batches:
        results = {layout: step(part, layout) for layout in LAYOUTS}
        _, expected, gradient = results["plain"]
        for layout, (taken, logps, found) in results.items():
            seconds[layout].append(taken)
            of_logps = float(((logps - expected) / expected).abs().max())
            distances = (of_logps, float((found - gradient).norm() / gradient.norm()))
            apart[layout] = [max(both) for both in zip(apart[layout], distances, strict=True)]
    total = {layout: sum(each) for layout, each in seconds.items()}
    result = {
        "seconds": seconds,
        "positions": {layout: sum(positions(part, BOTH, layout) for part in batches) for layout in LAYOUTS},
        "packed_times_as_fast": {layout: total[layout] / total["packed"] for layout in LAYOUTS},
        "relative_difference_of_logps_and_gradients": apart,
    }
    print(f"  { ({key: value for key, value in result.items() if key != 'seconds'}) }", flush=True)
    return result
