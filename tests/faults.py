"""Commands that run while the disk fails: the k-th change below a folder is refused, as a broken or full disk does it.

A change is whatever alters the disk: a file opened for writing, what is written to it, a sync, a rename, a deletion, a
folder made or removed. They are counted in a fork, so that nothing of it is left in the process of the tests.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

LASTING = {errno.ENOSPC}
"""What does not pass: a disk that is full stays full. Names can still be taken away from it, and changed."""
KILL = 0
"""In place of an error: the process is killed, and the change is not made."""
NEEDS_ROOM = {"open", "write", "mkdir", "fsync"}
CHANGES = {"os.mkdir": "mkdir", "os.rename": "rename", "os.remove": "unlink", "os.rmdir": "rmdir"}
"""What Python says of before it happens (``sys.addaudithook``), and what it is called here."""


@dataclass
class Faulty:
    """A disk that refuses a change.

    Attributes:
        folder: Only what is below it counts.
        at: Number of the change that is refused, from 1; 0 only counts.
        code: The system's error, or ``KILL``.
        count: Changes so far.
        refused: What was refused first, such as ``write bot/life.json.tmp-...``.
    """

    folder: str
    at: int = 0
    code: int = errno.EIO
    count: int = 0
    refused: str = ""

    def change(self, what: str, path: Any) -> None:
        """Counts a change, and refuses it if it is its turn.

        Raises:
            OSError: If it is.
        """
        name = os.path.abspath(os.fsdecode(path)) if not isinstance(path, int) else os.readlink(f"/proc/self/fd/{path}")
        if not name.startswith(self.folder + "/"):
            return
        self.count += 1
        lasting = self.code in LASTING and self.count > self.at > 0 and what in NEEDS_ROOM
        if self.count == self.at or lasting:
            self.refused = self.refused or f"{what} {name.removeprefix(self.folder + '/')}"
            if self.code == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.code, os.strerror(self.code), name)

    def install(self) -> None:
        """Puts itself between this process and the disk, for good."""
        fsync, write, opened = os.fsync, os.write, builtins.open

        def heard(event: str, given: tuple[Any, ...]) -> None:
            if event == "open" and given[0] is not None and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.change("open", given[0])
            elif event in CHANGES:
                self.change(CHANGES[event], given[0])

        def synced(descriptor: Any) -> None:
            self.change("fsync", descriptor if isinstance(descriptor, int) else descriptor.fileno())
            fsync(descriptor)

        def written(descriptor: int, content: Any) -> int:
            self.change("write", descriptor)
            return write(descriptor, content)

        def open_(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
            stream = opened(file, mode, *given, **named)
            return Writing(stream, self) if set(mode) & set("wax+") else stream

        sys.addaudithook(heard)
        os.fsync, os.write = synced, written  # type: ignore[assignment]
        builtins.open = io.open = open_  # type: ignore[assignment]


class Writing:
    """A file that is written to; a write that is refused has written half."""

    def __init__(self, stream: Any, disk: Faulty) -> None:
        self.__dict__ |= {"_stream": stream, "_disk": disk}

    def write(self, content: Any) -> int:
        try:
            self._disk.change("write", self._stream.fileno())
        except OSError:
            self._stream.write(content[: len(content) // 2])
            self._stream.flush()
            raise
        return int(self._stream.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __iter__(self) -> Any:
        return iter(self._stream)


@dataclass(frozen=True)
class Ran:
    """How a command ended: its exit code, what it printed, how many changes it made, which one was refused."""

    code: int
    out: str
    err: str
    changes: int
    refused: str


def run(folder: Path, command: Callable[[], int], at: int = 0, code: int = errno.EIO) -> Ran:
    """Runs a command in a fork, in a folder of its own.

    Args:
        folder: Its working directory, below which changes count.
        command: What it does; what it returns is its exit code.
        at: Number of the change that is refused, from 1; 0 for none.
        code: The error, or ``KILL``.
    """
    with tempfile.TemporaryDirectory() as elsewhere:  # what is said must not need the disk that fails
        said = [Path(elsewhere, name) for name in ("out", "err", "disk")]
        child = os.fork()
        if child == 0:
            _become(folder, command, Faulty(str(folder), at, code), said)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out, err, told = (path.read_text() if path.exists() else "" for path in said)
    count, _, refused = told.partition("\n")
    return Ran(ended, out, err, int(count or 0), refused)


def _become(folder: Path, command: Callable[[], int], disk: Faulty, said: Sequence[Path]) -> Never:
    """Runs a command in this process, which ends with it."""
    ended = 99
    try:
        for stream, path in zip((1, 2), said, strict=False):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        disk.install()
        try:
            ended = command()
        finally:
            said[2].write_text(f"{disk.count}\n{disk.refused}")
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(ended)
