"""CSV and TSV: how they are told, and their rows, without leaving a trace in the csv module's one setting."""

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
    """What parts the columns of a first line that names both answers, as a header must; pipes have no ending.

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
        lines: Its lines, with their ends.
        delimiter: What stands between cells.
        longest_cell: Most characters of a cell.

    Yields:
        The line that a row starts at, from 1, and the row; all its cells are texts.

    Raises:
        DataError: If a quotation is broken, a column is there twice, or a row has not a cell for each column.
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
    """The next record.

    The csv module has one limit of a cell for the whole process, 128 kB unless somebody changed it, which is shorter
    than some answers. It is raised while one record is read and no longer, so that rows which nobody takes to their
    end leave nothing behind.
    """
    with _limit_in_use:
        before = csv.field_size_limit(longest_cell)
        try:
            return next(reader)
        finally:
            csv.field_size_limit(before)


def most_common(names: Iterable[str]) -> str:
    """The name that is there most often."""
    return Counter(names).most_common(1)[0][0]
