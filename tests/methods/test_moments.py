"""The moments of a method, each called where it belongs; toys that override one of them prove it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from peft import PeftModel
from pydantic import PrivateAttr
from tests.tiny import letter_task
from torch import Tensor

from lifealign.data.task import Task
from lifealign.evaluation.evaluator import Evaluator
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.memory.long_term import Consolidation, LongTermMemory
from lifealign.memory.update import Adapter
from lifealign.methods import METHODS
from lifealign.methods.base import Method, Step, StepContext
from lifealign.model.adapter import read_adapter
from lifealign.training import stage as stage_module
from lifealign.training.moments import MethodState, StageContext
from lifealign.training.objectives import BatchOutcome

FIRST, SECOND = letter_task("first", "x", "y"), letter_task("second", "y", "x")


def differs(one: Adapter, other: Adapter) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


class Toy(Method):
    """Notes what happens; a test overrides one moment."""

    key: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy"
    notes: ClassVar[list[Any]] = []


@pytest.fixture
def toy_life(make_life, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Life]:
    def make(kind: type[Toy], **sections: Any) -> Life:
        monkeypatch.setitem(METHODS, "toy", kind)
        Toy.notes.clear()
        return make_life(method={"name": "toy"}, **sections)

    return make


def test_plan_decides_the_order(toy_life) -> None:
    class Reversed(Toy):
        def plan(self, stream: Sequence[Task], first_index: int = 0) -> list[Step]:
            return super().plan(list(reversed(stream)), first_index)

    life = toy_life(Reversed)
    run_stream(life.workspace, [FIRST, SECOND])
    assert [version.name for version in life.steps] == ["01-second", "02-first"]


def test_attach_comes_once_per_step_before_training(toy_life, monkeypatch: pytest.MonkeyPatch) -> None:
    class Attaching(Toy):
        def attach(self, context: StepContext) -> None:
            assert context.runtime.model is life.workspace.runtime.model and not context.objectives
            self.notes.append(context.step.name)

    class Noting(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            Toy.notes.append("step")
            return super().step(closure)

    monkeypatch.setattr(stage_module, "AdamW", Noting)
    life = toy_life(Attaching)
    run_stream(life.workspace, [FIRST, SECOND])
    assert Toy.notes == ["01-first", *["step"] * 4, "02-second", *["step"] * 4]  # two stages of two batches


def test_prepare_comes_before_any_tensor_is_loaded(toy_life) -> None:
    class Marking(Toy):
        def prepare(self, model: PeftModel, seed: int) -> None:
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.data.fill_(7.0)
            self.notes.append(seed)

    life = toy_life(Marking)
    assert all(
        (factor == 7).all() for name, factor in read_adapter_of(life.directory, "00-base").items() if "lora_B" in name
    )
    life.learn(FIRST)
    saved = read_adapter_of(life.directory)
    reopened = Life.open(life.directory.path)
    assert not differs(read_adapter(reopened.workspace.runtime.model), saved)  # what was saved was loaded over it
    assert Toy.notes == [42, 42]


def test_remember_sees_the_model_that_is_saved_before_it_is_scored(toy_life, monkeypatch: pytest.MonkeyPatch) -> None:
    class Remembering(Toy):
        def consolidate(self, update: Adapter, memory: LongTermMemory, step: Step) -> Consolidation:
            self.notes.append("consolidate")
            result = super().consolidate(update, memory, step)
            return Consolidation({name: 0.5 * factor for name, factor in update.items()}, result.figures)

        def remember(self, context: StepContext) -> None:
            self.notes.append(read_adapter(context.runtime.model))
            assert list(context.objectives) == ["sft", "preference"]
            assert [len(context.pairs), len(context.own_pairs)] == [8 + context.step.index, 8]
            assert {name: len(pairs) for name, pairs in context.memories.items()} == (
                {"first": 1} if context.step.index else {}
            )

    def score(self: Any, *rest: Any) -> Any:
        Toy.notes.append("score")
        return evaluate_score(self, *rest)

    evaluate_score = Evaluator.score
    monkeypatch.setattr(Evaluator, "score", score)
    life = toy_life(Remembering, replay={"fraction": 0.2})
    run_stream(life.workspace, [FIRST, SECOND])
    first, second = Toy.notes[:4], Toy.notes[4:]
    for notes, version in ((first, "01-first"), (second, "02-second")):
        assert [note if isinstance(note, str) else "remember" for note in notes] == [
            "consolidate",
            "remember",
            "score",  # the base model
            "score",
        ]
        assert not differs(notes[1], read_adapter_of(life.directory, version))


def test_weights_of_zero_move_nothing(toy_life) -> None:
    class Zero(Toy):
        def example_weights(self, outcome: BatchOutcome) -> Tensor:
            assert outcome.losses.shape == (len(outcome.pairs),)
            self.notes.append(outcome.stage)
            return torch.zeros_like(outcome.losses)

    life = toy_life(Zero)
    life.learn(FIRST)
    assert not differs(read_adapter_of(life.directory, "00-base"), read_adapter_of(life.directory))
    assert Toy.notes == ["sft"] * 2 + ["preference"] * 2


@pytest.mark.parametrize(("micro", "accumulated"), [(4, 1), (1, 4), (3, 2)])  # 8 pairs: in fours, ones, or threes
def test_a_penalty_counts_once_per_optimizer_batch(toy_life, micro: int, accumulated: int) -> None:
    class Constant(Toy):
        def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor:
            return torch.tensor(100.0)

    layout = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulated}
    logs = []
    for kind in (Toy, Constant):
        life = toy_life(kind, sft=layout, preference=layout)
        life.learn(FIRST)
        logs.append(life.directory.json("tasks/01-first/training.json")["stages"])
    for stage in ("sft", "preference"):
        for usual, penalised in zip(logs[0][stage], logs[1][stage], strict=True):
            assert penalised["loss"] - usual["loss"] == pytest.approx(100.0, rel=1e-5)
            assert penalised["grad_norm"] == pytest.approx(usual["grad_norm"])


@pytest.mark.parametrize(("micro", "accumulated"), [(8, 1), (1, 8), (3, 3)])  # the last one in 3, 3 and 2
def test_a_penalty_that_is_a_mean_over_pairs_does_not_depend_on_the_micro_batches(
    toy_life, micro: int, accumulated: int
) -> None:
    class Numbered(Toy):
        def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor:
            numbers = [float(pair.source.rpartition(":")[2]) for pair in outcome.pairs]
            return torch.tensor(numbers).mean()

        def example_weights(self, outcome: BatchOutcome) -> Tensor:
            return torch.zeros_like(outcome.losses)

    layout = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulated}
    life = toy_life(Numbered, sft=layout, preference=layout)
    life.learn(FIRST)
    (row,) = life.directory.json("tasks/01-first/training.json")["stages"]["sft"]
    assert row["loss"] == pytest.approx(3.5)  # the mean of 0 to 7


def test_a_penalty_has_its_gradient_and_sees_the_parameters(toy_life) -> None:
    class Pull(Toy):  # the only gradient: 2 w for every factor
        def example_weights(self, outcome: BatchOutcome) -> Tensor:
            return torch.zeros_like(outcome.losses)

        def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor:
            return sum((factor.square().sum() for factor in context.parameters.values()), torch.tensor(0.0))

        def edit_gradients(self, context: StageContext) -> None:
            for factor in context.parameters.values():
                torch.testing.assert_close(factor.grad, 2 * factor.detach())

    layout = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    life = toy_life(Pull, sft=layout, preference=layout)
    life.learn(FIRST)
    before, after = read_adapter_of(life.directory, "00-base"), read_adapter_of(life.directory)
    assert sum(factor.norm() for factor in after.values()) < sum(factor.norm() for factor in before.values())


def test_edited_gradients_are_whole_unclipped_and_what_the_optimizer_reads(
    toy_life, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []  # norm that the method saw, norm that the optimizer read

    class Recorded(Toy):
        def edit_gradients(self, context: StageContext) -> None:
            gradients = {name: factor.grad.clone() for name, factor in context.parameters.items()}
            self.notes.append((context, gradients))

    class Reading(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            context, _ = Toy.notes[-1]
            before = torch.stack([gradient.norm() for gradient in Toy.notes[-1][1].values()]).norm()
            read = torch.stack([factor.grad.norm() for factor in context.parameters.values()]).norm()
            seen.append((float(before), float(read)))
            return super().step(closure)

    monkeypatch.setattr(stage_module, "AdamW", Reading)
    runs = []
    for micro, accumulated in ((4, 1), (1, 4)):
        layout = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulated}
        toy_life(Recorded, sft=layout | {"max_grad_norm": 1e-3}, preference=layout).learn(FIRST)
        runs.append(Toy.notes[0][1])  # at the same parameters in both runs
        assert len(Toy.notes) == 4  # once per optimizer step
    assert all(before > 1e-2 for before, _ in seen[:2])
    assert [read for _, read in seen[:2]] == pytest.approx([1e-3] * 2, rel=1e-2)  # clipping came after
    for name, gradient in runs[0].items():
        torch.testing.assert_close(runs[1][name], gradient, rtol=1e-4, atol=1e-7)  # accumulated


def test_gradients_edited_to_zero_move_nothing(toy_life, monkeypatch: pytest.MonkeyPatch) -> None:
    class Still(Toy):
        def edit_gradients(self, context: StageContext) -> None:
            for factor in context.parameters.values():
                factor.grad.zero_()

    class Checking(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            assert all((factor.grad == 0).all() for group in self.param_groups for factor in group["params"])
            return super().step(closure)

    monkeypatch.setattr(stage_module, "AdamW", Checking)
    life = toy_life(Still)
    life.learn(FIRST)
    assert not differs(read_adapter_of(life.directory, "00-base"), read_adapter_of(life.directory))


def test_a_method_may_ask_for_the_loss_of_other_pairs(toy_life) -> None:
    class Asking(Toy):
        def penalty(self, outcome: BatchOutcome, context: StageContext) -> Tensor | None:
            if not self.notes:
                self.notes.append(outcome.pairs)
            return None

        def edit_gradients(self, context: StageContext) -> None:
            if context.stage == "sft":
                before = [factor.grad.clone() for factor in context.parameters.values()]
                gradients = torch.autograd.grad(context.loss_of(self.notes[0]), list(context.parameters.values()))
                assert any(gradient.norm() > 0 for gradient in gradients)
                assert all(map(torch.equal, before, (factor.grad for factor in context.parameters.values())))

    asking, usual = toy_life(Asking), toy_life(Toy)
    for life in (usual, asking):
        life.learn(FIRST)
    assert not differs(read_adapter_of(asking.directory), read_adapter_of(usual.directory))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_consolidate_returns_is_what_is_saved_remembered_and_scored(toy_life, share: float) -> None:
    class Shrinking(Toy):
        def consolidate(self, update: Adapter, memory: LongTermMemory, step: Step) -> Consolidation:
            self.notes.append((step.name, update))
            result = super().consolidate(update, memory, step)
            return Consolidation({name: share * factor for name, factor in update.items()}, result.figures)

    life = toy_life(Shrinking)
    life.learn(FIRST)
    ((step, update),) = Toy.notes
    assert step == "01-first"
    before, saved = read_adapter_of(life.directory, "00-base"), read_adapter_of(life.directory)
    for name, factor in saved.items():
        torch.testing.assert_close(factor, (before[name].double() + share * update[name]).float(), rtol=0, atol=0)
        torch.testing.assert_close(
            life.workspace.memory.updates[0][name], (share * update[name]).float(), rtol=0, atol=0
        )
    margin = life.scores["margin"].as_dict()["rows"][0]["first"]
    assert abs(margin) < 1e-6 if share == 0 else abs(margin) > 1e-3
    reopened = Life.open(life.directory.path)
    assert not differs(reopened.workspace.memory.updates[0], life.workspace.memory.updates[0])


def test_state_is_called_after_each_step_and_found_again(toy_life) -> None:
    class Counting(Toy):
        def consolidate(self, update: Adapter, memory: LongTermMemory, step: Step) -> Consolidation:
            self.notes.append(1)
            return super().consolidate(update, memory, step)

        def state(self) -> MethodState:
            return MethodState({"count": torch.tensor([len(self.notes)])}, {"count": len(self.notes)})

        def load_state(self, state: MethodState) -> None:
            assert state.values == {"count": int(state.tensors["count"])}
            self.notes[:] = [1] * state.values["count"]

    life = toy_life(Counting)
    run_stream(life.workspace, [FIRST, SECOND])
    Toy.notes.clear()  # a restart
    assert Life.open(life.directory.path).workspace.method.state().values == {"count": 2}
    life.rollback("01-first")
    assert life.workspace.method.state().values == {"count": 1}


@pytest.mark.parametrize("to", ["00-base", "01-first"])
def test_a_rollback_takes_the_state_of_the_method_back(toy_life, to: str) -> None:
    class Counting(Toy):
        _count: int = PrivateAttr(0)

        def consolidate(self, update: Adapter, memory: LongTermMemory, step: Step) -> Consolidation:
            self._count += 1
            return super().consolidate(update, memory, step)

        def state(self) -> MethodState:
            return MethodState(values={"count": self._count})

        def load_state(self, state: MethodState) -> None:
            self._count = state.values["count"]

    life = toy_life(Counting)
    run_stream(life.workspace, [FIRST, SECOND])
    assert life.workspace.method.state().values == {"count": 2}
    life.rollback(to)
    assert life.workspace.method.state().values == {"count": int(to[:2])}
