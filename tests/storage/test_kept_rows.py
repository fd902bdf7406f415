"""A cache that grows by what is added: nothing written twice, nothing damaged believed, several processes at a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lifealign.errors import LifeError
from lifealign.storage import files
from lifealign.storage.kept_rows import KeptRows

LOST = "it is computed again"


def kept(path: Path | None) -> KeptRows[int]:
    def number(value: object) -> int:
        if not isinstance(value, int):
            raise TypeError("no number")
        return value

    return KeptRows(path, number, LOST)


def test_adding_writes_what_is_new_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = kept(path)
    rows.add({f"key {number:03}": number for number in range(100)})
    size = path.stat().st_size
    rows.add({"key 001": 7, "key 100": 100})
    assert path.stat().st_size - size == pytest.approx(size / 100, abs=2)
    assert rows.values["key 001"] == 1  # what is there stays
    assert kept(path).values == {f"key {number:03}": number for number in range(101)}
    size = path.stat().st_size
    rows.add({"key 000": 0})
    assert path.stat().st_size == size and oct(path.stat().st_mode & 0o777) == "0o600"


def test_reading_again_reads_what_was_added_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    one, two = kept(path), kept(path)
    one.add({"a": 1})
    two.refresh()
    two.add({"b": 2})
    parsed: list[bytes] = []
    monkeypatch.setattr("lifealign.storage.kept_rows.parse_json", lambda line: parsed.append(line) or {})
    two.refresh()
    assert [b'"b"' in line for line in parsed] == [True]  # its own row; the other was read before


def test_a_file_that_another_process_has_written_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    one = kept(path)
    one.add({"a": 1, "b": 2})
    one.refresh()
    path.unlink()
    kept(path).add({"c": 3, "d": 4, "e": 5})
    one.refresh()
    assert one.values == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    path.unlink()
    one.refresh()
    assert len(one.values) == 5


def test_a_row_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    kept(path).add({"a": 1, "b": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    rows = kept(path)
    assert rows.values == {"a": 1} and not caplog.text
    with path.open("ab") as file:
        file.write(whole[-5:])
    rows.refresh()
    assert rows.values == {"a": 1, "b": 2} and not caplog.text


def test_a_row_that_was_cut_off_costs_itself_alone_and_the_file_is_then_clean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    kept(path).add({"a": 1, "b": 2})
    path.write_bytes(path.read_bytes()[:-5])  # a disk that became full, or a power loss
    kept(path).add({"c": 3})
    rows = kept(path)
    assert rows.values == {"a": 1, "c": 3}
    assert f"{path}: 1 row is damaged, so it is ignored, and {LOST}" in caplog.text
    rows.add({"b": 2})
    caplog.clear()
    assert kept(path).values == {"a": 1, "b": 2, "c": 3} and not caplog.text


@pytest.mark.parametrize(
    "row",
    [
        b"{}",
        b"[]",
        b'{"key": "a", "value": 1}',
        b'{"key": 1, "value": 1, "check": "x"}',
        b'{"check": "0000000000000000", "key": "a", "value": 1}',
        b'{"key": "a", "key": "b", "value": 1, "check": "x"}',
        b"[" * 10_000,
        b"\xff",
    ],
)
def test_what_is_no_row_is_passed_over(tmp_path: Path, row: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    kept(path).add({"good": 1})
    path.write_bytes(row + b"\n" + path.read_bytes())
    assert kept(path).values == {"good": 1} and "1 row is damaged" in caplog.text


def test_a_value_of_another_kind_is_passed_over_although_its_checksum_fits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    KeptRows[str](path, str, LOST).add({"a": "text"})
    assert kept(path).values == {}


def test_what_could_not_be_written_is_written_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    rows = kept(path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "LARGEST_ROWS", 10)
        with pytest.raises(LifeError, match="found no room for more"):
            rows.add({"a": 1})
    assert rows.values == {"a": 1} and kept(path).values == {}
    rows.add({"b": 2})
    assert kept(path).values == {"a": 1, "b": 2}


def test_what_is_no_file_is_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert kept(tmp_path / "pipe").values == {} and "found a pipe" in caplog.text and LOST in caplog.text
    assert kept(None).values == {}
    memory = kept(None)
    memory.add({"a": 1})
    assert memory.values == {"a": 1}


def test_texts_that_are_no_utf8_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = {"a": "lone \ud800 surrogate", "b": "line\u2028separator\x85", "c": "\x00"}
    KeptRows[str](path, str, LOST).add(texts)
    assert KeptRows[str](path, str, LOST).values == texts
