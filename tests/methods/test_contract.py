"""One exam for every method: two tiny tasks."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.conftest import Lived
from tests.tiny import letter_task

from lifealign import methods
from lifealign.data.task import Task
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.memory.update import Adapter
from lifealign.methods import FACTS, METHODS
from lifealign.methods.base import Method
from lifealign.model.tokens import TokenizedPair

FIRST, SECOND = letter_task("first", "x", "y"), letter_task("second", "y", "x")
# Long enough for every option to be of consequence.
STREAM = [letter_task("first", "x", "y", train=24), SECOND, letter_task("third", "z", "x", train=36)]
PAIRS = [TokenizedPair(f"{n}", "", (256, 10 + n), (20, 30, 257), (40, 257)) for n in range(4)]

# For every option of every method a legal value that is not its default.
OTHER: dict[str, dict[str, Any]] = {
    "lifealign": {
        "focal_exponent": 0.0,
        "energy_kept": 0.3,
        "overlap_kept": 0.0,
        "consolidate_at": "stage",
        "history_limit": 1,
    },
    "cumulative": {
        "focal_exponent": 0.0,
        "energy_kept": 0.3,
        "overlap_kept": 0.0,
        "consolidate_at": "stage",
        "history_limit": 1,
        "demonstrations": 1.0,
        "own_answers": 0,
        "rehearsals": 1,
        "rehearsed_prompts": 2,
        "rehearsal_draws": 1,
        "temperature": 0.05,
    },
    "seqft": {},
    "stl": {},
    "mtl": {},
    "er": {},
    "ewc": {"strength": 1.0, "decay": 0.5, "fisher": "empirical", "fisher_examples": 3},
    "gem": {"margin": 0.0, "memory_batch_size": 1},
    "agem": {"memory_batch_size": 1},
    "olora": {"strength": 0.0},
    "l2p": {"pool_size": 4, "prompt_length": 2, "top_k": 1, "pull_strength": 0.0, "rate_factor": 1.0},
    "cppo": {"retention": 10.0, "threshold": 0.0, "window": 32, "lowest": 0.9, "highest": 3.0},
}
OPTIONS = [(key, option) for key, options in OTHER.items() for option in options]


def differs(one: Adapter, other: Adapter) -> bool:
    return one.keys() != other.keys() or any(not torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def live(lived: Lived) -> Callable[..., Life]:
    """A life of two tasks, lived once for all tests; they only look at it."""

    def make(method: str, tasks: Sequence[Task] = (FIRST, SECOND), **options: Any) -> Life:
        return lived(tasks, method={"name": method, **options})

    return make


@pytest.mark.parametrize("method", METHODS)
def test_every_task_moves_every_factor(live, method: str) -> None:
    life = live(method)
    versions = [read_adapter_of(life.directory, version.name) for version in life.versions]
    assert len(versions) == (2 if method == "mtl" else 3)  # which learns both tasks in one step
    for before, after in pairwise(versions):
        assert all(not torch.equal(before[name], after[name]) for name in before if "lora_A" not in name)
        assert all(torch.isfinite(factor).all() for factor in after.values())
    assert all(not torch.equal(versions[0][name], factor) for name, factor in versions[-1].items())


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_repeats_bit_for_bit_and_the_run_resumes_into_the_same(live, make_life, method: str) -> None:
    one, again = live(method), make_life(method={"name": method})
    run_stream(again.workspace, (FIRST, SECOND))
    assert not differs(read_adapter_of(one.directory), read_adapter_of(again.directory))
    assert one.scores == again.scores
    if method == "mtl":
        return  # one step: there is nothing between tasks to resume from
    parts = make_life(method={"name": method})
    parts.learn(FIRST)
    reopened = Life.open(parts.directory.path)  # what a restart finds on disk is all a method needs
    reopened.learn(SECOND)
    assert not differs(read_adapter_of(one.directory), read_adapter_of(reopened.directory))


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_life_loads_with_the_same_logits(live, method: str) -> None:
    life = live(method)
    ids = torch.tensor([[256, 10, 20, 30]])
    with torch.no_grad():
        logits = life.workspace.runtime.model(input_ids=ids).logits  # the model as it was trained
        scores = life.workspace.runtime.score(PAIRS, 4)
        loaded = Life.open(life.directory.path)
        assert torch.equal(loaded.load()[0](input_ids=ids).logits, logits)
        assert loaded.workspace.runtime.score(PAIRS, 4) == scores  # prompts in front, where the method has them
        loaded.load(life.versions[-2].name)
        assert loaded.workspace.runtime.score(PAIRS, 4) != scores


@pytest.mark.parametrize("method", METHODS)
def test_a_state_makes_the_round_trip(live, method: str) -> None:
    state = live(method).workspace.method.state()
    fresh = METHODS[method]()
    fresh.load_state(state)
    again = fresh.state()
    assert again.values == state.values
    assert again.tensors.keys() == state.tensors.keys()
    assert not differs(state.tensors, again.tensors)


def test_the_list_and_the_folder_agree() -> None:
    files = {module.name for module in pkgutil.iter_modules(methods.__path__)} - {"base", "gradients", "own_answers"}
    assert set(METHODS) == files
    for key, method in METHODS.items():
        assert method.key == key
        assert method.__module__ == f"lifealign.methods.{key}"
        facts = FACTS[key]
        assert (method.title, method.one_model) == (facts.title, facts.one_model)
        defined = [
            value
            for value in vars(importlib.import_module(method.__module__)).values()
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == method.__module__
        ]
        assert defined == [method]  # one file, one class


@pytest.mark.parametrize(("method", "option"), [*((key, None) for key in METHODS), *OPTIONS])
def test_what_is_known_of_a_method_without_its_code_is_what_the_code_says(method: str, option: str | None) -> None:
    options = METHODS[method]().model_dump() | ({} if option is None else {option: OTHER[method][option]})
    assert FACTS[method].keeps_updates(options) == METHODS[method](**options).keeps_updates


def test_every_option_is_in_this_exam() -> None:
    assert {key: set(options) for key, options in OTHER.items()} == {
        key: set(method.model_fields) for key, method in METHODS.items()
    }


@pytest.mark.parametrize(("method", "option"), OPTIONS)
def test_every_option_changes_something(live, method: str, option: str) -> None:
    assert METHODS[method].model_fields[option].default != OTHER[method][option]
    one, other = live(method, STREAM), live(method, STREAM, **{option: OTHER[method][option]})
    assert differs(read_adapter_of(one.directory), read_adapter_of(other.directory))
