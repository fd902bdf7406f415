"""Composition of a life's tasks: which updates are in it, what is refused, and the folder that PEFT loads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.tiny import letter_task
from transformers import AutoModelForCausalLM

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Message
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError
from lifealign.evaluation.retention import loss_bound
from lifealign.life.card.composition_card import composition_card
from lifealign.life.compose import Composition, score_composition, write_composition
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.model.adapter import read_adapter
from lifealign.model.embedded import EMBEDDED_HUB_ID, EMBEDDED_LICENSE
from lifealign.model.settings import ModelConfig
from lifealign.report.page.life_page import life_page
from lifealign.storage.tensors import read_tensors

Lived = Callable[..., Life]
TASKS = [
    replace(letter_task("one", "a", "b"), check=AnswerCheck(max_words=2)),
    letter_task("two", "c", "d"),
    replace(letter_task("three", "e", "f"), check=AnswerCheck(max_words=3)),
]
IDS = torch.tensor([[256, 10, 20, 30, 40, 50]])


@pytest.fixture
def life(lived: Lived) -> Life:
    return lived(
        TASKS, method="lifealign", evaluation={"metrics": ["adherence", "joint_adherence", "margin", "perplexity"]}
    )


def version(life: Life, number: int) -> dict[str, torch.Tensor]:
    return read_tensors(life.directory.path / "versions" / life.versions[number].name / "adapter_model.safetensors")


def test_a_task_left_out_leaves_the_sum_of_the_other_updates(life: Life) -> None:
    composed = life.compose(without=["two"])
    assert composed.weights == {"01-one": 1, "02-two": 0, "03-three": 1} and composed.version is None
    base, one, two, three = (version(life, number) for number in range(4))
    for name, factor in composed.adapter.items():
        of_one, of_three = one[name].double() - base[name].double(), three[name].double() - two[name].double()
        assert torch.equal(factor, (base[name].double() + of_one + of_three).float())
    assert any(not torch.equal(composed.adapter[name], three[name]) for name in three)


def test_weights_scale_updates_and_nothing_is_taken_after_a_version(life: Life) -> None:
    composed = life.compose(weights={"two": 0.25}, as_of="02-two")
    assert composed.weights == {"01-one": 1, "02-two": 0.25, "03-three": 0}
    for name, factor in composed.adapter.items():
        one, two = version(life, 1)[name].double(), version(life, 2)[name].double()
        assert torch.allclose(factor.double(), one + 0.25 * (two - one), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_all_tasks_up_to_one_are_its_version_byte_for_byte(life: Life, number: int, tmp_path: Path) -> None:
    name = life.versions[number].name
    later = [task.name for task in TASKS[number:]]
    for composed in (life.compose(as_of=name), life.compose(without=later)):
        assert composed.version == name
        write_composition(life.workspace, composed, tmp_path / f"{len(list(tmp_path.iterdir()))}", None)
    for folder in tmp_path.iterdir():
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            assert (folder / file).read_bytes() == (life.directory.path / "versions" / name / file).read_bytes()


def test_the_card_of_a_version_points_to_its_own(life: Life, tmp_path: Path) -> None:
    write_composition(life.workspace, life.compose(as_of="02-two"), tmp_path / "out", None)
    card = (tmp_path / "out/README.md").read_text()
    assert "What was measured of 02-two is in the card of that version." in card and "not scored" not in card
    assert "4-bit" not in card and "license: unknown" in card


def test_a_composition_on_the_embedded_model_has_its_licence_and_says_that_it_is_quantised(life: Life) -> None:
    base = life.directory.manifest.base.model_copy(update={"model_name_or_path": EMBEDDED_HUB_ID})
    weights = {step.name: 0.5 for step in life.steps}
    card = composition_card(base, ModelConfig(dtype="bfloat16"), None, life.steps, weights, None, {}, {}, None)
    assert f"license: {EMBEDDED_LICENSE}" in card and "4-bit weights" in card and "It was not scored." in card


def test_version_composition_and_page_all_say_that_a_base_is_embedded(
    make_life: Callable[..., Life], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ModelConfig().is_embedded and not ModelConfig(model_name_or_path="owner/name").is_embedded
    monkeypatch.setattr(ModelConfig, "is_embedded", property(lambda self: True))
    life = make_life()
    life.learn(TASKS[0])
    write_composition(life.workspace, life.compose(weights={"one": 0.5}), tmp_path / "out", None)
    cards = [life.directory.path / "versions/01-one/README.md", tmp_path / "out/README.md"]
    for card in (path.read_text() for path in cards):
        assert f"license: {EMBEDDED_LICENSE}" in card and "4-bit weights" in card
    assert "4-bit weights" in life_page(life)


def test_a_composition_that_cannot_be_written_leaves_nothing_that_peft_would_load(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise LifeError("disk full")

    monkeypatch.setattr("lifealign.life.compose.write_text", full)
    with pytest.raises(LifeError, match="disk full"):
        write_composition(life.workspace, life.compose(), tmp_path / "out", None)
    assert not (tmp_path / "out/adapter_config.json").exists()


def test_with_everything_left_out_the_model_is_the_base(life: Life) -> None:
    model, _ = life.load(life.compose(without=["one", "two", "three"]))
    with torch.no_grad():
        composed = model(input_ids=IDS).logits
        with life.workspace.runtime.base_policy():
            base = model(input_ids=IDS).logits
    assert torch.equal(composed, base)


def test_peft_loads_what_the_life_composes(life: Life, tiny_folder: Path, tmp_path: Path) -> None:
    composed = life.compose(without=["one"])
    write_composition(life.workspace, composed, tmp_path / "out", None)
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()(input_ids=IDS).logits
        ours = life.load(composed)[0].eval()(input_ids=IDS).logits
    assert torch.allclose(loaded, ours, atol=1e-6)
    record = json.loads((tmp_path / "out/composition.json").read_text())
    assert record["weights"] == {"01-one": 0, "02-two": 1, "03-three": 1} and record["scores"] == {}
    card = (tmp_path / "out/README.md").read_text()
    assert "| 01-one | one | 0 |" in card and "It was not scored." in card and "library_name: peft" in card


def test_the_card_says_which_rules_a_composition_was_asked_for(life: Life, tmp_path: Path) -> None:
    asked = "asked for the rules of the steps whose weight is not 0 only"
    for without, expected in (["three"], True), ([], False):
        composed = life.compose(without=without)
        write_composition(
            life.workspace, composed, tmp_path / str(expected), score_composition(life.workspace, composed)
        )
        card = (tmp_path / str(expected) / "README.md").read_text()
        assert (asked in card) == expected and "| this adapter |" in card
        assert "perplexity on general text" in card


def test_without_scores_of_its_own_versions_a_life_has_those_of_a_composition(lived: Lived) -> None:
    silent = lived(TASKS[:2], method="er", evaluation={"metrics": ["perplexity"]})
    measured = score_composition(silent.workspace, silent.compose(without=["one"]))
    assert measured.matrices == {} and measured.general is not None


def test_what_cannot_be_measured_is_named(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lifealign.evaluation.evaluator.held_out_margins", fail)
    measured = score_composition(life.workspace, life.compose(without=["one"]))
    assert measured.missing == tuple(
        f"margin of {name} (RuntimeError: out of memory)" for name in ("one", "two", "three")
    )
    assert "margin" not in measured.matrices and "adherence" in measured.matrices


def test_scores_of_a_version_are_those_it_was_committed_with(life: Life) -> None:
    measured = score_composition(life.workspace, life.compose())
    assert set(measured.matrices) == {"adherence", "joint_adherence", "margin"} and measured.missing == ()
    committed = life.records[-1].general
    assert measured.general is not None and committed is not None
    assert measured.general["perplexity"] == pytest.approx(committed["perplexity"])
    for matrix in measured.matrices.values():
        before, now = matrix.rows
        assert now == pytest.approx(before)


def test_only_the_rules_that_are_in_it_are_asked_of_a_composition(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, tuple[AnswerCheck, ...]] = {}

    def score(self: object, tasks: Any, policy: str) -> Any:
        asked.update({task.name: task.rules for task in tasks})
        raise KeyboardInterrupt

    monkeypatch.setattr("lifealign.evaluation.evaluator.Evaluator.score", score)
    with pytest.raises(KeyboardInterrupt):
        score_composition(life.workspace, life.compose(without=["three"]))
    one = (TASKS[0].check,)
    assert asked == {"one": one, "two": one, "three": ()}
    left = read_adapter(life.workspace.runtime.model)  # who holds the model does not find the composition in it
    assert all(torch.equal(left[name], factor) for name, factor in version(life, 3).items())


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"without": ["twoo"]}, "found 'twoo', expected a task that was learnt: one, two, three; did you mean two?"),
        ({"without": ["three"], "as_of": "02-two"}, "expected a task that was learnt by 02-two: one, two"),
        ({"weights": {"two": float("nan")}}, "two: found a weight of nan, expected a finite number"),
        ({"weights": {"two": -1e300}}, "weights: found -1e+300, with which the adapter is not finite"),
        ({"without": ["two"], "weights": {"two": 1}}, "two: found it left out and with a weight"),
    ],
)
def test_what_cannot_be_composed_is_one_line(life: Life, how: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        life.compose(**how)


def test_a_version_that_does_not_exist_is_named_with_those_that_do(life: Life) -> None:
    with pytest.raises(
        LifeError, match="found no version '02-tow', expected one of: 00-base, 01-one, 02-two, 03-three"
    ):
        life.compose(as_of="02-tow")


@pytest.mark.parametrize(
    ("method", "reason"),
    [("stl", "a model of its own"), ("olora", "its rank grows"), ("l2p", "a pool of prompts")],
)
def test_a_life_whose_versions_are_no_sums_is_refused(lived: Lived, method: str, reason: str) -> None:
    with pytest.raises(LifeError, match=f"cannot be composed: .*{reason}"):
        lived(TASKS[:2], method=method).compose(without=["one"])


def test_tasks_that_were_learnt_together_are_taken_together(make_life: Callable[..., Life]) -> None:
    life = make_life(method="mtl")
    run_stream(life.workspace, TASKS)
    with pytest.raises(ConfigError, match="found different weights for one, two, three, which were learnt in one step"):
        life.compose(without=["two"])
    assert life.compose(without=["one", "two", "three"]).version == "00-base"


@pytest.mark.parametrize("where", ["life/out", "life/versions/09-out", "full"])
def test_no_folder_of_the_life_and_none_in_use_is_written_to(life: Life, where: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    out = life.directory.path / where.removeprefix("life/") if where != "full" else tmp_path / where
    before = sorted(life.directory.path.rglob("*"))
    with pytest.raises(LifeError, match=r"a folder of the life itself|a directory that is not empty"):
        write_composition(life.workspace, Composition({}, {}, None), out, None)
    assert sorted(life.directory.path.rglob("*")) == before
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def gated_task(name: str, letters: str, prompts: str) -> Task:
    """A task with its own prompts, so that the gates of two tasks are not the same."""
    task = letter_task(name, *letters, train=80)
    own = [(Message("user", f"{prompts * (2 + place % 4)} {place}"),) for place in range(80)]
    train = tuple(replace(pair, prompt=prompt) for pair, prompt in zip(task.train, own, strict=True))
    return replace(task, train=train, check=AnswerCheck(matches=(letters[0],)))


def test_gate_prompts_are_compared_with_the_version_that_learnt_their_task(lived: Lived, tmp_path: Path) -> None:
    tasks = [gated_task("one", "ab", "xy"), gated_task("two", "cd", "qz")]
    life = lived(
        tasks,
        method="seqft",
        sft={"num_train_epochs": 3},
        retention={"mode": "warn", "set_aside": 0.3, "confidence": 0.9},
        evaluation={"metrics": ["margin", "perplexity"], "max_new_tokens": 4},
    )
    evidence = [retention_of(life.directory, step) for step in life.steps]
    assert evidence[0] is not None and evidence[1] is not None
    held, loss = evidence[0].held["one"].values, evidence[1].losses["one"]
    assert held is not None and sum(held) > len(held) / 2 and len(loss.lost) > len(held) / 2  # learnt, then lost

    last = score_composition(life.workspace, life.compose()).gates
    assert (last["one"].lost, last["one"].gained) == (loss.lost, loss.gained)  # what the step's own gate saw
    assert last["two"].lost == last["two"].gained == []  # it is the version that learnt it
    assert last["one"].bound == loss_bound(len(loss.lost), len(loss.gained), len(held), 1 - 0.9)  # one look

    without = life.compose(without=["two"])
    measured = score_composition(life.workspace, without)
    assert measured.gates["one"].lost == []  # this is the version that learnt it
    assert measured.gates["one"].bound == loss_bound(0, 0, len(held), 1 - 0.9)
    assert sum(measured.gates["two"].values) <= sum(last["two"].values)
    write_composition(life.workspace, without, tmp_path / "out", measured)
    record = json.loads((tmp_path / "out" / "composition.json").read_text())
    assert record["gates"]["one"]["lost"] == [] and record["gates"]["one"]["prompts"] == len(held)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| one | 0 of {len(held)} prompts lost" in card


def test_without_gates_a_composition_has_none(life: Life) -> None:
    assert score_composition(life.workspace, life.compose(without=["three"])).gates == {}
