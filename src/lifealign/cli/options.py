"""Shared by the commands: the terminal, common arguments, and how a life is shown."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.errors import ConfigError, Refused, Unscored
from lifealign.report.printing import Terminal, plain, say, show

if TYPE_CHECKING:
    from lifealign.life.life import Life

console = Terminal()

LifePath = Annotated[Path, typer.Argument(metavar="LIFE", help="Directory of the life.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as preference.beta=0.2.")
]


def files_of_task(option: str, text: str) -> tuple[str, str, str | None, str | None]:
    """Name, training pairs, held-out pairs and gate of a task, from ``NAME=TRAIN[,TEST[,GATE]]``.

    Raises:
        ConfigError: If the text is not in that form.
    """
    name, equals, files = text.partition("=")
    paths = files.split(",")
    if not equals or not all(paths) or len(paths) > 3:
        raise ConfigError(f"{option}: found {text!r}, expected NAME=TRAIN[,TEST[,GATE]], such as greet=greet.jsonl")
    train, test, gate = [*paths, None, None][:3]
    return name, str(train), test, gate


def say_lines(*lines: str) -> None:
    """Prints lines as they are, above a progress bar if there is one."""
    say(console, *lines)


def show_life(life: Life) -> None:
    """Prints the current and earlier scores of a life's tasks, what is missing, and where the adapter is."""
    from lifealign.evaluation.metrics import METRICS, PERPLEXITY, general_line
    from lifealign.life.disk import names
    from lifealign.report.terminal import holes_text, matrix_table, not_scored_text, shown_text, summary_line

    steps = [version.name for version in life.steps]
    for matrix in life.scores.values():
        say(console, "", plain(METRICS[matrix.metric].label, "bold"))
        show(console, matrix_table(matrix, steps))
        told = shown_text(matrix), summary_line(matrix), not_scored_text(matrix, steps)
        say_lines(*(f"  {text}" for text in told if text))
        if missing := holes_text(matrix, steps):
            say_lines(f"  missing: {missing}; `lifealign evaluate` measures what can be measured")
    general = life.records[-1].general if life.steps else None
    if general is not None:
        say_lines("", general_line(general))
    elif life.steps and (why := life.records[-1].holes.get(PERPLEXITY)):
        say_lines("", f"{PERPLEXITY} is missing: {', '.join(why.values())}; `lifealign evaluate` measures it")
    folder = life.directory.path / names.version_folder(life.versions[-1].name)
    say_lines("", f"adapter: {folder}")


def show_refusal(error: Refused) -> None:
    """Prints what a refused step has cost, and writes a page with the prompts that flipped beside the evidence."""
    from lifealign.life.disk.gate_files import read_refusal
    from lifealign.report.page.retention import refusal_page
    from lifealign.report.terminal import losses_table
    from lifealign.storage.files import write_text

    refusal = read_refusal(error.evidence)
    for attempt in refusal.retention.attempts:
        part = "all" if attempt.scale == 1 else f"{attempt.scale:g}"
        say(console, "", plain(f"{refusal.step}, {part} of its update", "bold"))
        show(console, losses_table(attempt.losses))
    page = error.evidence.with_suffix(".html")
    write_text(page, refusal_page(refusal))
    say_lines(f"page: {page}")


def require_scored(life: Life, versions: Collection[str]) -> None:
    """Ends the command with exit code 1 if any of the given versions lacks scores.

    Raises:
        Unscored: If any does; the message names what is missing, and why.
    """
    holes = [
        f"{version.name}: {what} ({why})"
        for version, record in zip(life.steps, life.records, strict=True)
        if version.name in versions
        for why, missing in record.missing.items()
        for what in missing
    ]
    if holes:
        raise Unscored(life.directory.path, holes)
