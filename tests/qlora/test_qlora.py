"""A base in 4 bits is the plain model of the numbers that it computes with, to the byte of what is learnt.

These tests need bitsandbytes, which PEFT imports into every process where it is installed; so it is installed where
only they see it (``make test``, ``make test-qlora``).
"""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import small_config
from tests.tiny import letter_task
from transformers import AutoModelForCausalLM

from lifealign.errors import LifeAlignError, ModelError
from lifealign.life.life import Life
from lifealign.model.adapter import attach_lora, read_adapter
from lifealign.model.base_model import Base, load_base
from lifealign.model.embedded import EmbeddedCopy
from lifealign.model.identity import fingerprint
from lifealign.model.quantized import is_four_bit, put_together
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.sharded import require_shardable
from lifealign.report.page.life_page import peft_code

bitsandbytes = pytest.importorskip("bitsandbytes", reason="only `make test-qlora` sees bitsandbytes")

ONE, TWO = letter_task("one", "a", "b"), letter_task("two", "c", "d")


def base_of(folder: Path, **settings: Any) -> Base:
    return load_base(ModelConfig(**{"model_name_or_path": str(folder), "dtype": "float32"} | settings))


@pytest.fixture
def four_bit(tiny_folder: Path) -> Base:
    return base_of(tiny_folder, load_in_4bit=True)


@pytest.fixture
def plain_folder(four_bit: Base, tmp_path: Path) -> Path:
    """The same numbers as a model with plain weights."""
    folder = tmp_path / "plain"
    model = put_together(four_bit.model)
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        model.__dict__.pop(name, None)
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder)
    four_bit.tokenizer.save_pretrained(folder)
    return folder


def kinds(base: Base) -> dict[str, str]:
    return {name.rsplit(".", 1)[-1]: type(module).__name__ for name, module in base.model.named_modules()}


def test_linear_layers_are_in_4_bits_and_nothing_else(four_bit: Base) -> None:
    found = kinds(four_bit)
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {found[name] for name in layers} == {"Linear4bit"}
    assert (found["lm_head"], found["embed_tokens"]) == ("Linear", "Embedding")
    # 32 x 32 numbers: half a byte each, and a scale for every 64 of them
    query = four_bit.model.get_submodule("model.layers.0.self_attn.q_proj").weight
    assert (query.numel(), query.dtype, query.quant_state.absmax.numel()) == (512, torch.uint8, 16)
    assert len(query.quant_state.code) == 16 and query.quant_state.quant_type == "nf4"


@pytest.mark.parametrize("method", ["lifealign", "ewc", "gem"])
def test_what_is_learnt_on_it_is_what_is_learnt_on_its_plain_numbers(
    tiny_folder: Path, plain_folder: Path, tmp_path: Path, method: str
) -> None:
    found = []
    for name, folder, in_4bit in (("four", tiny_folder, True), ("plain", plain_folder, False)):
        model = {"model_name_or_path": str(folder), "dtype": "float32", "load_in_4bit": in_4bit}
        life = Life.create(
            tmp_path / f"{name}-life", small_config(folder, tmp_path, model=model, method={"name": method})
        )
        life.learn(ONE)
        again = Life.open(tmp_path / f"{name}-life")  # the base is loaded, and quantised, anew
        again.learn(TWO)
        scores = {metric: matrix.rows for metric, matrix in again.scores.items()}
        found.append((read_adapter(again.workspace.runtime.model), scores))
    (four, four_scores), (plain, plain_scores) = found
    assert four.keys() == plain.keys() and any(factor.any() for name, factor in four.items() if "lora_B" in name)
    assert all(torch.equal(four[name], plain[name]) for name in four)
    assert four_scores == plain_scores


def test_a_life_keeps_the_base_that_it_was_made_with(tiny_folder: Path, tmp_path: Path) -> None:
    model = {"model_name_or_path": str(tiny_folder), "dtype": "float32", "load_in_4bit": True}
    Life.create(tmp_path / "life", small_config(tiny_folder, tmp_path, model=model))
    with pytest.raises(ModelError, match=r"found base model .* with fingerprint"):
        Life.open(tmp_path / "life", base=base_of(tiny_folder))


def test_scales_are_a_part_of_what_identifies_a_base(four_bit: Base) -> None:
    assert fingerprint(four_bit.copied().model) == four_bit.fingerprint
    other = four_bit.copied()
    state = other.model.get_submodule("model.layers.1.mlp.up_proj").weight.quant_state
    state.absmax[0] += 1  # an eighth bit of one scale; the packed levels are as they were
    assert fingerprint(other.model) != four_bit.fingerprint


