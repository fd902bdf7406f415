"""The command with which vLLM serves a life: its folder of versions is what vLLM's resolver of adapters reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lifealign.errors import ConfigError
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that ``--max-lora-rank`` takes."""


@dataclass(frozen=True)
class Command:
    """A command and the variables it needs.

    Attributes:
        environment: Variables to set.
        arguments: The command itself.
        models: Names of the versions it will serve.
    """

    environment: dict[str, str]
    arguments: tuple[str, ...]
    models: tuple[str, ...]


def vllm_command(directory: LifeDirectory, host: str, port: int) -> Command:
    """The command that serves every version of a life, each as a model called like its folder.

    vLLM finds a version that is committed later when a client first asks for it. Its runtime updating is meant for
    networks that one trusts.

    Args:
        directory: The life.
        host: Interface.
        port: Port.

    Raises:
        ConfigError: If a version is no LoRA adapter that vLLM can load; the message says why.
    """
    ranks = []
    for version in directory.versions:
        file = names.adapter_config(version.name)
        if file not in version.files:
            raise ConfigError(
                f"{directory.path}: {version.name} is a prompt pool, and vLLM serves LoRA adapters only; use "
                "--engine transformers"
            )
        config = directory.json(file)
        _require_plain(f"{directory.path}: {version.name}", config)
        ranks.append(int(config["r"]))
    largest = next((rank for rank in RANKS if rank >= max(ranks)), None)
    if largest is None:
        raise ConfigError(
            f"{directory.path}: found adapters of rank {max(ranks)}, and vLLM serves ranks up to {RANKS[-1]}; use "
            "--engine transformers"
        )
    folder = Path(directory.path, "versions").resolve()
    base = directory.manifest.base
    revision = ("--revision", base.revision) if base.revision else ()
    return Command(
        {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_PLUGINS": "lora_filesystem_resolver",
            "VLLM_LORA_RESOLVER_CACHE_DIR": str(folder),
        },
        (
            *("vllm", "serve", base.model_name_or_path, *revision, "--enable-lora", "--max-lora-rank", str(largest)),
            *("--host", host, "--port", str(port)),
        ),
        tuple(version.name for version in directory.versions),
    )


def _require_plain(where: str, config: dict[str, object]) -> None:
    """Refuses what vLLM's loader refuses, or reads as something else."""
    for key, expected in (("peft_type", "LORA"), ("bias", "none"), ("use_dora", False), ("modules_to_save", None)):
        found = config.get(key, expected)
        if found != expected and found:
            raise ConfigError(
                f"{where}: found {key} {found!r} in its adapter_config.json, and vLLM serves adapters with "
                f"{expected!r} only; use --engine transformers"
            )
