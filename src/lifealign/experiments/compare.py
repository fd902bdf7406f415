"""A comparison: methods x orders x seeds on one stream, cell by cell, each a life and a result file of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from lifealign.evaluation.metrics import PERPLEXITY
from lifealign.experiments.cells import Cell, finished
from lifealign.experiments.comparison import Comparison
from lifealign.experiments.dtype import with_one_dtype
from lifealign.experiments.executors import Engine, Say, run_cells
from lifealign.experiments.result import RunResult
from lifealign.experiments.result_file import write_result
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.summary import compare_results, holes_of
from lifealign.life.disk.names import MANIFEST
from lifealign.life.life import Life
from lifealign.training.listeners import Listener

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A cell that could not be finished, and why."""

    cell: Cell
    error: str


def run_comparison(
    cells: Sequence[Cell],
    *,
    engine: Engine | None = None,
    say: Say,
    listener: Listener | None = None,
) -> list[Failure]:
    """Runs every cell that is not finished; a failing cell does not stop the others.

    A cell whose scores could not all be measured counts as finished, with holes, because training is what takes time.
    ``lifealign evaluate`` on its life fills the holes, and the next call copies the scores into the result file.

    Args:
        cells: The cells.
        engine: Where cells run; None is here, one after another.
        say: Called with a line about each cell.
        listener: Told what happens in cells that run here, or None.

    Returns:
        The cells that could not be finished. What they have learnt is kept, and the next call continues from there.

    Raises:
        ConfigError: If a result file belongs to other settings or other data; nothing is run then.
    """
    for cell in cells:
        _take_over_evaluations(cell)
    cells = with_one_dtype(cells, say)
    open_cells = [cell for cell in cells if finished(cell) is None]
    say(f"{len(cells)} cells, {len(cells) - len(open_cells)} of them finished")
    failures = []
    with closing(run_cells(open_cells, engine, say, listener)) as outcomes:  # no process is left behind
        for number, (cell, error) in enumerate(outcomes, start=1):
            count = f"{number} of {len(open_cells)}"
            if error is None:
                result = finished(cell)
                missing = [] if result is None else _missing(result)
                holes = f"; missing: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}" if missing else ""
                say(f"{cell.name}: finished ({count}){holes}")
            else:
                say(f"{cell.name}: failed ({count}): {error}")
                failures.append(Failure(cell, error))
    return failures


def _take_over_evaluations(cell: Cell) -> None:
    """Rewrites the result of a finished cell that lacks scores if its life has been evaluated since."""
    result = finished(cell)
    if (
        result is None
        or not (_missing(result) or _in_part(result))
        or not (cell.experiment.output_dir / MANIFEST).exists()
    ):
        return
    now = result_of(Life.open(cell.experiment.output_dir), label=result.label, order=result.order)
    if [step.name for step in now.steps] == [step.name for step in result.steps] and now != result:
        write_result(cell.result, now)


def _missing(result: RunResult) -> list[str]:
    """The scores that a result lacks, as text."""
    missing = [f"{metric} of {hole}" for metric in result.scores for hole in holes_of(result, metric)]
    return missing + [f"{PERPLEXITY} after {step} ({why})" for step, why in result.general_text_holes.items()]


def _in_part(result: RunResult) -> bool:
    """Whether some steps were not to score all tasks."""
    return any(matrix.asked_from for matrix in result.scores.values())


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
