"""Which format a log has: told by its content, never by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from lifealign.data.collect import label_studio, langfuse, open_webui, openai_stored, pair_rows, serve_log
from lifealign.data.collect.answered import Reading, Source
from lifealign.data.files import read_rows
from lifealign.errors import DataError, describe

SOURCES: tuple[Source, ...] = (
    serve_log.SOURCE,
    open_webui.SOURCE,
    label_studio.SOURCE,
    langfuse.SOURCE,
    openai_stored.SOURCE,
    pair_rows.SOURCE,
)
"""Every accepted format; no row is of two of them."""


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: all(key in row for key in keys)


OTHERS: tuple[tuple[str, Callable[[dict[str, Any]], bool], str], ...] = (
    ("spans of OpenTelemetry", _has("resourceSpans"), "export them from the program that shows them"),
    ("runs of LangSmith", _has("run_type", "inputs"), "export its preference rows"),
    ("a Label Studio export as JSON-MIN or CSV", _has("annotation_id", "lead_time"), "export it as JSON"),
    ("traces of Langfuse", _has("bookmarked", "input", "output"), "export its observations and scores"),
    ("output of OpenAI's batch interface", _has("custom_id", "response"), "save completions beside their messages"),
    ("answers with a label each (KTO)", _has("completion", "label"), "a single judgement makes no pair"),
    ("a page of a list", _has("object", "data"), "write what is in data as one object per line"),
    ("conversations", _has("messages"), "nobody says in them which answer is better"),
    ("conversations", _has("conversations"), "nobody says in them which answer is better"),
    ("instructions with an output each", _has("instruction", "output"), "nobody says in them which output is better"),
)
"""What people also have, by keys that tell it: its name and what to do. The first that fits is named."""


def read_log(path: str | Path) -> tuple[str, Reading]:
    """Reads a log of any accepted format.

    Args:
        path: A file or pipe of JSON Lines, a JSON array, or any other kind that ``lifealign learn`` reads.

    Returns:
        The name of its format, which its first row tells, and what it holds.

    Raises:
        DataError: If the file cannot be read, is of no accepted format (the message says what it seems to be and what
            is accepted), or one of its rows is not of the format of the first.
    """
    rows = _objects(str(path), read_rows(path))
    line, first = next(rows)
    source = next((one for one in SOURCES if one.recognises(first)), None)
    if source is None:
        accepted = ", ".join(one.name for one in SOURCES)
        known = next(((name, advice) for name, fits, advice in OTHERS if fits(first)), None)
        found = f"{known[0]} ({describe(first)})" if known else describe(first)
        expected = f"one of: {accepted}" + (f"; {known[1]}" if known else "")
        raise DataError(path, line=line, found=found, expected=expected)
    return source.name, source.read(str(path), chain([(line, first)], rows))


def _objects(path: str, rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in rows:
        if not isinstance(row, dict):
            raise DataError(path, line=line, found=describe(row), expected="an object")
        yield line, row
