"""One dtype for all cells of a comparison whose settings leave it open, also where they run on several machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lifealign.experiments.cells import Cell, finished
from lifealign.experiments.executors import Say
from lifealign.life.disk.names import MANIFEST
from lifealign.life.life import Life
from lifealign.life.settings import STORED_AUTO, LifeConfig
from lifealign.model.auto_dtype import auto_dtype
from lifealign.model.device import current_device


def with_one_dtype(cells: Sequence[Cell], say: Say) -> list[Cell]:
    """The cells with a dtype of the base weights in place of ``auto``: results in two dtypes cannot be compared.

    It is the dtype of the first cell that is finished or begun; if there is none, the one that ``auto`` stands for on
    this machine.

    Args:
        cells: Cells of one comparison.
        say: Called with a line about the choice, if there is one to make.

    Raises:
        ConfigError: If a result file belongs to other settings or other data.
        LifeError: If the life of a cell that is not finished cannot be read.
    """
    if all(cell.experiment.model.dtype != "auto" for cell in cells):
        return list(cells)
    begun = next(_begun(cells), None)
    if begun is not None:
        dtype = begun.model.dtype
    else:
        chosen = auto_dtype(current_device())
        dtype = chosen.dtype
        say(str(chosen))
    return [replace(cell, experiment=cell.experiment.settled(dtype)) for cell in cells]


def _begun(cells: Iterable[Cell]) -> Iterator[LifeConfig]:
    """Settings of results and lives that are there already."""
    for cell in cells:
        result, folder = finished(cell), cell.experiment.output_dir
        if result is not None:
            yield LifeConfig.model_validate(result.settings).settled(STORED_AUTO)
        elif (folder / MANIFEST).exists():
            yield Life.open(folder).shown
