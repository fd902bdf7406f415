"""Runs the cells of a comparison, here or in processes of their own."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from lifealign.errors import LifeAlignError
from lifealign.experiments.cells import Cell
from lifealign.experiments.result_file import write_result
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.run import run_experiment
from lifealign.model.base_model import Base, load_base
from lifealign.training.listeners import Listener

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


def run_cells(
    cells: Sequence[Cell], jobs: int, say: Say, listener: Listener | None, set_up: Callable[[], None] | None
) -> Generator[tuple[Cell, str | None], None, None]:
    """Runs cells, here or in processes of their own.

    Args:
        cells: The cells.
        jobs: Cells at a time.
        say: Called with the name of a cell that runs in this process.
        listener: Told what happens in a cell that runs in this process, or None.
        set_up: Called first in every other process, such as to set up its log; must be picklable. Or None.

    Yields:
        Each cell that has ended, with None or a text that says what went wrong.
    """
    if jobs == 1 or len(cells) < 2:
        for cell in cells:
            say(cell.name)
            yield cell, _run(cell, listener)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    # Spawned, not forked: a forked process would inherit locks held by torch's threads.
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    how = (threads, watched, set_up)
    pool = ProcessPoolExecutor(min(jobs, len(cells)), context, initializer=_start_worker, initargs=how)
    with watched, held, pool:
        with _deaf_to_interrupts():
            running: dict[Future[str | None], Cell] = {pool.submit(_run, cell): cell for cell in cells}
        try:
            for future in as_completed(running):
                try:
                    error = future.result()
                except BrokenProcessPool:
                    error = "its process, or another one of the comparison, was killed; out of memory?"
                yield running[future], error
        except BaseException:
            held.close()  # before the pool waits for cells whose results nobody will read
            raise


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


_base: tuple[Any, Base] | None = None
"""The last base model of this process; successive cells mostly use the same."""


def _run(cell: Cell, listener: Listener | None = None) -> str | None:
    """Runs one cell and writes its result file; returns a text that says what went wrong, if anything.

    A text, because an exception with arguments of its own cannot be sent to another process.
    """
    try:
        _live(cell, listener)
    except LifeAlignError as error:
        return str(error)
    except Exception as error:  # a bug of ours or of a library, or a full GPU: the other cells go on
        logger.exception("%s", cell.name)
        return f"{type(error).__name__}: {error}"
    finally:
        gc.collect()  # models are full of cycles, and would count in the next cell's peak of memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return None


def _live(cell: Cell, listener: Listener | None) -> None:
    global _base
    settings = cell.experiment.model
    if _base is None or _base[0] != settings:
        _base = (settings, load_base(settings))
    shared = cell.experiment.output_dir.parent.parent / "cache"
    with _silent("lifealign.data"):  # dropped rows were reported when the cells were listed
        life = run_experiment(cell.experiment, listener, base=_base[1], shared_cache=shared)
    write_result(cell.result, result_of(life, label=cell.variant.label, order=cell.order))


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Lets a logger log only errors while the context lasts."""
    quiet = logging.getLogger(name)
    before = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        yield
    finally:
        quiet.setLevel(before)
