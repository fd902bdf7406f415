"""Milliseconds of recall per request, and what is looked up for it, with 10, 100 and 1,000 tasks.

The keys are of random features, as wide as the model's: how long they take does not depend on what they are.
``features`` is the pass of half the model over a prompt, ``prefill`` a whole pass that answering it begins with, and
``patterns`` what is measured once after something was learnt; reading files is left out.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from benchmarks.rows import SUITE, rows_of

from lifealign.memory.recall import KeyTable, learn_key, learn_whitening, separations
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import load_base
from lifealign.model.features import prompt_features
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.tokens import prompt_ids

COUNTS = (10, 100, 1000)
EXAMPLES = 32
"""Prompts by which a task's key is calibrated: as many as a life keeps."""
REQUESTS = 20


def measure(model_name: str, dtype: Any) -> list[dict[str, Any]]:
    base = load_base(ModelConfig(model_name_or_path=model_name, dtype=dtype))
    model = attach_lora(base, AdapterConfig(), 1)
    runtime = Runtime.prepare(model, base.tokenizer, base.proven(model, 512))
    prompts = [tuple(prompt_ids(base.tokenizer, pair.prompt)) for pair in rows_of(SUITE, None, REQUESTS)]
    features = [prompt_features(runtime, [ids], batch_size=1) for ids in prompts]
    generator = torch.Generator().manual_seed(0)
    whitening = learn_whitening(torch.randn(400, features[0].shape[1], generator=generator))
    half = _milliseconds(lambda one: prompt_features(runtime, [prompts[one]], batch_size=1))
    with torch.no_grad():
        whole = _milliseconds(lambda one: model(torch.tensor([prompts[one]]), logits_to_keep=1))
    rows = []
    for count in COUNTS:
        centers = torch.randn(count, len(whitening.matrix), generator=generator, dtype=torch.float64)
        examples = [center + torch.randn(EXAMPLES, len(center), generator=generator) for center in centers]
        start = time.perf_counter()
        keys = [learn_key(center[None], own) for center, own in zip(centers, examples, strict=True)]
        separations(keys, examples)
        table = KeyTable.of(keys)
        patterns = time.perf_counter() - start
        looked_up = _milliseconds(lambda one: table.look_up(whitening(features[one])[0]))  # noqa: B023 - used at once
        rows.append(
            {
                "tasks": count,
                "look_up_milliseconds": looked_up,
                "features_milliseconds": half,
                "prefill_milliseconds": whole,
                "patterns_seconds": patterns,
            }
        )
        print(f"  {rows[-1]}", flush=True)
    return rows


def _milliseconds(work: Callable[[int], Any]) -> dict[str, float]:
    """Median and greatest time of the requests, after one that does not count."""
    work(0)
    taken = []
    for one in range(REQUESTS):
        start = time.perf_counter()
        work(one)
        taken.append(1000 * (time.perf_counter() - start))
    return {"median": median(taken), "most": max(taken)}
