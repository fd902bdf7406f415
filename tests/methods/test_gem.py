"""GEM and A-GEM: what the optimizer reads never works against a memory."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import letter_task
from torch import Tensor

from lifealign.life.learn import run_stream
from lifealign.methods.agem import AGEM
from lifealign.methods.gem import GEM
from lifealign.methods.gradients import apply_gradient, gradient_vector, project_to_cone, project_to_halfspace
from lifealign.training import stage as stage_module

STREAM = [letter_task("first", "x", "y"), letter_task("second", "y", "x"), letter_task("third", "z", "x")]
KEPT = {"fraction": 0.5}  # four pairs a task


def nearest_by_enumeration(gradient: Tensor, memories: Tensor) -> Tensor:
    """The projection, the slow way: of all sets of active constraints the one that gives the nearest feasible point."""
    best = None
    for size in range(len(memories) + 1):
        for active in combinations(range(len(memories)), size):
            rows = memories[list(active)]
            candidate = gradient - rows.T @ torch.linalg.lstsq(rows.T, gradient[:, None]).solution[:, 0]
            feasible = (memories @ candidate > -1e-9).all()
            if feasible and (best is None or (candidate - gradient).norm() < (best - gradient).norm()):
                best = candidate
    assert best is not None
    return best


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_without_margin_the_projection_is_the_nearest_point_of_the_cone(seed: int, tasks: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    memories = torch.randn(tasks, 6, generator=generator, dtype=torch.float64)
    gradient = torch.randn(6, generator=generator, dtype=torch.float64)
    projected = project_to_cone(gradient, memories)
    torch.testing.assert_close(projected, nearest_by_enumeration(gradient, memories), rtol=0, atol=1e-8)


@given(st.integers(0, 10_000), st.floats(0, 2))
def test_with_a_margin_no_product_is_negative_and_what_violates_nothing_is_left_alone(seed: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    memories = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    gradient = torch.randn(50, generator=generator, dtype=torch.float64)
    projected = project_to_cone(gradient, memories, margin)
    assert (memories @ projected > -1e-9).all()
    if (memories @ gradient >= 0).all():
        assert projected is gradient


def test_a_margin_leans_towards_the_memory_by_that_much() -> None:
    # v >= 1/2 and v = 2 solves it without margin; v = 2 still does, so nothing is added...
    memory = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert project_to_cone(torch.tensor([-2.0, 3.0]).double(), memory, 0.5).tolist() == [0.0, 3.0]
    # ...and v = 0.1 does without margin, so the margin lifts it to 0.5: -0.1 + 0.5
    assert project_to_cone(torch.tensor([-0.1, 3.0]).double(), memory, 0.5).tolist() == pytest.approx([0.4, 3.0])


def test_equal_and_empty_memories_do_no_harm() -> None:
    row = torch.tensor([1.0, 0.0, 0.0]).double()
    memories = torch.stack((row, row, torch.zeros(3).double()))
    assert project_to_cone(torch.tensor([-2.0, 3.0, 1.0]).double(), memories).tolist() == pytest.approx([0.0, 3.0, 1.0])


def test_the_halfspace_projection_is_the_cone_with_one_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        gradient, memory = torch.randn(2, 9, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(
            project_to_halfspace(gradient, memory), project_to_cone(gradient, memory[None]), rtol=0, atol=1e-9
        )


def test_gradients_make_the_round_trip_as_one_vector() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
    parameters[0].grad = torch.arange(6.0).reshape(2, 3)
    vector = gradient_vector(parameters)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0] and vector.dtype == torch.float64
    apply_gradient(parameters, vector + 1)
    assert parameters[0].grad.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert parameters[1].grad is not None and parameters[1].grad.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("method", "kind"), [("gem", GEM), ("agem", AGEM)])
def test_what_the_optimizer_reads_has_no_negative_product_with_any_memory(
    make_life, monkeypatch: pytest.MonkeyPatch, method: str, kind: type[Any]
) -> None:
    products: list[Tensor] = []
    violated: list[bool] = []
    running: list[tuple[Any, Any]] = []
    edit = kind.edit_gradients

    def noting(self: Any, context: Any) -> None:
        running[:] = [(self, context)]
        edit(self, context)
        violated.append(context.figures.get("gem/violated", 0) > 0)

    class Reading(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            acting, context = running[0]
            memories = acting._memories if method == "gem" else [acting._memory] if acting._memory else []
            parameters = list(context.parameters.values())
            read = gradient_vector(parameters)
            for memory in memories:
                own = gradient_vector(parameters, torch.autograd.grad(context.loss_of(memory), parameters))
                products.append(read @ own / (read.norm() * own.norm()))
            return super().step(closure)

    monkeypatch.setattr(kind, "edit_gradients", noting)
    monkeypatch.setattr(stage_module, "AdamW", Reading)
    options = {"name": method, "memory_batch_size": 16}  # the whole memory, so that the test asks what the method asked
    life = make_life(method=options | ({"margin": 0.0} if method == "gem" else {}), replay=KEPT)
    run_stream(life.workspace, STREAM)
    assert len(products) == 4 * (
        1 + 2 if method == "gem" else 2
    )  # four optimizer steps a task, memories of 1 and 2 tasks
    assert sum(violated) >= 2  # opposite letters: there was something to mend
    assert min(products) > -1e-6


@pytest.mark.parametrize("method", ["gem", "agem"])
def test_the_memory_is_that_of_er_and_is_not_mixed_in(make_life, method: str) -> None:
    life, replayed = make_life(method={"name": method}, replay=KEPT), make_life(method={"name": "er"}, replay=KEPT)
    for one in (life, replayed):
        run_stream(one.workspace, STREAM)
    for version in life.steps:
        place = f"replay/{version.name}.jsonl"
        assert life.directory.rows(place) == replayed.directory.rows(place) != []
        assert life.directory.json(f"tasks/{version.name}/training.json")["replayed_pairs"] == 0
    assert replayed.directory.json("tasks/03-third/training.json")["replayed_pairs"] == 8


def test_one_memory_batch_is_drawn_per_earlier_task_or_one_for_all(make_life, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    loss_of = stage_module._Stage.loss_of

    def spy(self: Any, pairs: Any) -> Tensor:
        asked.append([pair.source.split(":")[0] for pair in pairs])
        return loss_of(self, pairs)

    monkeypatch.setattr(stage_module._Stage, "loss_of", spy)
    run_stream(make_life(method={"name": "gem", "memory_batch_size": 2}, replay=KEPT).workspace, STREAM)
    assert asked == [["first"] * 2] * 4 + [["first"] * 2, ["second"] * 2] * 4
    asked.clear()
    run_stream(make_life(method={"name": "agem", "memory_batch_size": 3}, replay=KEPT).workspace, STREAM)
    assert [len(batch) for batch in asked] == [3] * 8
    assert {name for batch in asked[4:] for name in batch} == {"first", "second"}
