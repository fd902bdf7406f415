"""CSV and TSV: how they are recognised, and their rows, read without a lasting change to the csv module's limit."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lifealign.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}

_limit_in_use = threading.Lock()


def header_delimiter(head: bytes) -> str | None:
    """The delimiter of a first line that names both answers, as a header must; None if it does not.

    Data from a pipe has no file ending to recognise it by.

    Example:
        >>> header_delimiter(b"prompt,chosen,rejected"), header_delimiter(b"chosen and rejected")
        (',', None)
    """
    line = head.partition(b"\n")[0].decode("utf-8", "replace")
    for delimiter in DELIMITERS.values():
        if {"chosen", "rejected"} <= {name.strip().strip('"') for name in line.split(delimiter)}:
            return delimiter
    return None


def csv_rows(
    path: str | Path, lines: Iterator[str], delimiter: str, longest_cell: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """Reads rows by the names in the first line.

    Args:
        path: File they came from, for messages.
        lines: Its lines, including line ends.
        delimiter: Character between cells.
        longest_cell: Maximum characters in a cell.

    Yields:
        The line at which a row starts, from 1, and the row; all its cells are texts.

    Raises:
        DataError: If quotes are broken, a column occurs twice, or a row does not have one cell per column.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = _next_cells(reader, longest_cell)
        except StopIteration:
            return
        except csv.Error as error:
            expected = f'{"commas" if delimiter == "," else "tabs"} between cells, "quotes" around text'
            raise DataError(path, line=line, found=f"broken CSV ({error})", expected=expected) from None
        if not header:
            header = cells
            if len(set(header)) != len(header):
                column = most_common(header)
                raise DataError(path, line=line, field=column, found="the column twice", expected="each column once")
        elif len(cells) != len(header) and cells:
            raise DataError(path, line=line, found=f"{len(cells)} cells", expected=f"{len(header)}, as in the header")
        elif cells:
            yield line, dict(zip(header, cells, strict=True))


def _next_cells(reader: Iterator[list[str]], longest_cell: int) -> list[str]:
    """Reads the next record.

    The csv module limits the length of a cell for the whole process, by default to 128 kB, and some answers are
    longer. The limit is raised only while one record is read, so that it is restored even if the caller stops early.
    """
    with _limit_in_use:
        before = csv.field_size_limit(longest_cell)
        try:
            return next(reader)
        finally:
            csv.field_size_limit(before)


def most_common(names: Iterable[str]) -> str:
    """The name that occurs most often."""
    return Counter(names).most_common(1)[0][0]
