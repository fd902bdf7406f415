"""How to load what a life has made: code for a person to copy, with the life's own names and settings."""

from __future__ import annotations

import json
from pathlib import PurePath

from lifealign.life import ADAPTER_FILE, Life
from lifealign.model import EMBEDDED


def peft_code(life: Life) -> str | None:
    """Code that loads the last version with PEFT and without lifealign; None where it is no LoRA adapter.

    The base is loaded in the life's own dtype and at its own revision, since an adapter fits only what it was made on.
    """
    last = life.versions[-1]
    if not any(file.endswith(ADAPTER_FILE) for file in last.files):
        return None
    base, config = life.directory.manifest.base, life.config.model
    dtype = "bfloat16" if config.dtype == "auto" else config.dtype
    place, arguments = base.model_name_or_path, ""
    imports, more = "AutoModelForCausalLM, AutoTokenizer", f", dtype={_quoted(dtype)}"
    if place.endswith(".gguf"):
        path = PurePath(place)
        place, arguments = str(path.parent), f", gguf_file={_quoted(path.name)}"
        imports += ", GgufConfig"
        more += ", quantization_config=GgufConfig(dequantize=True)"
    elif base.revision:
        arguments = f", revision={_quoted(base.revision)}"
    return "\n".join(
        [
            "from peft import PeftModel",
            f"from transformers import {imports}",
            "",
            f"name = {_quoted(place)}",
            f"tokenizer = AutoTokenizer.from_pretrained(name{arguments})",
            f"base = AutoModelForCausalLM.from_pretrained(name{arguments}{more})",
            f"model = PeftModel.from_pretrained(base, {_quoted(f'{folder_name(life)}/versions/{last.name}')})",
        ]
    )


def life_code(life: Life) -> str:
    """Code that loads the last version with lifealign, which also checks that base and adapter belong together."""
    return "\n".join(
        [
            "from lifealign import Life",
            "",
            f"life = Life.open({_quoted(folder_name(life))})",
            f"model, tokenizer = life.load({_quoted(life.versions[-1].name)})",
        ]
    )


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


def _quoted(text: str) -> str:
    """A string as Python code; JSON writes strings as Python does."""
    return json.dumps(text, ensure_ascii=False)
