"""Rows of a Parquet file, which may unpack to far more than its size: compressed, and each value stored once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from lifealign.data.streams import GREATEST_RATIO, UNPACKED_FREELY
from lifealign.errors import DataError

AT_ONCE = 64 * 2**20
"""Bytes that are unpacked at a time, unless so few rows have more."""
FEWEST_AT_ONCE = 16
"""Rows that are unpacked at a time however large a group is: one by one, a large file would take minutes."""


def parquet_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Reads a Parquet file row by row.

    Yields:
        Number of the row, from 1, and the row.

    Raises:
        DataError: If the file is damaged, or unpacks to more than 200 times its size (and more than 8 MiB).
    """
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = count(1)
    try:
        most = max(UNPACKED_FREELY, GREATEST_RATIO * os.path.getsize(path))
        unpacked = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(place) for place in range(file.num_row_groups)]
            _require_less(path, sum(map(_stored, groups)), most)
            for place, group in enumerate(groups):
                for batch in file.iter_batches(batch_size=_rows_at_once(group), row_groups=[place]):
                    for row in batch.to_pylist():
                        unpacked += _size(row)
                        _require_less(path, unpacked, most)
                        yield next(number), row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(path, found=f"broken Parquet ({reason})", expected="a complete file; write it again") from None


def _require_less(path: str | Path, unpacked: int, most: int) -> None:
    if unpacked > most:
        raise DataError(
            path,
            found=f"Parquet that unpacks to more than {GREATEST_RATIO} times its size",
            expected="rows, which repeat less; if it holds rows, write them as JSON Lines",
        )


def _stored(group: Any) -> int:
    """Bytes that a group of rows holds, each value of a dictionary once, as the file says; and one for each row.

    The file says it of every column too, but asking pyarrow for a column of a damaged file may end the process.
    """
    return int(group.total_byte_size) + int(group.num_rows)


def _size(value: Any) -> int:
    """Characters of all texts in a value, and one for everything else."""
    match value:
        case str() | bytes():
            return len(value)
        case dict():
            return 1 + sum(map(_size, value.values()))
        case list():
            return 1 + sum(map(_size, value))
    return 1


def _rows_at_once(group: Any) -> int:
    """How many rows can be unpacked at a time, although each may hold the longest value of every dictionary."""
    return min(max(FEWEST_AT_ONCE, AT_ONCE // max(1, _stored(group))), 1024)
