"""A base whose linear layers are kept in 4 bits (QLoRA): NF4 with double quantisation, by bitsandbytes."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from lifealign.errors import ModelError


def four_bit(name: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How transformers is told to keep the linear layers of a base in 4 bits, as QLoRA does.

    Each block of 64 weights is one scale times 16 levels (NF4), and the scales are quantised as well: 4.13 bits a
    weight. The embedding, the head, norms and experts that are no linear layers stay as they are.

    Args:
        name: The model's name, for errors.
        dtype: In which layers compute, after their weights were put together again.

    Raises:
        ModelError: If bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"model {name!r}: load_in_4bit needs the package bitsandbytes; pip install 'lifealign[qlora]'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def is_four_bit(model: nn.Module) -> bool:
    """Whether linear layers of a model are kept in 4 bits."""
    return any(True for _ in _layers(model))


def require_known_quantisation(name: str, model: PreTrainedModel, *, in_4bit: bool) -> None:
    """Refuses weights that are quantised in another way than the settings say.

    Args:
        name: The model's name, for errors.
        model: The model as loaded.
        in_4bit: Whether the settings ask for 4 bits.

    Raises:
        ModelError: If the model is stored quantised and is not put together again when it is loaded, unless it is
            stored in bitsandbytes' 4 bits and the settings ask for 4 bits; or if they do, and it has no linear layer
            in 4 bits.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    settings: Any = getattr(quantizer, "quantization_config", None)
    if in_4bit and not is_four_bit(model):
        raise ModelError(f"model {name!r}: found no linear layer in 4 bits, expected load_in_4bit=false")
    if settings is None or getattr(settings, "dequantize", False) or (in_4bit and is_four_bit(model)):
        return
    if is_four_bit(model):
        raise ModelError(f"model {name!r}: is stored in 4 bits, expected model.load_in_4bit=true to go with it")
    method = getattr(settings.quant_method, "value", settings.quant_method)
    raise ModelError(
        f"model {name!r}: is stored quantised with {method}, expected plain weights, or those of bitsandbytes in 4 bits"
    )


def compute_in_one_way(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Makes 4-bit layers compute in one dtype, the same with and without gradient, in place.

    On processors with bfloat16 instructions bitsandbytes repacks a weight at the first pass without gradient and
    computes in bfloat16 from then on. The reference of a preference is computed without gradient, the policy with: the
    margin of an adapter that changes nothing would not be zero. And a model that is stored in 4 bits names a dtype of
    its own.

    Args:
        model: The model as loaded.
        dtype: In which its layers compute.
    """
    for _, layer in _layers(model):
        layer.support_avx512bf16_for_cpu = False
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
        layer.weight.quant_state.dtype = dtype


def quantised_parts(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """What belongs to 4-bit weights beside their packed levels, by name: scales, the 16 levels, shapes.

    No parameter and no buffer has it, so that two models may differ here alone.
    """
    for name, layer in _layers(model):
        for part, tensor in layer.weight.quant_state.as_dict(packed=True).items():
            yield f"{name}.weight.{part}", tensor


def put_together(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model with plain weights, each what its 4-bit layer computes with; the model itself without any."""
    if not is_four_bit(model):
        return model
    from bitsandbytes.functional import dequantize_4bit

    plain = copy.deepcopy(model)
    for name, layer in [*_layers(plain)]:
        with torch.device("meta"):
            linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        levels = layer.weight
        linear.weight = nn.Parameter(dequantize_4bit(levels.data, levels.quant_state), requires_grad=False)
        linear.bias = layer.bias
        plain.set_submodule(name, linear)
    return plain


def whole_numbers(weight: Tensor) -> int:
    """Numbers in a weight: of one in 4 bits as many as it has when it is put together."""
    state: Any = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)


def four_bit_bytes(weights: int) -> int:
    """Bytes of linear weights in 4 bits: half a byte each, one for every block of 64, five for 256 of these."""
    return weights // 2 + weights // 64 + 4 * (weights // (64 * 256))


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if hasattr(module._parameters.get("weight"), "quant_state"):  # its own: PEFT's layers show their base's
            yield name, module
