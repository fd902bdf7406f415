"""What the page shows of a score matrix: key figures, heat map, lines over time, change and fall of every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import METRICS
from lifealign.records import Record
from lifealign.report.page.charts import bar_chart, level, line_chart
from lifealign.report.terminal import number_text


def key_figures(matrices: Mapping[str, ScoreMatrix], records: Sequence[Record]) -> list[dict[str, str]]:
    """The figures a person looks for first: of the leading metric, and of general ability."""
    cards = []
    if matrices:
        matrix = next(iter(matrices.values()))
        short, numbers = METRICS[matrix.metric].short, matrix.summary()
        cards = [
            _card(
                f"{short} now", number_text(matrix.metric, numbers["last"]), "mean over all tasks after the last step"
            ),
            _card(
                "backward transfer",
                number_text(matrix.metric, numbers["backward_transfer"], signed=True),
                "mean change of earlier tasks since each was learnt",
            ),
            _card(
                "forgetting",
                number_text(matrix.metric, numbers["forgetting"]),
                "mean fall of earlier tasks from their best",
            ),
        ]
    general = records[-1].general
    if general is not None:
        change = general["perplexity"] / general["base"]["perplexity"] - 1
        text = f"{general['perplexity']:.2f}, base {general['base']['perplexity']:.2f}; lower is better"
        cards.append(_card("general-text perplexity", f"{change:+.1%}".replace("%", " %"), text))
    return cards


def _card(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def metric_panel(matrix: ScoreMatrix, steps: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
    """One tab: heat map, lines over time, and change and fall of every task."""
    name, metric = matrix.metric, METRICS[matrix.metric]
    values = [*matrix.base.values(), *(score for row in matrix.rows for score in row.values())]
    low, high = (0.0, 1.0) if metric.unit == "share" else (min(values), max(values))

    def cell(score: float | None, kind: str, tip: str) -> dict[str, Any]:
        return {
            "text": number_text(name, score) if score is not None else "",
            "level": None if score is None else level(score, low, high),
            "kind": kind if score is not None or kind == "future" else "hole",
            "tip": tip,
        }

    rows = [
        {
            "label": "base model",
            "cells": [
                cell(matrix.base.get(task), "base", f"{task}, base model: {number_text(name, matrix.base.get(task))}")
                for task in matrix.tasks
            ],
            "mean": number_text(name, matrix.summary()["base"]),
        }
    ]
    for step, (label, row) in enumerate(zip(steps, matrix.rows, strict=True)):
        cells = []
        for task in matrix.tasks:
            score, learnt = row.get(task), matrix.learnt_at[task]
            if step < learnt:
                cells.append(cell(None, "future", ""))
                continue
            tip = f"{task} after {label}: {number_text(name, score)}"
            then = matrix.rows[learnt].get(task)
            if score is None:
                reason = records[step].holes.get(name, {}).get(task, "not measured")
                tip = f"{task} after {label}: {reason}. lifealign evaluate LIFE --metric {name}"
            elif step > learnt and then is not None:
                tip += f", {number_text(name, score - then, signed=True)} since it was learnt"
            cells.append(cell(score, "new" if step == learnt else "score", tip))
        rows.append({"label": label, "cells": cells, "mean": number_text(name, matrix.row_mean(step))})
    factor = 100 if metric.unit == "share" else 1
    series = {
        task: [
            None if step < matrix.learnt_at[task] or row.get(task) is None else factor * row[task]
            for step, row in enumerate(matrix.rows)
        ]
        for task in matrix.tasks
    }
    earlier = [task for task in matrix.tasks if matrix.learnt_at[task] < len(matrix.rows) - 1]
    return {
        "key": name,
        "label": metric.label,
        "short": metric.short,
        "direction": "higher is better" if matrix.higher_is_better else "lower is better",
        "tasks": list(matrix.tasks),
        "rows": rows,
        "holes": len(matrix.holes),
        "summary": {
            key: number_text(name, value, signed=key == "backward_transfer") for key, value in matrix.summary().items()
        },
        "lines": line_chart(series, steps, limits=(0, 100) if metric.unit == "share" else None),
        "unit": {"share": "per cent", "nats": "nats", "points": "points"}[metric.unit],
        "changes": _bars(name, {task: matrix.change(task) for task in earlier}, signed=True),
        "falls": _bars(name, {task: matrix.fall(task) for task in earlier}, signed=False),
    }


def _bars(metric: str, values: Mapping[str, float | None], *, signed: bool) -> dict[str, Any]:
    texts = {
        task: "missing" if value is None else number_text(metric, value, signed=signed)
        for task, value in values.items()
    }
    return {"chart": bar_chart(values), "texts": texts}
