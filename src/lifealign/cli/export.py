"""The command that writes what a life has learnt for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lifealign.cli.lives import task_weights
from lifealign.cli.options import LifePath, say_lines
from lifealign.errors import ConfigError


def export(
    life: LifePath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; new or empty.")],
    merged: Annotated[bool, typer.Option("--merged", help="A whole model, for transformers and vLLM.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="A LoRA file for llama.cpp.")] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The version to export; by default the last one.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="TASK", help="A task to leave out; repeatable.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="TASK=NUMBER", help="How much of a task's update to take; repeatable.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16, of a merged model or a GGUF file.")
    ] = None,
) -> None:
    """Write what was learnt for other programs: an adapter for PEFT and vLLM, a whole model, or a file for llama.cpp.

    The folder appears whole or not at all, and the life stays as it is.
    """
    from lifealign.life.export import Form, export_life
    from lifealign.life.life import Life

    if merged and gguf:
        raise ConfigError("export: found --merged and --gguf, expected one of them; run it twice for both")
    form: Form = "merged" if merged else "gguf" if gguf else "adapter"
    opened = Life.open(life)
    wanted: Any = dtype
    written = export_life(
        opened.workspace,
        out,
        form=form,
        without=without or (),
        weights=task_weights(weight or ()),
        as_of=as_of,
        dtype=wanted,
    )
    for name, number in written.weights.items():
        say_lines(f"  {name}: weight {number:g}")
    if written.version is None:
        say_lines("not scored: no version ever was this model; `lifealign compose --score` measures it")
    what = written.version or "a composition"
    if form == "merged":
        say_lines(f"{life}: {what} merged into {written.base}, {written.dtype}", "", f"model: {out}")
    else:
        say_lines(f"{life}: {what} for {written.base}, {written.dtype}")
        say_lines("", f"adapter: {out / 'adapter.gguf' if gguf else out}")
