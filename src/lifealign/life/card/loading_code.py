"""Python code that loads what a life has learnt, for users to copy; the page and the card share it."""

from __future__ import annotations

import json
from pathlib import PurePath, PurePosixPath, PureWindowsPath


def peft_code(
    base: str,
    adapter: str,
    *,
    dtype: str,
    in_4bit: bool = False,
    revision: str | None = None,
    elsewhere: bool = False,
) -> str:
    """Code that loads an adapter with PEFT, on the base and in the dtype that it was trained on.

    Args:
        base: Hub id, or path of a folder or a ``.gguf`` file.
        adapter: Path of the adapter, as seen by the reader.
        dtype: The life's setting; ``auto``, in lives of early versions, is bfloat16.
        in_4bit: Whether the life keeps the base's linear layers in 4 bits.
        revision: Revision of a hub model.
        elsewhere: Whether the code is read on another machine: a path is then cut to its last part, with a comment.
    """
    path = absolute_path(base)
    place, arguments, comment = base, "", ""
    dtype = quoted("bfloat16" if dtype == "auto" else dtype)
    imports, more = "AutoModelForCausalLM, AutoTokenizer", f", dtype={dtype}"
    four_bit = (
        [
            f"four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type={quoted('nf4')}, "
            f"bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype={dtype})"
        ]
        if in_4bit
        else []
    )
    if in_4bit:
        imports, more = f"{imports}, BitsAndBytesConfig", f"{more}, quantization_config=four_bit"
    if path is not None and path.suffix == ".gguf":
        place, arguments = "." if elsewhere else str(path.parent), f", gguf_file={quoted(path.name)}"
        imports += ", GgufConfig"
        more += ", quantization_config=GgufConfig(dequantize=True)"
        comment = "  # the folder of the .gguf file: write where it is on your machine"
    elif path is not None:
        place = path.name if elsewhere else base
        comment = "  # a folder: write where it is on your machine"
    elif revision is not None:
        arguments = f", revision={quoted(revision)}"
    return "\n".join(
        [
            "from peft import PeftModel",
            f"from transformers import {imports}",
            "",
            f"name = {quoted(place)}{comment if elsewhere else ''}",
            f"tokenizer = AutoTokenizer.from_pretrained(name{arguments})",
            *four_bit,
            f"base = AutoModelForCausalLM.from_pretrained(name{arguments}{more})",
            f"model = PeftModel.from_pretrained(base, {quoted(adapter)}){'  # this folder' if elsewhere else ''}",
        ]
    )


def life_code(life: str, version: str) -> str:
    """Code that loads a version with lifealign, which also checks that base and adapter belong together."""
    return "\n".join(
        [
            "from lifealign import Life",
            "",
            f"life = Life.open({quoted(life)})",
            f"model, tokenizer = life.load({quoted(version)})",
        ]
    )


def absolute_path(text: str) -> PurePath | None:
    """A text as a path, if it is an absolute path on any system."""
    return next((path for path in (PurePosixPath(text), PureWindowsPath(text)) if path.is_absolute()), None)


def quoted(text: str) -> str:
    """A string as Python code; JSON writes strings as Python does."""
    return json.dumps(text, ensure_ascii=False)


def short_name(model: str) -> str:
    """A model's name for use in a sentence: the whole of a hub id, the last part of a path.

    Example:
        >>> short_name("HuggingFaceTB/SmolLM2-135M-Instruct"), short_name("/srv/models/our-base")
        ('HuggingFaceTB/SmolLM2-135M-Instruct', 'our-base')
    """
    path = PurePath(model)
    return path.name if path.is_absolute() or len(path.parts) > 2 else model
