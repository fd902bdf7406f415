"""Cumulative: patterns choose what is imitated, own answers included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.conftest import TrainedStage
from tests.tiny import letter_task

from lifealign.data.pair import Message, Pair
from lifealign.data.task import Task
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.memory.pattern import Pattern
from lifealign.methods import cumulative as module
from lifealign.methods import own_answers
from lifealign.methods.cumulative import Cumulative
from lifealign.methods.own_answers import sample_own_answers, some_pairs
from lifealign.model.adapter import read_adapter
from lifealign.model.tokens import tokenize_pairs

FIRST, SECOND = letter_task("first", "x", "y"), letter_task("second", "y", "x")
OFF = {"demonstrations": 1.0, "own_answers": 0}


def mixed_task(name: str) -> Task:
    """Every chosen answer ends with z; half of them, in turn, also keep the rule of ``first``: they say x, not y."""
    pairs = [
        Pair((Message("user", f"say {number}"),), f"{'xy'[number % 2] * 4} z", f"{'xy'[number % 2] * 4} w", f"{number}")
        for number in range(12)
    ]
    return Task(name, train=tuple(pairs), test=())


def test_what_keeps_an_earlier_pattern_is_imitated_more_often(make_life, trained: list[TrainedStage]) -> None:
    first = Task("first", tuple(Pair((Message("user", f"say {n}"),), "xxxx z", "yyyy z", f"{n}") for n in range(12)))
    second = mixed_task("second")
    text = {pair.key: pair.chosen for pair in second.train}
    kept = {}
    for share in (1.0, 0.25):
        trained.clear()
        life = make_life(method={"name": "cumulative", **OFF, "demonstrations": share}, replay={"capacity": 0})
        run_stream(life.workspace, [first, second])
        stages = {(stage.task, stage.stage): [pair.key for pair in stage.pairs] for stage in trained}
        imitated = [text[key] for key in stages["second", "sft"]]
        assert len(imitated) == 12
        kept[share] = sum(answer.startswith("x") for answer in imitated) / 12
        assert sorted(stages["second", "preference"]) == sorted(text)  # only imitation is tilted
    assert kept[1.0] == 0.5
    assert kept[0.25] >= 0.7  # twelve clear pairs make odds of 1.2 nats, so 3 in 4


def test_a_superseded_pattern_has_no_vote(make_life) -> None:
    life = make_life(method={"name": "cumulative", "own_answers": 0})
    second = Task("second", SECOND.train, SECOND.test, supersedes=("first",))
    run_stream(life.workspace, [FIRST, second])
    method = life.workspace.method
    assert isinstance(method, Cumulative)
    assert list(method._patterns) == ["second"]
    assert list(method.state().tensors) == ["second.direction"]


@pytest.mark.parametrize(("high", "share_of_own"), [(3.0, 0.5), (0.0, 0.0)], ids=["better", "as good as the given one"])
def test_the_best_of_own_answers_and_the_given_one_is_rehearsed(
    make_life, trained: list[TrainedStage], monkeypatch: pytest.MonkeyPatch, high: float, share_of_own: float
) -> None:
    def two_answers(runtime: Any, pairs: Any, given: Any, **options: Any) -> Any:
        asked.append((len(pairs), options["draws"], options["temperature"]))
        return [
            [replace(one, key=f"{mark} {one.key}", source=mark) for mark in ("low", "high")] if index % 2 else []
            for index, one in enumerate(given)
        ]

    asked: list[Any] = []
    rated = {"high": high, "low": -3.0}
    monkeypatch.setattr(module, "sample_own_answers", two_answers)
    monkeypatch.setattr(
        module,
        "answer_features",
        lambda runtime, pairs, completions=("chosen", "rejected"), **_: [
            torch.tensor([[rated.get(pair.source, 0.0)] for pair in pairs]) for _ in completions
        ],
    )
    monkeypatch.setattr(
        module, "learn_pattern", lambda chosen, rejected: Pattern(torch.ones(1, dtype=torch.float64), 0.0, 1.0)
    )
    life = make_life(method={"name": "cumulative", "rehearsals": 1, "rehearsed_prompts": 6, "temperature": 0.5})
    life.learn(FIRST)
    stage = trained[-1]
    assert stage.stage == "rehearsal"
    assert asked == [(6, 4, 0.5)]
    marks = [pair.source if pair.source in rated else "given" for pair in stage.pairs]
    assert len(marks) == 12 and "low" not in marks
    assert life.workspace.method.state().values["own_answers_rehearsed"] == share_of_own
    if share_of_own:
        assert marks.count("high") > marks.count("given")  # three prompts each; the draw is tilted
    else:
        assert marks == ["given"] * 12  # in a tie


def test_a_rehearsal_has_the_settings_of_sft(make_life) -> None:
    life = make_life(
        method={"name": "cumulative", "rehearsals": 1, "rehearsed_prompts": 4}, sft={"num_train_epochs": 2}
    )
    life.learn(FIRST)
    stages = life.directory.json("tasks/01-first/training.json")["stages"]
    assert set(stages) == {"sft", "preference", "rehearsal"}
    whole = life.config.sft.per_device_train_batch_size * life.config.sft.gradient_accumulation_steps
    assert len(stages["rehearsal"]) == 2 * -(-8 // whole)  # two epochs of two answers a prompt


def test_each_rehearsal_asks_the_model_of_its_time_for_prompts_of_its_own(
    make_life, trained: list[TrainedStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spied(runtime: Any, pairs: Any, given: Any, *, seed: int, **_: Any) -> Any:
        asked.append(([pair.prompt for pair in pairs], seed, read_adapter(runtime.model)))
        return [[] for _ in pairs]

    asked: list[Any] = []
    monkeypatch.setattr(module, "sample_own_answers", spied)
    life = make_life(method={"name": "cumulative", "rehearsals": 2, "rehearsed_prompts": 4})
    life.learn(FIRST)
    assert [stage.stage for stage in trained] == ["sft", "preference", "rehearsal", "rehearsal"]
    (one, seed, before), (other, next_seed, after) = asked
    assert len(set(one)) == len(set(other)) == 4 and not set(one) & set(other)
    assert seed != next_seed
    assert any(not torch.equal(before[name], after[name]) for name in before)
    rows = life.directory.json("tasks/01-first/training.json")["stages"]["rehearsal"]
    assert [row["epoch"] for row in rows].count(1.0) == 2  # both are in the log
    life.learn(SECOND)
    third, seed, _ = asked[2]
    assert third == [pair.prompt for pair in some_pairs(SECOND.train, 4, seed - 1)]  # the count starts again


def test_switching_sft_off_is_refused_where_it_would_leave_nothing_to_decide() -> None:
    off = {"num_train_epochs": 0}
    with pytest.raises(ValueError, match="found 0, expected at least 1, because cumulative decides what SFT imitates"):
        LifeConfig(method={"name": "cumulative"}, sft=off)
    LifeConfig(method={"name": "cumulative", **OFF}, sft=off)  # at its limits it is LifeAlign
    LifeConfig(method="lifealign", sft=off)


def test_patterns_survive_a_restart(make_life) -> None:
    life = make_life(method={"name": "cumulative", "own_answers": 0})
    life.learn(FIRST)
    again = Life.open(life.directory.path).workspace.method
    before = life.workspace.method
    assert isinstance(again, Cumulative) and isinstance(before, Cumulative)
    one, other = before._patterns["first"], again._patterns["first"]
    assert torch.equal(one.direction, other.direction) and one.direction.dtype == other.direction.dtype
    assert (one.middle, one.accuracy) == (other.middle, other.accuracy)


def test_some_pairs_have_one_for_each_prompt() -> None:
    pairs = [Pair((Message("user", f"{n % 3}"),), f"{n}", "no", "") for n in range(9)]
    assert sorted(pair.prompt[0].content for pair in some_pairs(pairs, 10, seed=1)) == ["0", "1", "2"]
    assert len(some_pairs(pairs, 2, seed=1)) == 2
    assert some_pairs(pairs, 2, seed=1) == some_pairs(pairs, 2, seed=1)
    whole = some_pairs(pairs, 3, seed=1)
    assert some_pairs(pairs, 2, seed=1, skip=2) == [whole[2], whole[0]]  # from the beginning again after the last


def test_own_answers_are_those_that_can_be_learnt(make_runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make_runtime()
    pairs = [Pair((Message("user", f"say {n}"),), "xxxx", "yyyy", f"{n}") for n in range(5)]
    given, _ = tokenize_pairs(runtime.tokenizer, pairs, 64)
    room = len(given[0].chosen)
    asked: list[Any] = []

    def answers(runtime: Any, prompts: Any, *, max_new_tokens: int, batch_size: int, sampling: Any) -> list[str]:
        asked.append((prompts, max_new_tokens, batch_size, sampling.temperature, sampling.seed))
        return ["z", "z" * (room - 1), "z" * room, "  ", "yyyy"]  # the third has no room for its end: it was cut

    monkeypatch.setattr(own_answers, "generate_answers", answers)
    options: dict[str, Any] = {"draws": 2, "temperature": 0.7, "batch_size": 3, "seed": 1}
    own = sample_own_answers(runtime, pairs, given, **options)
    assert [len(each) for each in own] == [2, 2, 0, 0, 0]
    for answer, pair in zip(own, given, strict=True):
        assert all((one.prompt, one.rejected) == (pair.prompt, pair.rejected) for one in answer)
        assert all(one.source == f"own answer to {pair.source}" for one in answer)
    prompts = [pair.prompt for pair in pairs]
    assert [one[:4] for one in asked] == [(prompts, room, 3, 0.7)] * 2
    assert asked[0][4] != asked[1][4]  # two draws are two answers


def test_an_own_answer_that_the_template_refuses_is_left_out(make_runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = replace(make_runtime(), reasoning="refuse")
    pairs = [Pair((Message("user", "say"),), "x" * 40, "yyyy", "1")]
    given, _ = tokenize_pairs(runtime.tokenizer, pairs, 128)
    monkeypatch.setattr(own_answers, "generate_answers", lambda *_, **__: ["<think>hm</think>x"])
    assert sample_own_answers(runtime, pairs, given, draws=1, temperature=1.0, batch_size=1, seed=1) == [[]]