def test_a_pass_without_gradient_computes_as_one_with_it(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor with bfloat16 instructions bitsandbytes would repack the weights, and compute in bfloat16."""
    modules = bitsandbytes.nn.modules
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)

    def repacked(*_: object) -> None:
        raise AssertionError("repacked")

    monkeypatch.setattr(modules, "_convert_weight_packed_for_cpu", repacked)
    base = base_of(tiny_folder, load_in_4bit=True)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        without = base.model(tokens).logits
    model = attach_lora(base, AdapterConfig(), seed=0)
    model.train()
    assert torch.equal(model(tokens).logits, without)
    layer = base.model.get_submodule("model.layers.0.mlp.up_proj")
    layer.support_avx512bf16_for_cpu = True  # as it would be
    with torch.no_grad(), pytest.raises(AssertionError, match="repacked"):
        base.model.eval()(tokens)


def test_a_model_that_is_stored_in_4_bits(four_bit: Base, tmp_path: Path) -> None:
    four_bit.model.save_pretrained(tmp_path / "stored")
    four_bit.tokenizer.save_pretrained(tmp_path / "stored")
    with pytest.raises(ModelError, match=r"is stored in 4 bits, expected model\.load_in_4bit=true"):
        base_of(tmp_path / "stored")
    stored = base_of(tmp_path / "stored", load_in_4bit=True)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(stored.model(tokens).logits, four_bit.model(tokens).logits)
    config = tmp_path / "stored" / "config.json"
    settings = json.loads(config.read_text())
    settings["quantization_config"]["bnb_4bit_compute_dtype"] = "float16"  # of whoever stored it
    config.write_text(json.dumps(settings))
    layer = base_of(tmp_path / "stored", load_in_4bit=True).model.get_submodule("model.layers.0.mlp.up_proj")
    assert layer.compute_dtype == torch.float32


def test_it_is_not_held_together(four_bit: Base) -> None:
    model = attach_lora(four_bit, AdapterConfig(), seed=0)
    with pytest.raises(ModelError, match=r"device\.sharding: found base and model\.load_in_4bit"):
        require_shardable(model)


def test_merged_it_is_a_plain_model_that_computes_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    model = {"model_name_or_path": str(tiny_folder), "dtype": "float32", "load_in_4bit": True}
    life = Life.create(tmp_path / "life", small_config(tiny_folder, tmp_path, model=model))
    life.learn(ONE)
    life.export(tmp_path / "merged", form="merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not is_four_bit(merged) and "quantization_config" not in (tmp_path / "merged/config.json").read_text()
    tokens = torch.arange(20)[None]
    own, _ = life.load()
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, own(tokens).logits, rtol=1e-5, atol=1e-5)
    assert "keeps the base in 4 bits" in (tmp_path / "merged/README.md").read_text()


def test_the_code_on_the_page_and_the_cards_loads_it_in_4_bits(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"model_name_or_path": str(tiny_folder), "dtype": "float32", "load_in_4bit": True}
    life = Life.create(tmp_path / "life", small_config(tiny_folder, tmp_path, model=model))
    life.learn(ONE)
    life.export(tmp_path / "composed", weights={"one": 0.5})
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(str(peft_code(life)), names)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(names["model"](tokens).logits, life.load()[0](tokens).logits)
    for card in (tmp_path / "life/versions/01-one/README.md", tmp_path / "composed/README.md"):
        assert "load_in_4bit=True" in card.read_text()


def test_the_embedded_model_is_read_from_its_copy(kept_models: Path) -> None:
    base = base_of(Path("smollm2-135m"), model_name_or_path="smollm2-135m", load_in_4bit=True)
    assert kinds(base)["q_proj"] == "Linear4bit" and base.name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert base.model.get_memory_footprint() < 170e6  # 538 MB in float32; 113 MB of it are the embedding


def test_without_a_copy_of_the_embedded_model_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddedCopy, "is_whole", lambda self: False)
    monkeypatch.setattr(EmbeddedCopy, "make", lambda self, *_: None)
    with pytest.raises(ModelError, match="load_in_4bit=true and no copy of the embedded model in"):
        base_of(Path("smollm2-135m"), model_name_or_path="smollm2-135m", load_in_4bit=True)


def test_two_commands_teach_a_life_in_4_bits(tiny_folder: Path, tmp_path: Path) -> None:
    def lifealign(*words: str) -> str:
        command = [sys.executable, "-m", "lifealign", *words]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    rows = [{"prompt": f"one {n}", "chosen": "aaa", "rejected": "bbb"} for n in range(8)]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ("--model", str(tiny_folder), "--set", "model.load_in_4bit=true")
    lifealign("init", "bot", *model, "--set", "evaluation.metrics=[margin]", "--set", "evaluation.general_text=null")
    lifealign("learn", "bot", "one.jsonl")
    assert "load_in_4bit: true" in (tmp_path / "bot/config.yaml").read_text()
    # the doctor: 16,736 numbers of 4 bytes that stay, 15,360 of half a byte with 240 scales (tests/model)
    assert json.loads(lifealign("doctor", "bot", "--json"))["model"]["memory_need"]["weights"] == 66944 + 7680 + 240


def test_its_licence_is_one_to_build_on() -> None:
    assert importlib.metadata.metadata("bitsandbytes")["License-Expression"] == "MIT"


def test_only_our_own_error_escapes(tiny_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(LifeAlignError, match="could not be loaded"):
        base_of(broken, load_in_4bit=True)
