"""A life that begins with an adapter from another trainer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from tests.conftest import small_config
from tests.peft_adapters import LORA, trained
from tests.tiny import letter_task, tiny_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life.disk import names
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.life import Life
from lifealign.memory.update import subtract
from lifealign.model.adapter import adapter_fingerprint
from lifealign.model.peft_folder import read_peft_folder
from lifealign.report.page.life_page import life_page
from lifealign.storage import files as storage

ONE = replace(letter_task("one", "a", "b"), check=AnswerCheck(max_words=2))
TWO, THREE = letter_task("two", "c", "d"), letter_task("three", "e", "f")
Adopted = Callable[..., Life]


@pytest.fixture
def adopt(tiny_folder: Path, tmp_path: Path) -> Adopted:
    """``adopt(ONE, adapter=FOLDER, name="life", before=FOLDER, method=...)``; an adapter is made if none is given."""

    def begin(*tasks: Task, adapter: Path | None = None, name: str = "life", **options: Any) -> Life:
        given = {key: options.pop(key) for key in ("before", "listener") if key in options}
        config = small_config(tiny_folder, tmp_path, **options)
        config = config.model_copy(update={"lora": type(config.lora)()})  # nothing said of rank or modules
        adapter = adapter or trained(tiny_folder, tmp_path / "adapter")
        return Life.adopt(tmp_path / name, adapter, tasks, config, **given)

    return begin


def test_the_first_version_is_the_adapter_and_the_untrained_one_changes_nothing(
    adopt: Adopted, tiny_folder: Path, tmp_path: Path
) -> None:
    """With lora_B zero the life's base is the base; with lora_A the adapter's own, the update is its lora_B."""
    life = adopt(ONE)
    adapter, first, start = (
        read_peft_folder(tmp_path / "adapter").factors,
        read_adapter_of(life.directory, "01-one"),
        read_adapter_of(life.directory, "00-base"),
    )
    assert adapter_fingerprint(first) == adapter_fingerprint(adapter)
    for name, factor in start.items():
        assert torch.equal(factor, adapter[name]) if ".lora_A." in name else not factor.any()
    refined = life.directory.tensors(names.refined_updates("01-one"))
    update = subtract(first, start)
    assert all(torch.equal(refined[f"task/{name}"], update[name]) for name in update)
    config = life.config.lora
    assert (config.lora_r, config.lora_alpha, config.lora_target_modules) == (4, 8, ("q_proj", "v_proj"))
    ids = torch.tensor([[256, 10, 20, 30]])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), tmp_path / "adapter")
    ours = life.load()[0].eval()
    assert torch.allclose(ours(ids).logits, plain.eval()(ids).logits, atol=1e-6)


def test_what_training_did_to_both_factors_is_known_from_the_adapter_before_it(
    adopt: Adopted, tiny_folder: Path, tmp_path: Path
) -> None:
    before = trained(tiny_folder, tmp_path / "before", seed=8)
    life = adopt(ONE, before=before)
    assert adapter_fingerprint(read_adapter_of(life.directory, "00-base")) == read_peft_folder(before).fingerprint
    update = life.directory.tensors(names.refined_updates("01-one"))
    expected = subtract(read_peft_folder(tmp_path / "adapter").factors, read_peft_folder(before).factors)
    assert all(torch.equal(update[f"task/{name}"], factor.float()) for name, factor in expected.items())
    assert life.directory.json(names.adopted("01-one"))["start_known"] is True


@pytest.mark.parametrize("method", ["lifealign", "cumulative", "er", "ewc", "gem", "agem", "cppo", "seqft"])
def test_a_life_goes_on_from_what_it_adopted(adopt: Adopted, method: str, tmp_path: Path) -> None:
    """The next task is learnt from the adapter, its pairs are replayed, and its scores are followed."""
    life = adopt(ONE, method=method)
    life.learn(TWO)
    assert [version.name for version in life.versions] == ["00-base", "01-one", "02-two"]
    row = life.scores["preference_accuracy"].rows[1]
    assert set(row) == {"one", "two"} and life.scores["preference_accuracy"].base.keys() == {"one", "two"}
    again = Life.open(tmp_path / "life")
    assert again.directory.verify(again.versions) and again.directory.adopted == "01-one"
    again.rollback("01-one")
    again.learn(THREE)
    composed = again.compose(without=["one"])
    start, one, three = (read_adapter_of(again.directory, name) for name in ("00-base", "01-one", "02-three"))
    for name, factor in composed.adapter.items():
        assert torch.allclose(factor, start[name] + three[name] - one[name], atol=1e-6)


def test_later_updates_are_projected_against_what_was_adopted(adopt: Adopted) -> None:
    life = adopt(ONE, method={"name": "lifealign", "energy_kept": 1.0, "overlap_kept": 0.0})
    life.learn(TWO)
    first, second = (life.directory.tensors(names.refined_updates(step)) for step in ("01-one", "02-two"))
    for name in (name for name in first if ".lora_B." in name):
        inner = float((first[name] * second[name]).sum())
        assert abs(inner) < 1e-5 * float(first[name].norm() * second[name].norm()) + 1e-12


def test_several_tasks_are_one_step_each_with_its_scores_gate_and_memory(
    adopt: Adopted, caplog: pytest.LogCaptureFixture
) -> None:
    life = adopt(ONE, TWO, retention={"mode": "warn", "set_aside": 0.3})
    assert "gate prompts of one, two are some that the adapter may have been trained on" in caplog.text
    (step,) = life.steps
    assert step.name == "01-one+two" and [task.name for task in step.tasks] == ["one", "two"]
    assert {"tasks/01-one+two/one.gate.jsonl", "tasks/01-one+two/two.gate.jsonl"} <= set(step.files)
    assert {row["task"] for row in life.directory.rows(names.remembered_pairs(step.name))} == {"one", "two"}
    life.learn(THREE)
    assert set(life.directory.json(names.retention("02-three"))["attempts"][0]["losses"]) == {"one", "two"}


def test_card_page_and_status_say_where_it_came_from(adopt: Adopted) -> None:
    life = adopt(ONE)
    life.learn(TWO)
    for step in ("01-one", "02-two"):
        card = (life.directory.path / names.model_card(step)).read_text()
        assert "What 01-one has learnt came with an adapter from another trainer." in card
    assert '<th scope="row">01-one (adopted)</th>' in life_page(life)


def test_what_was_adopted_cannot_be_forgotten_but_what_came_later_can(adopt: Adopted, tmp_path: Path) -> None:
    life = adopt(ONE, keep_training_pairs=True)
    never = shutil.copytree(tmp_path / "life", tmp_path / "never")
    life.learn(TWO)
    life.learn(THREE)
    with pytest.raises(LifeError, match="one was not learnt here but came with the adapter"):
        life.forget("one")
    life.forget("two")
    other = Life.open(never)
    other.learn(THREE)
    ours, theirs = (one.steps[-1].files for one in (life, other))
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert ours.keys() == theirs.keys() and differing <= {names.time_and_memory("02-three")}


def test_an_interrupted_adoption_goes_on(adopt: Adopted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the life and its first step nothing is learnt; the same call goes on, another one is refused."""
    with monkeypatch.context() as broken:
        broken.setattr("lifealign.life.adopt.score", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            adopt(ONE)
    assert not Life.open(tmp_path / "life").steps
    other = trained(
        Path(str(read_peft_folder(tmp_path / "adapter").kind.base_model_name_or_path)), tmp_path / "other", 4
    )
    with pytest.raises(LifeError, match="found another life, begun and without anything learnt"):
        adopt(ONE, adapter=other)
    life = adopt(ONE, adapter=tmp_path / "adapter")
    assert [step.name for step in life.steps] == ["01-one"] and not [*tmp_path.rglob("*.tmp-*")]
    assert adopt(ONE, adapter=tmp_path / "adapter").steps == life.steps  # once more: nothing to do
    with pytest.raises(LifeError, match="directory that is not empty"):
        adopt(TWO, adapter=tmp_path / "adapter")


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            {"use_rslora": True},
            r"scaled by 16 / 4, .*without use_rslora: multiply every lora_B by 1 and write lora_alpha 16",
        ),
        ({"lora_alpha": 2.5}, r"scaled by 2.5 / 4, .*multiply every lora_B by 1.25 and write lora_alpha 2"),
        (
            {"layers_to_transform": [0]},
            r"does not fit .* with the target modules q_proj, v_proj: adapter: found factors",
        ),
        ({"use_dora": True}, "use_dora: found"),
    ],
)
def test_an_adapter_that_a_life_cannot_have_is_refused_and_nothing_is_made(
    adopt: Adopted, tiny_folder: Path, tmp_path: Path, lora: dict[str, Any], message: str
) -> None:
    adapter = trained(tiny_folder, tmp_path / "adapter", **lora)
    with pytest.raises(ModelError, match=message):
        adopt(ONE, adapter=adapter)
    assert not (tmp_path / "life").exists()


