"""Where bytes come from: pipes, FIFOs and gzip, and what reading may not leave behind."""

from __future__ import annotations

import csv
import gzip
import json
import os
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from tests.refusals import refusal

from lifealign.data import streams
from lifealign.data.files import read_rows
from lifealign.errors import DataError

ROW = {"prompt": "Hi", "chosen": "yes", "rejected": "no"}
LINE = json.dumps(ROW)
CSV = "prompt,chosen,rejected\nHi,yes,no\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"{LINE}\n".encode(), 1),
        (b"\xef\xbb\xbf" + LINE.encode(), 1),
        (f"[{LINE}]".encode(), 1),
        (CSV.encode(), 2),  # a pipe has no ending: its first line says what it is
        (CSV.replace(",", "\t").encode(), 2),
        (b"\xef\xbb\xbf" + CSV.encode(), 2),
        (gzip.compress(LINE.encode(), mtime=0), 1),
        (gzip.compress(CSV.encode(), mtime=0), 2),
    ],
)
def test_a_pipe_holds_what_a_file_may(content: bytes, line: int) -> None:
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    try:
        assert list(read_rows(f"/dev/fd/{read}")) == [(line, ROW)]
    finally:
        os.close(read)


def test_a_pipe_whose_writer_is_slow_is_read_to_its_end() -> None:
    read, write = os.pipe()

    def write_slowly() -> None:
        for piece in (LINE[:2], LINE[2:], "\n" * 5000, LINE):  # the first piece is too short to tell the kind by
            time.sleep(0.05)
            os.write(write, piece.encode())
        os.close(write)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert list(read_rows(f"/dev/fd/{read}")) == [(1, ROW), (5001, ROW)]
    writer.join()
    os.close(read)


def test_a_pipe_longer_than_its_buffer_is_read_to_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)
    content = "".join(json.dumps(ROW | {"prompt": f"{number}" * 50}) + "\n" for number in range(5000))
    writer = threading.Thread(target=fifo.write_text, args=(content,))
    writer.start()
    assert [line for line, _ in read_rows(fifo)] == list(range(1, 5001))
    writer.join()


def test_a_fifo_that_nobody_writes_to_is_said_and_then_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "FIFO_NOTICE", 0.1)
    monkeypatch.setattr(streams, "FIFO_PATIENCE", 0.2)
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)
    assert refusal(lambda: list(read_rows(fifo))) == (
        str(fifo),
        None,
        None,
        "a FIFO that nobody has written to for 0.2 seconds",
        "another program that writes rows to it",
    )
    assert caplog.messages == [f"{fifo}: waiting for another program to write to this FIFO"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.CSV", CSV),
        ("rows.Tsv", CSV.replace(",", "\t")),
        ("rows.txt", CSV),
        ("rows", CSV.replace(",", "\t").replace("chosen", '"chosen"')),
    ],
)
def test_csv_is_told_by_its_ending_in_any_case_or_by_its_header(tmp_path: Path, name: str, content: str) -> None:
    for path, raw in ((tmp_path / name, content.encode()), (tmp_path / f"{name}.gz", gzip.compress(content.encode()))):
        path.write_bytes(raw)
        assert list(read_rows(path)) == [(2, ROW)]


def test_a_tab_separated_line_that_is_broken_is_told_what_parts_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('prompt\tchosen\n"a\tb\n')
    with pytest.raises(DataError, match=r"rows.tsv:2: found broken CSV .*, expected tabs between cells"):
        list(read_rows(path))


def gzipped(folder: Path, content: bytes) -> Path:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(content)
    return path


def test_gzip_is_told_by_content_and_may_have_several_members(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"  # not named .gz
    path.write_bytes(gzip.compress(f"{LINE}\n".encode()) + gzip.compress(LINE.encode()))
    assert list(read_rows(path)) == [(1, ROW), (2, ROW)]


@pytest.mark.parametrize("kept", [3, 12, -1])  # in the header, in the data, in the checksum
def test_gzip_that_is_cut_short_is_one_error(tmp_path: Path, kept: int) -> None:
    path = gzipped(tmp_path, gzip.compress(f"{LINE}\n".encode())[:kept])
    with pytest.raises(
        DataError, match=r"rows.jsonl.gz: found gzip data that are broken or cut short \(.+\), expected"
    ):
        list(read_rows(path))


def test_gzip_with_a_flipped_byte_is_one_error(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{json.dumps(ROW | {'n': n})}\n" for n in range(50)).encode())
    for place in range(10, len(whole), 7):
        path = gzipped(tmp_path, whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"rows.jsonl.gz"):
            list(read_rows(path))


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "UNPACKED_FREELY", 2**20)
    path = gzipped(tmp_path, gzip.compress(b'{"prompt": "' + b"x" * 2**22 + b'"}', mtime=0))
    assert refusal(lambda: list(read_rows(path))) == (
        str(path),
        None,
        None,
        "gzip data that unpack to more than 200 times their size",
        "rows, which compress less; if it holds rows, unpack it first",
    )
    monkeypatch.setattr(streams, "GREATEST_RATIO", 5000)  # the data are rows after all
    assert len(list(read_rows(path))) == 1


def test_parquet_has_to_be_a_file(tmp_path: Path) -> None:
    plain = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), plain)
    packed = tmp_path / "rows.parquet.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    read, write = os.pipe()
    os.write(write, plain.read_bytes())
    os.close(write)
    for path in (packed, f"/dev/fd/{read}"):
        found, expected = "Parquet in gzip or through a pipe", "a plain Parquet file, which can be read from its end"
        assert refusal(partial(list, read_rows(path))) == (str(path), None, None, found, expected)
    os.close(read)
    twice = gzipped(tmp_path, gzip.compress(packed.read_bytes()))
    found, expected = "compressed data (zip, zstd or gzip in gzip)", "a plain file, or one compressed once with gzip"
    assert refusal(lambda: list(read_rows(twice))) == (str(twice), None, None, found, f"{expected}; unpack it first")


def test_the_csv_module_keeps_its_limit_whatever_becomes_of_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV + f"{'x' * 2000},yes,no\nlast,yes,no\n")
    before = csv.field_size_limit(1000)
    try:
        rows = read_rows(path)
        for expected in ("Hi", "x" * 2000):
            assert next(rows)[1]["prompt"] == expected
            assert csv.field_size_limit() == 1000  # half way, where the caller may stop for good
        rows.close()  # type: ignore[attr-defined]
        path.write_text(CSV + '"broken')
        with pytest.raises(DataError):
            list(read_rows(path))
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(before)


def test_a_disk_that_fails_while_reading_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(LINE)

    class Failing:
        def __init__(self, *_: object) -> None: ...

        def seekable(self) -> bool:
            return True

        def read(self, _: int) -> bytes:
            raise OSError(5, "Input/output error")

        def close(self) -> None: ...

    monkeypatch.setattr(Path, "open", Failing)
    found = "a file that cannot be read ([Errno 5] Input/output error)"
    assert refusal(lambda: list(read_rows(path))) == (str(path), None, None, found, "a complete file; write it again")
