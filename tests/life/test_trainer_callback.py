"""Adapters that TRL's own trainers made: consolidated by the callback when a training ends, or from their folders."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from tests.tiny import tiny_model
from transformers import PreTrainedTokenizerFast, TrainerCallback

from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life import trainer_callback
from lifealign.life.foreign import consolidate_adapters
from lifealign.life.trainer_callback import ConsolidateCallback
from lifealign.model.peft_folder import read_peft_folder

trl = pytest.importorskip("trl")
SFTTrainer, DPOTrainer = trl.SFTTrainer, trl.DPOTrainer

pytestmark = pytest.mark.slow

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
PAIRS = Dataset.from_list(
    [{"prompt": f"Question {number}?", "chosen": f"Yes, {number}.", "rejected": "No."} for number in range(8)]
)
ANSWERS = PAIRS.map(lambda row: {"completion": row["chosen"]}, remove_columns=["chosen", "rejected"])

Train = Callable[..., Any]


@pytest.fixture
def train(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Train:
    """Trains by TRL: ``train(SFTTrainer, model, "run-1", callbacks=[...])``."""

    def trained(kind: type[Any], model: Any, run: str, resume: bool = False, **options: Any) -> Any:
        settings: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 3}
        settings |= {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "save_steps": 1, "max_length": None}
        settings |= {"gradient_checkpointing": False} | options.pop("args", {})
        args = (trl.SFTConfig if kind is SFTTrainer else trl.DPOConfig)(output_dir=str(tmp_path / run), **settings)
        rows = ANSWERS if kind is SFTTrainer else PAIRS
        trainer = kind(model, args=args, train_dataset=rows, processing_class=tokenizer, **options)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return trained


def adapter(model: Any) -> dict[str, torch.Tensor]:
    found = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    return {name: factor.detach().clone() for name, factor in found.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_sft_and_a_dpo_training_one_after_the_other(train: Train, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    first = ConsolidateCallback(memory, tmp_path / "01-sft")
    trainer = train(SFTTrainer, tiny_model(), "sft", peft_config=LORA, callbacks=[first])
    assert first.result is not None and (first.result.entry, first.result.updates) == ("01-sft", 1)
    place = tmp_path / "sft/consolidation"
    before, after, out = (read_peft_folder(one) for one in (place / "before", place / "after", tmp_path / "01-sft"))
    assert all(factor.abs().max() == 0 for name, factor in before.factors.items() if ".lora_B." in name)
    assert equal(after.factors, read_peft_folder(tmp_path / "sft/checkpoint-3").factors)  # what TRL saved by itself
    assert not equal(after.factors, out.factors)
    assert equal(adapter(trainer.model), out.factors)  # from here on the model is the consolidated one
    trainer.save_model(str(tmp_path / "saved"))
    assert read_peft_folder(tmp_path / "saved").fingerprint == out.fingerprint

    base = tiny_model()
    model = PeftModel.from_pretrained(base, str(tmp_path / "01-sft"), is_trainable=True)
    second = ConsolidateCallback(memory, tmp_path / "02-dpo", overlap_kept=0.0)
    trainer = train(DPOTrainer, model, "dpo", callbacks=[second])
    assert second.result is not None and (second.result.entry, second.result.updates) == ("02-dpo", 2)
    assert second.result.figures["overlap_energy"] > 0
    assert "ref" in trainer.model.peft_config  # the copy that TRL takes as reference is not what is consolidated
    assert equal(read_peft_folder(tmp_path / "dpo/consolidation/before").factors, out.factors)
    trainer.save_model(str(tmp_path / "saved-2"))
    found = read_peft_folder(tmp_path / "saved-2")
    assert found.not_read == ("ref",) and found.fingerprint == read_peft_folder(tmp_path / "02-dpo").fingerprint


def test_the_folders_that_trl_leaves_give_the_same_as_the_callback(train: Train, tmp_path: Path) -> None:
    callback = ConsolidateCallback(tmp_path / "memory", tmp_path / "out", energy_kept=0.8, name="one")
    train(DPOTrainer, tiny_model(), "dpo", peft_config=LORA, callbacks=[callback])
    again = consolidate_adapters(
        tmp_path / "dpo/consolidation/before",
        tmp_path / "dpo/checkpoint-3",
        tmp_path / "memory-2",
        tmp_path / "out-2",
        energy_kept=0.8,
        name="one",
    )
    assert callback.result is not None and again.figures == callback.result.figures
    assert (tmp_path / "memory/updates/01-one.safetensors").read_bytes() == (
        tmp_path / "memory-2/updates/01-one.safetensors"
    ).read_bytes()
    assert (tmp_path / "out/adapter_model.safetensors").read_bytes() == (
        tmp_path / "out-2/adapter_model.safetensors"
    ).read_bytes()


def test_a_training_that_goes_on_from_an_adapter_begins_from_it(train: Train, tmp_path: Path) -> None:
    model = get_peft_model(tiny_model(), LORA)
    for _, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    start = adapter(model)
    model.save_pretrained(tmp_path / "start")
    trainer = train(SFTTrainer, model, "sft", callbacks=[ConsolidateCallback(tmp_path / "memory", tmp_path / "out")])
    assert equal(read_peft_folder(tmp_path / "sft/consolidation/before").factors, start)
    assert read_peft_folder(tmp_path / "sft/consolidation/before").kind == read_peft_folder(tmp_path / "start").kind
    assert not equal(adapter(trainer.model), start)


class Stop(TrainerCallback):
    """Interrupts a training after its second step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def test_a_resumed_training_began_where_its_first_run_did(train: Train, tmp_path: Path) -> None:
    def callback(run: str) -> ConsolidateCallback:
        return ConsolidateCallback(tmp_path / run / "memory", tmp_path / run / "out", name="one")

    train(SFTTrainer, tiny_model(), "whole", peft_config=LORA, callbacks=[callback("whole-out")])
    with pytest.raises(KeyboardInterrupt):
        train(SFTTrainer, tiny_model(), "parts", peft_config=LORA, callbacks=[callback("parts-out"), Stop()])
    assert not (tmp_path / "parts-out").exists()
    train(SFTTrainer, tiny_model(), "parts", resume=True, peft_config=LORA, callbacks=[callback("parts-out")])
    whole, parts = (read_peft_folder(tmp_path / run / "out") for run in ("whole-out", "parts-out"))
    assert all(torch.allclose(whole.factors[name], parts.factors[name], atol=1e-6) for name in whole.factors)


