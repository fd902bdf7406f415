"""A merged model: it is the adapted one to the last digits, plain, and the base stays what it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from tests.conftest import MakeRuntime
from tests.model import families
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lifealign.errors import ModelError
from lifealign.memory.update import Adapter
from lifealign.model.adapter import attach_lora, read_adapter, write_adapter
from lifealign.model.base_model import Base, load_base
from lifealign.model.identity import fingerprint
from lifealign.model.merge import factors_by_module, merged_bytes, merged_model, save_merged
from lifealign.model.packing import PACKED_ATTENTION
from lifealign.model.settings import AdapterConfig, ModelConfig

IDS = torch.tensor([[256, 10, 20, 30, 40, 50]])
EVERY_TIME = (
    "bloom",  # one matrix for queries, keys and values
    "gemma2",  # tied, logits capped
    "gpt2",  # weights transposed, tied
    "mixtral",  # experts in one tensor, saved one by one
    "phi3",  # no bias anywhere
    "qwen3",  # untied
)
SHARING = ("zamba", "zamba2")
"""Families in which several layers have one attention, and an adapter each."""


def random_adapter(model: Any, targets: tuple[str, ...] = ("q_proj", "down_proj"), rank: int = 4) -> Adapter:
    """Factors that change every target visibly, under PEFT's names."""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in targets:
            out, width = module.weight.shape
            for mark, shape in (("A", (rank, width)), ("B", (out, rank))):
                found[f"base_model.model.{name}.lora_{mark}.weight"] = torch.randn(shape, generator=generator) * 0.2
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


def assert_close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-5) -> None:
    assert (found - expected).norm() <= relative * expected.norm()
    assert (found - expected).abs().max() <= relative * expected.abs().max()


# -- what is computed --------------------------------------------------------------------------------------------------


def test_the_merged_model_is_base_and_adapter(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    adapted = logits(runtime.model)
    with runtime.base_policy():
        base = logits(runtime.model)
    merged = merged_model(runtime.model.get_base_model(), read_adapter(runtime.model), 2.0, torch.float32)
    assert_close(logits(merged), adapted)
    assert (adapted - base).norm() > 1e-2 * base.norm()  # the adapter does something


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=() if family in EVERY_TIME else pytest.mark.families) for family in families.FAMILIES],
)
def test_in_every_family_what_is_saved_is_base_and_adapter(family: str, tmp_path: Path) -> None:
    _, runtime = families.try_family(family, tmp_path / "base")
    if runtime is None:
        pytest.skip("this package does not train it")
    adapted = logits(runtime.model)
    if family in SHARING:
        with pytest.raises(ModelError, match="shares its weight with another module"):
            merged_model(runtime.model.get_base_model(), read_adapter(runtime.model), 2.0, torch.float32)
        return
    merged = merged_model(runtime.model.get_base_model(), read_adapter(runtime.model), 2.0, torch.float32)
    assert_close(logits(merged), adapted)
    save_merged(merged, runtime.tokenizer, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32, trust_remote_code=False)
    assert_close(logits(plain.eval()), adapted)


def test_the_sum_is_rounded_once(tiny_folder: Path) -> None:
    base = load_base(ModelConfig(model_name_or_path=str(tiny_folder), dtype="bfloat16")).model
    adapter = random_adapter(base, ("q_proj",))
    name = "model.layers.1.self_attn.q_proj"
    lora_a, lora_b = factors_by_module(adapter)[name]
    weight = base.get_submodule(name).weight
    exact = weight.float() + 0.5 * (lora_b @ lora_a)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        merged = merged_model(base, adapter, 0.5, dtype)
        assert torch.equal(merged.get_submodule(name).weight, exact.to(dtype))
        assert {weight.dtype for weight in merged.parameters()} == {dtype}
        assert merged.config.dtype == dtype
    twice = weight + (0.5 * (lora_b @ lora_a)).bfloat16()  # what adding up in bfloat16 would have given
    assert not torch.equal(twice, exact.bfloat16())


