"""A LoRA adapter in a folder of PEFT's, whichever trainer left it there: read strictly, and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from lifealign.errors import ModelError, describe
from lifealign.memory.update import Adapter
from lifealign.model.adapter import adapter_fingerprint
from lifealign.model.peft_config import LoraKind, kind_of
from lifealign.storage.files import LARGEST_JSON, read_json, write_bytes, write_json
from lifealign.storage.regular_file import named, read_bytes
from lifealign.storage.tensors import read_tensors, write_tensors

WEIGHTS, CONFIG, PICKLE = "adapter_model.safetensors", "adapter_config.json", "adapter_model.bin"
FACTOR = re.compile(r"(?P<module>base_model\.model\..+)\.lora_(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
"""The name of a factor in a file: as PEFT saves it, or with the adapter's name as it has it in a model."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Dtypes in which trainers keep an adapter."""


@dataclass(frozen=True)
class PeftAdapter:
    """A LoRA adapter as it was found.

    Attributes:
        folder: Where it is.
        factors: Factors by the names that PEFT saves, float32 on the CPU.
        dtype: The dtype that they have in the file.
        kind: What they mean.
        config: The content of ``adapter_config.json``.
        not_read: Sub-folders that have an adapter of their own: checkpoints, or the ``ref`` that TRL saves.
    """

    folder: Path
    factors: Adapter
    dtype: str
    kind: LoraKind
    config: bytes
    not_read: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of the factors; names of files, dtypes and the spelling of the factors' names play no part."""
        return adapter_fingerprint(self.factors)


def read_peft_folder(folder: str | Path) -> PeftAdapter:
    """Reads an adapter that PEFT saved: plain LoRA, in safetensors.

    Args:
        folder: The folder with ``adapter_config.json`` and ``adapter_model.safetensors``; what else is in it is not
            read.

    Raises:
        ModelError: If there is no adapter, it is a pickle, it is no plain LoRA (DoRA, whole modules or biases beside
            the factors, ranks that differ from layer to layer, ...), or a factor is missing, has an unexpected shape or
            dtype, or holds NaN or infinity.
        LifeError: If a file cannot be read or is damaged.
    """
    folder = Path(folder)
    path, weights = folder / CONFIG, folder / WEIGHTS
    if not path.exists():
        raise ModelError(_no_adapter(folder))
    kind = kind_of(path, read_json(path))
    if not weights.exists() and (folder / PICKLE).exists():
        raise ModelError(
            f"{folder / PICKLE}: found a pickle, which may run code when it is read, expected {WEIGHTS}; save the "
            "adapter again with model.save_pretrained(FOLDER), which writes safetensors"
        )
    factors, dtype = _factors(weights, read_tensors(weights), kind.r)
    return PeftAdapter(folder, factors, dtype, kind, read_bytes(path, LARGEST_JSON), tuple(_adapters_in(folder)))


def require_same_kind(one: PeftAdapter, other: PeftAdapter) -> None:
    """Refuses two adapters of which one cannot have become the other by training.

    Raises:
        ModelError: If they differ in base, scaling or shape; the message names the first difference.
    """
    require_kind(one, other.kind, str(other.folder))
    if differing := sorted(one.factors.keys() ^ other.factors.keys()):
        having, lacking = (one, other) if differing[0] in one.factors else (other, one)
        raise ModelError(
            f"{lacking.folder}: found no {differing[0]}, which {having.folder} has, expected adapters with the same "
            "target modules"
        )
    for name, factor in one.factors.items():
        if factor.shape != other.factors[name].shape:
            raise ModelError(
                f"{one.folder}: {name}: found shape {tuple(factor.shape)}, expected "
                f"{tuple(other.factors[name].shape)}, as in {other.folder}"
            )


def require_kind(adapter: PeftAdapter, kind: LoraKind, where: str) -> None:
    """Refuses an adapter for another base, or whose factors are scaled otherwise.

    Args:
        adapter: The adapter.
        kind: What its factors should mean.
        where: The adapter or memory that has this kind, for the message.

    Raises:
        ModelError: If anything differs; the message names the first difference.
    """
    expected = asdict(kind)
    for key, found in asdict(adapter.kind).items():
        if found != expected[key]:
            more = ""
            if key == "base_model_name_or_path":
                more = f"; if both are the same weights, write the same name in both files called {CONFIG}"
            shown, wanted = (
                repr(value[:200]) if isinstance(value, str) else describe(value) for value in (found, expected[key])
            )
            raise ModelError(f"{adapter.folder / CONFIG}: {key}: found {shown}, expected {wanted}, as in {where}{more}")


