"""Writes what ``lifealign report`` produces: the page of a life or of several runs, and figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifealign.errors import ConfigError
from lifealign.experiments.result_of_life import load_run
from lifealign.experiments.summary import compare_results
from lifealign.life.disk import names
from lifealign.life.life import Life
from lifealign.life.reading import look_at
from lifealign.report.figures import comparison_figures, life_figures, write_figures
from lifealign.report.page.life_page import life_page
from lifealign.report.page.runs_page import runs_page
from lifealign.storage.files import write_text


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    against: str | None = None,
    figures: Path | None = None,
    recall: bool = False,
) -> tuple[Path, list[Path]]:
    """Writes the report of one life, or of several runs side by side.

    Args:
        runs: The directory of one life; or several lives and result files, or a single result file.
        out: Path of the page; None for ``report.html``, inside the life if there is only one.
        against: For several runs, label of the method that the others are compared with.
        figures: Folder for figures as SVG and PNG, or None for no figures.
        recall: For one life, whether to say of each prompt which tasks it recalls; the model is loaded for it.

    Returns:
        The page, and the files of the figures. Nothing is written unless everything could be made.

    Raises:
        ConfigError: If the runs do not belong together, ``against`` is given with a single life or ``recall`` with
            several, or matplotlib is missing for the figures.
        LifeError: If a life or result file is missing or damaged, or the life has learnt nothing.
    """
    if len(runs) == 1 and not runs[0].is_file():
        if against is not None:
            raise ConfigError("--against: found it with a single life, expected it with several runs")
        page, drawn = look_at(
            runs[0], lambda life: (life_page(life, recall=recall), None if figures is None else _figures(life))
        )
        path = out or runs[0] / names.PAGE
    else:
        if recall:
            raise ConfigError("--recall: found it with several runs, expected it with a single life")
        loaded = [load_run(run) for run in runs]
        page, path = runs_page(loaded, against), out or Path(names.PAGE)
        drawn = None if figures is None else comparison_figures(compare_results(loaded, against))
    written = [] if figures is None or drawn is None else write_figures(figures, drawn)
    write_text(path, page)
    return path, written


def _figures(life: Life) -> dict[str, Any]:
    steps, general = [version.name for version in life.steps], [record.general for record in life.records]
    return life_figures(life.scores, steps, general)