def test_a_weight_that_the_base_has_in_another_dtype_keeps_it(tiny_folder: Path) -> None:
    base = load_base(ModelConfig(model_name_or_path=str(tiny_folder), dtype="bfloat16")).model
    base.model.norm.float()
    merged = merged_model(base, random_adapter(base), 1.0, torch.float16)
    assert merged.model.norm.weight.dtype == torch.float32 and merged.lm_head.weight.dtype == torch.float16


# -- what it is made of ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapted", [False, True])
def test_the_base_stays_what_it_was_and_nothing_of_peft_is_left(tiny_folder: Path, adapted: bool) -> None:
    base = load_base(ModelConfig(model_name_or_path=str(tiny_folder), dtype="float32"))
    adapter = random_adapter(base.model, ("q_proj", "v_proj"))
    if adapted:
        model = attach_lora(base, AdapterConfig(lora_r=4, lora_alpha=8), 0)
        write_adapter(model, adapter)
        base.model.config._attn_implementation = PACKED_ATTENTION
    before, trained = fingerprint(base.model), logits(base.model)
    merged = merged_model(base.model, adapter, 2.0, torch.float32)
    assert fingerprint(base.model) == before and torch.equal(logits(base.model), trained)
    assert not any(isinstance(module, LoraLayer) for module in merged.modules())
    assert not hasattr(merged, "peft_config") and merged.config._attn_implementation == "sdpa"
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in tiny_model().named_parameters()]
    assert not merged.training and not any(weight.requires_grad for weight in merged.parameters())
    assert any(isinstance(module, LoraLayer) for module in base.model.modules()) == adapted


def test_weights_that_the_adapter_does_not_touch_are_not_copied() -> None:
    base = tiny_model()
    merged = merged_model(base, random_adapter(base, ("q_proj",)), 1.0, torch.float32)
    same = {
        name for name, weight in merged.named_parameters() if weight.data_ptr() == base.get_parameter(name).data_ptr()
    }
    assert {name for name, _ in merged.named_parameters()} - same == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)
    }


