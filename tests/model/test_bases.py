"""A base that is not what it seems: each fault in one line, before anything is made; and whose code never runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import MakeLife
from tests.hub import Hub
from tests.model import families
from tests.tiny import CHAT_TEMPLATE, letter_task, tiny_model, tiny_tokenizer
from transformers.utils import logging as transformers_logging

from lifealign.errors import ModelError
from lifealign.life.life import Life
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import load_base
from lifealign.model.prompt_pool import attach_pool
from lifealign.model.settings import AdapterConfig, ModelConfig

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to do harm to."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))


def load(folder: Path, **settings: Any) -> Any:
    return load_base(ModelConfig(model_name_or_path=str(folder), dtype="float32", **settings))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_a_layer(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "layers.1." not in name}


def without_head(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}


def of_other_names(tensors: Tensors) -> Tensors:
    return {f"backbone.{name}": tensor for name, tensor in tensors.items()}


def with_a_third_layer(tensors: Tensors) -> Tensors:
    more = {name.replace("layers.1.", "layers.2."): tensor.clone() for name, tensor in tensors.items()}
    return tensors | more


def of_another_size(tensors: Tensors) -> Tensors:
    return tensors | {"model.norm.weight": torch.ones(31)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_a_layer, r"9 of 21 weights are missing \(model\.layers\.1\.input_layernorm\.weight, .*\)"),
        (without_head, r"1 of 21 weights are missing \(lm_head\.weight\)"),
        (of_other_names, r"21 of 21 weights are missing .*; 21 have names that the model does not know \(backbone\."),
        (with_a_third_layer, r"9 belong to layers that config\.json does not have \(model\.layers\.2\."),
        (of_another_size, r"1 have another shape \(model\.norm\.weight\)"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_and_its_weights_named(
    copied: Path, damage: Callable[[Tensors], Tensors], message: str
) -> None:
    weights = copied / "model.safetensors"
    save_file(damage(load_file(weights)), weights, {"format": "pt"})
    with pytest.raises(ModelError, match=message) as raised:
        load(copied)
    assert "\n" not in str(raised.value)


def test_no_code_of_a_model_is_run_and_nobody_is_asked(tiny_folder: Path, tmp_path: Path) -> None:
    trap = Path(shutil.copytree(tiny_folder, tmp_path / "trap"))
    marker = tmp_path / "it-ran"
    code = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("modeling_trap", "configuration_trap", "tokenization_trap"):
        (trap / f"{name}.py").write_text(code + "class Trap: pass\n")
    edit(
        trap / "config.json",
        model_type="trap",
        auto_map={"AutoConfig": "configuration_trap.Trap", "AutoModelForCausalLM": "modeling_trap.Trap"},
    )
    edit(trap / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_trap.Trap", None]})
    asked = [sys.executable, "-m", "lifealign", "init", str(tmp_path / "life"), "--model", str(trap)]
    done = subprocess.run(asked, input="y\ny\ny\n", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done
    dtype, loading, error = done.stderr.strip().splitlines()
    assert dtype.startswith("base weights in ")
    assert (
        loading.startswith("loading ") and error.startswith("error: model ") and "y/N" not in done.stdout + done.stderr
    )
    assert not marker.exists() and not (tmp_path / "life").exists()


def test_a_token_outside_the_embedding_is_named(copied: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|late|>"]})
    tokenizer.save_pretrained(copied)
    with pytest.raises(ModelError, match=r"found token '<\|late\|>' with id 259, expected ids below 259"):
        load(copied)


def test_a_quantised_base_without_its_library_is_one_line(copied: Path) -> None:
    edit(copied / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(ModelError) as raised:
        load(copied)
    assert "\n" not in str(raised.value) and "bitsandbytes" in str(raised.value)


def test_a_template_that_cannot_be_used_is_refused_when_the_base_is_loaded(copied: Path) -> None:
    (copied / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}")
    with pytest.raises(ModelError, match="chat template"):
        load(copied)


def test_dropout_of_the_base_is_off_in_training_too(tmp_path: Path) -> None:
    families.save_family("gpt2", tmp_path)
    edit(tmp_path / "config.json", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    model = load(tmp_path).model
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        quiet = model.eval()(input_ids=ids).logits
        assert torch.equal(model.train()(input_ids=ids).logits, quiet)


@pytest.mark.parametrize("bars", [True, False])
def test_loading_leaves_the_librarys_bars_and_verbosity_as_they_were(tiny_folder: Path, bars: bool) -> None:
    was = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    try:
        (transformers_logging.enable_progress_bar if bars else transformers_logging.disable_progress_bar)()
        transformers_logging.set_verbosity(37)
        load(tiny_folder)
        assert (transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()) == (bars, 37)
    finally:
        (transformers_logging.enable_progress_bar if was[0] else transformers_logging.disable_progress_bar)()
        transformers_logging.set_verbosity(was[1])


def another_template(folder: Path) -> None:
    spaced = CHAT_TEMPLATE.replace("\n' + message['content']", "\n\n' + message['content']")
    assert spaced != CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(spaced)


def another_tokenizer(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    first, second = list(vocabulary["model"]["vocab"])[:2]
    ids = vocabulary["model"]["vocab"]
    ids[first], ids[second] = ids[second], ids[first]
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))


def another_end(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[257, 65])


def other_weights(folder: Path) -> None:
    tiny_model(seed=1).save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (another_template, "a chat template of fingerprint"),
        (another_tokenizer, "a tokenizer of fingerprint"),
        (another_end, "a tokenizer of fingerprint"),
        (other_weights, "fingerprint"),
    ],
)
def test_a_base_that_was_changed_between_two_steps_is_named_part_by_part(
    make_life: MakeLife, copied: Path, change: Callable[[Path], None], part: str
) -> None:
    life = make_life(model={"model_name_or_path": str(copied)})
    life.learn(letter_task("one", "a", "b"))
    Life.open(life.directory.path).load()
    change(copied)
    with pytest.raises(ModelError, match=rf"found base model .* with {part} \w+, expected the one this life was made"):
        Life.open(life.directory.path).learn(letter_task("two", "c", "d"))


def test_the_revision_of_a_base_goes_into_the_adapter(
    make_life: MakeLife, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that was loaded, not the name by which it was asked for: PEFT then loads the adapter on that one."""
    commit = "0123456789abcdef" * 2 + "01234567"
    hub = Hub(tmp_path / "hub", {commit: tiny_folder}, monkeypatch)
    hub.point("main", commit)
    folder = make_life(model={"model_name_or_path": hub.name}).directory.path
    assert json.loads((folder / "versions/00-base/adapter_config.json").read_text())["revision"] == commit
    assert json.loads((folder / "life.json").read_text())["base"]["revision"] == commit
    later = commit[::-1]
    hub = Hub(tmp_path / "later-hub", {later: tiny_folder}, monkeypatch)
    hub.point("main", later)
    with pytest.raises(
        ModelError, match="could not be loaded"
    ):  # not the other commit, though its weights are the same
        Life.open(folder).load()
    base = load_base(ModelConfig(model_name_or_path=hub.name, dtype="float32"))
    with pytest.raises(ModelError, match=f"with revision {later}, expected the one this life was made with"):
        Life.open(folder, base=base)


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("gpt2", {"c_attn"}),
        ("phi3", {"qkv_proj"}),
        ("bloom", {"query_key_value"}),
        ("falcon_mamba", {"in_proj"}),
        ("phi", {"q_proj", "v_proj"}),
    ],
)
def test_where_nothing_is_named_the_adapter_goes_where_it_usually_does(
    tmp_path: Path, family: str, targets: set[str]
) -> None:
    families.save_family(family, tmp_path)
    model = attach_lora(load(tmp_path), AdapterConfig(lora_r=2), 0)
    assert set(model.peft_config["default"].target_modules) == targets
    assert model.peft_config["default"].fan_in_fan_out == (family == "gpt2")  # Conv1D keeps its weight transposed


def test_prompts_in_front_are_refused_on_a_model_that_reads_tokens_twice(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaModel

    forward = LlamaModel.forward

    def twice(self: Any, input_ids: Any = None, **options: Any) -> Any:
        output = forward(self, input_ids=input_ids, **options)
        if input_ids is not None:
            output.last_hidden_state = output.last_hidden_state + self.embed_tokens(input_ids)
        return output

    model = attach_lora(load(tiny_folder), AdapterConfig(lora_r=2), 0)
    attach_pool(model, 4, 2, 2, 0)
    monkeypatch.setattr(LlamaModel, "forward", twice)
    with pytest.raises(ModelError, match="l2p needs a model that reads embeddings as it reads their tokens"):
        attach_pool(model, 4, 2, 2, 0)
