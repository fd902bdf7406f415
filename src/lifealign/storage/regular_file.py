"""Opening regular files for reading: anything else is refused at once, and files that are too large are not read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from lifealign.errors import LifeError

KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


@contextmanager
def open_regular(path: str | Path) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; anything else is refused at once (opening a pipe would block).

    Raises:
        LifeError: If the file is missing or unreadable, or is a directory, pipe, device or socket.
    """
    with named(path, "read"):
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except ValueError as error:  # no path: a NUL character, or half a surrogate pair
            raise LifeError(f"{str(path)!r}: could not be read: {error}") from error
        try:
            require_regular(path, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_bytes(path: str | Path, largest: int) -> bytes:
    """Reads a regular file of at most ``largest`` bytes.

    Raises:
        LifeError: If it is larger, or for the reasons given in :func:`open_regular`.
    """
    with open_regular(path) as file, named(path, "read"):
        size = os.fstat(file.fileno()).st_size
        return limited(path, file.read(min(size, largest) + 1), largest)  # one byte more, in case the file is growing


def limited(path: str | Path, content: bytes, largest: int) -> bytes:
    """Returns the content unchanged.

    Raises:
        LifeError: If it has more than ``largest`` bytes.
    """
    if len(content) > largest:
        raise LifeError(f"{path}: found more than {largest} bytes, expected at most {largest} in a file of this kind")
    return content


def require_regular(path: str | Path, status: os.stat_result) -> None:
    """Refuses anything that is not a regular file.

    Raises:
        LifeError: If it is something else; the message says what.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        raise LifeError(f"{path}: found {kind}, expected a regular file")


@contextmanager
def named(path: str | Path, done: str, comfort: str = "") -> Iterator[None]:
    """Turns an error of the system into a one-line message with the path.

    Args:
        path: The file or folder that was used.
        done: What could not be done to it, as a participle such as ``read``.
        comfort: A sentence to add about the consequences.

    Raises:
        LifeError: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)  # safetensors' own OSErrors have no strerror
        raise LifeError(f"{path}: could not be {done}: {reason}{'. ' + comfort if comfort else ''}") from error
