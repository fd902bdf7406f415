"""Opening a file or pipe of rows, plain or gzip, as a stream that is read forwards only and within limits."""

from __future__ import annotations

import gzip
import io
import logging
import os
import select
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from lifealign.errors import DataError
from lifealign.storage.home import with_home

log = logging.getLogger(__name__)

HEAD = 4096  # bytes that can be peeked at before anything is read
UNPACKED_FREELY = 8 * 2**20  # bytes that gzip data may unpack to at any ratio
GREATEST_RATIO = 200  # maximum ratio beyond that; preference rows compress to about a fifth, a bomb to a thousandth
FIFO_NOTICE, FIFO_PATIENCE = 5, 300  # seconds without a writer until a warning, and until an error


def open_stream(path: str | Path) -> tuple[io.BufferedReader, bool]:
    """Opens a file or pipe for reading from its start and unpacks gzip, which is recognised by its first bytes.

    Args:
        path: A file, ``/dev/stdin`` or another pipe, or a named FIFO. If nothing is written to a FIFO, a warning comes
            after 5 seconds and an error after 300.

    Returns:
        A stream whose ``peek`` shows the first 4096 bytes, or all if there are fewer; and whether the stream is the
        plain content of a file, so that the path may be opened again.

    Raises:
        DataError: If it cannot be opened. Later reads raise it too: if they fail, or if the gzip data are damaged, cut
            short, or unpack to more than 200 times their size (and more than 8 MiB).
    """
    file = _open(path)
    again = file.seekable()
    source = _Source(file.read, file.close, path)
    stream: io.BufferedReader = io.BufferedReader(source, buffer_size=2**16)
    if not stream.peek().startswith(b"\x1f\x8b"):
        return stream, again
    unpacked = _Source(gzip.GzipFile(fileobj=stream).read, stream.close, path, packed=source)
    return io.BufferedReader(unpacked, buffer_size=2**16), False


class _Source(io.RawIOBase):
    """A raw stream over ``read`` that returns its first ``HEAD`` bytes in one piece and raises only ``DataError``.

    Attributes:
        count: Bytes read so far.
    """

    def __init__(
        self, read: Callable[[int], bytes], close: Callable[[], None], path: str | Path, packed: _Source | None = None
    ) -> None:
        self._read, self._close, self._path, self._packed = read, close, path, packed
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            part = self._read(len(buffer))
            while 0 < len(part) < HEAD and self.count == 0 and (more := self._read(HEAD - len(part))):
                part += more
        except (OSError, EOFError, zlib.error) as error:
            kind = "gzip data that are broken or cut short" if self._packed else "a file that cannot be read"
            raise DataError(self._path, found=f"{kind} ({error})", expected="a complete file; write it again") from None
        self.count += len(part)
        if self._packed and self.count > max(UNPACKED_FREELY, GREATEST_RATIO * self._packed.count):
            found = f"gzip data that unpack to more than {GREATEST_RATIO} times their size"
            raise DataError(
                self._path, found=found, expected="rows, which compress less; if it holds rows, unpack it first"
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()


def _open(path: str | Path) -> BinaryIO:
    expected = "a file of rows (JSONL, JSON, CSV or Parquet), or hub:owner/name"
    try:
        place = with_home(path)
        return _open_fifo(place) if Path(os.path.realpath(place)).is_fifo() else place.open("rb")
    except FileNotFoundError:
        raise DataError(path, found="no such file", expected=expected) from None
    except IsADirectoryError:
        raise DataError(path, found="a directory", expected=expected) from None
    except PermissionError:
        raise DataError(path, found="a file you may not read", expected="permission to read it") from None
    except (OSError, ValueError) as error:
        raise DataError(path, found=f"a file that cannot be opened ({error})", expected=expected) from None


def _open_fifo(path: str | Path) -> BinaryIO:
    """Opens a FIFO and waits until it holds something; a plain open would block silently until a writer appears."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = os.fdopen(number, "rb")
    ready = select.poll()
    ready.register(number, select.POLLIN)
    if not ready.poll(1000 * FIFO_NOTICE):
        log.warning("%s: waiting for another program to write to this FIFO", path)
        if not ready.poll(1000 * (FIFO_PATIENCE - FIFO_NOTICE)):
            file.close()
            found = f"a FIFO that nobody has written to for {FIFO_PATIENCE} seconds"
            raise DataError(path, found=found, expected="another program that writes rows to it")
    os.set_blocking(number, True)
    return file
