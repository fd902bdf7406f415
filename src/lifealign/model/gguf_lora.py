"""A LoRA adapter as a GGUF file, which llama.cpp puts on a GGUF file of the same base.

llama.cpp adds ``alpha / rank * lora_b @ lora_a`` to a weight in *its* layout. Two things differ from that of
transformers: the names, and in the families of Llama the order of the rows of queries and keys, because llama.cpp
rotates neighbouring numbers of a head and transformers numbers that are half a head apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFType, GGUFWriter, Keys, get_tensor_name_map
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig

from lifealign.errors import ModelError
from lifealign.model.merge import factors_by_module


@dataclass(frozen=True)
class Family:
    """How llama.cpp stores the linear layers of a family of models.

    Attributes:
        architecture: Its name there.
        rotated: Modules whose rows it has in another order.
    """

    architecture: str
    rotated: tuple[str, ...] = ()


FAMILIES = {
    "gemma": Family("gemma"),
    "gemma2": Family("gemma2"),
    "gemma3_text": Family("gemma3"),
    "llama": Family("llama", ("q_proj", "k_proj")),
    "mistral": Family("llama", ("q_proj", "k_proj")),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
}
"""The families whose layout is known and tested, by their ``model_type``. Any other is refused: a file with rows in the
wrong order loads without an error and answers nonsense."""

FORMATS = {
    torch.float32: GGMLQuantizationType.F32,
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
}


def family_of(config: PreTrainedConfig) -> Family:
    """How llama.cpp stores a model of this configuration.

    Raises:
        ModelError: If that is not known.
    """
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"found a base of the family {config.model_type}, expected one whose layout in GGUF is known: "
            f"{', '.join(FAMILIES)}; merge the adapter into the model instead, and convert the result with llama.cpp's "
            "own script"
        )
    return FAMILIES[config.model_type]


def gguf_factors(adapter: Mapping[str, Tensor], config: PreTrainedConfig) -> dict[str, Tensor]:
    """The factors of an adapter in the layout of llama.cpp, by its names: ``blk.0.attn_q.weight.lora_a``.

    Args:
        adapter: Factors by PEFT's names.
        config: Configuration of the base.

    Raises:
        ModelError: If the family is not known, or a module of the adapter has no name in GGUF.
    """
    family = family_of(config)
    architecture = next(number for number, name in MODEL_ARCH_NAMES.items() if name == family.architecture)
    known = get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    factors = {}
    for module, (lora_a, lora_b) in factors_by_module(adapter).items():
        name, last = known.get_name(f"{module}.weight", (".weight",)), module.rsplit(".", 1)[-1]
        if name is None:
            raise ModelError(f"adapter: found factors of {module}, which has no name in GGUF; leave out that module")
        factors[f"{name}.lora_a"] = lora_a
        factors[f"{name}.lora_b"] = neighbouring(lora_b, heads[last]) if last in family.rotated else lora_b
    return factors


def neighbouring(rows: Float[Tensor, "out width"], heads: int) -> Float[Tensor, "out width"]:
    """Brings the rows of every head that are rotated together side by side; before they are half a head apart.

    Example:
        >>> neighbouring(torch.arange(8)[:, None], heads=2).flatten()
        tensor([0, 2, 1, 3, 4, 6, 5, 7])
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write_gguf_lora(
    path: Path,
    adapter: Mapping[str, Tensor],
    alpha: float,
    config: PreTrainedConfig,
    *,
    name: str,
    base: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes an adapter as a GGUF file.

    Args:
        path: The file, in a folder that exists.
        adapter: Factors by PEFT's names, all of one rank.
        alpha: ``lora_alpha``; llama.cpp divides it by the rank itself.
        config: Configuration of the base.
        name: Name of the adapter, for people.
        base: Name of its base, for people.
        dtype: float32, float16 or bfloat16.

    Raises:
        ModelError: For the reasons given in :func:`gguf_factors`, or if a number is not finite in ``dtype``.
        OSError: If the system refuses.
    """
    writer = GGUFWriter(path, family_of(config).architecture)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, base)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    for factor_name, factor in gguf_factors(adapter, config).items():
        writer.add_tensor(factor_name, _numbers(factor_name, factor, dtype), raw_dtype=FORMATS[dtype])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _numbers(name: str, factor: Tensor, dtype: torch.dtype) -> Any:
    """A factor as the numpy array that the writer takes: of bfloat16, which numpy does not have, the bytes."""
    cast = factor.detach().to("cpu", dtype).contiguous()
    if not torch.isfinite(cast).all():
        raise ModelError(
            f"{name}: found {factor.abs().max().item():g}, which is not finite in "
            f"{str(dtype).removeprefix('torch.')}, expected finite numbers only; choose another dtype"
        )
    return cast.view(torch.uint8).numpy() if dtype == torch.bfloat16 else cast.numpy()
