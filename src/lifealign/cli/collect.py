"""The command that turns logs of what people said into pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from lifealign.cli.options import console, say_lines
from lifealign.errors import ConfigError
from lifealign.report.printing import one_line, plain, show

if TYPE_CHECKING:
    from lifealign.data.collect.collection import LogFile
    from lifealign.data.collect.pairs import CollectedPair
    from lifealign.data.collect.undecided import Undecided


def collect(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG...",
            help="Our serve log, Open WebUI, Langfuse, Label Studio, stored completions, preference rows.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the pairs, as JSONL.")] = None,
    undecided: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write prompts with several answers that nobody decided between."),
    ] = None,
    mask: Annotated[str | None, typer.Option(metavar="KINDS", help="Personal data to mask: email,phone,card.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Turn what people said of answers into preference pairs: edits, choices, opposite thumbs."""
    from lifealign.data.collect.collection import collect_logs, require_pairs
    from lifealign.data.collect.masking import parse_kinds

    kinds = parse_kinds(mask) if mask is not None else ()
    _require_free(logs, [path for path in (out, undecided) if path is not None], force)
    collected = collect_logs(logs, kinds)
    if out is not None:
        require_pairs(collected)
    elif not collected.undecided:
        raise ConfigError(f"--undecided {undecided}: found no prompt to decide; nothing was written")
    show(console, _files_table(collected.files))
    if collected.left_out:
        show(console, _left_out_table(collected.left_out))
    if undecided is not None:
        _write(undecided, collected.undecided, ("prompt to decide", "prompts to decide"), kinds)
    if out is not None:
        _write(out, collected.pairs, ("pair", "pairs"), kinds)
        say_lines(f"next: lifealign check {out}")


def _write(path: Path, rows: Sequence[CollectedPair | Undecided], what: tuple[str, str], kinds: Sequence[str]) -> None:
    """Writes rows, and says how many and what was masked in them."""
    from lifealign.data.clean import count_text
    from lifealign.data.collect.collection import masked_in
    from lifealign.storage.files import write_rows

    write_rows(path, [row.as_row() for row in rows])
    found = ", ".join(f"{kind} {count_text(number)}" for kind, number in masked_in(rows, kinds).items())
    say_lines(f"{path}: {count_text(len(rows), *what)}" + (f"; masked: {found}" if found else ""))


def _require_free(logs: Sequence[Path], files: Sequence[Path], force: bool) -> None:
    """Refuses to write nothing, to read a log twice, and to write over a log, the other file or, unless forced, any."""
    if not files:
        raise ConfigError("collect needs --out FILE for pairs, or --undecided FILE for what is to be decided, or both")
    read = [path.resolve() for path in logs]
    for place, path in enumerate(logs):
        if read[place] in read[:place]:
            raise ConfigError(f"{path}: found twice among the logs; name each log once")
    written = [path.resolve() for path in files]
    for place, path in enumerate(files):
        if written[place] in read:
            raise ConfigError(f"{path}: found as a log and as a file to write; write to another one")
        if written[place] in written[:place]:
            raise ConfigError(f"{path}: found as --out and as --undecided; write to two files")
        if path.exists() and not force:
            raise ConfigError(f"{path}: exists; write to another file, or replace it with --force")


def _files_table(files: Sequence[LogFile]) -> Table:
    """What each file gave."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("log", overflow="fold")
    table.add_column("format")
    for label in ("answers", "feedback", "pairs"):
        table.add_column(label, justify="right")
    for file in files:
        counts = (str(number) for number in (file.answers, file.feedback, file.pairs))
        table.add_row(plain(one_line(file.path)), plain(file.format), *counts)
    return table


def _left_out_table(left_out: Mapping[str, Sequence[str]]) -> Table:
    """What made no pair, and why."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("left out")
    table.add_column("number", justify="right")
    table.add_column("first", overflow="fold")
    for reason, places in left_out.items():
        table.add_row(plain(reason), str(len(places)), plain(one_line(places[0])))
    return table
