"""Figures for papers, as SVG and PNG: the score matrix, scores over time, general ability, methods side by side.

Widths are exactly those of one column or of both, so that a figure needs no scaling on a page and letters keep their
size. Nothing here uses ``pyplot`` or the user's own matplotlib settings.
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
    """For each metric, the score matrix as a heat map, and the score of every task over the steps.

    Args:
        matrices: Score matrices by metric.
        steps: Names of the steps.
        general: Figures on general text after each step, as in a life's records. None for a step without them; None in
            place of the list if there are none at all.

    Returns:
        Figures by file name without suffix: ``matrix-METRIC``, ``over-time-METRIC``, and ``general`` if it exists.

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
    """For each order and metric, the methods' last score and backward transfer, with their spread over seeds.

    The spread is one standard deviation.

    Returns:
        Figures by file name without suffix: ``methods-METRIC``, or ``methods-NUMBER-METRIC`` with several orders.

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
        The files: an SVG and a PNG of each figure.

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
