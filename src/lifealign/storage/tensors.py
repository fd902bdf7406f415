"""Tensors in safetensors files: written atomically, never pickled, never NaN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lifealign.errors import LifeError
from lifealign.storage.files import write_bytes
from lifealign.storage.regular_file import named, open_regular


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Replaces a safetensors file, with the layout that PEFT uses.

    Args:
        path: The file.
        tensors: Tensors by name, of any dtype and device; no two may share memory.

    Raises:
        LifeError: If a tensor holds NaN or infinity, which must never become part of a memory, or for the reasons
            given in :func:`write_bytes`.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
            count = tensor.numel() - int(finite.sum())
            raise LifeError(
                f"{path}: tensor {name!r}: found {count} values that are NaN or infinite; nothing was written"
            )
    # Only one key: safetensors writes several metadata keys in random order, and bytes would differ between runs.
    write_bytes(path, save(plain, {"format": "pt"}))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads all tensors of a safetensors file.

    Raises:
        LifeError: If the file is missing, unreadable or damaged.
    """
    with open_regular(path), named(path, "read"):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise LifeError(f"{path}: found an invalid safetensors file ({error})") from error
