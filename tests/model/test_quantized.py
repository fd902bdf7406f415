"""What can be said of a base in 4 bits without bitsandbytes; what needs it is in tests/qlora."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lifealign.errors import ModelError
from lifealign.model import quantized
from lifealign.model.base_model import load_base, load_outline
from lifealign.model.embedded import embedded_file
from lifealign.model.memory_need import memory_need
from lifealign.model.quantized import four_bit_bytes, put_together, require_known_quantisation
from lifealign.model.settings import AdapterConfig, ModelConfig


def test_the_package_that_is_needed_is_named(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"load_in_4bit needs the package bitsandbytes; pip install 'lifealign\[qlora"):
        load_base(ModelConfig(model_name_or_path=str(tiny_folder), dtype="float32", load_in_4bit=True))


def test_a_gguf_file_is_refused() -> None:
    with pytest.raises(ModelError, match=r"found load_in_4bit=true, expected false, because the weights of a \.gguf"):
        load_base(ModelConfig(model_name_or_path=str(embedded_file()), dtype="float32", load_in_4bit=True))


def test_other_quantisation_is_refused(tiny_folder: Path) -> None:
    model = load_base(ModelConfig(model_name_or_path=str(tiny_folder), dtype="float32")).model
    assert put_together(model) is model
    require_known_quantisation("model", model, in_4bit=False)
    with pytest.raises(ModelError, match="found no linear layer in 4 bits"):
        require_known_quantisation("model", model, in_4bit=True)
    model.hf_quantizer = SimpleNamespace(quantization_config=SimpleNamespace(quant_method="gptq"))
    with pytest.raises(ModelError, match="is stored quantised with gptq, expected plain weights"):
        require_known_quantisation("model", model, in_4bit=False)
    model.hf_quantizer.quantization_config.dequantize = True  # as for a .gguf file: it has plain layers
    require_known_quantisation("model", model, in_4bit=False)


def test_memory_of_weights_in_4_bits(tiny_folder: Path) -> None:
    # 256 scales of a byte each for 16,384 weights of half a byte, and one number of 4 bytes for these scales
    assert four_bit_bytes(16384) == 8192 + 256 + 4
    outline, lora = load_outline(ModelConfig(model_name_or_path=str(tiny_folder))), AdapterConfig()
    plain, four = (
        memory_need(outline, "float32", lora, pairs=1, prompt=8, answer=8, in_4bit=in_4bit) for in_4bit in (False, True)
    )
    # of 32,096 parameters 2 x 7,680 are in the linear layers of decoder layers: 7,680 bytes and 240 scales
    assert four.weights == 4 * (32096 - 15360) + 7680 + 240
    assert plain.total - four.total == plain.weights - four.weights