def test_a_resumed_training_whose_beginning_is_not_known_is_refused(train: Train, tmp_path: Path) -> None:
    train(SFTTrainer, tiny_model(), "run", peft_config=LORA)
    callback = ConsolidateCallback(tmp_path / "memory", tmp_path / "out")
    with pytest.raises(ConfigError, match="resumed at step 3, and its first run did not save it"):
        train(SFTTrainer, tiny_model(), "run", True, peft_config=LORA, callbacks=[callback], args={"max_steps": 5})
    assert not (tmp_path / "memory").exists()


class Counted(TrainerCallback):
    """How many steps were taken."""

    steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.steps += 1


@pytest.mark.parametrize(
    ("lora", "kind", "fault"),
    [
        (None, ConfigError, "found a LlamaForCausalLM, expected a model with a LoRA adapter of PEFT"),
        ({"use_dora": True}, ModelError, "use_dora: found a boolean (true), expected none"),
        ({"modules_to_save": ["lm_head"]}, ModelError, "modules_to_save: found a list of 1, expected none"),
        ({"init_lora_weights": "pissa"}, ModelError, "init_lora_weights: found the string 'pissa', expected true"),
    ],
)
def test_what_cannot_be_consolidated_is_refused_before_the_first_step(
    train: Train, tmp_path: Path, lora: dict[str, Any] | None, kind: type[Exception], fault: str
) -> None:
    counted = Counted()
    config = None if lora is None else LoraConfig(**(LORA.to_dict() | lora))
    with pytest.raises(kind, match=re.escape(fault)):
        callback = ConsolidateCallback(tmp_path / "memory", tmp_path / "out")
        train(SFTTrainer, tiny_model(), "run", peft_config=config, callbacks=[callback, counted])
    assert counted.steps == 0 and not (tmp_path / "memory").exists() and not (tmp_path / "out").exists()


def test_a_folder_in_use_an_option_and_many_processes_are_refused_before_the_first_step(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    counted = Counted()
    for number, (callback, kind) in enumerate(
        (
            (ConsolidateCallback(tmp_path / "memory", tmp_path / "full"), LifeError),
            (ConsolidateCallback(tmp_path / "full", tmp_path / "out"), LifeError),
            (ConsolidateCallback(tmp_path / "memory", tmp_path / "out", energy_kept=0.0), ConfigError),
        )
    ):
        with pytest.raises(kind):
            train(SFTTrainer, tiny_model(), f"run-{number}", peft_config=LORA, callbacks=[callback, counted])
    monkeypatch.setattr(trl.SFTConfig, "world_size", property(lambda self: 2))
    callback = ConsolidateCallback(tmp_path / "memory", tmp_path / "out")
    with pytest.raises(ConfigError, match="found 2 processes, expected one"):
        train(SFTTrainer, tiny_model(), "run", peft_config=LORA, callbacks=[callback, counted])
    assert counted.steps == 0 and not (tmp_path / "memory").exists()


def test_when_the_consolidation_fails_the_message_says_where_the_trained_adapter_is(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise LifeError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(LifeError) as raised:
        patch.setattr(trainer_callback, "consolidate_adapters", full)
        callback = ConsolidateCallback(tmp_path / "memory", tmp_path / "out")
        train(SFTTrainer, tiny_model(), "run", peft_config=LORA, callbacks=[callback])
    place = tmp_path / "run/consolidation"
    assert (
        f"the disk is full. The trained adapter is in {place / 'after'}; `lifealign consolidate {place / 'before'} "
        in (str(raised.value))
    )
    made = consolidate_adapters(place / "before", place / "after", tmp_path / "memory", tmp_path / "out")
    assert made.updates == 1
