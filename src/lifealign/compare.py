"""A comparison: methods x orders x seeds on one stream, cell by cell, each a life and a result file of its own."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from lifealign import storage
from lifealign.config import LifeConfig
from lifealign.config_experiment import ExperimentConfig, Variant
from lifealign.config_words import differences
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeAlignError
from lifealign.evaluation.metrics import PERPLEXITY
from lifealign.experiment import learning_settings, life_settings, load_tasks, order_of, run_experiment
from lifealign.experiments.result import RunResult, load_result, write_result
from lifealign.experiments.result_of_life import result_of
from lifealign.life import Life
from lifealign.manifest import MANIFEST
from lifealign.model.base_model import Base, load_base
from lifealign.printing import log_to_stderr
from lifealign.report.comparison import Comparison, compare_results, holes_of
from lifealign.report.comparison_text import csv_text, latex, markdown
from lifealign.training.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One method on one order with one seed.

    Attributes:
        variant: The method and its label.
        order: Name of the order.
        experiment: The experiment that this cell is, with a folder of its own.
        data: Content hash of each task, by name, in the order in which they are met.
        result: Its result file; once that is there, the cell is finished.
    """

    variant: Variant
    order: str
    experiment: ExperimentConfig
    data: Mapping[str, str]
    result: Path

    @property
    def name(self) -> str:
        """``ER, order1, seed 42``."""
        return f"{self.variant.label}, {self.order}, seed {self.experiment.seed}"


@dataclass(frozen=True)
class Failure:
    """A cell that could not be finished, and why, in words."""

    cell: Cell
    error: str


Say = Callable[[str], None]


def cells_of(experiment: ExperimentConfig, results: Path | None = None) -> list[Cell]:
    """Every cell of an experiment's comparison, seed by seed, so that an interrupted one has whole rows first.

    Args:
        experiment: Settings, stream and what is compared.
        results: Folder of the result files; ``results`` in the experiment's ``output_dir`` by default.

    Raises:
        ConfigError: If a method cannot learn one of the streams, or a section is set that one of them has no use for.
        DataError: If a task's file cannot be used.
    """
    folder = results or experiment.output_dir / "results"
    streams = _streams(experiment)
    cells = []
    for seed in experiment.compare.seeds or (experiment.seed,):
        for order, (setting, tasks) in streams.items():
            for variant in experiment.compare.methods:
                variant.method.plan(tasks)
                name = f"{order}--{variant.slug}--seed{seed}"
                changes = {
                    "method": variant.method,
                    "seed": seed,
                    "order": setting,
                    "output_dir": experiment.output_dir / "lives" / name,
                    "replay": variant.replay or (experiment.replay if variant.method.replays else None),
                }
                own = experiment.model_copy(update=changes)
                data = {task.name: task.data_hash for task in tasks}
                cells.append(Cell(variant, order, own, data, folder / f"{name}.json"))
    return cells


def _streams(experiment: ExperimentConfig) -> dict[str, tuple[Any, list[Task]]]:
    """By the name of each order, the setting that means it and its tasks."""
    orders = experiment.compare.orders
    named: dict[str, Any] = {}
    if orders is None:
        named[experiment.order if isinstance(experiment.order, str) else "stream"] = experiment.order
    else:
        named |= orders if isinstance(orders, dict) else {name: name for name in orders}
    streams = {}
    for name, setting in named.items():
        own = experiment.model_copy(update={"order": setting})
        try:
            order_of(own)
        except ConfigError as error:
            if orders is None:
                raise
            raise ConfigError(f"compare.orders: {name}: {error}") from error  # the file says nothing of "order"
        streams[name] = (setting, load_tasks(own))
    return streams


def finished(cell: Cell) -> RunResult | None:
    """The result of a finished cell, or None if it is not finished.

    Raises:
        ConfigError: If the result file is there and tells of another configuration or other data.
        LifeError: If it cannot be read, is no result file, or was changed after it was written.
    """
    if not cell.result.exists():
        return None
    result = load_result(cell.result)
    there = {
        "label": result.label,
        "order": result.order,
        "tasks": [task.name for task in result.learnt],
        "data": {task.name: task.data_hash for task in result.learnt},
    }
    here = {"label": cell.variant.label, "order": cell.order, "tasks": list(cell.data), "data": dict(cell.data)}
    settings = learning_settings(life_settings(cell.experiment))
    if differing := differences(_completed(result.settings), settings) + differences(there, here):
        raise ConfigError(
            f"{cell.result}: found a result of other settings or data ({'; '.join(differing[:3])}), expected those of "
            f"{cell.name}; choose another output_dir or --results, or delete the file"
        )
    return result


def _completed(settings: Any) -> Any:
    """Settings of a result file with the defaults of what there was no setting for when it was written."""
    try:
        return learning_settings(LifeConfig.model_validate(settings))
    except ValidationError:
        return settings  # of a later version, or damaged: the difference will show


