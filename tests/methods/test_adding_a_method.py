"""The walk-through of docs/adding_a_method.md, run as it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import letter_task

from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.memory.update import Adapter
from lifealign.methods import METHODS
from lifealign.training.moments import StageContext
from lifealign.training.objectives import BatchOutcome

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"
STREAM = [letter_task("first", "x", "y"), letter_task("second", "y", "x")]


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the page's Python blocks have defined, one after the other."""
    known = dict(METHODS)
    namespace: dict[str, Any] = {"__name__": "adding_a_method"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), namespace)
    yield namespace
    METHODS.clear()
    METHODS.update(known)


def lived(make_life: Any, method: Any) -> Life:
    life: Life = make_life(method=method)
    run_stream(life.workspace, STREAM)
    return life


def equal(one: Adapter, other: Adapter) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_method_of_the_page_is_one_of_the_methods(walked) -> None:
    assert METHODS["l2sp"] is walked["L2SP"] and METHODS["l2sp"].key == "l2sp"


def test_its_limit_is_seqft_and_it_resumes_between_tasks(walked, make_life) -> None:
    seqft, still = lived(make_life, {"name": "seqft"}), lived(make_life, {"name": "l2sp", "strength": 0})
    assert equal(read_adapter_of(seqft.directory), read_adapter_of(still.directory))
    whole = lived(make_life, {"name": "l2sp", "strength": 1.0})
    parts = make_life(method={"name": "l2sp", "strength": 1.0})
    parts.learn(STREAM[0])
    reopened = Life.open(parts.directory.path)
    reopened.learn(STREAM[1])
    assert equal(read_adapter_of(whole.directory), read_adapter_of(reopened.directory)) and not equal(
        read_adapter_of(whole.directory), read_adapter_of(seqft.directory)
    )


def test_the_number_on_the_page(walked) -> None:
    method = walked["L2SP"](strength=0.1)
    method._start.update({"a": torch.zeros(1), "b": torch.zeros(1)})
    parameters = {"a": torch.nn.Parameter(torch.tensor([3.0])), "b": torch.nn.Parameter(torch.tensor([4.0]))}
    context = StageContext("sft", parameters, lambda pairs: torch.zeros(()))
    outcome = BatchOutcome("sft", [], torch.zeros(0), torch.zeros(0))
    assert float(method.penalty(outcome, context)) == pytest.approx(1.25)


def test_more_strength_ends_nearer_to_where_the_last_task_ended(walked, make_life) -> None:
    distances = []
    for strength in (0.0, 1.0, 100.0):
        life = lived(make_life, {"name": "l2sp", "strength": strength})
        before, after = read_adapter_of(life.directory, "01-first"), read_adapter_of(life.directory)
        distances.append(sum(float((after[name] - before[name]).square().sum()) for name in before))
    assert distances[0] > distances[1] > distances[2] > 0
