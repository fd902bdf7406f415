"""The small world that all tests share: a tiny model on disk, runtimes on it, and lives that take a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tests.tiny import save_tiny, tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.model.adapter import attach_lora, read_adapter, write_adapter
from lifealign.model.base_model import load_base
from lifealign.model.proof import Proof
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.sharing import Sharing
from lifealign.settings.section import build_config

settings.register_profile("lifealign", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("lifealign")

MakeLife = Callable[..., Life]
MakeRuntime = Callable[..., Runtime]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its tokenizer; tests only read it."""
    return save_tiny(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer."""
    return tiny_tokenizer()


@pytest.fixture
def make_life(tiny_folder: Path, tmp_path: Path) -> MakeLife:
    """Makes lives on the tiny model, each in a folder of its own.

    ``make_life(name="my-bot", method={"name": "er"}, sft={"num_train_epochs": 2})``: ``name`` is the folder below
    ``tmp_path``, the rest are sections of the configuration, laid over defaults that train visibly within a second.
    """
    count = 0
    general = tmp_path / "general-text.txt"
    general.write_text("The tide comes in twice a day.\n\nBread needs flour, water and salt.\n")

    def make(name: str | None = None, **sections: Any) -> Life:
        nonlocal count
        count += 1
        small: dict[str, Any] = {"num_train_epochs": 1, "learning_rate": 1e-2, "warmup_ratio": 0.0}
        small |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
        defaults: dict[str, Any] = {
            "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
            "lora": {"lora_r": 4, "lora_alpha": 8},
            "sft": small,
            "preference": small,
            "evaluation": {"max_new_tokens": 4, "general_text": str(general)},  # two passages instead of 32
        }
        merged = {
            key: defaults[key] | sections[key] if isinstance(sections.get(key), dict) and key in defaults else value
            for key, value in (defaults | sections).items()
        }
        return Life.create(tmp_path / (name or f"life-{count}"), build_config(LifeConfig, merged))

    return make


@pytest.fixture
def make_runtime(tiny_folder: Path) -> MakeRuntime:
    """Makes runtimes on the tiny model in float32, with an adapter in which no factor is zero.

    ``make_runtime(share_prefix=False, attention="eager", seed=1)``; ``seed`` decides the adapter, None leaves it new.
    """

    def make(share_prefix: bool = True, attention: str = "sdpa", seed: int | None = 0) -> Runtime:
        base = load_base(
            ModelConfig(model_name_or_path=str(tiny_folder), dtype="float32", attn_implementation=attention)
        )
        model = attach_lora(base, AdapterConfig(lora_r=4, lora_alpha=8), seed or 0)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            moved = {
                name: torch.randn(factor.shape, generator=generator) * 0.2
                for name, factor in read_adapter(model).items()
            }
            write_adapter(model, moved)
        return Runtime.prepare(model, base.tokenizer, Proof(Sharing()), share_prefix=share_prefix)

    return make
