"""What the page shows of a score matrix: key figures, heat map, lines over time, change and fall of every task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import METRICS, examples_text, number_text
from lifealign.life.disk.measurements import Record
from lifealign.report.page.charts.bars import bar_charts
from lifealign.report.page.charts.lines import line_charts
from lifealign.report.page.charts.scales import level
from lifealign.report.page.render import minus

UNITS = {"share": "per cent", "nats": "nats", "points": "points"}
ZERO = re.compile(r"^[+-](?=[0.]+( |$))")


def shown(metric: str, value: float | None, *, signed: bool = False) -> str:
    """A score as the page shows it: as in the terminal, with a minus sign, zero without any, a dash for none.

    Example:
        >>> shown("adherence", -0.3125, signed=True), shown("adherence", -0.001, signed=True), shown("bleu", None)
        ('\u221231 %', '0 %', '\u2013')
    """
    if value is None:
        return "\u2013"
    return minus(ZERO.sub("", number_text(metric, value, signed=signed)))


def exact(metric: str, value: float, *, signed: bool = False) -> str:
    """A score with the digits that a cell has no room for.

    Example:
        >>> exact("adherence", 0.8333), exact("margin", -1.23456, signed=True), exact("bleu", 27.25)
        ('83.33 %', '\u22121.2346', '27.250')
    """
    sign = "+" if signed else ""
    match METRICS[metric].unit:
        case "share":
            return minus(f"{100 * value:{sign}z.2f} %")
        case "nats":
            return minus(f"{value:{sign}z.4f}")
        case "points":
            return minus(f"{value:{sign}z.3f}")


def key_figures(matrices: Mapping[str, ScoreMatrix], records: Sequence[Record]) -> list[dict[str, str]]:
    """The figures a person looks for first: of the leading metric, and of general ability."""
    cards = []
    if matrices:
        matrix = next(iter(matrices.values()))
        name, numbers = matrix.metric, matrix.summary()
        points = ", in percentage points" if METRICS[name].unit == "share" else ""
        missing = "a score is missing, so there is no mean" if matrix.holes else "there is none before a second step"
        wanted = {
            "last": (f"{METRICS[name].short} now", "mean over all tasks after the last step"),
            "backward_transfer": ("backward transfer", f"mean change of earlier tasks since each was learnt{points}"),
            "forgetting": ("forgetting", f"mean fall of earlier tasks from their best{points}"),
        }
        for key, (label, note) in wanted.items():
            value = numbers[key]
            text = shown(name, value, signed=key == "backward_transfer")
            cards.append(_card(label, text, missing if value is None else note))
    general = records[-1].general
    if general is not None:
        then, now = general["base"]["perplexity"], general["perplexity"]
        text = f"{then:.2f} of the base model, {now:.2f} now; lower is better"
        cards.append(_card("general-text perplexity", minus(f"{100 * (now / then - 1):+z.1f} %"), text))
    return cards


def _card(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def metric_panel(matrix: ScoreMatrix, steps: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
    """One tab: heat map, lines over time, and change and fall of every task."""
    name, metric = matrix.metric, METRICS[matrix.metric]
    factor = 100 if metric.unit == "share" else 1
    series = {
        task: [
            None if step < matrix.learnt_at[task] or row.get(task) is None else factor * row[task]
            for step, row in enumerate(matrix.rows)
        ]
        for task in matrix.tasks
    }
    earlier = [task for task in matrix.tasks if matrix.learnt_at[task] < len(matrix.rows) - 1]

    def text(value: float | None, signed: bool) -> str:
        return "missing" if value is None else shown(name, value, signed=signed)

    return {
        "key": name,
        "label": metric.label,
        "short": metric.short,
        "direction": "higher is better" if matrix.higher_is_better else "lower is better",
        "tasks": list(matrix.tasks),
        "rows": _heat_map(matrix, steps, records),
        "holes": len(matrix.holes) + len(matrix.base_reasons),
        "examples": examples_text(matrix.examples),
        "summary": {
            key: shown(name, value, signed=key == "backward_transfer") for key, value in matrix.summary().items()
        },
        "lines": line_charts(series, steps, limits=(0, 100) if metric.unit == "share" else None),
        "unit": UNITS[metric.unit],
        "bars": bar_charts({task: (matrix.change(task), matrix.fall(task)) for task in earlier}, text),
    }


def _heat_map(matrix: ScoreMatrix, steps: Sequence[str], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows of the heat map, the base model's first; a cell knows what it is, its colour, and more words about it."""
    name, tasks = matrix.metric, matrix.tasks
    values = [*matrix.base.values(), *(score for row in matrix.rows for score in row.values())]
    scale = (0.0, 1.0) if METRICS[name].unit == "share" or not values else (min(values), max(values))

    def cell(kind: str, score: float | None, where: str, more: str = "", reason: str = "") -> dict[str, Any]:
        if score is None:
            more = f"{reason or 'not measured'}. lifealign evaluate LIFE --metric {name}"
            return {"kind": "hole", "text": "missing", "level": None, "more": more, "tip": f"{where}: {more}"}
        tip = f"{where}: {exact(name, score)}{', ' if more else ''}{more}"
        return {"kind": kind, "text": shown(name, score), "level": level(score, *scale), "more": more, "tip": tip}

    base = [
        cell("base", matrix.base.get(task), f"{task}, base model", reason=matrix.base_reasons.get(task, ""))
        for task in tasks
    ]
    rows = [{"label": "base model", "cells": base, "mean": shown(name, matrix.summary()["base"])}]
    for step, (label, row) in enumerate(zip(steps, matrix.rows, strict=True)):
        cells = []
        for task in tasks:
            score, learnt = row.get(task), matrix.learnt_at[task]
            then, where = matrix.rows[learnt].get(task), f"{task} after {label}"
            reason = records[step].holes.get(name, {}).get(task, "")
            if step < learnt:
                cells.append({"kind": "future", "text": ""})
            elif step == learnt:
                cells.append(cell("new", score, where, "just learnt", reason))
            elif score is None or then is None:
                cells.append(cell("score", score, where, "", reason))
            else:
                since = "as when learnt" if score == then else f"{exact(name, score - then, signed=True)} since learnt"
                cells.append(cell("score", score, where, since))
        rows.append({"label": label, "cells": cells, "mean": shown(name, matrix.row_mean(step))})
    return rows
