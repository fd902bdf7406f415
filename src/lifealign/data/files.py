"""Every accepted kind of file, read row by row: JSONL, JSON (an array of objects), CSV, Parquet, hub datasets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any

from lifealign.data.delimited import DELIMITERS, csv_rows, header_delimiter, most_common
from lifealign.data.streams import HEAD, open_stream
from lifealign.errors import DataError

LONGEST_LINE = 64 * 2**20  # bytes; a longer line is a damaged file or an attack on memory, not a preference
LARGEST_ARRAY = 2**31  # bytes; an array is parsed in one piece, which takes several times as much memory
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
            more than its size, holds an object with a repeated key, a line above 64 MB, an array above 2 GB or nesting
            too deep to parse, or has no rows.
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
            yield from _parquet_rows(path)
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
            yield from enumerate(_parse_json(_decode(_whole(path, stream), start, path, None), path, None), 1)
        else:
            for number, text in _lines(path, stream, start):
                if text.strip():
                    yield number, _parse_json(text, path, number)


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


def _whole(path: str | Path, stream: BufferedReader) -> bytes:
    parts, size = [], 0
    while part := stream.read(2**20):
        parts.append(part)
        if (size := size + len(part)) > LARGEST_ARRAY:
            found = f"a JSON array of more than {LARGEST_ARRAY} bytes"
            raise DataError(path, found=found, expected="JSON Lines, which are read row by row")
    return b"".join(parts)


def _decode(raw: bytes, offset: int, path: str | Path, line: int | None) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at offset {offset + error.start}, which is not UTF-8"
        raise DataError(path, line=line, found=found, expected="UTF-8; save the file in that encoding") from None


def _parse_json(text: str, path: str | Path, line: int | None) -> Any:
    """Parses one line (``line`` is given) or a whole array; whatever goes wrong becomes a :class:`DataError`."""
    body = text.rstrip()
    try:
        return json.loads(body, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        place = f"{line or error.lineno}:{error.colno}"
        line = line or error.lineno
        if error.pos >= len(body) or error.msg.startswith("Unterminated string"):
            cut = " (the last line: the file seems cut short)" if not text.endswith("\n") else ""
            found = f"JSON that breaks off at {place}{cut}"
            expected = "a complete object on one line, or a complete array"
        else:
            found, expected = f"broken JSON at {place} ({error.msg})", "one object per line, or one array of objects"
        raise DataError(path, line=line, found=found, expected=expected) from None
    except _RepeatedKey as error:
        raise DataError(path, line=line, field=error.key, found="the key twice", expected="each key once") from None
    except RecursionError:
        raise DataError(path, line=line, found="JSON nested too deep to parse", expected="flat rows") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(path, line=line, found=f"JSON that does not parse ({error})", expected="flat rows") from None


class _RepeatedKey(ValueError):
    def __init__(self, key: str) -> None:
        self.key = key


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds an object from a JSON parser's keys and values.

    Raises:
        ValueError: If a key is repeated.
    """
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _RepeatedKey(most_common(name for name, _ in pairs))
    return row


def _parquet_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = count(1)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield next(number), row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(path, found=f"broken Parquet ({reason})", expected="a complete file; write it again") from None


def _hub_rows(address: str) -> Iterator[tuple[int, Any]]:
    expected = "hub:owner/name or hub:owner/name:split of a public dataset, online or downloaded before"
    match = HUB_ADDRESS.fullmatch(address)
    if match is None:
        raise DataError(address, found=f"the address {address!r}", expected=expected)
    yield from read_hub(address, expected, match[1], split=match[2] or "train")