def test_scaling_that_was_written_otherwise_is_taken_as_told(adopt: Adopted, tiny_folder: Path, tmp_path: Path) -> None:
    """The way out that the message names: rank-stabilised factors with alpha 3 of rank 4 have 3 / 2 = 6 / 4."""
    stabilised = trained(tiny_folder, tmp_path / "stabilised", use_rslora=True, lora_alpha=3)
    with pytest.raises(ModelError, match="multiply every lora_B by 1 and write lora_alpha 6"):
        adopt(ONE, adapter=stabilised)
    config = json.loads((stabilised / "adapter_config.json").read_text())
    plain = shutil.copytree(stabilised, tmp_path / "plain")
    (plain / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": False, "lora_alpha": 6}))
    ids = torch.tensor([[256, 10, 20, 30]])
    was = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), stabilised)
    assert torch.allclose(adopt(ONE, adapter=plain).load()[0].eval()(ids).logits, was.eval()(ids).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "l2p"}, ConfigError, "method: found l2p, expected one whose versions are sums of updates"),
        ({"method": "olora"}, ConfigError, "method: found olora"),
        ({"method": "stl"}, ConfigError, "each task has a model of its own"),
        ({"before": "adapter"}, ModelError, "found the same factors as in .*, expected those before"),
    ],
)
def test_what_cannot_begin_a_life_is_one_clear_error(
    adopt: Adopted, tiny_folder: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    adapter = trained(tiny_folder, tmp_path / "adapter")
    options = options | ({"before": tmp_path / options["before"]} if "before" in options else {})
    with pytest.raises(error, match=message):
        adopt(ONE, adapter=adapter, **options)
    with pytest.raises(ConfigError, match="adopt: found no task"):
        adopt(adapter=adapter)
    assert not (tmp_path / "life").exists()


def test_settings_that_contradict_the_adapter_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = trained(tiny_folder, tmp_path / "adapter")
    for said, message in (
        ({"lora_r": 8}, "lora.lora_r: found 8, expected 4, as the adapter has it"),
        ({"lora_alpha": 16}, "lora.lora_alpha: found 16, expected 8"),
        (
            {"lora_target_modules": ["q_proj"]},
            r"lora_target_modules: found \('q_proj',\), expected \['q_proj', 'v_proj'\]",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            Life.adopt(tmp_path / "life", adapter, [ONE], small_config(tiny_folder, tmp_path, lora=said))
    agreed = {"lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["v_proj", "q_proj"], "lora_dropout": 0.1}
    life = Life.adopt(tmp_path / "life", adapter, [ONE], small_config(tiny_folder, tmp_path, lora=agreed))
    assert life.config.lora.lora_dropout == 0.1


def test_another_name_of_the_base_is_said(
    adopt: Adopted, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = trained(tiny_folder, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "owner/other"}))
    adopt(ONE, adapter=adapter)
    assert re.search("says that it was trained on owner/other; it is taken to belong to", caplog.text)


@pytest.mark.slow
def test_an_adapter_of_trl_is_adopted_and_the_life_goes_on(
    adopt: Adopted, tiny_folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """What DPOTrainer has taught is what the life begins with: the life measures its margins."""
    trl = pytest.importorskip("trl")
    rows = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": pair.prompt[-1].content}],
                "chosen": pair.chosen,
                "rejected": pair.rejected,
            }
            for pair in ONE.train
        ]
    ).map(lambda row: {key: [{"role": "assistant", "content": row[key]}] for key in ("chosen", "rejected")})
    args = trl.DPOConfig(
        output_dir=str(tmp_path / "run"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_steps=20,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        gradient_checkpointing=False,
        max_length=None,
    )
    trainer = trl.DPOTrainer(
        tiny_model(), args=args, train_dataset=rows, processing_class=tokenizer, peft_config=LoraConfig(**LORA)
    )
    trainer.train()
    trainer.save_model()
    life = adopt(ONE, adapter=tmp_path / "run", evaluation={"metrics": ["preference_accuracy", "margin", "perplexity"]})
    assert life.scores["margin"].rows[0]["one"] > 0.1 and life.scores["preference_accuracy"].rows[0]["one"] == 1.0
    life.learn(TWO)
    assert life.scores["margin"].rows[1].keys() == {"one", "two"}


def test_whichever_write_fails_the_same_call_completes_the_life(
    adopt: Adopted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call dies one write later than the last, until one comes to its end; and again it changes nothing."""
    whole = adopt(ONE, name="whole")
    real, left, failures = storage.os.fsync, [0], 0

    def dies(descriptor: int) -> None:
        left[0] -= 1
        if left[0] <= 0:  # a disk that is full stays full: without room for a cache a call would go on
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(storage.os, "fsync", dies)
    for number in range(1, 400, 5):
        left[0] = number
        try:
            life = adopt(ONE, adapter=tmp_path / "adapter", name="broken")
        except LifeError:
            failures += 1
        if left[0] > 0:
            break
    assert failures > 5
    ours, theirs = life.steps[0].files, whole.steps[0].files
    assert {name for name in theirs if ours[name] != theirs[name]} <= {names.time_and_memory("01-one")}
    manifest = (tmp_path / "broken" / names.MANIFEST).read_bytes()
    assert adopt(ONE, adapter=tmp_path / "adapter", name="broken").steps == life.steps
    assert (tmp_path / "broken" / names.MANIFEST).read_bytes() == manifest
