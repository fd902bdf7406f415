"""The figures of consolidation, layer by layer: a strip of cells per LoRA factor, one chart per step and figure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lifealign.report.page.charts.scales import level

LAYER = re.compile(r"\.(\d+)\.")
FIGURES = {
    "rank_kept": ("kept rank", "singular directions of the update that were kept"),
    "energy_kept": ("kept energy", "share of the update's squared singular values"),
    "overlap_energy": ("overlap \u03c1", "share of the kept update inside the span of earlier updates"),
    "norm_before": ("norm before", "Frobenius norm of the update as trained"),
    "norm_after": ("norm after", "Frobenius norm of what was added to the long-term memory"),
}
"""The figures that consolidation records for every factor, each with its short name and its meaning."""
STRIPS = ("overlap_energy", "rank_kept", "energy_kept")
"""Figures that are shown layer by layer."""


@dataclass(frozen=True)
class Cell:
    """One factor of one layer; its place is a column number, because the page stretches strips to its width."""

    column: int
    layer: int
    value: float
    level: int


@dataclass(frozen=True)
class Strip:
    """One figure after one step: a row per kind of factor (``q_proj.lora_A``), a column per layer."""

    layers: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def by_kind(factors: Mapping[str, Mapping[str, float]], figure: str) -> dict[str, dict[int, float]]:
    """One figure of all factors: by kind of factor, then layer.

    Example:
        >>> by_kind({"model.layers.3.self_attn.q_proj.lora_A.weight": {"rank_kept": 2.0}}, "rank_kept")
        {'q_proj.lora_A': {3: 2.0}}
    """
    kinds: dict[str, dict[int, float]] = {}
    for name, figures in factors.items():
        layer = LAYER.search(name)
        kind = ".".join(name.removesuffix(".weight").split(".")[-2:])
        kinds.setdefault(kind, {})[int(layer.group(1)) if layer else 0] = figures[figure]
    return kinds


def strip_chart(kinds: Mapping[str, Mapping[int, float]], scale: tuple[float, float]) -> Strip:
    """Lays out the strips of one step.

    Args:
        kinds: Values by kind of factor, then layer; a layer without the factor has no cell.
        scale: The lowest and highest value of the colour scale.

    Example:
        >>> strip = strip_chart({"q": {0: 0.0, 7: 1.0}, "v": {7: 0.5}}, (0.0, 1.0))
        >>> strip.layers, [[(cell.column, cell.level) for cell in cells] for _, cells in strip.rows]
        ((0, 7), [[(0, 0), (1, 10)], [(1, 5)]])
    """
    layers = sorted({layer for by_layer in kinds.values() for layer in by_layer})
    column = {layer: number for number, layer in enumerate(layers)}
    rows = []
    for kind, by_layer in kinds.items():
        there = sorted(by_layer.items())
        rows.append((kind, tuple(Cell(column[layer], layer, value, level(value, *scale)) for layer, value in there)))
    return Strip(tuple(layers), tuple(rows))


def strip_panels(steps: Sequence[Mapping[str, Any]], lora_rank: int) -> list[dict[str, Any]]:
    """One panel per figure, with the strips of all steps on one scale.

    Args:
        steps: The ``label`` and the ``factors`` of each step, as in ``consolidation.json``.
        lora_rank: The highest possible rank.

    Returns:
        Panels with ``key``, ``short``, ``low``, ``high``, ``more`` (whether a value is beyond the scale), ``layers``
        and ``steps``.
    """
    panels = []
    for figure in STRIPS:
        laid = [(step["label"], by_kind(step["factors"], figure)) for step in steps]
        values = [value for _, kinds in laid for by_layer in kinds.values() for value in by_layer.values()]
        low, high = {"overlap_energy": (0.0, 0.5), "rank_kept": (0.0, float(lora_rank))}.get(figure, (0.8, 1.0))
        if figure == "energy_kept":
            low = min(low, math.floor(10 * min(values, default=low)) / 10)
        panels.append(
            {
                "key": figure,
                "short": FIGURES[figure][0],
                "low": low,
                "high": high,
                "more": any(value > high + 1e-6 for value in values),
                "layers": sorted({layer for _, kinds in laid for by_layer in kinds.values() for layer in by_layer}),
                "steps": [
                    {"label": label, "kinds": kinds, "strip": strip_chart(kinds, (low, high))} for label, kinds in laid
                ],
            }
        )
    return panels
