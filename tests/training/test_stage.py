"""The training stage: batches, schedule, determinism, and what stops it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from tests.tiny import letter_task, pair
from torch import Tensor

from lifealign.errors import TrainingError
from lifealign.memory.update import Adapter
from lifealign.methods.base import Method
from lifealign.methods.seqft import SeqFT
from lifealign.model.adapter import read_adapter, trainable_parameters, write_adapter
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair, tokenize_pair
from lifealign.training import stage as module
from lifealign.training.moments import StageContext
from lifealign.training.objectives import BatchOutcome, Objective, PreferenceObjective, SupervisedObjective
from lifealign.training.settings import PreferenceConfig, SFTConfig, StageConfig
from lifealign.training.stage import train_stage
from lifealign.training.stage_state import LogRow

TASK = letter_task("letters", "x", "y")
SMALL = {"learning_rate": 1e-2, "num_train_epochs": 1, "warmup_ratio": 0.0}
SMALL |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
STAGES = ["sft", "preference"]


def settings(stage: str = "sft", **changes: Any) -> StageConfig:
    return (SFTConfig if stage == "sft" else PreferenceConfig)(**SMALL | changes)


@pytest.fixture
def pairs(tokenizer) -> list[TokenizedPair]:
    """Eight pairs whose prompts and answers differ in length."""
    raw = [
        pair("q" * number, "x" * (1 + 3 * number % 7), "y" * (1 + 5 * number % 7), f"{number}") for number in range(8)
    ]
    return [tokenize_pair(tokenizer, one, 512) for one in raw]


def objective(runtime: Runtime, stage: str, pairs: list[TokenizedPair]) -> Objective:
    if stage == "sft":
        return SupervisedObjective()
    with runtime.model.disable_adapter():
        reference = dict(zip((one.key for one in pairs), runtime.score(pairs, 16), strict=True))
    return PreferenceObjective(0.1, reference)


def train(
    runtime: Runtime,
    pairs: list[TokenizedPair],
    stage: str,
    method: Method | None = None,
    seed: int = 1,
    **changes: Any,
) -> tuple[Adapter, list[LogRow]]:
    goal = objective(runtime, stage, pairs)
    log = train_stage(runtime, pairs, goal, settings(stage, **changes), method or SeqFT(), TASK.name, seed=seed)
    return read_adapter(runtime.model), log


def largest_difference(one: Adapter, other: Adapter) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("stage", STAGES)
def test_one_times_four_equals_four_times_one(make_runtime, pairs: list[TokenizedPair], stage: str) -> None:
    results = []
    for micro, accumulated in ((1, 4), (4, 1), (2, 2), (3, 2)):
        layout = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulated}
        some = pairs[:4] if micro == 3 else pairs  # 3 and 1, against one batch of 4
        results.append(train(make_runtime(), some, stage, learning_rate=1e-3, num_train_epochs=2, **layout))
    (one, log), (four, other_log), (two, _) = results[:3]
    assert largest_difference(one, four) < 1e-6
    assert largest_difference(one, two) < 1e-6
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in other_log], rel=1e-5)
    alone, _ = train(make_runtime(), pairs[:4], stage, learning_rate=1e-3, num_train_epochs=2)
    assert largest_difference(results[3][0], alone) < 1e-6


@pytest.mark.parametrize("stage", STAGES)
def test_a_seed_repeats_bit_for_bit_and_another_does_not(make_runtime, pairs: list[TokenizedPair], stage: str) -> None:
    one, log = train(make_runtime(), pairs, stage)
    again, same_log = train(make_runtime(), pairs, stage)
    other, _ = train(make_runtime(), pairs, stage, seed=2)
    assert largest_difference(one, again) == 0
    assert log == same_log
    assert largest_difference(one, other) > 0


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_falls_and_rows_say_what_happened(make_runtime, pairs: list[TokenizedPair], stage: str) -> None:
    _, log = train(make_runtime(), pairs, stage, num_train_epochs=8, learning_rate=5e-2)
    assert len(log) == 16
    assert log[-1]["loss"] < 0.95 * log[0]["loss"]
    assert {"loss", "grad_norm", "learning_rate", "epoch"} <= set(log[0])
    assert all(math.isfinite(value) for row in log for value in row.values())
    assert [row["epoch"] for row in log[:4]] == [0.5, 1.0, 1.5, 2.0]
    if stage == "preference":
        assert log[-1]["rewards/margins"] > log[0]["rewards/margins"]
        assert log[-1]["rewards/accuracies"] == 1.0
    else:
        assert "rewards/margins" not in log[0]


def test_the_first_margins_after_a_new_adapter_are_zero(make_runtime, pairs: list[TokenizedPair]) -> None:
    _, log = train(make_runtime(seed=None), pairs, "preference")
    assert log[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert log[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_progress_sees_every_row(make_runtime, pairs: list[TokenizedPair]) -> None:
    seen: list[tuple[Any, ...]] = []

    class Recorder:
        def update(self, *row: Any) -> None:
            seen.append(row)

    runtime = make_runtime()
    goal = objective(runtime, "preference", pairs)
    log = train_stage(
        runtime,
        pairs,
        goal,
        settings("preference"),
        SeqFT(),
        TASK.name,
        seed=1,
        listeners=[Recorder()],
    )
    assert seen == [("preference", 1, 2, log[0]), ("preference", 2, 2, log[1])]


@pytest.mark.parametrize("stage", STAGES)
def test_gradient_checkpointing_changes_the_work_and_not_the_result(
    make_runtime, pairs: list[TokenizedPair], stage: str
) -> None:
    results, forwards = [], []
    for wanted in (False, True):
        runtime = make_runtime()
        calls: list[int] = []
        # at its beginning: a recomputation stops as soon as the backward pass has what it needs
        layer = runtime.model.get_base_model().model.layers[0].mlp
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        results.append(train(runtime, pairs, stage, gradient_checkpointing=wanted)[0])
        forwards.append(len(calls))
        assert not runtime.model.get_base_model().is_gradient_checkpointing
    assert largest_difference(*results) < 1e-6
    assert forwards[1] == forwards[0] + 2  # each of two backward passes computes the layer again


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_adapter_moves_and_all_of_it(make_runtime, pairs: list[TokenizedPair], stage: str) -> None:
    runtime = make_runtime()
    before = {name: parameter.detach().clone() for name, parameter in runtime.model.named_parameters()}
    train(runtime, pairs, stage)
    for name, parameter in runtime.model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("lora_" not in name), name
    assert not runtime.model.training


def test_optimizer_and_schedule_start_fresh_in_every_stage(
    monkeypatch: pytest.MonkeyPatch, make_runtime, pairs: list[TokenizedPair]
) -> None:
    found: list[tuple[int, int]] = []  # number of the optimizer, parameters with a state before its step

    class Spy(torch.optim.AdamW):
        made: ClassVar[list[Any]] = []

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.made.append(self)

        def step(self, closure: Any = None) -> Any:
            found.append((len(self.made), len(self.state)))
            return super().step(closure)

    monkeypatch.setattr(module, "AdamW", Spy)
    runtime = make_runtime()
    _, first = train(runtime, pairs, "sft")
    _, second = train(runtime, pairs, "sft")
    assert found == [(1, 0), (1, 8), (2, 0), (2, 8)]
    assert [row["learning_rate"] for row in first] == [row["learning_rate"] for row in second] == [1e-2, 5e-3]


@pytest.mark.parametrize("stage", STAGES)
def test_no_epochs_and_no_pairs_do_nothing(make_runtime, pairs: list[TokenizedPair], stage: str) -> None:
    runtime = make_runtime()
    before = read_adapter(runtime.model)
    assert train(runtime, pairs, stage, num_train_epochs=0)[1] == []
    assert train(runtime, [], stage)[1] == []
    assert largest_difference(read_adapter(runtime.model), before) == 0


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(make_runtime, pairs: list[TokenizedPair]) -> None:
    # 10 steps, 2 of them warm-up: 0, half, peak, then (1 + cos(pi k / 8)) / 2 for k = 1..7
    _, log = train(make_runtime(), pairs, "sft", num_train_epochs=5, warmup_ratio=0.2)
    expected = [0.0, 0.5, 1.0, *((1 + math.cos(math.pi * k / 8)) / 2 for k in range(1, 8))]
    assert [row["learning_rate"] for row in log] == pytest.approx([1e-2 * share for share in expected])


CHANGES = {"learning_rate": 5e-3, "num_train_epochs": 2, "per_device_train_batch_size": 2, "weight_decay": 0.1}
CHANGES |= {"gradient_accumulation_steps": 2, "warmup_ratio": 1.0, "max_grad_norm": 1e-9}


@pytest.mark.parametrize("option", CHANGES)
def test_every_option_changes_something(make_runtime, pairs: list[TokenizedPair], option: str) -> None:
    assert set(CHANGES) == set(StageConfig.model_fields) - {"gradient_checkpointing"}  # which has its own test
    usual, _ = train(make_runtime(), pairs, "sft")
    changed, _ = train(make_runtime(), pairs, "sft", **{option: CHANGES[option]})
    assert largest_difference(usual, changed) > 1e-5


def test_beta_changes_the_preference_stage(make_runtime, pairs: list[TokenizedPair]) -> None:
    runtime = make_runtime()
    goal = objective(runtime, "preference", pairs)
    logps = torch.arange(16.0)
    margins = [PreferenceObjective(beta, goal.reference).outcome(logps, pairs).margins for beta in (0.1, 0.2)]  # type: ignore[attr-defined]
    torch.testing.assert_close(margins[1], 2 * margins[0])


TWO_MICRO_BATCHES = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


class _Poison(Method):
    """Spoils the end of the second optimizer step, and notes the parameters after the first."""

    where: str
    edits: ClassVar[list[int]] = []
    after_first: ClassVar[Adapter] = {}

    def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
        if len(self.edits) != 1:
            return None
        had_gradients = any(factor.grad is not None for factor in context.parameters.values())
        self.after_first.update({name: factor.detach().clone() for name, factor in context.parameters.items()})
        return torch.tensor(float("nan")) if self.where == "loss" and had_gradients else None

    def edit_gradients(self, context: StageContext) -> None:
        self.edits.append(len(self.edits))
        if self.where == "gradient norm" and len(self.edits) == 2:
            next(iter(context.parameters.values())).grad.fill_(float("inf"))  # type: ignore[union-attr]


@pytest.fixture
def poisoned() -> Callable[[str], _Poison]:
    _Poison.edits.clear()
    _Poison.after_first.clear()
    return lambda where: _Poison(where=where)


@pytest.mark.parametrize("where", ["loss", "gradient norm"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_number_that_is_not_finite_stops_before_the_step(
    make_runtime, pairs: list[TokenizedPair], poisoned: Callable[[str], _Poison], stage: str, where: str
) -> None:
    runtime = make_runtime()
    start = read_adapter(runtime.model)
    message = f"task 'letters', stage '{stage}', optimizer step 2: the {where} is (nan|inf)"
    with pytest.raises(TrainingError, match=message) as info:
        train(runtime, pairs, stage, poisoned(where), gradient_checkpointing=True, **TWO_MICRO_BATCHES)
    assert (info.value.task, info.value.stage, info.value.step) == ("letters", stage, 2)
    assert largest_difference(read_adapter(runtime.model), start) > 0  # the first step was taken
    for name, factor in trainable_parameters(runtime.model).items():
        assert torch.equal(factor, _Poison.after_first[name])  # the second was not
    assert not runtime.model.get_base_model().is_gradient_checkpointing


@pytest.mark.parametrize("where", ["loss", "gradient norm"])
def test_a_stage_after_one_that_failed_starts_clean(
    make_runtime, pairs: list[TokenizedPair], poisoned: Callable[[str], _Poison], where: str
) -> None:
    runtime = make_runtime()
    start = read_adapter(runtime.model)
    expected, _ = train(make_runtime(), pairs, "sft")
    with pytest.raises(TrainingError):
        train(runtime, pairs, "sft", poisoned(where), **TWO_MICRO_BATCHES)
    write_adapter(runtime.model, start)
    again, _ = train(runtime, pairs, "sft")
    assert largest_difference(again, expected) == 0