def write_peft_folder(folder: Path, factors: Mapping[str, Tensor], config: bytes) -> None:
    """Writes factors as a folder that PEFT loads; the file that it looks for first is written last.

    Raises:
        LifeError: If a factor holds NaN or infinity, or a file cannot be written.
    """
    write_tensors(folder / WEIGHTS, factors)
    write_bytes(folder / CONFIG, config)


def save_active_adapter(model: PeftModel, folder: Path) -> None:
    """Writes the active adapter of a model as it is now, as ``save_pretrained`` would.

    Raises:
        ModelError: If several adapters are active at once.
        LifeError: If it holds NaN or infinity, or a file cannot be written.
    """
    name = active_adapter(model)
    config = model.peft_config[name].to_dict() | {"inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    state: dict[str, Any] = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    write_tensors(folder / WEIGHTS, state)
    write_json(folder / CONFIG, plain)


def active_adapter(model: PeftModel) -> str:
    """The name of a model's one active adapter.

    Raises:
        ModelError: If several are active.
    """
    active = model.active_adapters
    if len(active) != 1:
        raise ModelError(f"model: found the active adapters {', '.join(sorted(active))}, expected one")
    return str(active[0])


def _factors(path: Path, tensors: Mapping[str, Tensor], rank: int) -> tuple[Adapter, str]:
    """The factors by PEFT's names, in float32, and the dtype that all of them have."""
    found: Adapter = {}
    adapters = set()
    for name, tensor in tensors.items():
        match = FACTOR.fullmatch(name)
        if match is None:
            raise ModelError(
                f"{path}: found {name[:160]!r}, expected LoRA factors and nothing else, such as "
                "'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'"
            )
        adapters.add(match["adapter"])
        plain = f"{match['module']}.lora_{match['factor']}.weight"
        found[plain] = _factor(f"{path}: {plain}", tensor, rank, match["factor"])
    if not found:
        raise ModelError(f"{path}: found no factors, expected lora_A and lora_B of each target module")
    if len(adapters) > 1:
        listed = ", ".join(sorted(repr(name) for name in adapters))
        raise ModelError(f"{path}: found factors of several adapters ({listed}), expected those of one")
    for name in found:
        module, _, end = name.rpartition(".lora_")
        other = f"{module}.lora_{'B' if end[0] == 'A' else 'A'}.weight"
        if other not in found:
            raise ModelError(f"{path}: found {name} without {other}, expected both")
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    if len(dtypes) > 1 or dtypes[0] not in DTYPES:
        raise ModelError(f"{path}: found factors in {' and '.join(dtypes)}, expected one of {', '.join(DTYPES)}")
    return {name: found[name] for name in sorted(found)}, dtypes[0]


def _factor(where: str, tensor: Tensor, rank: int, factor: str) -> Tensor:
    """A factor in float32, after a look at its shape and its numbers."""
    shape = tuple(tensor.shape)
    if len(shape) != 2 or 0 in shape or shape[0 if factor == "A" else 1] != rank:
        expected = f"({rank}, inputs)" if factor == "A" else f"(outputs, {rank})"
        raise ModelError(f"{where}: found shape {shape}, expected {expected}, as r in {CONFIG} says")
    if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
        count = tensor.numel() - int(finite.sum())
        raise ModelError(f"{where}: found {count} values that are NaN or infinite, expected finite numbers")
    return tensor.float().contiguous()


def _no_adapter(folder: Path) -> str:
    """Why a folder has no adapter, and where one is."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        return f"{folder}: found {what}, expected the folder of an adapter that PEFT saved ({CONFIG} and {WEIGHTS})"
    if inside := _adapters_in(folder):
        return f"{folder}: found no {CONFIG}, expected one; these folders in it have one: {', '.join(inside)}"
    whole = (folder / "config.json").exists()
    what = f"a whole model and no {CONFIG}" if whole else f"no {CONFIG}"
    return f"{folder}: found {what}, expected an adapter that PEFT saved; only LoRA adapters can be consolidated"


def _adapters_in(folder: Path) -> list[str]:
    """Names of the sub-folders that have an adapter, in order."""
    with named(folder, "read"):
        return sorted(path.name for path in folder.iterdir() if (path / CONFIG).exists())
