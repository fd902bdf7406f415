"""An adapter in a GGUF file: the same numbers, under the names and in the order that the readers of GGUF expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from tests.embedded import needs_embedded
from tests.model.families import tiny_config
from tests.model.gguf_files import add_to_file, tiny_family, write_base
from tests.model.test_merge import assert_close, random_adapter
from tests.tiny import tiny_model
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from lifealign.errors import ModelError
from lifealign.memory.update import Adapter
from lifealign.model.base_model import load_base
from lifealign.model.embedded import embedded_file
from lifealign.model.gguf_lora import FAMILIES, gguf_factors, neighbouring, write_gguf_lora
from lifealign.model.merge import factors_by_module, merged_model
from lifealign.model.settings import EMBEDDED, ModelConfig

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALPHA, RANK = 12.0, 4


def family_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(family), trust_remote_code=False)


def reader_of(model: PreTrainedModel) -> TensorProcessor:
    """How transformers turns the tensors of a GGUF file into weights of this model; it is not ours."""
    kind = TENSOR_PROCESSORS.get(FAMILIES[model.config.model_type].architecture, TensorProcessor)
    config = model.config
    return kind(
        config={"num_attention_heads": config.num_attention_heads, "num_key_value_heads": config.num_key_value_heads}
    )


def written(path: Path, adapter: Adapter, model: PreTrainedModel, **more: Any) -> GGUFReader:
    write_gguf_lora(path, adapter, ALPHA, model.config, name="one", base="owner/base", **more)
    return GGUFReader(path)


def numbers_of(reader: GGUFReader) -> dict[str, np.ndarray]:
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


# -- the file ----------------------------------------------------------------------------------------------------------


def test_it_says_what_it_is(tmp_path: Path) -> None:
    model = tiny_model()
    reader = written(tmp_path / "adapter.gguf", random_adapter(model, ("q_proj",)), model)
    said = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert said == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "one",
        "general.base_model.count": 1,
        "general.base_model.0.name": "owner/base",
        "adapter.type": "lora",
        "adapter.lora.alpha": ALPHA,
    }


def test_every_number_of_the_adapter_is_in_it(tmp_path: Path) -> None:
    model = tiny_model()
    adapter = random_adapter(model, ("q_proj", "k_proj", "v_proj"))
    found = numbers_of(written(tmp_path / "adapter.gguf", adapter, model))
    assert len(found) == len(adapter) == 12
    heads = {"q": 4, "k": 2}
    for module, (lora_a, lora_b) in factors_by_module(adapter).items():
        layer, letter = module.split(".")[2], module.split(".")[-1][0]
        name = f"blk.{layer}.attn_{letter}.weight"
        assert np.array_equal(found[f"{name}.lora_a"], lora_a.numpy())
        rows = torch.tensor(found[f"{name}.lora_b"])
        if letter in heads:  # side by side again to half a head apart
            assert not torch.equal(rows, lora_b)
            rows = rows.reshape(heads[letter], -1, 2, RANK).swapaxes(1, 2).reshape(lora_b.shape)
        assert torch.equal(rows, lora_b)


def test_llama_cpp_finds_the_shapes_that_it_asks_for(tmp_path: Path) -> None:
    model = tiny_model()
    reader = written(tmp_path / "adapter.gguf", random_adapter(model, ("down_proj",)), model)
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}  # ggml counts from the innermost
    assert shapes["blk.0.ffn_down.weight.lora_a"] == [48, RANK] and shapes["blk.0.ffn_down.weight.lora_b"] == [RANK, 32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_are_rounded_to_the_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny_model()
    adapter = random_adapter(model, ("v_proj",))
    reader = written(tmp_path / "adapter.gguf", adapter, model, dtype=dtype)
    kind = {torch.float16: GGMLQuantizationType.F16, torch.bfloat16: GGMLQuantizationType.BF16}[dtype]
    assert {tensor.tensor_type for tensor in reader.tensors} == {kind}
    found = numbers_of(reader)
    for name, factor in gguf_factors(adapter, model.config).items():
        assert torch.equal(torch.from_numpy(found[name].astype(np.float32)), factor.to(dtype).float())


# -- the order of rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_transformers_undoes_the_order_of_rows(heads: int) -> None:
    weight = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    reader = TENSOR_PROCESSORS["llama"](config={"num_attention_heads": 4, "num_key_value_heads": heads})
    back = reader.process(neighbouring(weight, heads).numpy(), name="blk.0.attn_k.weight").weights
    assert np.array_equal(back, weight.numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_llama_cpp_adds_up_is_the_merged_weight(family: str, tmp_path: Path) -> None:
    model = family_model(family)
    adapter = random_adapter(model, LINEAR)
    merged = merged_model(model, adapter, ALPHA / RANK, torch.float32)
    reader = reader_of(model)
    theirs = get_gguf_hf_weights_map(model, reader, model_type=FAMILIES[family].architecture)
    found = numbers_of(written(tmp_path / "adapter.gguf", adapter, model))
    weights = {name.rsplit(".", 1)[0] for name in found}
    assert len(weights) == len(LINEAR) * model.config.num_hidden_layers
    for name in weights:
        change = ALPHA / RANK * found[f"{name}.lora_b"] @ found[f"{name}.lora_a"]
        added = reader.process(change, name=name).weights  # in the order of transformers
        total = model.get_parameter(theirs[name]).detach() + torch.from_numpy(np.ascontiguousarray(added))
        torch.testing.assert_close(total, merged.get_parameter(theirs[name]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma"])  # transformers reads no such
def test_added_to_the_file_of_the_base_it_is_the_merged_model(family: str, tmp_path: Path) -> None:
    model = tiny_family(family)
    adapter = random_adapter(model, LINEAR)
    write_base(tmp_path / "base.gguf", model)
    add_to_file(tmp_path / "base.gguf", tmp_path / "merged.gguf", changes_in(tmp_path, adapter, model))
    plain, theirs = (
        AutoModelForCausalLM.from_pretrained(
            tmp_path,
            gguf_file=file,
            **({} if family == "mistral" else {"config": model.config}),  # a file of Mistral is one of Llama
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
        for file in ("base.gguf", "merged.gguf")
    )
    ids = torch.tensor([[3, 41, 59, 26, 53, 58, 97, 9, 32, 38]])
    with torch.no_grad():
        assert_close(plain.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
        expected = merged_model(model, adapter, ALPHA / RANK, torch.float32)(input_ids=ids).logits
        assert_close(theirs.eval()(input_ids=ids).logits, expected, relative=1e-4)
    assert (expected - model(input_ids=ids).logits).norm() > 0.1 * expected.norm()


def changes_in(folder: Path, adapter: Adapter, model: PreTrainedModel) -> dict[str, np.ndarray]:
    """What a reader of the file adds to the weights of a base, in the layout of llama.cpp."""
    found = numbers_of(written(folder / "adapter.gguf", adapter, model))
    weights = {name.rsplit(".", 1)[0] for name in found}
    return {name: ALPHA / RANK * found[f"{name}.lora_b"] @ found[f"{name}.lora_a"] for name in weights}


@needs_embedded
@pytest.mark.slow
def test_on_the_embedded_file_both_ways_come_to_the_same_model(tmp_path: Path) -> None:
    base = load_base(ModelConfig(model_name_or_path=EMBEDDED, dtype="float32")).model
    adapter = {name: 0.2 * factor for name, factor in random_adapter(base, LINEAR).items()}
    add_to_file(embedded_file(), tmp_path / "merged.gguf", changes_in(tmp_path, adapter, base))
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="merged.gguf",
        config=base.config,  # reading it from the file takes half a minute
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    ours = merged_model(base, adapter, ALPHA / RANK, torch.float32)
    ids = torch.tensor([[1, 9690, 198, 2683, 359, 253, 5356, 5646]])
    with torch.no_grad():
        plain, expected = base(input_ids=ids).logits, ours(input_ids=ids).logits
        assert_close(theirs.eval()(input_ids=ids).logits, expected, relative=1e-4)
    assert (plain - expected).norm() > 0.05 * plain.norm()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "phi3", "qwen3_moe", "olmo", "granite"])
def test_a_family_whose_layout_is_not_known_is_refused(family: str, tmp_path: Path) -> None:
    config = tiny_config(family)
    fault = f"found a base of the family {family}, expected one whose layout in GGUF is known: gemma, gemma2, "
    with pytest.raises(ModelError, match=fault):
        gguf_factors({}, config)
    with pytest.raises(ModelError, match=fault):
        write_gguf_lora(tmp_path / "adapter.gguf", {}, 1.0, config, name="one", base="base")
    assert not any(tmp_path.iterdir())


def test_a_module_without_a_name_in_gguf_is_refused() -> None:
    adapter = {f"base_model.model.model.layers.0.self_attn.other.lora_{one}.weight": torch.ones(2, 2) for one in "AB"}
    with pytest.raises(ModelError, match=r"layers.0.self_attn.other, which has no name in GGUF"):
        gguf_factors(adapter, tiny_model().config)


def test_a_layer_that_the_base_does_not_have_is_refused() -> None:
    adapter = {f"base_model.model.model.layers.2.self_attn.q_proj.lora_{one}.weight": torch.ones(2, 2) for one in "AB"}
    with pytest.raises(ModelError, match=r"layers.2.self_attn.q_proj, which has no name in GGUF"):
        gguf_factors(adapter, tiny_model().config)


def test_a_number_that_a_dtype_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    adapter = {name: factor * 1e6 for name, factor in random_adapter(model, ("v_proj",)).items()}
    with pytest.raises(ModelError, match=r"attn_v.weight.lora_a: found .* not finite in float16"):
        written(tmp_path / "adapter.gguf", adapter, model, dtype=torch.float16)
    assert not any(tmp_path.iterdir())
