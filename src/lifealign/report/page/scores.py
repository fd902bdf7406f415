"""A score matrix on the page: key figures, heat map, lines over time, and change and fall of every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix, part_text
from lifealign.evaluation.metrics import CHANGES, PERPLEXITY_CHANGE, PERPLEXITY_METRIC, examples_text, metric_of
from lifealign.life.disk.measurements import Record
from lifealign.report.page.charts.bars import bar_charts
from lifealign.report.page.charts.lines import line_charts
from lifealign.report.page.charts.scales import level

MOST_TASKS = 64
"""Most tasks and steps that are drawn, the latest ones; a life may have hundreds."""


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
        part = matrix.part()
        if part is not None:
            those = f"of the {part.tasks} of {part.of} tasks that were scored after the last step"
            wanted["last"] = (f"{metric.short} now", f"mean {those}")
            wanted["backward_transfer"] = ("change since learnt", f"mean change {those}{points}")
            missing = f"{part.of - part.tasks} of {part.of} tasks were not scored after the last step"
            numbers |= {"last": part.mean, "backward_transfer": part.change}
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
    tasks, shown = matrix.latest(MOST_TASKS)
    series = {
        task: [
            None
            if step < matrix.learnt_at[task] or task not in matrix.rows[step]
            else metric.scaled(matrix.rows[step][task])
            for step in shown
        ]
        for task in tasks
    }
    last = len(matrix.rows) - 1
    scored = {*(matrix.rows[-1] if matrix.rows else ()), *(task for step, task in matrix.holes if step == last)}
    earlier = [task for task in tasks if matrix.learnt_at[task] < last and task in scored]
    left_out = max(len(matrix.tasks) - len(tasks), len(matrix.rows) - len(shown))

    def text(value: float | None, signed: bool) -> str:
        return "missing" if value is None else metric.typeset(value, signed=signed)

    return {
        "key": matrix.metric,
        "label": metric.label,
        "short": metric.short,
        "direction": metric.direction,
        "tasks": tasks,
        "drawn": f"the latest {MOST_TASKS} of {len(matrix.tasks)} tasks and {len(matrix.rows)} steps"
        if left_out
        else "",
        "part": part_text(matrix),
        "rows": _heat_map(matrix, steps, records),
        "holes": len(matrix.holes) + len(matrix.base_reasons),
        "examples": examples_text(matrix.examples),
        "summary": {key: metric.typeset(value, signed=key in CHANGES) for key, value in matrix.summary().items()},
        "lines": line_charts(series, [steps[step] for step in shown], limits=metric.axis_limits),
        "unit": metric.unit.word,
        "unit_of_change": metric.unit.of_change,
        "bars": bar_charts({task: (matrix.change(task), matrix.fall(task)) for task in earlier}, text),
    }


def _heat_map(matrix: ScoreMatrix, steps: Sequence[str], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows of the heat map, the base model's first; each cell has a kind, a text, a colour level and a tooltip."""
    metric, (tasks, shown) = metric_of(matrix), matrix.latest(MOST_TASKS)
    holes = set(matrix.holes)
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
    for step in shown:
        label, row, cells = steps[step], matrix.rows[step], list[dict[str, Any]]()
        for task in tasks:
            score, learnt = row.get(task), matrix.learnt_at[task]
            then, where = matrix.rows[learnt].get(task), f"{task} after {label}"
            reason = records[step].holes.get(matrix.metric, {}).get(task, "")
            if step < learnt:
                cells.append({"kind": "future", "text": ""})
            elif step == learnt:
                cells.append(cell("new", score, where, "just learnt", reason))
            elif score is None and (step, task) not in holes:
                cells.append(
                    {"kind": "unasked", "text": "not scored", "tip": f"{where}: not to be scored (evaluate_last)"}
                )
            elif score is None or then is None:
                cells.append(cell("score", score, where, "", reason))
            else:
                since = "as when learnt" if score == then else f"{metric.exact(score - then, signed=True)} since learnt"
                cells.append(cell("score", score, where, since))
        rows.append({"label": label, "cells": cells, "mean": _mean_of_row(matrix, step)})
    return rows


def _mean_of_row(matrix: ScoreMatrix, step: int) -> str:
    """The mean of a row; of a row that was not to be whole, over how many tasks."""
    metric, part = metric_of(matrix), matrix.part(step)
    if part is None:
        return metric.typeset(matrix.row_mean(step))
    return f"{metric.typeset(part.mean)} ({part.tasks} of {part.of})"
