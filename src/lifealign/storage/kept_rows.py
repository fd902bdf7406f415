"""What was computed, by key, in a file that only grows: adding to it costs what is added, however much is there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import xxhash

from lifealign.errors import LifeError
from lifealign.storage.files import LARGEST_ROWS, append_rows, json_line, write_rows
from lifealign.storage.regular_file import limited, named, open_regular
from lifealign.storage.strict_json import parse_json

logger = logging.getLogger(__name__)

HEAD = 64
"""Bytes of the first row by which a file is recognised: they hold its checksum and a part of its key."""

Value = TypeVar("Value")


class KeptRows(Generic[Value]):
    """A cache on disk: JSONL, a row for each key with its value and a checksum of both; safe to delete.

    A row that is damaged is passed over with a warning, and the next :meth:`add` writes the file anew without it.
    Several processes may add to one file if they hold a lock while they do.

    Args:
        path: The file, or None to keep everything in memory.
        accept: Makes a value of what a row holds; raises ``TypeError`` or ``ValueError`` if it is none.
        lost: What a damaged row costs, for the warning: ``its answers are generated again``.
    """

    def __init__(self, path: Path | None, accept: Callable[[Any], Value], lost: str) -> None:
        self.path = path
        self.values: dict[str, Value] = {}
        self._accept, self._lost = accept, lost
        self._read_to, self._damaged = 0, False
        self._number, self._head = -1, b""
        self._unwritten: dict[str, Value] = {}
        self.refresh()

    def refresh(self) -> None:
        """Reads the rows that were added since the last time, by whomever."""
        if self.path is None or not self.path.exists():
            return
        try:
            content = self._unread(self.path)
        except LifeError as error:
            self._damaged = True
            logger.warning("%s; it is ignored, and %s", error, self._lost)
            return
        bad = 0
        for line in content.splitlines():
            try:
                key, value = _checked(parse_json(line))
                self.values[key] = self._accept(value)
            except (KeyError, TypeError, ValueError):
                bad += 1
        if bad:
            self._damaged = True
            rows = "1 row is" if bad == 1 else f"{bad} rows are"
            logger.warning("%s: %s damaged, so it is ignored, and %s", self.path, rows, self._lost)

    def add(self, new: Mapping[str, Value]) -> None:
        """Adds values, in memory and to the file; those of known keys are not written again.

        Raises:
            LifeError: If the file cannot be written; the values are in memory all the same, and the next call tries
                again.
        """
        unknown = {key: value for key, value in new.items() if key not in self.values}
        self.values |= unknown
        self._unwritten |= unknown
        if self.path is None or not (self._unwritten or self._damaged):
            return
        if self._damaged:
            write_rows(self.path, (_row(key, value) for key, value in self.values.items()))
        else:
            append_rows(self.path, [_row(key, value) for key, value in self._unwritten.items()])
        self._damaged, self._unwritten = False, {}

    def _unread(self, path: Path) -> bytes:
        """What the file holds beyond what was read of it; everything if it is another file by now.

        A line without its end is left for the next time: it may still be written.
        """
        with open_regular(path) as file, named(path, "read"):
            status = os.fstat(file.fileno())
            known = status.st_ino == self._number and file.read(len(self._head)) == self._head
            if not known:  # the head as well: the next file may be given the number of a deleted one
                self._number, self._head, self._read_to = status.st_ino, b"", 0
            file.seek(self._read_to)
            content = limited(path, file.read(LARGEST_ROWS + 1), LARGEST_ROWS)
        whole = content[: content.rfind(b"\n") + 1]
        self._head = self._head or whole[:HEAD]
        self._read_to += len(whole)
        return whole


def _row(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": value, "check": _checksum(key, value)}


def _checked(row: Any) -> tuple[str, Any]:
    """Key and value of a row, once their checksum was compared."""
    key, value = row["key"], row["value"]
    if not isinstance(key, str) or row["check"] != _checksum(key, value):
        raise ValueError("found another checksum")
    return key, value


def _checksum(key: str, value: Any) -> str:
    return xxhash.xxh3_64_hexdigest(json_line("a row", [key, value]))
