"""A step of a long life costs what a step of a short one does: in passes, in files read, in bytes written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeLife
from tests.tiny import letter_task

from lifealign.life import keys
from lifealign.life.card import model_card
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.step_files import own_scores
from lifealign.life.life import Life
from lifealign.model.runtime import Runtime
from lifealign.storage.files import read_rows

TASKS = 12
SETTLED = 7
"""By this task replay is full, scores, comparisons and cards are of as many tasks as ever, and history is a sketch."""
ONE_EPOCH = {"num_train_epochs": 1}
SECTIONS: dict[str, dict[str, Any]] = {
    "lifealign": {"method": {"name": "lifealign", "history_limit": 2}},
    "er": {"method": "er"},
}


@dataclass
class Counts:
    """What one step has done.

    Attributes:
        pairs: Pairs that went through the model, by layout and reason.
        read: Files of the life that were opened to be read, by kind.
        written: Bytes written into the life, by kind.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)


def kind(path: Path) -> str:
    """A file's name without that of its step or task."""
    return ".".join(part for part in path.name.split(".") if "task" not in part) or path.parent.name


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Counts]]:
    """What is counted goes to the last of these."""
    steps: list[Counts] = []
    root, opened, replaced, wrote = tmp_path / "life", os.open, os.replace, os.write
    batch = Runtime.batch

    def batched(self: Runtime, pairs: Any, completions: Any) -> Any:
        steps[-1].pairs["passes"] += 1
        steps[-1].pairs["pairs"] += len(pairs)
        return batch(self, pairs, completions)

    def opening(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        found = Path(os.fsdecode(path))
        if found.is_relative_to(root) and found.is_file() and not flags & (os.O_WRONLY | os.O_RDWR):
            steps[-1].read[kind(found)] += 1
        return opened(path, flags, *rest, **options)

    def replacing(source: Any, target: Any) -> None:
        if Path(target).is_relative_to(root):
            steps[-1].written[kind(Path(target))] += os.path.getsize(source)
        replaced(source, target)

    def writing(handle: int, content: Any) -> int:  # what is appended; other files are written by way of a rename
        steps[-1].written["appended"] += len(content)
        return wrote(handle, content)

    monkeypatch.setattr(Runtime, "batch", batched)
    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "write", writing)
    monkeypatch.setattr(keys, "MOST_OTHERS", 2)
    monkeypatch.setattr(model_card, "MOST_TASKS", 3)
    yield steps


def lived(make_life: MakeLife, counts: list[Counts], **sections: Any) -> Life:
    """Twelve tasks, one after the other, each counted by itself."""
    counts.append(Counts())
    life = make_life(
        "life",
        sft=ONE_EPOCH,
        preference=ONE_EPOCH,
        replay={"fraction": 0.5, "capacity": 4},
        evaluation={"metrics": ("preference_accuracy",), "general_text": None, "evaluate_last": 2},
        keep_training_pairs=True,
        **sections,
    )
    for number in range(1, TASKS + 1):
        counts.append(Counts())
        life.learn(letter_task(f"task{number:02}", "a", "b", train=4, test=2))
    return life


@pytest.mark.parametrize("method", SECTIONS)
def test_no_step_costs_more_than_the_one_before_it(make_life: MakeLife, counts: list[Counts], method: str) -> None:
    """But for the manifest and the view of scores: they name every step, and grow by the same with each."""
    life = lived(make_life, counts, **SECTIONS[method])
    steps = counts[SETTLED:]
    assert len({frozenset(step.pairs.items()) for step in steps}) == 1, [step.pairs for step in steps]
    assert len({frozenset(step.read.items()) for step in steps}) == 1, [step.read for step in steps]
    for what in {what for step in steps for what in step.written} - {names.MANIFEST, names.SCORES}:
        found = [step.written[what] for step in steps]
        assert max(found) - min(found) <= 0.03 * max(found) + 8, (what, found)  # floats have more digits or fewer
    for what, most in ((names.MANIFEST, 4000), (names.SCORES, 600)):
        sizes = [step.written[what] for step in steps]
        grown = [after - before for before, after in pairwise(sizes)]
        assert max(grown) - min(grown) <= 40 and 0 < max(grown) < most, (what, grown)
    kept = read_rows(life.directory.path / names.REFERENCE_CACHE)
    assert len(kept) == len({row["key"] for row in kept}) == TASKS * (4 + 2)  # each pair written once


def test_what_a_step_has_scored_is_read_once_and_again_when_it_was_measured_anew(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = make_life()
    life.learn(letter_task("task01", "a", "b"))
    read: list[str] = []
    json = LifeDirectory.json
    monkeypatch.setattr(LifeDirectory, "json", lambda self, name: (read.append(name), json(self, name))[1])
    directory = Life.open(life.directory.path).directory
    first = own_scores(directory, "01-task01")
    assert own_scores(directory, "01-task01") is first and len(read) == 1
    directory.extend("01-task01", {names.own_scores("01-task01"): first.model_dump() | {"scores": {}}})
    assert own_scores(directory, "01-task01").scores == {} and len(read) == 2
    monkeypatch.setattr("lifealign.life.disk.directory.MOST_PARSED", 10)
    small = Life.open(life.directory.path).directory
    assert own_scores(small, "01-task01") is not own_scores(small, "01-task01")
