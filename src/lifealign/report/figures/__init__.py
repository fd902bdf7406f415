"""Figures for papers, as SVG and PNG: the score matrix, scores over time, general ability, methods side by side.

Widths are those of one column or of both, exactly, so that a page takes a figure without scaling it and letters keep
their size. Nothing here uses ``pyplot`` or the settings of whoever runs it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.experiments.comparison import Comparison
from lifealign.report.figures.heat_map import heat_map
from lifealign.report.figures.lines import general_text, over_time
from lifealign.report.figures.methods import methods_side_by_side
from lifealign.report.figures.style import Figure, look
from lifealign.storage.files import write_bytes


def life_figures(
    matrices: Mapping[str, ScoreMatrix],
    steps: Sequence[str],
    general: Sequence[Mapping[str, Any] | None] | None = None,
) -> dict[str, Figure]:
    """Of each metric the score matrix as a heat map, and the score of every task over the steps.

    Args:
        matrices: Score matrices by metric.
        steps: Names of the steps.
        general: Figures on general text after each step, as a life's records have them; None, or a step's None, where
            they were not measured.

    Returns:
        Figures by file name without ending: ``matrix-METRIC``, ``over-time-METRIC``, and ``general`` if there is any.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    figures = {}
    with look():
        for name, matrix in matrices.items():
            figures[f"matrix-{name}"] = heat_map(matrix, steps)
            figures[f"over-time-{name}"] = over_time(matrix, steps)
        if general is not None and any(record is not None for record in general):
            figures["general"] = general_text(general, steps)
    return figures


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """Of each order and metric the methods' last score and backward transfer, with one standard deviation over seeds.

    Returns:
        Figures by file name without ending: ``methods-METRIC``, with several orders ``methods-NUMBER-METRIC``.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    figures = {}
    several = len(comparison.orders) > 1
    with look():
        for number, order in enumerate(comparison.orders, start=1):
            for table in order.metrics:
                place = f"-{number}" if several else ""
                figures[f"methods{place}-{table.metric}"] = methods_side_by_side(table, order, several)
    return figures


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Writes figures as SVG, with text as text, and as PNG of 300 dpi; the same figures give the same bytes.

    Returns:
        The files, an SVG and a PNG of each figure.

    Raises:
        ConfigError: If matplotlib is not installed.
        LifeError: If a file could not be written.
    """
    paths = []
    formats: dict[str, dict[str, Any]] = {
        "svg": {"metadata": {"Date": None, "Creator": None}},
        "png": {"metadata": {"Software": None}, "dpi": 300},
    }
    with look():
        for name, figure in figures.items():
            for ending, more in formats.items():
                content = io.BytesIO()
                figure.savefig(content, format=ending, **more)
                path = folder / f"{name}.{ending}"
                write_bytes(path, content.getvalue())
                paths.append(path)
    return paths
