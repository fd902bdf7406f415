"""Runs the cells of a comparison: here, in processes of their own, or on an engine of others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Protocol, Self

import torch

from lifealign.errors import LifeAlignError
from lifealign.experiments.cells import Cell
from lifealign.experiments.result_file import write_result
from lifealign.experiments.worker import Outcome, live
from lifealign.training.listeners import Listener

Say = Callable[[str], None]


class Engine(Protocol):
    """Where cells run: processes of this machine, a Ray cluster, a Slurm queue. It is used as a context."""

    def __enter__(self) -> Self:
        """Makes ready for cells."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives up what has not ended."""

    def submit(self, cell: Cell) -> Future[Outcome]:
        """Has :func:`live` called with a cell, somewhere, once there is room for it."""


def run_cells(
    cells: Sequence[Cell], engine: Engine | None, say: Say, listener: Listener | None
) -> Generator[tuple[Cell, str | None], None, None]:
    """Runs cells, here or wherever an engine runs them, and writes the result of each; nobody else writes results.

    Args:
        cells: The cells.
        engine: Where; None is here, one after another, and so is a single cell that needs no other machine.
        say: Called with the name of a cell that runs in this process.
        listener: Told what happens in a cell that runs in this process, or None.

    Yields:
        Each cell that has ended, with None or a text that says what went wrong.
    """
    if engine is None or (isinstance(engine, Processes) and len(cells) < 2):
        for cell in cells:
            say(cell.name)
            yield cell, _kept(cell, live(cell, listener))
        return
    with engine:
        running = {engine.submit(cell): cell for cell in cells}
        for future in as_completed(running):
            yield running[future], _kept(running[future], _outcome(future))


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(error="its process, or another one of the comparison, was killed; out of memory?")
    except Exception as error:  # whatever an engine says of a worker that is gone
        return Outcome(error=f"{type(error).__name__}: {(str(error).strip() or 'no more is known').splitlines()[0]}")


def _kept(cell: Cell, outcome: Outcome) -> str | None:
    """Writes the result of a cell; returns what went wrong."""
    if outcome.result is not None:
        try:
            write_result(cell.result, outcome.result)
        except LifeAlignError as error:
            return str(error)
    return outcome.error


class Processes:
    """Processes of this machine, each with an equal share of the processor's threads.

    Args:
        jobs: Cells at a time.
        set_up: Called first in every process, such as to set up its log; must be picklable. Or None.
    """

    def __init__(self, jobs: int, set_up: Callable[[], None] | None = None) -> None:
        self.jobs, self.set_up = jobs, set_up

    def __enter__(self) -> Self:
        """Starts nothing yet: a process starts with the first cell that needs it."""
        threads = max(1, torch.get_num_threads() // self.jobs)
        # Spawned, not forked: a forked process would inherit locks held by torch's threads.
        context = multiprocessing.get_context("spawn")
        watched, self._held = context.Pipe(duplex=False)
        how = (threads, watched, self.set_up)
        self._pool = ProcessPoolExecutor(self.jobs, context, initializer=_start_worker, initargs=how)
        self._open = ExitStack()
        for one in (watched, self._held, self._pool):
            self._open.enter_context(one)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the processes; if something went wrong, they end at once, because nobody reads their results."""
        if kind is not None:
            self._held.close()  # before the pool waits for them
        self._open.close()

    def submit(self, cell: Cell) -> Future[Outcome]:
        """Has the next free process run a cell."""
        with _deaf_to_interrupts():
            return self._pool.submit(live, cell)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started in this context ignore Ctrl-C, even while they import: it reaches all, and the parent decides.

    A process inherits the blocked signals; here, they are delivered after the context.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(threads: int, watched: Connection, set_up: Callable[[], None] | None) -> None:
    """Sets up a worker process."""
    torch.set_num_threads(threads)
    if set_up is not None:
        set_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()


def _end_with_parent(watched: Connection) -> None:
    """Exits when the parent's end of the pipe closes, whether it gave up or was killed; cells can resume."""
    with suppress(EOFError, OSError):
        watched.recv_bytes()
    os._exit(1)
