"""How fast this machine trains a model and answers with it, and how much memory that takes; measured on short runs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lifealign.data.suites.support_desk import load_suite
from lifealign.life.settings import DEFAULT_METHOD, method_from
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import Base
from lifealign.model.completeness import ordinary_tokens
from lifealign.model.device import current_device
from lifealign.model.generate import generate_answers
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig
from lifealign.model.tokens import TokenizedPair
from lifealign.training.objectives import Objective, PreferenceObjective, SupervisedObjective
from lifealign.training.peak_memory import peak_memory_bytes, reset_peak_memory
from lifealign.training.settings import PreferenceConfig, SFTConfig
from lifealign.training.stage import train_stage

PROMPT, ANSWER = 64, 64
"""Tokens of the prompts and answers that training is timed on: those of a short exchange."""
NEW_TOKENS, ANSWERED = 32, 8
"""Maximum tokens of the answers that generation is timed on, and how many of them at a time."""
SECONDS = 2.5  # that each rate is measured for, after it has warmed up


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        sft_tokens_per_second: Tokens of prompts and chosen answers that the ``sft`` stage takes in a second.
        preference_pairs_per_second: Pairs that the ``preference`` stage takes in a second.
        generated_tokens_per_second: Tokens of all answers of a batch together.
        peak_memory: Bytes at the peak of the preference stage: on the GPU, or of the whole process.
    """

    sft_tokens_per_second: float
    preference_pairs_per_second: float
    generated_tokens_per_second: float
    peak_memory: int


def measure_rates(base: Base, lora: AdapterConfig, batch_size: int) -> Rates:
    """Trains a new adapter for a few steps of each stage on random tokens, and answers a few prompts.

    Args:
        base: The base model; it gets an adapter.
        lora: Settings of the adapter.
        batch_size: Pairs in a forward pass.

    Raises:
        ModelError: If the model cannot be trained by this package.
    """
    model = attach_lora(base, lora, 0).to(current_device())
    runtime = Runtime.prepare(model, base.tokenizer, base.proven(model, PROMPT + ANSWER))
    tokens = ordinary_tokens(base.name, base.model, base.tokenizer)
    reset_peak_memory()
    preference = _units_per_second(batch_size, lambda pairs: _train(runtime, _pairs(tokens, pairs), batch_size))
    peak = peak_memory_bytes()
    sft = _units_per_second(batch_size, lambda pairs: _train(runtime, _pairs(tokens, pairs), batch_size, sft=True))
    prompts = [pair.prompt for pair in load_suite(1, test_pairs=ANSWERED)[0].test]
    start = time.perf_counter()
    answers = generate_answers(runtime, prompts, max_new_tokens=NEW_TOKENS, batch_size=ANSWERED)
    seconds = time.perf_counter() - start
    lengths = [len(base.tokenizer(answer, add_special_tokens=False).input_ids) + 1 for answer in answers]
    generated = sum(min(length, NEW_TOKENS) for length in lengths)  # one more for the end, if it came to one
    return Rates(sft * (PROMPT + ANSWER), preference, generated / seconds, peak)


def _pairs(tokens: Sequence[int], number: int) -> list[TokenizedPair]:
    """Pairs of random tokens."""
    draw = random.Random(0).choices
    lengths = (PROMPT, ANSWER, ANSWER)
    return [TokenizedPair(str(index), "", *(tuple(draw(tokens, k=k)) for k in lengths)) for index in range(number)]


def _train(runtime: Runtime, pairs: Sequence[TokenizedPair], batch_size: int, sft: bool = False) -> None:
    """One epoch over pairs; the reference is made up, because it takes no part in the time of a step."""
    settings = (SFTConfig if sft else PreferenceConfig)(
        num_train_epochs=1, per_device_train_batch_size=batch_size, gradient_accumulation_steps=1
    )
    reference = {pair.key: (0.0, 0.0) for pair in pairs}
    objective: Objective = SupervisedObjective() if sft else PreferenceObjective(PreferenceConfig().beta, reference)
    train_stage(runtime, pairs, objective, settings, method_from(DEFAULT_METHOD), "a measurement", seed=0)


def _units_per_second(batch_size: int, run: Callable[[int], None]) -> float:
    """How many units a second some work takes: one batch to warm up and see how long it takes, then as many as fit.

    Args:
        batch_size: Units in a batch.
        run: Works on a number of units.
    """
    start = time.perf_counter()
    run(batch_size)
    once = time.perf_counter() - start
    units = batch_size * max(1, int(SECONDS / once))
    start = time.perf_counter()
    run(units)
    return units / (time.perf_counter() - start)
