"""EWC: what mattered for earlier tasks is held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import letter_task

from lifealign.data.pair import Message, Pair
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.memory.update import subtract
from lifealign.methods.ewc import EWC, fisher_information, relative_to_update
from lifealign.model.adapter import trainable_parameters
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair, tokenize_pairs
from lifealign.training.moments import StageContext
from lifealign.training.objectives import BatchOutcome, PreferenceObjective, SupervisedObjective

STREAM = [letter_task("first", "x", "y"), letter_task("second", "y", "x"), letter_task("third", "z", "x")]
PAIRS = [Pair((Message("user", f"question {number}"),), "good" * number, "bad") for number in (1, 2, 3)]


def tokenized(runtime: Runtime) -> list[TokenizedPair]:
    return tokenize_pairs(runtime.tokenizer, PAIRS, 128)[0]


def penalty_of(method: EWC, parameters: dict[str, torch.nn.Parameter]) -> float:
    outcome = BatchOutcome("sft", [], torch.zeros(0), torch.zeros(0))
    context = StageContext("sft", parameters, lambda pairs: torch.zeros(()))
    penalty = method.penalty(outcome, context)
    return 0.0 if penalty is None else float(penalty)


def test_the_information_is_the_mean_of_squares_of_single_gradients_not_the_square_of_their_mean(make_runtime) -> None:
    runtime = make_runtime()
    pairs, objective = tokenized(runtime), SupervisedObjective()
    found = fisher_information(runtime, objective, pairs, "empirical", seed=0)
    parameters = trainable_parameters(runtime.model)
    singles = []
    for pair in pairs:
        loss = objective.outcome(runtime.policy(runtime.batch([pair], ("chosen",))), [pair]).losses.sum()
        singles.append(torch.autograd.grad(loss, list(parameters.values())))
    for number, name in enumerate(parameters):
        gradients = torch.stack([single[number] for single in singles])
        torch.testing.assert_close(found[name], gradients.square().mean(dim=0), rtol=1e-4, atol=1e-8)
        assert not torch.allclose(found[name], gradients.mean(dim=0).square(), rtol=0.1)


@pytest.mark.parametrize(("kind", "weight"), [("true", lambda s: s * (1 - s)), ("empirical", lambda s: (1 - s) ** 2)])
def test_a_preference_weighs_the_squared_gradient_of_its_margin_by_its_probability(make_runtime, kind, weight) -> None:
    runtime = make_runtime()
    pair = tokenized(runtime)[1]
    logps = runtime.policy(runtime.batch([pair], ("chosen", "rejected"))).detach()
    objective = PreferenceObjective(0.5, {pair.key: (float(logps[0]) - 1, float(logps[1]) + 1)})  # margin 0.5 * 2 = 1
    found = fisher_information(runtime, objective, [pair], kind, seed=0)
    margin = objective.outcome(runtime.policy(runtime.batch([pair], ("chosen", "rejected"))), [pair]).margins
    parameters = trainable_parameters(runtime.model)
    gradients = torch.autograd.grad(margin.sum(), list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(found[name], weight(0.73106) * gradient**2, rtol=1e-3, atol=1e-9)


def test_true_answers_are_drawn_from_what_the_model_predicts(make_runtime) -> None:
    runtime = make_runtime()
    batch = runtime.batch(tokenized(runtime)[:1], ("chosen",))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([runtime.sample_targets(batch, generator) for _ in range(600)])
    # the probability of a token at the first position, by asking for its log-probability
    token = int(draws[:300, 0].mode().values)  # picked in one half, counted in the other
    asked = replace(batch, targets=torch.full_like(batch.targets, token), sequence=torch.arange(len(batch.targets)))
    probability = float(runtime.policy(replace(asked, sequences=len(batch.targets)))[0].detach().exp())
    share = float((draws[300:, 0] == token).float().mean())
    assert share == pytest.approx(probability, abs=4 * (probability / 300) ** 0.5)
    assert len(draws[:, 0].unique()) > 20  # an untrained model is near uniform over 259 tokens


def test_true_and_empirical_information_of_answers_differ_and_the_seed_decides_the_draw(make_runtime) -> None:
    runtime = make_runtime()
    pairs, objective = tokenized(runtime), SupervisedObjective()
    one, again, other = (fisher_information(runtime, objective, pairs, "true", seed) for seed in (0, 0, 1))
    empirical = fisher_information(runtime, objective, pairs, "empirical", 0)
    for name in one:
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])
        assert not torch.allclose(one[name], empirical[name], rtol=0.01)


def test_a_task_that_moves_as_far_as_its_predecessor_pays_half_the_strength(make_life) -> None:
    life = make_life(method={"name": "ewc", "strength": 3.0})
    life.learn(STREAM[0])
    start, end = read_adapter_of(life.directory, "00-base"), read_adapter_of(life.directory)
    update = subtract(end, start)
    moved = {name: torch.nn.Parameter((end[name].double() + update[name]).float()) for name in end}
    assert penalty_of(life.workspace.method, moved) == pytest.approx(1.5, rel=1e-3)
    assert penalty_of(life.workspace.method, {name: torch.nn.Parameter(factor) for name, factor in end.items()}) == 0.0
    twice = {name: torch.nn.Parameter((end[name].double() + 2 * update[name]).float()) for name in end}
    assert penalty_of(life.workspace.method, twice) == pytest.approx(6.0, rel=1e-3)


def test_the_scale_of_the_information_does_not_matter() -> None:
    information, update = {"w": torch.rand(3, 4)}, {"w": torch.randn(3, 4)}
    scaled = relative_to_update({"w": 1e-9 * information["w"]}, update)["w"]
    torch.testing.assert_close(relative_to_update(information, update)["w"], scaled)
    assert (relative_to_update(information, {"w": torch.zeros(3, 4)})["w"] == 0).all()


def test_coordinates_with_much_information_are_held_and_the_others_are_free(make_life) -> None:
    moved = {}
    for strength in (1e-6, 30.0):  # as good as SeqFT, and strong
        life = make_life(method={"name": "ewc", "strength": strength})
        life.learn(STREAM[0])
        fisher = {
            name.split("/", 1)[1]: tensor
            for name, tensor in life.workspace.method.state().tensors.items()
            if "fisher" in name
        }
        before = read_adapter_of(life.directory)
        life.learn(STREAM[1])
        update = subtract(read_adapter_of(life.directory), before)
        values = torch.cat([tensor.flatten() for tensor in fisher.values()])
        distances = torch.cat([update[name].abs().flatten() for name in fisher])
        order = values.argsort()
        tenth = len(order) // 10
        moved[strength] = (float(distances[order[-tenth:]].mean()), float(distances[order[:tenth]].mean()))
    (much_free, little_free), (much_held, little_held) = moved.values()
    assert much_held < 0.3 * much_free
    assert little_held / little_free > 2 * much_held / much_free


@pytest.mark.parametrize("decay", [1.0, 0.25, 0.0])
def test_information_is_accumulated_with_its_decay_and_the_anchor_moves_along(make_life, decay: float) -> None:
    life = make_life(method={"name": "ewc", "decay": decay, "strength": 1e-6})
    states = []
    for task in STREAM[:2]:
        life.learn(task)
        states.append({name: tensor.clone() for name, tensor in life.workspace.method.state().tensors.items()})
    alone = make_life(method={"name": "ewc", "decay": 0.0, "strength": 1e-6})
    run_stream(alone.workspace, STREAM[:2])
    second = alone.workspace.method.state().tensors
    for name, tensor in states[1].items():
        if name.startswith("fisher/"):
            torch.testing.assert_close(tensor, decay * states[0][name] + second[name], rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(tensor, read_adapter_of(life.directory)[name.removeprefix("anchor/")])


def test_the_penalty_is_on_in_both_stages_of_later_tasks_only(make_life) -> None:
    life = make_life(method={"name": "ewc"})
    run_stream(life.workspace, STREAM[:2])
    logs: list[Any] = [life.directory.json(f"tasks/{version.name}/training.json")["stages"] for version in life.steps]
    for stage in ("sft", "preference"):
        assert all("penalty" not in row for row in logs[0][stage])
        assert all(row["penalty"] >= 0 for row in logs[1][stage])
        assert logs[1][stage][-1]["penalty"] > 0


def test_only_so_many_pairs_are_looked_at_and_only_the_tasks_own(make_life, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    from lifealign.methods import ewc

    def spy(runtime: Any, objective: Any, pairs: Any, *rest: Any) -> Any:
        seen.append({pair.source.split(":")[0] for pair in pairs} | {str(len(pairs))})
        return fisher_information(runtime, objective, pairs, *rest)

    monkeypatch.setattr(ewc, "fisher_information", spy)
    life = make_life(method={"name": "ewc", "fisher_examples": 3}, replay={"fraction": 0.5})
    run_stream(life.workspace, STREAM[:2])
    assert seen == [{"first", "3"}] * 2 + [{"second", "3"}] * 2
