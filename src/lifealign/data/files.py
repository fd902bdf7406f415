"""Every accepted kind of file, read row by row: JSONL, JSON (an array of objects), CSV, Parquet, hub datasets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any

from lifealign.data.delimited import DELIMITERS, csv_rows, header_delimiter
from lifealign.data.json_rows import array_rows, not_utf8, parse_line
from lifealign.data.parquet_rows import parquet_rows
from lifealign.data.streams import HEAD, open_stream
from lifealign.errors import DataError

LONGEST_LINE = 16 * 2**20  # bytes; a longer row is a damaged file or an attack on memory, not a preference
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HUB_ADDRESS = re.compile(r"hub:([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


def read_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Reads rows of a file, pipe or hub dataset, one at a time where the format allows, without judging their shape.

    Gzip (around any other kind except Parquet), Parquet, JSON arrays and JSON Lines are recognised by their content.
    CSV is recognised by the ending ``.csv`` or ``.tsv`` in any case, also before ``.gz``, or by a first line that names
    ``chosen`` and ``rejected`` between commas or tabs. A UTF-8 byte order mark is accepted, blank lines are skipped.

    Args:
        path: A file, a pipe such as ``/dev/stdin``, or ``hub:owner/name``, followed by ``:split`` unless that is
            ``train``.

    Yields:
        Line number and row; for JSON arrays, Parquet and hub datasets, the record number from 1 and the row.

    Raises:
        DataError: If the file does not exist, cannot be read, is not UTF-8, is damaged or cut short, unpacks to far
            more than its size, holds an object with a repeated key, a row above 16 MiB or nesting too deep to parse,
            or has no rows.
    """
    yield from _hub_rows(str(path)) if str(path).startswith("hub:") else _some(path, _file_rows(path))


def read_hub(
    place: str, expected: str, dataset: str, *, file: str | None = None, **options: Any
) -> Iterator[tuple[int, Any]]:
    """Reads the rows of a hub dataset, without judging their shape.

    Args:
        place: Name of the dataset in messages and in ``Pair.source``.
        expected: What was expected and how to fix it, for the error if the dataset is not available.
        dataset: Id of the dataset, ``owner/name``.
        file: One file of the dataset, to be read by :func:`read_rows`, or None to read a split with ``datasets``.
        **options: Keyword arguments of ``datasets.load_dataset``, including ``split``; for a file, those of
            ``huggingface_hub.hf_hub_download``.

    Yields:
        Record number from 1 (for a file, the line number) and row.

    Raises:
        DataError: If the dataset is not available, for whatever reason, or has no rows.
    """
    try:
        if file is None:
            import datasets

            rows: Iterator[tuple[int, Any]] = enumerate(datasets.load_dataset(dataset, **options), 1)
        else:
            import huggingface_hub

            rows = read_rows(huggingface_hub.hf_hub_download(dataset, file, repo_type="dataset", **options))
        yield from _some(place, rows)
    except DataError:
        raise
    except Exception as error:  # the hub client raises dozens of kinds, which to the user all mean the same
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(place, found=f"a dataset that does not load ({reason})", expected=expected) from error


def _some(path: str | Path, rows: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    first = next(rows, None)
    if first is None:
        raise DataError(path, found="no rows", expected="at least one preference row")
    yield first
    yield from rows


def _file_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    stream, again = open_stream(path)
    with stream:
        head = stream.peek()[:HEAD]
        if head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
            expected = "a plain file, or one compressed once with gzip; unpack it first"
            raise DataError(path, found="compressed data (zip, zstd or gzip in gzip)", expected=expected)
        if head.startswith(b"PAR1"):
            if not again:
                expected = "a plain Parquet file, which can be read from its end"
                raise DataError(path, found="Parquet in gzip or through a pipe", expected=expected)
            yield from parquet_rows(path)
            return
        if head and _ending(path) == ".parquet":
            raise DataError(
                path, found="content that is not Parquet", expected="Parquet, because the file name ends in .parquet"
            )
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:2]:
            raise DataError(path, found="UTF-16 text", expected="UTF-8; save the file in that encoding")
        start = len(stream.read(3)) if head.startswith(BYTE_ORDER_MARK) else 0
        head = head[start:]
        if delimiter := DELIMITERS.get(_ending(path)) or header_delimiter(head):
            lines = (text for _, text in _lines(path, stream, start))
            yield from csv_rows(path, lines, delimiter, LONGEST_LINE)
        elif head.lstrip()[:1] == b"[":
            yield from array_rows(path, stream, start, LONGEST_LINE)
        else:
            for number, text in _lines(path, stream, start):
                if text.strip():
                    yield number, parse_line(text, path, number)


def _ending(path: str | Path) -> str:
    """The ending of a file's name that tells its kind, in lower case and without ``.gz``."""
    return Path(Path(path).name.lower().removesuffix(".gz")).suffix


def _lines(path: str | Path, stream: BufferedReader, offset: int) -> Iterator[tuple[int, str]]:
    """Decodes line by line, so that an error can name the line and the whole file is never in memory."""
    for number in count(1):
        raw = stream.readline(LONGEST_LINE + 1)
        if not raw:
            return
        if len(raw) > LONGEST_LINE:
            raise DataError(
                path, line=number, found=f"a line of more than {LONGEST_LINE} bytes", expected="one row per line"
            )
        yield number, _decode(raw, offset, path, number)
        offset += len(raw)


def _decode(raw: bytes, offset: int, path: str | Path, line: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(raw, error, offset, path, line) from None


def _hub_rows(address: str) -> Iterator[tuple[int, Any]]:
    expected = "hub:owner/name or hub:owner/name:split of a public dataset, online or downloaded before"
    match = HUB_ADDRESS.fullmatch(address)
    if match is None:
        raise DataError(address, found=f"the address {address!r}", expected=expected)
    yield from read_hub(address, expected, match[1], split=match[2] or "train")
