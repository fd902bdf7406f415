"""O-LoRA: old adapters stand still, the new one is orthogonal to them, and all are one plain adapter."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from tests.tiny import letter_task
from transformers import AutoModelForCausalLM

from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.model.adapter import (
    FROZEN,
    freeze_adapter,
    install_adapter,
    lora_rank,
    plain_adapter,
    read_adapter,
    trainable_parameters,
)

STREAM = [letter_task("first", "x", "y"), letter_task("second", "y", "x"), letter_task("third", "z", "x")]
IDS = torch.tensor([[256, 10, 20, 30]])


def test_old_adapters_do_not_move_and_the_ranks_add_up(make_life) -> None:
    life = make_life(method={"name": "olora"})
    run_stream(life.workspace, STREAM)
    one, two, three = (read_adapter_of(life.directory, version.name) for version in life.steps)
    for name in one:
        along = 0 if "lora_A" in name else 1
        assert [adapter[name].shape[along] for adapter in (one, two, three)] == [4, 8, 12]
        assert torch.equal(two[name].narrow(along, 0, 4), one[name])
        assert torch.equal(three[name].narrow(along, 0, 8), two[name])
        assert not torch.equal(two[name].narrow(along, 4, 4), one[name])
        if "lora_B" in name:
            assert two[name].narrow(along, 4, 4).abs().sum() > 0  # what is new has learnt something


def test_a_version_is_a_plain_adapter_that_peft_loads_by_itself(make_life, tiny_folder) -> None:
    life = make_life(method={"name": "olora"})
    run_stream(life.workspace, STREAM[:2])
    folder = life.directory.path / "versions" / "02-second"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (8, 16, "LORA")
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, folder)
    ours, _ = Life.open(life.directory.path).load()
    with torch.no_grad():
        logits = ours(input_ids=IDS).logits
        torch.testing.assert_close(loaded(input_ids=IDS).logits, logits, rtol=0, atol=1e-6)
        merged = loaded.merge_and_unload()
        assert not any("lora" in name for name, _ in merged.named_parameters())
        torch.testing.assert_close(merged(input_ids=IDS).logits, logits, rtol=0, atol=1e-5)


def test_enough_steps_make_the_new_adapter_orthogonal(make_life) -> None:
    def cosine(strength: float) -> float:
        stage = {"num_train_epochs": 25, "learning_rate": 1e-2}
        life = make_life(method={"name": "olora", "strength": strength}, sft=stage, preference={"num_train_epochs": 0})
        run_stream(life.workspace, STREAM[:2])
        overlaps = []
        for name, factor in read_adapter_of(life.directory).items():
            if "lora_A" in name:
                old, new = factor[:4], factor[4:]
                overlaps.append((new @ old.T).abs().sum() / (new.norm(dim=1).sum() * old.norm(dim=1).sum()))
        return float(torch.stack(overlaps).mean())

    assert cosine(0.5) < 0.02 < 0.1 < cosine(0.0)


def test_the_first_task_is_seqft_bit_for_bit(make_life) -> None:
    lives = [make_life(method={"name": name}) for name in ("olora", "seqft")]
    for life in lives:
        life.learn(STREAM[0])
    one, other = (read_adapter_of(life.directory) for life in lives)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_freezing_changes_nothing_that_the_model_computes(make_runtime) -> None:
    runtime = make_runtime(seed=3)
    model = runtime.model
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        frozen = freeze_adapter(model, rank=2, seed=0)
        torch.testing.assert_close(model(input_ids=IDS).logits, before, rtol=0, atol=1e-6)
    assert lora_rank(model) == 2
    assert {tuple(factor.shape) for name, factor in read_adapter(model).items() if "lora_A" in name} == {(2, 32)}
    assert all(".frozen." not in name for name in trainable_parameters(model))
    joined = plain_adapter(model)
    for name, factor in frozen.items():
        assert torch.equal(joined[name].narrow(0 if "lora_A" in name else 1, 0, 4), factor)


def test_looking_at_the_base_does_not_thaw_what_is_frozen(make_runtime) -> None:
    runtime = make_runtime(seed=3)
    freeze_adapter(runtime.model, rank=2, seed=0)
    before = set(trainable_parameters(runtime.model))
    with runtime.base_policy():
        pass
    assert set(trainable_parameters(runtime.model)) == before
    with runtime.model.disable_adapter():  # PEFT by itself does thaw it; if this changes, base_policy can be simpler
        pass
    assert any(f".{FROZEN}." in name for name, p in runtime.model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("rank", [2, 4])
def test_a_plain_adapter_of_any_rank_can_be_installed_again(make_runtime, rank: int) -> None:
    runtime = make_runtime(seed=3)
    model = runtime.model
    small = read_adapter(model)
    freeze_adapter(model, rank=rank, seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.normal_(std=0.1)
        joined = plain_adapter(model)
        together = model(input_ids=IDS).logits
        install_adapter(model, joined)
        torch.testing.assert_close(model(input_ids=IDS).logits, together, rtol=0, atol=1e-5)
    assert FROZEN not in model.peft_config and lora_rank(model) == 4 + rank
    assert all(torch.equal(read_adapter(model)[name], factor) for name, factor in joined.items())
    install_adapter(model, small)
    assert lora_rank(model) == 4 and model.peft_config["default"].lora_alpha == 8


def test_a_life_goes_back_and_forth_between_its_versions(make_life) -> None:
    life = make_life(method={"name": "olora"})
    run_stream(life.workspace, STREAM[:2])
    with torch.no_grad():
        last = life.load()[0](input_ids=IDS).logits
        first = life.load("01-first")[0](input_ids=IDS).logits
        assert not torch.equal(first, last)
        assert torch.equal(life.load()[0](input_ids=IDS).logits, last)
    life.rollback("01-first")
    life.learn(STREAM[2])
    assert {factor.shape[0] for name, factor in read_adapter_of(life.directory).items() if "lora_A" in name} == {8}