def run_comparison(
    cells: Sequence[Cell], *, jobs: int = 1, say: Say, progress: Progress | None = None
) -> list[Failure]:
    """Runs every cell that is not finished; one that fails does not stop the others.

    A cell of which scores could not be measured is finished, with holes: what it has learnt is what takes the time.
    ``lifealign evaluate`` on its life fills them, and the next call takes that over into the result file.

    Args:
        cells: The cells.
        jobs: Cells at a time, each in a process of its own with an equal share of the processor's threads.
        say: Called with a line about each cell.
        progress: Where a single job shows its progress, or None.

    Returns:
        The cells that could not be finished. What they have learnt is kept, and the next call goes on from there.

    Raises:
        ConfigError: If a result file tells of another configuration or other data; nothing is run then.
    """
    for cell in cells:
        _take_over_evaluations(cell)
    open_cells = [cell for cell in cells if finished(cell) is None]
    say(f"{len(cells)} cells, {len(cells) - len(open_cells)} of them finished")
    failures = []
    with closing(_outcomes(open_cells, jobs, say, progress)) as outcomes:  # whatever happens, no process is left behind
        for number, (cell, error) in enumerate(outcomes, start=1):
            count = f"{number} of {len(open_cells)}"
            if error is None:
                result = finished(cell)
                missing = [] if result is None else _missing(result)
                told = f"; missing: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}" if missing else ""
                say(f"{cell.name}: finished ({count}){told}")
            else:
                say(f"{cell.name}: failed ({count}): {error}")
                failures.append(Failure(cell, error))
    return failures


def _take_over_evaluations(cell: Cell) -> None:
    """Writes the result of a finished cell with holes anew, where its life has been evaluated since."""
    result = finished(cell)
    if result is None or not _missing(result) or not (cell.experiment.output_dir / MANIFEST).exists():
        return
    now = result_of(Life.open(cell.experiment.output_dir), label=result.label, order=result.order)
    if [step.name for step in now.steps] == [step.name for step in result.steps] and now != result:
        write_result(cell.result, now)


def _missing(result: RunResult) -> list[str]:
    """Scores that a result lacks, in words."""
    missing = [f"{metric} of {hole}" for metric in result.scores for hole in holes_of(result, metric)]
    return missing + [f"{PERPLEXITY} after {step} ({why})" for step, why in result.general_text_holes.items()]


def results_of(cells: Sequence[Cell]) -> list[RunResult]:
    """Results of the finished cells, in the order of the comparison."""
    return [result for cell in cells if (result := finished(cell)) is not None]


def comparison_of(cells: Sequence[Cell], against: str | None) -> Comparison | None:
    """Brings the results of the finished cells together, as far as there are any.

    Args:
        cells: The cells.
        against: Label of the method that the others are compared with. While it has no result, nothing is compared.

    Returns:
        The comparison, or None while no cell is finished.

    Raises:
        ConfigError: If results do not belong together, or as :func:`finished` does.
    """
    results = results_of(cells)
    labels = {result.label for result in results}
    return compare_results(results, against if against in labels else None) if results else None


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes a comparison's tables as CSV, Markdown and LaTeX; returns the files."""
    texts = {"csv": csv_text(comparison), "md": markdown(comparison), "tex": latex(comparison)}
    paths = [folder / f"comparison.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        storage.write_text(path, text)
    return paths


def _outcomes(
    cells: Sequence[Cell], jobs: int, say: Say, progress: Progress | None
) -> Generator[tuple[Cell, str | None], None, None]:
    """Runs cells, here or in other processes, and says of each how it ended: None, or what was wrong."""
    if jobs == 1 or len(cells) < 2:
        for cell in cells:
            say(cell.name)
            yield cell, _run(cell, progress)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    # Spawned, not forked: a copied process would inherit locks that torch's threads hold.
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    how = (threads, watched, logger.isEnabledFor(logging.DEBUG))
    pool = ProcessPoolExecutor(min(jobs, len(cells)), context, initializer=_start_worker, initargs=how)
    with watched, held, pool:
        with _deaf_to_interrupts():
            running: dict[Future[str | None], Cell] = {pool.submit(_run, cell): cell for cell in cells}
        try:
            for future in as_completed(running):
                try:
                    error = future.result()
                except BrokenProcessPool:
                    error = "its process, or another one of the comparison, was ended from outside; out of memory?"
                yield running[future], error
        except BaseException:
            held.close()  # before the pool waits for cells that nobody will ask for
            raise


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Starts processes that never hear Ctrl-C, not even while they import: it goes to all, and the parent decides.

    Here it is heard after the context, for processes inherit what is blocked.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(threads: int, watched: Connection, tracebacks: bool) -> None:
    """Sets up a process that is ours alone."""
    torch.set_num_threads(threads)
    log_to_stderr(tracebacks, lowest=logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()


def _end_with_parent(watched: Connection) -> None:
    """Ends this process once the parent has let go of its end, by giving up or by being killed; cells bear that."""
    with suppress(EOFError, OSError):
        watched.recv_bytes()
    os._exit(1)


_base: tuple[Any, Base] | None = None
"""The last base model of this process; cells that follow each other mostly have the same."""


def _run(cell: Cell, progress: Progress | None = None) -> str | None:
    """Lives through one cell and writes its result file; returns what was wrong, if anything.

    In words, because an error with arguments of its own does not survive the way to another process.
    """
    try:
        _live(cell, progress)
    except LifeAlignError as error:
        return str(error)
    except Exception as error:  # a fault of ours or of a library, such as a full GPU: not the end of the other cells
        logger.exception("%s", cell.name)
        return f"{type(error).__name__}: {error}"
    finally:
        gc.collect()  # models are full of cycles, and the next cell's peak of memory would have this one in it
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return None


def _live(cell: Cell, progress: Progress | None) -> None:
    global _base
    settings = cell.experiment.model
    if _base is None or _base[0] != settings:
        _base = (settings, load_base(settings))
    shared = cell.experiment.output_dir.parent.parent / "cache"
    with _silent("lifealign.data"):  # what was dropped was said when the cells were listed
        life = run_experiment(cell.experiment, progress, base=_base[1], shared_cache=shared)
    write_result(cell.result, result_of(life, label=cell.variant.label, order=cell.order))


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Lets a logger say errors only while the context lasts."""
    quiet = logging.getLogger(name)
    before = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        yield
    finally:
        quiet.setLevel(before)
