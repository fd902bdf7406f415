"""How to load what a life has made: code for a person to copy, with the life's own names and settings."""

from __future__ import annotations

from pathlib import PurePath

from lifealign.life import ADAPTER_FILE, Life
from lifealign.model.base_model import EMBEDDED
from lifealign.report import loading


def peft_code(life: Life) -> str | None:
    """Code that loads the last version with PEFT and without lifealign; None where it is no LoRA adapter."""
    last, base = life.versions[-1], life.directory.manifest.base
    if not any(file.endswith(ADAPTER_FILE) for file in last.files):
        return None
    adapter = f"{folder_name(life)}/versions/{last.name}"
    return loading.peft_code(base.model_name_or_path, adapter, dtype=life.config.model.dtype, revision=base.revision)


def life_code(life: Life) -> str:
    """Code that loads the last version with lifealign."""
    return loading.life_code(folder_name(life), life.versions[-1].name)


def is_embedded(life: Life) -> bool:
    """Whether the base is the embedded one, whose weights are quantised and a little different from the hub's."""
    return life.config.model.model_name_or_path == EMBEDDED


def folder_name(life: Life) -> str:
    """Name of the life's directory, without its place: the page may be read on another machine."""
    return life.directory.path.absolute().name


def short_name(model: str) -> str:
    """A model's name in a sentence: a hub id whole, of a path its last part.

    Example:
        >>> short_name("HuggingFaceTB/SmolLM2-135M-Instruct"), short_name("/srv/models/our-base")
        ('HuggingFaceTB/SmolLM2-135M-Instruct', 'our-base')
    """
    path = PurePath(model)
    return path.name if path.is_absolute() or len(path.parts) > 2 else model