def tied_base(folder: Path) -> Base:
    model = tiny_model()
    model.config.tie_word_embeddings = True
    LlamaForCausalLM(model.config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return load_base(ModelConfig(model_name_or_path=str(folder), dtype="float32"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_embeddings_stay_tied(tmp_path: Path, dtype: torch.dtype) -> None:
    base = tied_base(tmp_path / "base")
    merged = merged_model(base.model, random_adapter(base.model), 1.0, dtype)
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    save_merged(merged, base.tokenizer, tmp_path / "merged")
    saved = load_file(tmp_path / "merged/model.safetensors")
    assert "lm_head.weight" not in saved and "model.embed_tokens.weight" in saved
    assert json.loads((tmp_path / "merged/config.json").read_text())["tie_word_embeddings"] is True
    numbers = sum(weight.nbytes for weight in saved.values())
    assert merged_bytes(base.model, dtype) == numbers  # a tied weight counts once


def test_bytes_of_an_adapted_base_are_those_of_its_own_weights(make_runtime: MakeRuntime) -> None:
    model = make_runtime().model.get_base_model()
    assert merged_bytes(model, torch.float32) == 4 * sum(weight.numel() for weight in tiny_model().parameters())
    assert merged_bytes(model, torch.bfloat16) * 2 == merged_bytes(model, torch.float32)


# -- what is saved -----------------------------------------------------------------------------------------------------


def test_the_folder_is_one_that_transformers_writes(tmp_path: Path) -> None:
    base = load_base(ModelConfig(model_name_or_path=str(save_tiny(tmp_path / "base")), dtype="bfloat16"))
    base.model.config.quantization_config = {"quant_method": "gguf"}
    save_merged(
        merged_model(base.model, random_adapter(base.model), 1.0, torch.float16), base.tokenizer, tmp_path / "out"
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1  # who may read one may read all
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "float16"
    assert base.model.config.quantization_config  # that of the base is left alone
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert tokenizer.chat_template == base.tokenizer.chat_template
    assert tokenizer.get_vocab() == base.tokenizer.get_vocab()


def test_what_is_read_back_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(ModelConfig(model_name_or_path=str(save_tiny(tmp_path / "base")), dtype="float32"))
    merged = merged_model(base.model, random_adapter(base.model), 1.0, torch.float32)
    save = LlamaForCausalLM.save_pretrained

    def damaged(self: LlamaForCausalLM, folder: Path) -> None:
        other = merged_model(self, random_adapter(self, ("v_proj",)), 1.0, torch.float32)
        save(other, folder)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", damaged)
    with pytest.raises(ModelError, match=r"found another model.layers.0.self_attn.v_proj.weight in the merged model"):
        save_merged(merged, base.tokenizer, tmp_path / "out")


def test_what_transformers_cannot_save_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("GenerationConfig is invalid:\n- `temperature`: 0.0")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", fail)
    with pytest.raises(ModelError, match=r"could not be saved \(GenerationConfig is invalid: - `temperature`: 0.0\)$"):
        save_merged(tiny_model(), tiny_tokenizer(), tmp_path / "out")


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_weight_of_two_modules_is_not_changed_for_one() -> None:
    base = tiny_model()
    base.model.layers[1].self_attn.q_proj.weight = base.model.layers[0].self_attn.q_proj.weight
    with pytest.raises(ModelError, match=r"layers.0.self_attn.q_proj: shares its weight with another module"):
        merged_model(base, random_adapter(base, ("q_proj",)), 1.0, torch.float32)
    merged_model(base, random_adapter(base, ("v_proj",)), 1.0, torch.float32)  # one that nothing is merged into may


def test_a_number_that_a_dtype_cannot_hold_is_refused() -> None:
    base = tiny_model()
    adapter = random_adapter(base, ("q_proj",))
    for name, factor in adapter.items():
        factor.fill_(200.0 if "layers.1" in name else 0.0)  # 4 ranks of 200 times 200
    with pytest.raises(ModelError, match=r"layers.1.self_attn.q_proj: found a weight of 160000, .* finite in float16"):
        merged_model(base, adapter, 1.0, torch.float16)
    merged_model(base, adapter, 1.0, torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"model.layers.9.self_attn.q_proj": (2, 32, 32)},
            "found factors of model.layers.9.self_attn.q_proj, expected",
        ),
        ({"model.layers.0.self_attn.k_proj": (2, 32, 32)}, r"shape \(32, 32\), expected \(16, 32\)"),
        ({"model.norm": (2, 32, 32)}, r"shape \(32, 32\), expected \(32,\)"),
    ],
)
def test_an_adapter_of_another_base_is_refused(change: dict[str, tuple[int, int, int]], fault: str) -> None:
    adapter = {}
    for name, (rank, width, out) in change.items():
        adapter[f"base_model.model.{name}.lora_A.weight"] = torch.ones(rank, width)
        adapter[f"base_model.model.{name}.lora_B.weight"] = torch.ones(out, rank)
    with pytest.raises(ModelError, match=fault):
        merged_model(tiny_model(), adapter, 1.0, torch.float32)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("base_model.model.lm_head.weight", "expected factors of LoRA and nothing else"),
        ("base_model.model.q_proj.lora_magnitude_vector.weight", "expected factors of LoRA and nothing else"),
        ("q_proj.lora_A.weight", "expected factors of LoRA and nothing else"),
        ("base_model.model.q_proj.lora_A.weight", "found one factor of q_proj, expected lora_A and lora_B"),
    ],
)
def test_what_is_no_lora_is_refused(name: str, fault: str) -> None:
    with pytest.raises(ModelError, match=fault):
        factors_by_module({name: torch.ones(2, 2)})
