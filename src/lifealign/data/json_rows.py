"""Rows in JSON: one on a line, or the elements of an array, which are read one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from lifealign.data.delimited import most_common
from lifealign.errors import DataError

PIECE = 2**18  # bytes of an array that are read at a time
BLANKS = " \t\n\r"
LONGEST_WORD = 16  # characters by which a parser may look ahead: -Infinity, \\ud83d\\ude00


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


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def parse_line(text: str, path: str | Path, line: int) -> Any:
    """Parses one line.

    Raises:
        DataError: Whatever is wrong with it.
    """
    body = text.rstrip()
    try:
        return _DECODER.decode(body)
    except json.JSONDecodeError as error:
        _refuse(error, path, line, f"{line}:{error.colno}", error.pos >= len(body), text.endswith("\n"))
    except (RecursionError, ValueError) as error:
        _refuse_value(error, path, line)


def array_rows(path: str | Path, stream: BufferedReader, offset: int, longest: int) -> Iterator[tuple[int, Any]]:
    """Reads the elements of an array; only one of them is in memory at a time.

    Args:
        path: File they come from, for messages.
        stream: Its content, from ``[`` or blanks before it.
        offset: Bytes of the file before that.
        longest: Maximum characters of an element.

    Yields:
        Number of the element, from 1, and the element.

    Raises:
        DataError: If it is not UTF-8, not one whole array, or an element is longer or cannot be parsed.
    """
    text = _Window(path, stream, offset, longest)
    text.expect("[")
    if text.next() != "]":
        for number in count(1):
            yield number, text.value()
            if text.next() == "]":
                break
            text.expect(",", "Expecting ',' delimiter")
    text.expect("]")
    text.expect("", "Extra data")


class _Window:
    """The part of a text that is being read: from the element that comes next to as far as was read."""

    def __init__(self, path: str | Path, stream: BufferedReader, offset: int, longest: int) -> None:
        self._path, self._stream, self._longest = path, stream, longest
        self._text, self._at = "", 0
        self._ended = self._whole_line = False
        self._undecoded, self._offset = b"", offset
        self._line, self._column = 1, 1  # of the first character of the window

    def next(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in BLANKS:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def expect(self, character: str, otherwise: str = "Expecting value") -> None:
        """Goes past a character; an empty one stands for the end."""
        if self.next() != character:
            self._refuse(otherwise, self._at)
        self._at += 1

    def value(self) -> Any:
        """Goes past the next element."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_go_on(error):
                    self._refuse(error.msg, error.pos)
                self._more()
                continue
            except (RecursionError, ValueError) as error:
                _refuse_value(error, self._path, None)
            if self._is_over(end) or not self._more():
                self._at = end
                return value

    def _is_over(self, end: int) -> bool:
        """Whether an element ends where the parser says; ``-0`` may be the beginning of ``-0.5``."""
        return len(self._text) - end > LONGEST_WORD or self._text[end : end + 1] in {*BLANKS, ",", "]"}

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the element may be right as far as it was read, which ends in a string or within a word."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - LONGEST_WORD

    def _more(self) -> bool:
        """Reads as much again as the element has so far; whether there was more.

        Raises:
            DataError: If the element is too long.
        """
        if self._ended:
            return False
        if len(self._text) - self._at > self._longest:
            line, _ = self._place(self._at)
            raise DataError(
                self._path, line=line, found=f"a row of more than {self._longest} characters", expected="shorter rows"
            )
        piece = self._stream.read(max(PIECE, len(self._text) - self._at))
        if not piece:
            self._end()
            return False
        self._line, self._column = self._place(self._at)
        self._text, self._at = self._text[self._at :] + self._decoded(piece), 0
        return True

    def _end(self) -> None:
        """Goes back to the last character that is no blank."""
        self._ended = True
        self._decoded(b"")  # a character of which only the beginning is there
        self._whole_line = self._text.endswith("\n")
        self._text = self._text.rstrip()
        self._at = min(self._at, len(self._text))

    def _decoded(self, piece: bytes) -> str:
        raw = self._undecoded + piece
        try:
            text, self._undecoded = raw.decode(), b""
        except UnicodeDecodeError as error:
            if self._ended or error.end < len(raw):  # not a character of which only the beginning was read
                raise not_utf8(raw, error, self._offset, self._path, None) from None
            text, self._undecoded = raw[: error.start].decode(), raw[error.start :]
        self._offset += len(raw) - len(self._undecoded)
        return text

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column of a position in the window."""
        lines = self._text.count("\n", 0, position)
        if lines:
            return self._line + lines, position - self._text.rfind("\n", 0, position)
        return self._line, self._column + position

    def _refuse(self, message: str, position: int) -> NoReturn:
        line, column = self._place(position)
        cut = self._ended and position >= len(self._text)
        error = json.JSONDecodeError(message, "", 0)
        _refuse(error, self._path, line, f"{line}:{column}", cut, self._whole_line)


def not_utf8(raw: bytes, error: UnicodeDecodeError, offset: int, path: str | Path, line: int | None) -> DataError:
    """The error for a byte that does not belong there.

    Args:
        raw: What was decoded.
        error: The decoder's error.
        offset: Bytes of the file before it.
        path: The file.
        line: Its line, if it is known.
    """
    found = f"byte 0x{raw[error.start]:02x} at offset {offset + error.start}, which is not UTF-8"
    return DataError(path, line=line, found=found, expected="UTF-8; save the file in that encoding")


def _refuse(
    error: json.JSONDecodeError, path: str | Path, line: int, place: str, at_end: bool, last_line_whole: bool
) -> NoReturn:
    if at_end or error.msg.startswith("Unterminated string"):
        found = f"JSON that breaks off at {place}"
        found += "" if last_line_whole else " (the last line: the file seems cut short)"
        expected = "a complete object on one line, or a complete array"
    else:
        found, expected = f"broken JSON at {place} ({error.msg})", "one object per line, or one array of objects"
    raise DataError(path, line=line, found=found, expected=expected) from None


def _refuse_value(error: RecursionError | ValueError, path: str | Path, line: int | None) -> NoReturn:
    if isinstance(error, _RepeatedKey):
        raise DataError(path, line=line, field=error.key, found="the key twice", expected="each key once") from None
    if isinstance(error, RecursionError):
        raise DataError(path, line=line, found="JSON nested too deep to parse", expected="flat rows") from None
    # A number of thousands of digits.
    raise DataError(path, line=line, found=f"JSON that does not parse ({error})", expected="flat rows") from None
