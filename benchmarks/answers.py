"""Answers per second, ours against plain ``model.generate`` on the same prompts in file order, padded on the left.

Plain generation runs with the cache that grows by a token a step, and with one of fixed size (``static``). ``whole`` is
ours with every answer kept in its batch until the longest has ended. Beside them: how long the head takes for the last
positions of 48 prompts, as the model hands them over (``view``) and as ours does (``contiguous``).
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from benchmarks.rows import SUITE, rows_of

from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import load_base
from lifealign.model.generate import generate_answers
from lifealign.model.head import output_head
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.tokens import prompt_ids

PROMPTS, NEW_TOKENS, BATCH = 24, 48, 8


def measure(model_name: str, dtype: Any, rounds: int) -> dict[str, Any]:
    base = load_base(ModelConfig(model_name_or_path=model_name, dtype=dtype))
    model = attach_lora(base, AdapterConfig(), 1)
    runtime = Runtime.prepare(model, base.tokenizer, base.proven(model, 512))
    prompts = [pair.prompt for pair in rows_of(SUITE, None, PROMPTS)]

    whole = Runtime.prepare(model, base.tokenizer, replace(runtime.proof, rows_leave=False))

    def ours(runtime: Runtime = runtime) -> None:
        generate_answers(runtime, prompts, max_new_tokens=NEW_TOKENS, batch_size=BATCH)

    def plain(**cache: str) -> None:
        pad = base.tokenizer.pad_token_id
        for start in range(0, PROMPTS, BATCH):
            ids = [prompt_ids(base.tokenizer, prompt) for prompt in prompts[start : start + BATCH]]
            length = max(map(len, ids))
            rows = torch.tensor([[pad] * (length - len(one)) + one for one in ids])
            mask = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in ids])
            with torch.no_grad():
                given = {"input_ids": rows, "attention_mask": mask, "pad_token_id": pad, **cache}
                output = model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)
            base.tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)

    sides: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "whole": lambda: ours(whole),
        "plain": plain,
        "static": lambda: plain(cache_implementation="static"),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    ours()
    for _ in range(rounds):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    rates = {name: PROMPTS / median(times) for name, times in taken.items()}
    print(f"  answers per second: {rates}", flush=True)
    ratios = {name: rates["ours"] / rate for name, rate in rates.items() if name != "ours"}
    heads = head_seconds(base.model, rounds)
    print(f"  seconds of the head: {heads}", flush=True)
    return {"seconds": taken, "per_second": rates, "ratio": ratios["plain"], "times_as_fast": ratios, "head": heads}


def head_seconds(causal: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of the head on the last of 60 positions of 48 prompts, by how they lie in memory."""
    head = output_head(causal)
    assert head is not None
    hidden = torch.randn(48, 60, head.weight.shape[1]).to(head.weight)
    found: dict[str, list[float]] = {"view": [], "contiguous": []}
    for _ in range(rounds + 1):  # the first one is warming up
        for name, last in (("view", hidden[:, -1:]), ("contiguous", hidden[:, -1:].contiguous())):
            start = time.perf_counter()
            with torch.no_grad():
                torch.nn.functional.linear(last, head.weight, head.bias)
            found[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in found.items()}
