"""Adapters in PEFT's folder format: what any trainer leaves is read, and what is no plain LoRA is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tests.peft_adapters import CONFIG, PREFIX, names, random_factors, write_folder
from tests.tiny import tiny_model

from lifealign.errors import LifeError, ModelError
from lifealign.model.adapter import adapter_fingerprint
from lifealign.model.peft_config import MORE_THAN_FACTORS, OF_NO_CONSEQUENCE, kind_of
from lifealign.model.peft_folder import (
    read_peft_folder,
    require_same_kind,
    save_active_adapter,
    write_peft_folder,
)

FACTORS = random_factors(0)


def refused(folder: Path) -> str:
    with pytest.raises((ModelError, LifeError)) as raised:
        read_peft_folder(folder)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    return str(raised.value)


# -- what is read ------------------------------------------------------------------------------------------------------


def test_what_peft_saves_is_read_and_what_is_written_peft_loads(tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(), config)
    for number, parameter in enumerate(model.parameters()):
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    model.save_pretrained(tmp_path / "peft")
    found = read_peft_folder(tmp_path / "peft")
    assert (found.kind.r, found.kind.lora_alpha, found.kind.use_rslora, found.dtype) == (4, 6.0, False, "float32")
    assert list(found.factors) == sorted(names()) and found.not_read == ()

    save_active_adapter(model, tmp_path / "ours")
    again = read_peft_folder(tmp_path / "ours")
    assert again.fingerprint == found.fingerprint and again.kind == found.kind

    write_peft_folder(tmp_path / "written", found.factors, found.config)
    expected = model.eval()(input_ids=torch.tensor([[1, 2, 3]])).logits
    loaded = PeftModel.from_pretrained(tiny_model(), str(tmp_path / "written")).eval()
    assert torch.equal(loaded(input_ids=torch.tensor([[1, 2, 3]])).logits, expected)


def test_every_option_of_the_installed_peft_is_known() -> None:
    """An option that is none of these is refused wherever it is set, because nobody has looked at what it does."""
    options = set(LoraConfig().to_dict())
    assert options <= OF_NO_CONSEQUENCE | MORE_THAN_FACTORS.keys(), options - OF_NO_CONSEQUENCE
    kind_of(Path("adapter_config.json"), json.loads(json.dumps(LoraConfig().to_dict(), default=list)))


@pytest.mark.parametrize("infix", ["", ".default", ".my-adapter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_spelling_and_dtype_of_a_file_do_not_matter(tmp_path: Path, infix: str, dtype: torch.dtype) -> None:
    rounded = {name: factor.to(dtype) for name, factor in FACTORS.items()}
    found = read_peft_folder(write_folder(tmp_path / "one", rounded, infix))
    assert found.dtype == str(dtype).removeprefix("torch.") and list(found.factors) == sorted(names())
    assert all(torch.equal(found.factors[name], rounded[name].float()) for name in FACTORS)
    assert found.fingerprint == adapter_fingerprint({name: factor.float() for name, factor in rounded.items()})


def test_adapters_beside_it_are_named_and_not_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", FACTORS)
    write_folder(folder / "ref", random_factors(1))  # as TRL saves the reference of an adapter that it goes on from
    write_folder(folder / "checkpoint-4", random_factors(2))
    (folder / "runs").mkdir()
    found = read_peft_folder(folder)
    assert found.not_read == ("checkpoint-4", "ref")
    assert found.fingerprint == read_peft_folder(write_folder(tmp_path / "alone", FACTORS)).fingerprint


def test_rank_stabilised_scaling_is_a_kind_of_its_own(tmp_path: Path) -> None:
    plain = read_peft_folder(write_folder(tmp_path / "plain", FACTORS))
    stable = read_peft_folder(write_folder(tmp_path / "stable", FACTORS, use_rslora=True))
    assert stable.kind.use_rslora and stable.fingerprint == plain.fingerprint
    with pytest.raises(ModelError, match=r"use_rslora: found a boolean \(true\), expected a boolean \(false\), as in"):
        require_same_kind(stable, plain)


@pytest.mark.parametrize(
    "harmless",
    [
        {"target_modules": "all-linear"},
        {"lora_dropout": None, "fan_in_fan_out": None, "auto_mapping": {"unsloth_fixed": True}},
        {"init_lora_weights": "gaussian"},
        {"layers_to_transform": [0, 1], "loftq_config": {}, "runtime_config": {"ephemeral_gpu_offload": False}},
        {"an_option_of_tomorrow": None},
    ],
)
def test_options_of_no_consequence_are_let_be(tmp_path: Path, harmless: dict[str, Any]) -> None:
    plain = read_peft_folder(write_folder(tmp_path / "plain", FACTORS))
    assert read_peft_folder(write_folder(tmp_path / "other", FACTORS, **harmless)).kind == plain.kind


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "peft_type: found the string 'PROMPT_TUNING', expected 'LORA'"),
        ({"peft_type": None, "swift_type": "LORA"}, "peft_type: found null, expected 'LORA'"),
        ({"use_dora": True}, "use_dora: found a boolean (true), expected none: DoRA scales every weight"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: found a list of 1, expected none: whole modules"),
        ({"bias": "all"}, "bias: found the string 'all', expected none: biases were trained"),
        ({"lora_bias": True}, "lora_bias: found a boolean (true), expected none"),
        (
            {"rank_pattern": {"q_proj": 8}},
            "rank_pattern: found an object with 'q_proj', expected none: the rank differs",
        ),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern: found an object with 'q_proj', expected none: the scaling"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices: found a list of 1, expected none"),
        ({"target_parameters": ["experts"]}, "target_parameters: found a list of 1, expected none"),
        ({"init_lora_weights": "pissa_niter_16"}, "found the string 'pissa_niter_16', expected true or 'gaussian'"),
        ({"init_lora_weights": ["x"]}, "init_lora_weights: found a list of 1, expected true or 'gaussian'"),
        ({"an_option_of_tomorrow": 3}, "'an_option_of_tomorrow': found a number (3) in an option that this version"),
        ({"r": 0}, "r: found a number (0), expected a whole number greater than 0"),
        ({"r": True}, "r: found a boolean (true), expected a whole number greater than 0"),
        ({"lora_alpha": -1}, "lora_alpha: found a number (-1), expected a number greater than 0"),
        ({"lora_alpha": "8"}, "lora_alpha: found the string '8', expected a number greater than 0"),
        ({"base_model_name_or_path": 7}, "base_model_name_or_path: found a number (7), expected text or null"),
        ({"r": 8}, f"{PREFIX}.0.self_attn.q_proj.lora_A.weight: found shape (4, 12), expected (8, inputs), as r in"),
    ],
)
def test_a_config_of_anything_but_plain_lora_is_refused(tmp_path: Path, config: dict[str, Any], fault: str) -> None:
    assert fault in refused(write_folder(tmp_path / "one", FACTORS, **config))


@pytest.mark.parametrize("option", sorted(MORE_THAN_FACTORS))
def test_every_option_that_adds_something_to_the_factors_is_refused(tmp_path: Path, option: str) -> None:
    assert f"{option}: found" in refused(write_folder(tmp_path / "one", FACTORS, **{option: {"something": 1}}))


def test_factors_that_are_none_or_not_whole_are_refused(tmp_path: Path) -> None:
    first, second = names()[:2]
    for number, (changed, fault) in enumerate(
        (
            ({first: None}, f"found {second} without {first}, expected both"),
            ({first: torch.zeros(4)}, "found shape (4,), expected (4, inputs)"),
            ({first: torch.zeros(4, 12, 1)}, "found shape (4, 12, 1), expected (4, inputs)"),
            ({second: torch.zeros(12, 5)}, "found shape (12, 5), expected (outputs, 4)"),
            ({second: torch.zeros(0, 4)}, "found shape (0, 4), expected (outputs, 4)"),
            ({first: torch.full((4, 12), math.nan)}, "found 48 values that are NaN or infinite, expected finite"),
            ({second: torch.full((12, 4), math.inf)}, "found 48 values that are NaN or infinite, expected finite"),
            ({first: torch.zeros(4, 12, dtype=torch.int8)}, "found factors in float32 and int8, expected one of"),
            ({first: torch.zeros(4, 12).bfloat16()}, "found factors in bfloat16 and float32, expected one of"),
            ({first.replace("lora_A.weight", "lora_magnitude_vector"): torch.zeros(4)}, "expected LoRA factors and"),
            (
                {"base_model.model.lm_head.weight": torch.zeros(4, 4)},
                "found 'base_model.model.lm_head.weight', expected",
            ),
            ({first.removeprefix("base_model.model."): torch.zeros(4, 12)}, "expected LoRA factors and nothing else"),
            ({first.replace("_A.", "_A.ref."): torch.zeros(4, 12)}, "found factors of several adapters ('ref', None)"),
        )
    ):
        factors = {name: factor for name, factor in (FACTORS | changed).items() if factor is not None}
        assert fault in refused(write_folder(tmp_path / str(number), factors)), fault
    assert "found no factors" in refused(write_folder(tmp_path / "empty", {}))


def test_all_factors_in_float64_are_refused_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", {name: factor.double() for name, factor in FACTORS.items()})
    assert "found factors in float64, expected one of float32, bfloat16, float16" in refused(folder)


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", FACTORS)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch pickled'\ntR.")
    assert "found a pickle, which may run code when it is read, expected adapter_model.safetensors" in refused(folder)


def test_where_there_is_no_adapter_the_message_says_where_one_is(tmp_path: Path) -> None:
    assert "found no such folder, expected the folder of an adapter" in refused(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    assert "found a file, expected the folder of an adapter" in refused(tmp_path / "file")
    (tmp_path / "run").mkdir()
    assert "found no adapter_config.json, expected an adapter that PEFT saved" in refused(tmp_path / "run")
    (tmp_path / "run/config.json").write_text("{}")
    assert "found a whole model and no adapter_config.json" in refused(tmp_path / "run")
    write_folder(tmp_path / "run/checkpoint-8", FACTORS)
    write_folder(tmp_path / "run/checkpoint-4", FACTORS)
    assert "these folders in it have one: checkpoint-4, checkpoint-8" in refused(tmp_path / "run")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", FACTORS)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "found an invalid safetensors file" in refused(folder)
    weights.unlink()
    assert "adapter_model.safetensors: could not be read: No such file or directory" in refused(folder)
    (folder / "adapter_config.json").write_text('{"r": 4, "r": 8}')
    assert "the key 'r' occurs twice" in refused(folder)
    (folder / "adapter_config.json").write_text("[]")
    assert "found a list of 0, expected an object" in refused(folder)


def test_adapters_of_which_none_came_from_the_other_are_refused(tmp_path: Path) -> None:
    one = read_peft_folder(write_folder(tmp_path / "one", FACTORS))
    wide = random_factors(0, width=16)
    fewer = {name: factor for name, factor in FACTORS.items() if "v_proj" not in name}
    for number, (factors, config, fault) in enumerate(
        (
            (
                FACTORS,
                {"base_model_name_or_path": "a/b"},
                "base_model_name_or_path: found 'a/b', expected 'some/base', as",
            ),
            (FACTORS, {"revision": "main"}, "revision: found 'main', expected null, as in"),
            (FACTORS, {"lora_alpha": 16}, "lora_alpha: found a number (16.0), expected a number (8.0), as in"),
            (FACTORS, {"fan_in_fan_out": True}, "fan_in_fan_out: found a boolean (true), expected a boolean (false)"),
            (random_factors(0, rank=2), {"r": 2}, "r: found a number (2), expected a number (4), as in"),
            (wide, {}, "q_proj.lora_A.weight: found shape (4, 16), expected (4, 12), as in"),
            (fewer, {}, "found no base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight, which"),
        )
    ):
        other = read_peft_folder(write_folder(tmp_path / f"other-{number}", factors, **config))
        with pytest.raises(ModelError) as raised:
            require_same_kind(other, one)
        assert fault in str(raised.value) and "\n" not in str(raised.value)
    require_same_kind(read_peft_folder(write_folder(tmp_path / "same", random_factors(1), peft_version="0.1")), one)


def test_a_safetensors_file_with_other_metadata_is_the_same_adapter(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", FACTORS)
    expected = read_peft_folder(folder).fingerprint
    save_file(dict(reversed(FACTORS.items())), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    assert read_peft_folder(folder).fingerprint == expected
