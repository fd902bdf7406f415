"""`lifealign review`: pairs decided by hand, on a page in the browser of this machine."""

from __future__ import annotations

import os
import threading
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.cli.options import say_lines
from lifealign.errors import ConfigError

if TYPE_CHECKING:
    from lifealign.service.review.review import Progress

MOST_LINES = 5
"""Lines that are named of rows that are not asked."""


def review(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Pairs, or prompts with two or more answers each.")],
    out: Annotated[
        Path | None, typer.Option(help="Where decided pairs go; by default FILE-reviewed.jsonl beside FILE.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any that is free.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")] = False,
) -> None:
    """Decide by hand which of two answers is better, or write a better one, on a page in your browser.

    Every decision is on disk before the next pair is shown; the same command again continues.
    """
    from lifealign.data.clean import count_text
    from lifealign.service.review.candidates import read_candidates
    from lifealign.service.review.page import review_page
    from lifealign.service.review.review import open_review
    from lifealign.service.review.server import ReviewServer

    target = out or default_out(file)
    candidates = read_candidates(file)
    with ReviewServer(port) as server, open_review(file, candidates, target) as opened:
        say_lines(f"{file}: {count_text(len(candidates.candidates), 'pair', 'pairs')} to decide, into {target}")
        say_lines(*dropped_lines(candidates.dropped))
        if opened.lost:
            lost = count_text(opened.lost, "decision is about a row", "decisions are about rows")
            say_lines(f"  {lost} that {file} no longer has; kept, and not in {target}")
        before = opened.progress()
        if before.decided or before.skipped:
            say_lines(f"  {progress_text(before)} before")
        say_lines("", f"  {server.address}", "", "Ctrl-C, or Finish on the page, ends it.")
        if not no_browser:
            threading.Thread(target=open_browser, args=(server.address,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve(opened, review_page(file, target))
    after = opened.progress()
    left = after.total - after.decided - after.skipped
    say_lines(f"{target}: {progress_text(after)}, {count_text(left)} left")
    if after.decided:
        say_lines(f"next: lifealign check {target}")


def default_out(file: str) -> Path:
    """Where decided pairs go by default: beside the file, or in this folder if it is a dataset of the hub.

    Raises:
        ConfigError: If the file is a pipe.

    Example:
        >>> default_out("data/our pairs.jsonl.gz").as_posix(), default_out("hub:owner/tone:test").as_posix()
        ('data/our pairs-reviewed.jsonl', 'tone-reviewed.jsonl')
    """
    from lifealign.data.task import ENDINGS, PIPES

    if file.startswith(PIPES):
        raise ConfigError(f"{file}: rows from a pipe need a place for decided pairs; add --out")
    if file.startswith("hub:"):
        return Path(f"{file.rpartition('/')[2].partition(':')[0]}-reviewed.jsonl")
    return Path(file).parent / f"{ENDINGS.sub('', Path(file).name)}-reviewed.jsonl"


def dropped_lines(dropped: Mapping[str, list[str]]) -> list[str]:
    """What is not asked, a line for each reason."""
    from lifealign.data.clean import line_of

    lines = []
    for reason, places in dropped.items():
        named = ", ".join(line_of(place) for place in places[:MOST_LINES]) + ", ..." * (len(places) > MOST_LINES)
        lines.append(f"  {len(places)} not asked: {reason} (line{'s' * (len(places) > 1)} {named})")
    return lines


def progress_text(progress: Progress) -> str:
    """How far a review has come, in words.

    Example:
        >>> from lifealign.service.review.review import Progress
        >>> progress_text(Progress(total=80, decided=12, edited=1, turned=2, skipped=3))
        '12 decided (1 edited, 2 turned round), 3 skipped'
        >>> progress_text(Progress(total=80, decided=12, edited=0, turned=0, skipped=0))
        '12 decided, 0 skipped'
    """
    parts = [f"{progress.edited} edited"] if progress.edited else []
    parts += [f"{progress.turned} turned round"] if progress.turned else []
    how = f" ({', '.join(parts)})" if parts else ""
    return f"{progress.decided} decided{how}, {progress.skipped} skipped"


def open_browser(address: str) -> None:
    """Opens an address if there is a graphical browser; one of text would take the terminal and cannot run the page."""
    with suppress(webbrowser.Error, OSError):
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser or "BROWSER" in os.environ:
            browser.open(address)
