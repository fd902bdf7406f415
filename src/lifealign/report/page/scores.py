"""A score matrix on the page: key figures, heat map, lines over time, and change and fall of every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import CHANGES, PERPLEXITY_CHANGE, PERPLEXITY_METRIC, examples_text, metric_of
from lifealign.life.disk.measurements import Record
from lifealign.report.page.charts.bars import bar_charts
from lifealign.report.page.charts.lines import line_charts
from lifealign.report.page.charts.scales import level


def key_figures(matrices: Mapping[str, ScoreMatrix], records: Sequence[Record]) -> list[dict[str, str]]:
    """The figures that a reader looks for first: those of the first metric, and of general ability."""
    cards = []
    if matrices:
        matrix = next(iter(matrices.values()))
        metric, numbers = metric_of(matrix), matrix.summary()
        unit = metric.unit
        points = "" if unit.of_change == unit.word else f", in {unit.of_change}"
        missing = "a score is missing, so there is no mean" if matrix.holes else "there is none before a second step"
        wanted = {
            "last": (f"{metric.short} now", "mean over all tasks after the last step"),
            "backward_transfer": ("backward transfer", f"mean change of earlier tasks since each was learnt{points}"),
            "forgetting": ("forgetting", f"mean fall of earlier tasks from their best{points}"),
        }
        for key, (label, note) in wanted.items():
            value = numbers[key]
            text = metric.typeset(value, signed=key in CHANGES)
            cards.append(_card(label, text, missing if value is None else note))
    general = records[-1].general
    if general is not None:
        then, now = general["base"]["perplexity"], general["perplexity"]
        metric, change = PERPLEXITY_METRIC, PERPLEXITY_CHANGE.exact(now / then - 1, signed=True)
        note = f"{metric.text(then)} of the base model, {metric.text(now)} now; {metric.direction}"
        cards.append(_card("general-text perplexity", change, note))
    return cards


def _card(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def metric_panel(matrix: ScoreMatrix, steps: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
    """One tab: heat map, lines over time, and change and fall of every task."""
    metric = metric_of(matrix)
    series = {
        task: [
            None if step < matrix.learnt_at[task] or row.get(task) is None else metric.scaled(row[task])
            for step, row in enumerate(matrix.rows)
        ]
        for task in matrix.tasks
    }
    earlier = [task for task in matrix.tasks if matrix.learnt_at[task] < len(matrix.rows) - 1]

    def text(value: float | None, signed: bool) -> str:
        return "missing" if value is None else metric.typeset(value, signed=signed)

    return {
        "key": matrix.metric,
        "label": metric.label,
        "short": metric.short,
        "direction": metric.direction,
        "tasks": list(matrix.tasks),
        "rows": _heat_map(matrix, steps, records),
        "holes": len(matrix.holes) + len(matrix.base_reasons),
        "examples": examples_text(matrix.examples),
        "summary": {key: metric.typeset(value, signed=key in CHANGES) for key, value in matrix.summary().items()},
        "lines": line_charts(series, steps, limits=metric.axis_limits),
        "unit": metric.unit.word,
        "unit_of_change": metric.unit.of_change,
        "bars": bar_charts({task: (matrix.change(task), matrix.fall(task)) for task in earlier}, text),
    }


def _heat_map(matrix: ScoreMatrix, steps: Sequence[str], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows of the heat map, the base model's first; each cell has a kind, a text, a colour level and a tooltip."""
    metric, tasks = metric_of(matrix), matrix.tasks
    values = [*matrix.base.values(), *(score for row in matrix.rows for score in row.values())]
    scale = metric.ends(values)

    def cell(kind: str, score: float | None, where: str, more: str = "", reason: str = "") -> dict[str, Any]:
        if score is None:
            more = f"{reason or 'not measured'}. lifealign evaluate LIFE --metric {matrix.metric}"
            return {"kind": "hole", "text": "missing", "level": None, "more": more, "tip": f"{where}: {more}"}
        tip = f"{where}: {metric.exact(score)}{', ' if more else ''}{more}"
        return {"kind": kind, "text": metric.typeset(score), "level": level(score, *scale), "more": more, "tip": tip}

    base = [
        cell("base", matrix.base.get(task), f"{task}, base model", reason=matrix.base_reasons.get(task, ""))
        for task in tasks
    ]
    rows = [{"label": "base model", "cells": base, "mean": metric.typeset(matrix.summary()["base"])}]
    for step, (label, row) in enumerate(zip(steps, matrix.rows, strict=True)):
        cells = []
        for task in tasks:
            score, learnt = row.get(task), matrix.learnt_at[task]
            then, where = matrix.rows[learnt].get(task), f"{task} after {label}"
            reason = records[step].holes.get(matrix.metric, {}).get(task, "")
            if step < learnt:
                cells.append({"kind": "future", "text": ""})
            elif step == learnt:
                cells.append(cell("new", score, where, "just learnt", reason))
            elif score is None or then is None:
                cells.append(cell("score", score, where, "", reason))
            else:
                since = "as when learnt" if score == then else f"{metric.exact(score - then, signed=True)} since learnt"
                cells.append(cell("score", score, where, since))
        rows.append({"label": label, "cells": cells, "mean": metric.typeset(matrix.row_mean(step))})
    return rows
