"""Parquet that unpacks to far more than it is, and Parquet that is just large."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lifealign.data.parquet_rows import parquet_rows
from lifealign.errors import DataError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def test_rows_of_several_groups_are_read_in_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{number}", "chosen": "yes " * number, "rejected": None} for number in range(100)]
    path = write(tmp_path / "rows.parquet", rows, row_group_size=7)
    assert list(parquet_rows(path)) == [*enumerate(rows, 1)]


def test_a_prompt_that_all_rows_share_is_no_bomb(tmp_path: Path) -> None:
    """A system prompt of 2,000 characters before 2,000 rows, which the file stores once: 4 MB from a few KB."""
    rows = [{"prompt": "You are kind. " * 150, "chosen": f"a{number}", "rejected": "b"} for number in range(2000)]
    path = write(tmp_path / "rows.parquet", rows)
    assert path.stat().st_size < 100_000
    assert len(list(parquet_rows(path))) == 2000


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """A value of 1 MB, stored once, in 8,000 rows: 8 GB from a few KB. A process of its own has its peak measured."""
    path, place = tmp_path / "bomb.parquet", pyarrow.array([0] * 8000, pyarrow.int32())
    column = pyarrow.DictionaryArray.from_arrays(place, pyarrow.array(["x" * 10**6]))
    parquet.write_table(pyarrow.table({"prompt": column}), path, dictionary_pagesize_limit=2**24)
    assert path.stat().st_size < 200_000
    code = (
        "import sys\n"
        "from lifealign.data.parquet_rows import parquet_rows\n"
        "from lifealign.errors import DataError\n"
        "from lifealign.training.peak_memory import peak_memory_bytes\n"
        "try:\n"
        "    sum(1 for _ in parquet_rows(sys.argv[1]))\n"
        "except DataError as error:\n"
        "    print(peak_memory_bytes() // 2**20, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    peak, _, message = done.stdout.partition(" ")
    assert "found Parquet that unpacks to more than 200 times its size" in message
    assert int(peak) < 700


def test_a_damaged_file_is_a_data_error(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [{"a": 1}])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="broken Parquet"):
        list(parquet_rows(path))
