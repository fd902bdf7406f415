"""The long-term memory of a long life: a sketch that is read back, made again, and never trusted without a look."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny import letter_task

from lifealign.life.disk import names
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.life import Life
from lifealign.memory.history import SketchedHistory
from lifealign.memory.long_term import LongTermMemory
from lifealign.storage.tensors import read_tensors, write_tensors

MakeLife = Callable[..., Life]
TASKS = [letter_task(name, good, bad, train=4, test=2) for name, good, bad in ("axy", "bzy", "cxz", "dyx")]


def same(one: LongTermMemory, other: LongTermMemory) -> bool:
    """Whether two memories are equal to the last bit."""
    if one.remembered != other.remembered or one.histories.keys() != other.histories.keys():
        return False
    for name, history in one.histories.items():
        twin = other.histories[name]
        assert isinstance(history, SketchedHistory) and isinstance(twin, SketchedHistory)
        if not torch.equal(history.rows, twin.rows) or history.lost != twin.lost:
            return False
    return True


@pytest.fixture
def life(make_life: MakeLife) -> Life:
    """A life of three tasks whose memory keeps two updates exactly."""
    life = make_life(name="long", method={"name": "lifealign", "history_limit": 2})
    for task in TASKS[:3]:
        life.learn(task)
    return life


def test_a_sketch_is_read_back_and_made_again_to_the_last_bit(life: Life) -> None:
    path = life.directory.path / names.MEMORY_SKETCH
    held, read = life.workspace.memory, Life.open(life.directory.path).workspace.memory
    assert held.remembered == 3 and held.updates == [] and same(held, read)
    path.unlink()
    assert same(held, Life.open(life.directory.path).workspace.memory)


def test_the_next_step_is_the_same_with_the_sketch_and_without(life: Life, tmp_path: Path) -> None:
    shutil.copytree(life.directory.path, tmp_path / "copy")
    (tmp_path / "copy" / names.MEMORY_SKETCH).unlink()
    adapters = []
    for path in (life.directory.path, tmp_path / "copy"):
        opened = Life.open(path)
        opened.learn(TASKS[3])
        adapters.append(read_adapter_of(opened.directory))
    assert all(torch.equal(adapters[1][name], factor) for name, factor in adapters[0].items())
    figures = life.directory.path / names.consolidation_figures("04-d")
    assert '"sketch_error"' in figures.read_text()


def test_a_sketch_of_other_steps_or_with_a_changed_number_is_not_used(life: Life) -> None:
    path = life.directory.path / names.MEMORY_SKETCH
    held, whole = life.workspace.memory, read_tensors(path)
    changed = {name: tensor.clone() for name, tensor in whole.items()}
    changed[next(name for name in whole if name.startswith("rows/"))][0, 0] += 1
    write_tensors(path, changed)
    assert same(held, Life.open(life.directory.path).workspace.memory)
    path.write_bytes(b"not tensors")
    assert same(held, Life.open(life.directory.path).workspace.memory)
    write_tensors(path, whole)
    life.rollback("02-b")
    short = life.workspace.memory
    assert short.remembered == 2 and len(short.updates) == 2  # below the limit again, and exact
    life.learn(TASKS[3])
    again = life.workspace.memory
    assert not same(again, held) and same(again, Life.open(life.directory.path).workspace.memory)
    write_tensors(path, whole)  # whole, of as many updates, but of a step that is gone
    assert same(again, Life.open(life.directory.path).workspace.memory)


def test_a_short_life_keeps_no_sketch(make_life: MakeLife) -> None:
    life = make_life(method={"name": "lifealign", "history_limit": 3})
    for task in TASKS[:2]:
        life.learn(task)
    assert not (life.directory.path / names.MEMORY_SKETCH).exists()
