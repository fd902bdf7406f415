"""The command for vLLM: what it names, and which lives it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import MakeLife
from tests.tiny import letter_task

from lifealign.errors import ConfigError
from lifealign.life.life import Life
from lifealign.service.vllm import RANKS, vllm_command


def test_the_command_names_the_base_the_folder_and_a_rank_that_vllm_takes(taught: Path, tiny_folder: Path) -> None:
    command = vllm_command(Life.open(taught).directory, "127.0.0.1", 8000)
    assert command.arguments == (
        *("vllm", "serve", str(tiny_folder), "--enable-lora", "--max-lora-rank", "8"),  # the adapters' rank is 4
        *("--host", "127.0.0.1", "--port", "8000"),
    )
    assert command.environment["VLLM_LORA_RESOLVER_CACHE_DIR"] == str(taught / "versions")
    assert command.environment["VLLM_PLUGINS"] == "lora_filesystem_resolver"
    assert command.models == ("00-base", "01-tone", "02-refunds")
    for model in command.models:  # what the resolver looks for
        config = json.loads((taught / "versions" / model / "adapter_config.json").read_text())
        assert config["peft_type"] == "LORA" and config["base_model_name_or_path"] == command.arguments[2]
        assert config["r"] <= 8 and (taught / "versions" / model / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("rank", "served"), [(8, 8), (9, 16), (16, 16), (300, 320)])
def test_the_rank_is_rounded_up(make_life: MakeLife, rank: int, served: int) -> None:
    life = make_life(lora={"lora_r": rank, "lora_alpha": rank})
    arguments = vllm_command(life.directory, "127.0.0.1", 1).arguments
    assert arguments[arguments.index("--max-lora-rank") + 1] == str(served) and served in RANKS


def test_what_vllm_cannot_load_is_refused(make_life: MakeLife) -> None:
    pool = make_life(method={"name": "l2p", "pool_size": 4, "prompt_length": 2, "top_k": 2})
    with pytest.raises(ConfigError, match="00-base is a prompt pool, and vLLM serves LoRA adapters only"):
        vllm_command(pool.directory, "127.0.0.1", 1)
    with pytest.raises(ConfigError, match="found adapters of rank 513, and vLLM serves ranks up to 512"):
        vllm_command(make_life(lora={"lora_r": 513, "lora_alpha": 1}).directory, "127.0.0.1", 1)


def test_the_rank_of_a_life_that_grows_is_that_of_its_last_version(make_life: MakeLife) -> None:
    """O-LoRA adds the rank of 4 with every task after the first: 4, 4, 8, 12."""
    grown = make_life(method={"name": "olora"})
    for name in ("one", "two", "three"):
        grown.learn(letter_task(name, "a", "b"))
    arguments = vllm_command(grown.directory, "127.0.0.1", 1).arguments
    assert arguments[arguments.index("--max-lora-rank") + 1] == "16"
