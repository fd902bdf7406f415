"""What a worker does with one cell of a comparison, whoever has started it."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lifealign.errors import LifeAlignError
from lifealign.experiments.cells import Cell
from lifealign.experiments.result import RunResult
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.run import run_experiment
from lifealign.model.base_model import Base, load_base
from lifealign.training.listeners import Listener

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        result: Its result; None if there is none.
        error: What went wrong, if there is none. A text, because an exception with arguments of its own cannot be sent
            from one process to another.
    """

    result: RunResult | None = None
    error: str | None = None


_base: tuple[Any, Base] | None = None
"""The last base model of this process; successive cells mostly use the same."""


def live(cell: Cell, listener: Listener | None = None) -> Outcome:
    """Lives through one cell, or what is left of it."""
    try:
        return Outcome(_result(cell, listener))
    except LifeAlignError as error:
        return Outcome(error=str(error))
    except Exception as error:  # a bug of ours or of a library, or a full GPU: the other cells go on
        logger.exception("%s", cell.name)
        return Outcome(error=f"{type(error).__name__}: {error}")
    finally:
        gc.collect()  # models are full of cycles, and would count in the next cell's peak of memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def live_there(cell: Cell, folder: str, threads: int) -> Outcome:
    """Lives through one cell in a worker of an engine.

    Args:
        cell: The cell.
        folder: The driver's folder, from which relative paths are meant.
        threads: Threads to use.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        return Outcome(error=f"{folder}: found none on this worker ({error.strerror}), expected the driver's folder")
    torch.set_num_threads(threads)
    return live(cell)


def _result(cell: Cell, listener: Listener | None) -> RunResult:
    global _base
    settings = cell.experiment.model
    if _base is None or _base[0] != settings:
        _base = (settings, load_base(settings))
    shared = cell.experiment.output_dir.parent.parent / "cache"
    with _silent("lifealign.data"):  # dropped rows were reported when the cells were listed
        life = run_experiment(cell.experiment, listener, base=_base[1], shared_cache=shared)
    return result_of(life, label=cell.variant.label, order=cell.order)


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
