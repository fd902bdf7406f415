"""STL and MTL: every task alone, and all tasks at once."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import TrainedStage
from tests.tiny import letter_task

from lifealign.errors import ConfigError
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.settings import LifeConfig
from lifealign.settings.section import build_config

FIRST, SECOND, OTHER = letter_task("first", "x", "y"), letter_task("second", "y", "x"), letter_task("other", "z", "x")


def test_a_task_learnt_alone_does_not_depend_on_the_one_before_it(make_life) -> None:
    lives = [make_life(method={"name": "stl"}) for _ in range(2)]
    run_stream(lives[0].workspace, [FIRST, SECOND])
    run_stream(lives[1].workspace, [OTHER, SECOND])
    one, other = (read_adapter_of(life.directory) for life in lives)
    assert all(torch.equal(one[name], other[name]) for name in one)
    sequential = [make_life(method={"name": "seqft"}) for _ in range(2)]
    run_stream(sequential[0].workspace, [FIRST, SECOND])
    run_stream(sequential[1].workspace, [OTHER, SECOND])
    one, other = (read_adapter_of(life.directory) for life in sequential)
    assert any(not torch.equal(one[name], other[name]) for name in one)  # what the test above would see


def test_each_task_is_scored_on_its_own_model(make_life) -> None:
    life = make_life(method={"name": "stl"})
    run_stream(life.workspace, [FIRST, SECOND])
    margins = life.scores["margin"]
    assert margins[1, 0] == margins[0, 0] and margins.backward_transfer == 0
    assert margins.last == margins.learned
    outcomes = life.directory.json("tasks/02-second/scores.json")["outcomes"]["margin"]
    assert set(outcomes) == {"first", "second"}
    assert sum(outcomes["second"]) / 4 == pytest.approx(margins[1, 1])


def test_all_tasks_are_learnt_in_one_step_from_all_their_pairs(make_life, trained: list[TrainedStage]) -> None:
    life = make_life(method={"name": "mtl"})
    run_stream(life.workspace, [FIRST, SECOND])
    union = {pair.key for task in (FIRST, SECOND) for pair in task.train}
    assert [stage.keys for stage in trained] == [union, union]
    assert [version.name for version in life.steps] == ["01-first+second"]
    accuracy = life.scores["preference_accuracy"]
    assert set(accuracy.rows[0]) == {"first", "second"} and accuracy.backward_transfer is None


def test_learning_one_task_after_another_is_refused_where_all_are_learnt_together(make_life) -> None:
    life = make_life(method={"name": "mtl"})
    with pytest.raises(ConfigError, match="found a stream of 1 task, expected at least 2"):
        life.learn(FIRST)
    assert life.steps == []
    run_stream(life.workspace, [FIRST, SECOND])
    with pytest.raises(ConfigError, match=r"found a life that has learnt 1 step\(s\), expected a new one"):
        life.learn(OTHER)
    assert len(life.steps) == 1


@pytest.mark.parametrize("method", ["stl", "mtl"])
def test_replay_settings_are_refused_where_they_would_do_nothing(method: str) -> None:
    with pytest.raises(ConfigError, match=rf"found settings, expected none, because {method} uses no pairs of earlier"):
        build_config(LifeConfig, {"method": method, "replay": {"fraction": 0.1}})
