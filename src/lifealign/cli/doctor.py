"""The command that examines this machine: what is there, how fast a model is on it, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Table

from lifealign.cli.options import console, say_lines
from lifealign.model.settings import EMBEDDED
from lifealign.report.printing import plain, say, show

Part = dict[str, Any]
Rows = Iterator[tuple[str, str]]


def doctor(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL | LIFE]", help="As for init, or a life; by default the embedded model.")
    ] = EMBEDDED,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs in a forward pass.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Is this machine fit? Processor, memory, dtype, the speed of a model on it, the cache, and what is wrong."""
    from lifealign.cli.checkup import examine

    found = examine(model, batch_size)
    if as_json:
        say_lines(*json.dumps(found, indent=2).split("\n"))
        return
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    say_lines(versions)
    for title, rows in (
        ("machine", machine_rows(found["machine"])),
        (f"model {found['model']['name']}", model_rows(found["model"])),
        (f"cache {found['cache']['folder']}", cache_rows(found["cache"])),
    ):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, value in rows:
            table.add_row(plain("  " + name), plain(value))
        say(console, "", plain(title, "bold"))
        show(console, table)
    say_lines("", *(f"advice: {line}" for line in found["advice"] or ["nothing to mend"]))


def machine_rows(found: Part) -> Rows:
    """The machine in words."""
    instructions = found["instructions"]
    yield "processor", found["processor"]
    yield "instructions", "unknown" if instructions is None else ", ".join(instructions) or "none of those that matter"
    yield "cores", f"{found['cores']}, {counted(found['threads'], 'thread')} of torch"
    if found["memory"] is None:
        yield "memory", "unknown"
    else:
        yield "memory", f"{size(found['memory'])}, {size(found['memory_available'])} of it free"
    yield "device", " ".join(part for part in (found["device"], found["device_name"]) if part)
    yield "products", ", ".join(f"{speed:.0f} GFLOP/s in {dtype}" for dtype, speed in found["gflops"].items())
    yield "dtype: auto", f"{found['auto_dtype']}; {found['auto_dtype_because']}"


def model_rows(found: Part) -> Rows:
    """The model on this machine in words."""
    if "parameters" in found:
        yield "parameters", f"{found['parameters'] / 1e6:.0f} million, in {found['dtype']}"
    pairs = f"pairs of {found['prompt_tokens']} prompt and 2 x {found['answer_tokens']} answer tokens"
    batch = f"{found['batch_size']} at a time"
    if "preference_pairs_per_second" in found:
        yield "sft", f"{found['sft_tokens_per_second']:.0f} tokens a second"
        yield "preference", f"{found['preference_pairs_per_second']:.1f} pairs a second ({pairs}, {batch})"
        speed, together = found["generated_tokens_per_second"], found["answers_at_a_time"]
        yield "generation", f"{speed:.0f} tokens a second ({together} answers at a time)"
    if "memory_need" in found:
        need = found["memory_need"]
        names = {"weights": "weights", "activations": "activations", "logits": "logits", "process": "Python's own"}
        parts = ", ".join(f"{name} {size(need[part])}" for part, name in names.items() if need[part])
        yield "memory", f"about {size(need['total'])} for training: {parts}"
    if "memory_need_unknown" in found:
        yield "memory", f"cannot be estimated ({found['memory_need_unknown']})"
    if "peak_memory" in found:
        yield "measured", f"{size(found['peak_memory'])} at the peak"
    if "missing" in found:
        yield "not measured", found["missing"]


def cache_rows(found: Part) -> Rows:
    """The cache in words."""
    yield "writable", "yes" if found["writable"] else "no"
    for name, taken in found["entries"].items():
        yield name, size(taken)
    if not found["entries"]:
        yield "empty", "nothing is kept yet"
    for path, kind in found["network"].items():
        yield "network", f"{path} ({kind})"


def size(number: float) -> str:
    """Bytes in words.

    Example:
        >>> size(540 * 2**20), size(3 * 2**30), size(200)
        ('540 MiB', '3.0 GiB', '200 bytes')
    """
    if number < 2**20:
        return f"{number / 2**10:.0f} KiB" if number >= 2**10 else f"{number:.0f} bytes"
    return f"{number / 2**20:.0f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"


def counted(number: int, what: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
