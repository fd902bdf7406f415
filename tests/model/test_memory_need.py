"""The memory of a training step, derived by hand for the tiny model and held against what autograd keeps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.conftest import MakeRuntime
from torch import Tensor

from lifealign.model.base_model import load_base, load_outline
from lifealign.model.memory_need import MemoryNeed, memory_need
from lifealign.model.settings import AdapterConfig, Dtype, ModelConfig
from lifealign.model.tokens import TokenizedPair

LORA = AdapterConfig(lora_r=4, lora_alpha=8)


def test_an_outline_has_every_parameter_and_no_weights(tiny_folder: Path) -> None:
    config = ModelConfig(model_name_or_path=str(tiny_folder), dtype="float32")
    outline, model = load_outline(config), load_base(config).model
    assert {name: one.shape for name, one in outline.named_parameters()} == {
        name: one.shape for name, one in model.named_parameters()
    }
    assert {one.device.type for one in outline.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("dtype", "weights", "activations"),
    [
        # 32096 parameters: two tables of 259 x 32, two layers of 7744, a norm of 32. 57 tokens in 2 layers.
        ("float32", 4 * 32096, 57 * 2 * (4 * (4 * 32 + 3 * 48) + 8 * 32 + 4 * 32)),
        ("bfloat16", 2 * 32096, 57 * 2 * (2 * (4 * 32 + 3 * 48) + 8 * 32 + 8 * 32)),
    ],
)
def test_what_a_step_needs(tiny_folder: Path, dtype: Dtype, weights: int, activations: int) -> None:
    outline = load_outline(ModelConfig(model_name_or_path=str(tiny_folder)))
    adapter = 16 * 2 * 4 * ((32 + 32) + (32 + 16))  # query is 32 to 32, value 32 to 16
    expected = MemoryNeed(weights, adapter, activations, logits=8 * 42 * 259)
    found = memory_need(outline, dtype, LORA, pairs=3, prompt=5, answer=7)
    assert found == expected
    assert found.total == weights + adapter + activations + 8 * 42 * 259


def test_logits_exist_for_a_chunk_of_positions_at_a_time(tiny_folder: Path) -> None:
    outline = load_outline(ModelConfig(model_name_or_path=str(tiny_folder)))
    few, many = (memory_need(outline, "float32", LORA, pairs=n, prompt=1, answer=512) for n in (1, 50))
    assert few.logits == many.logits and many.activations == 50 * few.activations


def test_the_activations_are_those_that_autograd_keeps(make_runtime: MakeRuntime, tiny_folder: Path) -> None:
    runtime = make_runtime("shared")  # packed rows keep a little less
    pairs = [TokenizedPair(str(n), "", (n,) * 50, tuple(range(50, 100)), tuple(range(100, 150))) for n in range(1, 5)]
    frozen = {one.untyped_storage().data_ptr() for one in runtime.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps = runtime.policy(runtime.batch(pairs, ("chosen", "rejected")))
    masks = {place for place, one in kept.items() if one.shape[-2:] == (150, 150)}
    found = sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in {*frozen, *masks})
    outline = load_outline(ModelConfig(model_name_or_path=str(tiny_folder)))
    need = memory_need(outline, "float32", LORA, pairs=4, prompt=50, answer=50)
    assert logps.shape == (8,)
    # Left out, beside the mask: sines and cosines, and per token and factor the 4 numbers inside LoRA.
    assert need.activations == pytest.approx(found, rel=0.1)


def test_a_model_that_does_not_say_its_widths_is_not_guessed_at() -> None:
    config: Any = SimpleNamespace(model_type="odd", get_text_config=lambda decoder: config)
    outline: Any = SimpleNamespace(config=config)
    with pytest.raises(ValueError, match="hidden_size: found nothing in the configuration of odd"):
        memory_need(outline, "float32", LORA, pairs=1, prompt=1, answer=1)
