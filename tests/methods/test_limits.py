"""Where a method is another one: options at their limits give SeqFT, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import Lived, TrainedStage
from tests.tiny import letter_task

from lifealign.data.task import Task
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.memory.update import Adapter
from lifealign.methods.er import ER
from lifealign.methods.lifealign import LifeAlign

STREAM = [letter_task("first", "x", "y"), letter_task("second", "y", "x"), letter_task("third", "z", "x")]
NO_REPLAY = {"fraction": 0.2, "capacity": 0}


def live(make_life: Any, method: dict[str, Any], **sections: Any) -> Life:
    life = make_life(method=method, **sections)
    run_stream(life.workspace, STREAM)
    return life


def equal(one: Adapter, other: Adapter) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def seqft(lived: Lived) -> Life:
    return lived(STREAM, method={"name": "seqft"})


@pytest.mark.parametrize(
    "method",
    [
        {"name": "er"},
        {"name": "lifealign", "energy_kept": 1.0, "overlap_kept": 1.0, "focal_exponent": 0.0},
        {"name": "lifealign", "energy_kept": 1, "overlap_kept": 1, "focal_exponent": 0, "consolidate_at": "stage"},
        {"name": "gem"},
        {"name": "agem"},
        {"name": "ewc", "strength": 0},
        {"name": "cppo", "retention": 0, "lowest": 1, "highest": 1},
    ],
    ids=["er", "lifealign", "lifealign per stage", "gem", "agem", "ewc", "cppo"],
)
def test_at_its_limits_a_method_is_seqft_bit_for_bit(make_life, seqft: Life, method: dict[str, Any]) -> None:
    life = live(make_life, method, replay=NO_REPLAY)
    for version in seqft.versions:
        assert equal(read_adapter_of(life.directory, version.name), read_adapter_of(seqft.directory, version.name)), (
            version.name
        )
    assert life.scores == seqft.scores


@pytest.mark.parametrize(
    "method",
    [
        {"name": "er"},
        {"name": "lifealign", "energy_kept": 1.0, "overlap_kept": 1.0, "focal_exponent": 2.0},
        {"name": "lifealign", "energy_kept": 0.5, "overlap_kept": 1.0, "focal_exponent": 0.0},
        {"name": "lifealign", "energy_kept": 1.0, "overlap_kept": 0.0, "focal_exponent": 0.0},
    ],
    ids=["replay", "focal weight", "denoising", "projection"],
)
def test_every_part_of_a_method_alone_is_not_seqft(make_life, seqft: Life, method: dict[str, Any]) -> None:
    replay = None if method["name"] == "er" else NO_REPLAY
    assert not equal(
        read_adapter_of(live(make_life, method, replay=replay).directory), read_adapter_of(seqft.directory)
    )


def test_lifealign_without_its_two_parts_is_er_bit_for_bit(make_life) -> None:
    neither = {"name": "lifealign", "energy_kept": 1.0, "overlap_kept": 1.0, "focal_exponent": 0.0}
    one, other = live(make_life, neither), live(make_life, {"name": "er"})
    for version in one.versions:
        assert equal(read_adapter_of(one.directory, version.name), read_adapter_of(other.directory, version.name)), (
            version.name
        )


def test_cumulative_without_its_two_parts_is_lifealign_bit_for_bit(make_life) -> None:
    one = live(make_life, {"name": "cumulative", "demonstrations": 1.0, "own_answers": 0})
    other = live(make_life, {"name": "lifealign"})
    for version in one.versions:
        assert equal(read_adapter_of(one.directory, version.name), read_adapter_of(other.directory, version.name)), (
            version.name
        )


@pytest.mark.parametrize("part", [{"demonstrations": 1.0}, {"own_answers": 0}], ids=["own answers", "demonstrations"])
def test_each_part_of_cumulative_alone_is_not_lifealign(make_life, part: dict[str, Any]) -> None:
    one, other = live(make_life, {"name": "cumulative"} | part), live(make_life, {"name": "lifealign"})
    assert not equal(read_adapter_of(one.directory), read_adapter_of(other.directory))


def test_the_figures_of_seqft_say_that_nothing_was_taken_away(seqft: Life) -> None:
    figures = seqft.directory.json("tasks/02-second/consolidation.json")["task"]["mean"]
    assert figures["energy_kept"] == 1.0
    assert figures["norm_after"] == figures["norm_before"] > 0
    assert 0 < figures["overlap_energy"] < 1


def test_the_three_places_to_consolidate_differ_and_remember_one_two_and_one_updates_a_task(make_life) -> None:
    lives = {
        place: live(make_life, {"name": "lifealign", "consolidate_at": place})
        for place in ("task", "stage", "preference")
    }
    assert {place: len(life.workspace.memory.updates) for place, life in lives.items()} == {
        "task": 3,
        "stage": 6,
        "preference": 3,
    }
    for life in lives.values():
        again = Life.open(life.directory.path).workspace.memory.updates
        assert len(again) == len(life.workspace.memory.updates)
        assert all(
            equal(dict(one), dict(two)) for one, two in zip(again, life.workspace.memory.updates, strict=True)
        )  # in order
    adapters = [read_adapter_of(life.directory) for life in lives.values()]
    assert not equal(adapters[0], adapters[1])
    assert not equal(adapters[0], adapters[2])
    assert not equal(adapters[1], adapters[2])


def test_a_refined_update_is_orthogonal_to_history_when_no_overlap_is_kept(make_life) -> None:
    life = live(make_life, {"name": "lifealign", "overlap_kept": 0.0})
    first, second, third = life.workspace.memory.updates
    for name in first:
        for one, other in ((first, second), (first, third), (second, third)):
            product = (one[name] * other[name]).sum() / (one[name].norm() * other[name].norm())
            assert abs(float(product)) < 1e-5, name


def test_memory_plus_the_untrained_adapter_is_the_adapter(make_life) -> None:
    life = live(make_life, {"name": "lifealign", "consolidate_at": "stage"})
    total = read_adapter_of(life.directory, "00-base")
    for update in life.workspace.memory.updates:
        total = {name: factor + update[name] for name, factor in total.items()}
    for name, factor in read_adapter_of(life.directory).items():
        torch.testing.assert_close(total[name], factor, rtol=1e-5, atol=1e-7)


def test_replay_really_mixes_and_seqft_does_not(make_life, trained: list[TrainedStage]) -> None:
    own = [{pair.key for pair in task.train} for task in STREAM]
    for method, remembered in (("er", 2), ("seqft", 0)):
        trained.clear()
        live(make_life, {"name": method}, **({"replay": {"fraction": 0.25}} if method == "er" else {}))
        sft, preference = ([stage.keys for stage in trained[first::2]] for first in (0, 1))
        assert sft == preference
        assert sft[0] == own[0]
        assert sft[1] >= own[1]
        assert len(sft[1] & own[0]) == remembered  # a quarter of eight
        assert [len(sft[2] & keys) for keys in own] == [remembered, remembered, 8]


@pytest.mark.parametrize("reopened", [False, True])
def test_pairs_of_a_superseded_task_are_not_replayed(make_life, trained: list[TrainedStage], reopened: bool) -> None:
    first, second, third = STREAM
    life = make_life(method={"name": "er"}, replay={"fraction": 0.25})
    for task in (first, Task("second", second.train, second.test, supersedes=("first",)), third):
        life.learn(task)
        if reopened:
            life = Life.open(life.directory.path)
    own = [{pair.key for pair in task.train} for task in STREAM]
    replayed = [[len(stage.keys & keys) for keys in own] for stage in trained[::2]]
    assert replayed == [[8, 0, 0], [0, 8, 0], [0, 2, 8]]


def test_updates_are_kept_only_where_later_ones_are_projected_against_them() -> None:
    assert LifeAlign().keeps_updates and LifeAlign(energy_kept=1.0).keeps_updates
    assert not LifeAlign(overlap_kept=1.0).keeps_updates and not ER().keeps_updates
