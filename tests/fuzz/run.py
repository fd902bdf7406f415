"""Damaged files for a reader, in a process that is watched: what it lets escape, how long it takes, what memory."""

from __future__ import annotations

import logging
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Never

from tests.fuzz.mutations import mutated, mutated_json, mutated_tensors
from tests.fuzz.readers import READERS, Reader

from lifealign.errors import LifeAlignError
from lifealign.training.peak_memory import peak_memory_bytes, reset_peak_memory

SECONDS = 5.0
"""Processor time that one input may take, and a second more for each of its megabytes."""
MEMORY = 256 * 2**20
"""Bytes that one input may take beside twice its size: rows of a few bytes each take many times that as objects."""
SILENT = 60.0
"""Seconds for one input after which its process is killed: it is in something that listens to no signal."""
LOOK = 0.02
"""Seconds between two looks at a process."""
MOST_FAULTS = 20
"""Faults after which a reader is left alone."""


class Fault(NamedTuple):
    """An input that did not end as it has to.

    Attributes:
        what: What happened: the end of a traceback.
        kept: A copy of the file; :func:`read_again` reads it.
    """

    what: str
    kept: Path


@dataclass
class Outcome:
    """What became of the inputs of a reader."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    faults: list[Fault] = field(default_factory=list)


class Input(NamedTuple):
    """A damaged file: its name in the folder, its content, and whether the rest was made to fit it."""

    file: str
    content: bytes
    sealed: bool


class TooMuch(BaseException):
    """The time or the memory for an input is used up."""


def fuzz(name: str, seed: int, seconds: float, keep: Path, most: int = sys.maxsize) -> Outcome:
    """Damages the files of a reader for some time.

    Args:
        name: The reader.
        seed: Decides every input, together with its number.
        seconds: How long.
        keep: Folder for inputs that fail.
        most: Maximum number of inputs.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        place = Place.of(Path(top, name), READERS[name])
        until, outcome, number = time.monotonic() + seconds, Outcome(), 0
        while time.monotonic() < until and number < most and len(outcome.faults) < MOST_FAULTS:
            number = _watched(place, f"{seed} {name}", range(number, most), until, outcome, keep)
    return outcome


def read_again(kept: Path) -> None:
    """Reads an input that was kept, in this process; raises what it raises."""
    name, _, sealed, file = kept.name.split("--")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        place = Place.of(Path(top, name), READERS[name])
        place.read(Input(file.replace("__", "/"), kept.read_bytes(), sealed == "sealed"))


@dataclass(frozen=True)
class Place:
    """A folder with the files of a reader, as they were before any was damaged.

    Attributes:
        folder: The folder.
        reader: The reader.
        files: Those that are damaged.
        whole: The content of all.
    """

    folder: Path
    reader: Reader
    files: Sequence[str]
    whole: dict[Path, bytes]

    @classmethod
    def of(cls, folder: Path, reader: Reader) -> Place:
        folder.mkdir()
        files = reader.seed(folder)
        return cls(folder, reader, files, {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()})

    def damaged(self, draw: Random) -> Input:
        """One of the files, damaged."""
        file = draw.choice(self.files)
        content = self.whole[self.folder / file]
        others = [self.whole[self.folder / other] for other in self.files]
        told = {".json": mutated_json, ".jsonl": mutated_json, ".safetensors": mutated_tensors}.get(Path(file).suffix)
        if told is not None and draw.random() < 0.6:
            return Input(file, told(draw, content), draw.random() < 0.9)
        return Input(file, mutated(draw, content, others), draw.random() < 0.3)

    def read(self, given: Input) -> None:
        """Reads a damaged file; raises whatever the reader raises."""
        (self.folder / given.file).write_bytes(given.content)
        if given.sealed and self.reader.sealed is not None:
            self.reader.sealed(self.folder, given.file)
        self.reader.read(self.folder, given.file)

    def restore(self) -> None:
        """Makes all files what they were."""
        for path in [path for path in self.folder.rglob("*") if path.is_file() and path not in self.whole]:
            path.unlink()
        for path, content in self.whole.items():
            if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
                path.write_bytes(content)


class Board:
    """Numbers that a process and its child both see: inputs, accepted and refused ones, and the one under way."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 32)

    def __getitem__(self, place: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * place)[0])

    def __setitem__(self, place: int, number: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, number)


def _watched(place: Place, seed: str, numbers: range, until: float, outcome: Outcome, keep: Path) -> int:
    """Runs a process until an input fails or the time is over; returns the number of the next input."""
    board, said = Board(), place.folder.with_name("fault.txt")
    place.restore()
    child = os.fork()
    if child == 0:
        _work(place, seed, numbers, until, board, said)
    status = _status(child, board)
    outcome.inputs += board[0]
    outcome.accepted += board[1]
    outcome.refused += board[2]
    if status == 0:
        return numbers.stop if time.monotonic() < until else board[3] + 1
    what = said.read_text() if status == 1 else f"the process was ended by signal {-status}"
    given = place.damaged(Random(f"{seed} {board[3]}"))
    kept = keep / "--".join(
        (
            seed.split()[1],
            f"{seed.split()[0]}.{board[3]}",
            "sealed" if given.sealed else "raw",
            given.file.replace("/", "__"),
        )
    )
    keep.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(given.content)
    outcome.faults.append(Fault(what, kept))
    return board[3] + 1


def _status(child: int, board: Board) -> int:
    """How a child ends; it is killed if it is too long at one input."""
    seen = looks = 0  # looks and not a clock, because a machine that sleeps hangs nobody
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        looks = looks + 1 if board[0] == seen else 0
        seen = board[0]
        if looks * LOOK > SILENT:
            os.kill(child, signal.SIGKILL)
        time.sleep(LOOK)


def _work(place: Place, seed: str, numbers: range, until: float, board: Board, said: Path) -> Never:
    """Reads damaged files in this process, which ends with it: by 1 if one has failed, as ``said`` says."""
    try:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        for number in numbers:
            if time.monotonic() > until:
                break
            board[3] = number
            given = place.damaged(Random(f"{seed} {number}"))
            board[0] += 1
            try:
                with _bounded(len(given.content)):
                    place.read(given)
                board[1] += 1
            except LifeAlignError:
                board[2] += 1
            place.restore()
        os._exit(0)
    except BaseException:
        said.write_text("".join(traceback.format_exc().splitlines(keepends=True)[-12:]))
        os._exit(1)


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    """Raises :class:`TooMuch` if something takes longer than it may, or more memory."""

    def over(*_: Any) -> Never:
        raise TooMuch("it took too long")

    reset_peak_memory()
    before = _resident()
    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, SECONDS + size / 2**20)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        taken = peak_memory_bytes() - before
        if taken > 2 * size + MEMORY:
            raise TooMuch(f"it took {taken >> 20} MiB for a file of {size} bytes")


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
