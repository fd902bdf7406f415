"""Adapter folders as PEFT saves them, small enough to be written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

PREFIX = "base_model.model.model.layers"
MODULES = ("self_attn.q_proj", "self_attn.v_proj")
CONFIG: dict[str, Any] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "some/base",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_alpha": 8,
    "lora_bias": False,
    "lora_dropout": 0.0,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["v_proj", "q_proj"],
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}
"""What PEFT writes for an adapter of rank 4, the keys that matter and some that do not."""
LORA: dict[str, Any] = {key: CONFIG[key] for key in ("r", "lora_alpha", "target_modules", "task_type")}


def names(layers: int = 2) -> list[str]:
    """The factors of an adapter on the query and value projections."""
    return [
        f"{PREFIX}.{layer}.{module}.lora_{end}.weight" for layer in range(layers) for module in MODULES for end in "AB"
    ]


def random_factors(seed: int, scale: float = 0.1, width: int = 12, rank: int = 4) -> dict[str, Tensor]:
    """Factors in which every number differs, by PEFT's names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"A": (rank, width), "B": (width, rank)}
    return {name: scale * torch.randn(shapes[name[-8]], generator=generator) for name in names()}


def moved(factors: Mapping[str, Tensor], seed: int, scale: float = 0.02) -> dict[str, Tensor]:
    """Factors after a training that has moved all of them."""
    rank, width = factors[names()[0]].shape
    by = random_factors(seed, scale, width, rank)
    return {name: factor + by[name] for name, factor in factors.items()}


def write_folder(folder: Path, factors: Mapping[str, Tensor], infix: str = "", **config: Any) -> Path:
    """Writes an adapter; ``infix`` is put before ``.weight`` in every name, ``config`` over :data:`CONFIG`."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name.replace(".weight", f"{infix}.weight"): factor.contiguous() for name, factor in factors.items()}
    save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config, indent=2))
    return folder


def trained(base: Path, folder: Path, seed: int = 3, **lora: Any) -> Path:
    """An adapter for a real base that has been somewhere else: no factor of it is zero."""
    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**(LORA | lora)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder
