"""CPPO: pairs learn and retain by class, and the policy stays near that of the last task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny import letter_task, pair

from lifealign.data.task import Task
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.methods.cppo import CLASSES, CPPO, FEWEST, classify
from lifealign.model.tokens import TokenizedPair
from lifealign.training.moments import StageContext
from lifealign.training.objectives import BatchOutcome

STREAM = [letter_task("first", "x", "y"), letter_task("second", "y", "x"), letter_task("third", "z", "x")]
WINDOW = [(-1.0, -1.0), (1.0, 1.0)] * 16  # means 0, deviations 1
TEN = TokenizedPair("key", "", (1,), tuple(range(10)), tuple(range(5)))


def outcome_of(probability: list[float], reward: list[float]) -> BatchOutcome:
    """Pairs of ten chosen tokens with given mean log-probability, and margins."""
    pairs = [TEN] * len(reward)
    margins = torch.tensor(reward, dtype=torch.float32, requires_grad=True)
    logps = 10 * torch.tensor(probability, dtype=torch.float32, requires_grad=True)
    return BatchOutcome("preference", pairs, -margins, logps, torch.zeros(len(reward)), margins)


def weights_of(method: CPPO, probability: list[float], reward: list[float]) -> tuple[Any, Any]:
    method._seen.extend(WINDOW[: method.window - len(reward)])
    learn = method.example_weights(outcome_of(probability, reward))
    return learn, method._retained


def test_the_four_classes_are_those_of_the_papers_table() -> None:
    probability, reward = torch.tensor([2.0, 2.0, -2.0, -2.0, 2.0, 0.0]), torch.tensor([2.0, -2.0, 2.0, -2.0, 0.3, 0.0])
    kinds, amounts = classify(probability, reward, WINDOW, threshold=0.5)
    assert [CLASSES[kind] for kind in kinds.tolist()] == [*CLASSES[:4], "ordinary", "ordinary"]
    assert amounts.tolist() == [1, 1, 1, 1, 0, 0]


def test_weights_rise_and_fall_as_in_the_papers_table_and_carry_no_gradient() -> None:
    method = CPPO(lowest=0.5, highest=1.5, window=10_000)
    method._seen.extend(WINDOW * 300)  # so many that the pairs themselves do not move the mean
    learn = method.example_weights(outcome_of([9, 9, -9, -9, 0], [9, -9, 9, -9, 0]))
    assert learn is not None and method._retained is not None
    assert learn.tolist() == pytest.approx([1.5, 1.5, 1.5, 0.5, 1.0])
    assert method._retained.tolist() == pytest.approx([1.5, 0.5, 0.5, 0.5, 1.0])
    assert not learn.requires_grad and not method._retained.requires_grad


def test_weights_are_continuous_at_the_threshold_and_reach_their_bound_a_deviation_later() -> None:
    scores = torch.tensor([0.5, 0.5 + 1e-6, 1.0, 1.5, 3.0])
    _, amounts = classify(scores, scores, WINDOW, threshold=0.5)
    assert amounts.tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0], abs=1e-5)


def test_a_window_too_small_to_mean_anything_weighs_nothing() -> None:
    method = CPPO()
    few = FEWEST - 1
    assert method.example_weights(outcome_of([0.0] * few, [float(n) for n in range(few)])) is None
    assert method.example_weights(outcome_of([1.0], [1.0])) is not None  # one more is enough


def test_micro_batches_of_one_are_weighed_too() -> None:
    method = CPPO(window=64)
    method._seen.extend(WINDOW * 2)
    learn = method.example_weights(outcome_of([5.0], [5.0]))
    assert learn is not None and float(learn) == pytest.approx(1.5)


def test_only_the_last_pairs_count() -> None:
    method = CPPO(window=16)
    method._seen.extend([(1e6, 1e6)] * 100 + WINDOW)
    assert len(method._seen) == 16 and max(probability for probability, _ in method._seen) == 1.0


def test_all_four_classes_occur_in_training(make_life) -> None:
    # questions and answers of many kinds, so that probability and margin do not go hand in hand
    rows = [
        pair(f"say {word}", word * (1 + number % 3), other * (1 + number % 4), f"t:{number}")
        for number, (word, other) in enumerate((a, b) for a in "abcdef" for b in "ghijkl")
    ]
    life = make_life(method={"name": "cppo", "threshold": 0.1}, preference={"num_train_epochs": 3})
    run_stream(life.workspace, [STREAM[0], Task("many", tuple(rows), ())])
    counts = life.workspace.method.state().values["classes"]
    assert set(counts) == set(CLASSES) and sum(counts.values()) == 3 * len(rows)
    assert all(counts.values()), counts


def test_the_penalty_is_the_squared_change_of_mean_token_log_probability() -> None:
    method = CPPO(retention=0.5, threshold=10)
    method._previous = {"key": (-8.0, -10.0)}
    outcome = BatchOutcome(
        "preference", [TEN], torch.zeros(1), torch.tensor([-10.0]), torch.tensor([-5.0]), torch.zeros(1)
    )
    context = StageContext("preference", {}, lambda pairs: torch.zeros(()))
    # chosen: (-10 + 8) / 10 = -0.2, rejected: (-5 + 10) / 5 = 1; half of the mean of 0.04 and 1
    assert float(method.penalty(outcome, context)) == pytest.approx(0.5 * 0.52)
    supervised = BatchOutcome("sft", [TEN], torch.zeros(1), torch.tensor([-10.0]))
    assert float(method.penalty(supervised, context)) == pytest.approx(0.5 * 0.04)


def test_retention_is_off_for_the_first_task_and_on_in_both_stages_after_it(make_life) -> None:
    life = make_life(method={"name": "cppo"})
    run_stream(life.workspace, STREAM[:2])
    logs = [life.directory.json(f"tasks/{version.name}/training.json")["stages"] for version in life.steps]
    for stage in ("sft", "preference"):
        assert all("penalty" not in row for row in logs[0][stage])
        assert all("penalty" in row for row in logs[1][stage])
    assert logs[1]["sft"][0]["penalty"] == pytest.approx(0, abs=1e-9)  # nothing has moved yet
    assert logs[1]["preference"][-1]["penalty"] > 1e-4


def test_the_previous_policy_is_that_of_the_last_task_each_time(make_life, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = []
    attach = CPPO.attach

    def spy(self: CPPO, context: Any) -> None:
        attach(self, context)
        noted.append(dict(self._previous))
        now = context.policy_logps(context.pairs)
        assert not noted[-1] or noted[-1] == now

    monkeypatch.setattr(CPPO, "attach", spy)
    life = make_life(method={"name": "cppo"})
    run_stream(life.workspace, STREAM)
    assert [len(previous) for previous in noted] == [0, 8, 8]
    from lifealign.model.tokens import tokenize_pairs

    pairs, _ = tokenize_pairs(life.workspace.runtime.tokenizer, STREAM[2].train, 1024)
    life.load("02-second")
    for one, logps in zip(pairs, life.workspace.runtime.score(pairs, 16), strict=True):
        assert noted[2][one.key] == pytest.approx(logps, rel=1e-5)


def test_strong_retention_keeps_the_policy_where_it_was(make_life) -> None:
    gaps = []
    for retention in (0.0, 1000.0):
        life = make_life(method={"name": "cppo", "retention": retention})
        run_stream(life.workspace, STREAM[:2])
        before, after = read_adapter_of(life.directory, "01-first"), read_adapter_of(life.directory)
        gaps.append(sum(float((after[name] - before[name]).square().sum()) for name in before) ** 0.5)
        margins = life.scores["margin"]
        gaps.append(abs(margins[1, 0] - margins[0, 0]))
    free, moved, held, kept = gaps
    assert kept < 0.5 * moved and held < free
