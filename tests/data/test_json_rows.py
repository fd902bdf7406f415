"""An array of rows is read element by element, and is read as a parser reads it whole."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifealign.data import json_rows
from lifealign.data.json_rows import array_rows
from lifealign.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
WHOLE = '[{"a": "é 😀", "b": [-0.5e-3, true, null]}, "x\\"y\\ud83d\\ude00", -12, "]"]'


def read(content: bytes, longest: int = 2**20) -> list[Any]:
    rows = list(array_rows("rows.json", io.BytesIO(content), 0, longest))  # type: ignore[arg-type]
    assert [number for number, _ in rows] == [*range(1, len(rows) + 1)]
    return [row for _, row in rows]


@pytest.fixture(params=[1, 2, 3, 7, 2**18])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that are read at a time: wherever that cuts, nothing may change."""
    monkeypatch.setattr(json_rows, "PIECE", request.param)
    return int(request.param)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(VALUES, max_size=5),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    piece=st.integers(1, 9),
)
def test_any_array_is_read_as_a_parser_reads_it_whole(
    values: list[Any], ascii_only: bool, indent: int | None, piece: int
) -> None:
    content = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "PIECE", piece)
        assert read(f" {content} \n".encode()) == values


def test_every_beginning_of_an_array_is_refused(piece: int) -> None:
    """As one that breaks off, unless it ends within a word or a character, where a parser says what is wrong."""
    content = WHOLE.encode()
    assert read(content) == json.loads(content)
    for end in range(1, len(content)):
        with pytest.raises(DataError, match=r"breaks off at 1:|broken JSON at 1:|which is not UTF-8"):
            read(content[:end])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[1 2]", r"broken JSON at 1:4 \(Expecting ',' delimiter\)"),
        ("[1, ]", r"broken JSON at 1:5 \(Expecting value\)"),
        ("[1] 2", r"broken JSON at 1:5 \(Extra data\)"),
        ('[1,\n {"a": 1, "a": 2}]', "the key twice"),
        ('[1,\n\n  {"a" 1}]', r"broken JSON at 3:8 \(Expecting ':' delimiter\)"),
        ("[" + "[" * 100_000, "nested too deep"),
        ("[" + "1" * 5000 + "]", "does not parse"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(piece: int, content: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        read(content.encode())


def test_a_byte_that_is_no_utf8_is_named_by_its_place_in_the_file(piece: int) -> None:
    with pytest.raises(DataError, match="byte 0xff at offset 5, which is not UTF-8"):
        read(b'["abc\xff"]')


def test_only_one_element_is_held_at_a_time() -> None:
    """Fifty thousand rows of a hundred characters, and an element may have a thousand."""
    row = json.dumps("x" * 100)
    content = "[" + ",".join([row] * 50_000) + "]"
    assert len(read(content.encode(), longest=1000)) == 50_000
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(json_rows, "PIECE", 64)
        read(b'[1,\n"' + b"x" * 5000, longest=1000)
    assert (error.value.line, error.value.found) == (2, "a row of more than 1000 characters")


def test_a_stream_is_read_as_far_as_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    stream = io.BytesIO(b"[" + b'{"a": 1}, ' * 200_000)
    rows = array_rows("rows.json", stream, 0, 1000)  # type: ignore[arg-type]
    assert next(rows) == (1, {"a": 1})
    assert stream.tell() == json_rows.PIECE
