"""The report of one life: what its page shows, collected from its files. The model is not loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lifealign.errors import LifeError
from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import METRICS, PERPLEXITY
from lifealign.life import ADAPTER_FILE, Life
from lifealign.records import Record
from lifealign.report.page.answers import changes
from lifealign.report.page.charts import bar_chart, level, line_chart
from lifealign.report.page.render import render
from lifealign.report.terminal import number_text

SHOWN_PROMPTS = 6
"""Prompts whose answers stand open; the others are folded."""
MOST_PROMPTS = 100
"""Prompts in the page at all."""
LAYER = re.compile(r"\.(\d+)\.")
FIGURES = {
    "rank_kept": ("kept rank", "singular directions of the update that were kept"),
    "energy_kept": ("kept energy", "share of the update's squared singular values"),
    "overlap_energy": ("overlap \u03c1", "share of the kept update inside the span of earlier updates"),
    "norm_before": ("norm before", "Frobenius norm of the update as trained"),
    "norm_after": ("norm after", "Frobenius norm of what was added to the long-term memory"),
}


def life_page(life: Life) -> str:
    """The report of a life as one HTML file that needs nothing else.

    The same life gives the same bytes: nothing in it depends on when it was made.

    Args:
        life: The life.

    Raises:
        LifeError: If it has learnt nothing yet, or a file of it is damaged.
    """
    name = life.directory.path.absolute().name
    if not life.steps:
        raise LifeError(f"{life.directory.path}: found no task learnt, expected at least one; `lifealign learn` first")
    records, matrices = life.records, life.scores
    steps = [version.name for version in life.steps]
    base = life.directory.manifest.base
    return render(
        "life.html.j2",
        title=f"{name}: report",
        name=name,
        base=base.model_dump(),
        method=life.config.method.title,
        one_model=life.config.method.one_model,
        steps=steps,
        tasks=[task.name for version in life.steps for task in version.tasks],
        cards=_cards(matrices, records),
        metrics=[_metric(matrix, steps, records) for matrix in matrices.values()],
        unscored=_unscored(life),
        general=_general(records, steps),
        against=_against(life, records),
        prompts=_prompts(records, steps),
        most_prompts=MOST_PROMPTS,
        shown_prompts=SHOWN_PROMPTS,
        consolidation=_consolidation(life),
        figures=FIGURES,
        costs=_costs(life),
        settings=yaml.safe_dump(life.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        environment=dict(sorted(life.directory.manifest.environment.items())),
        is_adapter=any(file.endswith(ADAPTER_FILE) for file in life.versions[-1].files),
        last=steps[-1],
    )


def _cards(matrices: Mapping[str, ScoreMatrix], records: Sequence[Record]) -> list[dict[str, str]]:
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


def _metric(matrix: ScoreMatrix, steps: Sequence[str], records: Sequence[Record]) -> dict[str, Any]:
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


def _unscored(life: Life) -> list[str]:
    """Tasks that have no held-out pairs: nothing of them can be measured."""
    return [task.name for version in life.steps for task in version.tasks if not task.test_pairs]


def _general(records: Sequence[Record], steps: Sequence[str]) -> dict[str, Any] | None:
    """Perplexity on general text of the base and after every step; None where it was never measured."""
    known = [record.general for record in records if record.general is not None]
    if not known:
        return None
    base = known[0]["base"]["perplexity"]
    values = [None if record.general is None else record.general["perplexity"] for record in records]
    rows = []
    before: float | None = base
    for step, value in zip(steps, values, strict=True):
        rows.append(
            {
                "step": step,
                "perplexity": "not measured" if value is None else f"{value:.2f}",
                "from_before": "" if value is None or before is None else f"{value / before - 1:+.1%}",
                "from_base": "" if value is None else f"{value / base - 1:+.1%}",
            }
        )
        before = value
    chart = line_chart({"general text": [base, *values]}, ["base model", *steps], height=200)
    return {"base": f"{base:.2f}", "rows": rows, "chart": chart, "tokens": known[0]["tokens"], "metric": PERPLEXITY}


def _against(life: Life, records: Sequence[Record]) -> list[dict[str, Any]]:
    """What a judge preferred, version by version."""
    return [
        {"version": version.name, "against": other, "judge": found["judge"]["model"], "tasks": found["tasks"]}
        for version, record in zip(life.steps, records, strict=True)
        for other, found in record.against.items()
    ]


def _prompts(records: Sequence[Record], steps: Sequence[str]) -> list[dict[str, Any]]:
    """Prompts with the answers of the base and of every version that has one, evenly spaced ones first."""
    columns: list[tuple[str, dict[str, dict[str, Any]]]] = []
    base: dict[str, dict[str, Any]] = {}
    for step, record in zip(steps, records, strict=True):
        for row in record.base_answers:  # asked by the tasks of several steps, each with its own check
            known = base.get(_key(row), row)
            base[_key(row)] = row | {"holds": known["holds"] | row["holds"]}
        columns.append((step, {_key(row): row for row in record.answers}))
    columns.insert(0, ("base model", base))
    keys = list(dict.fromkeys(key for _, answers in columns for key in answers))
    stride = max(1, len(keys) // SHOWN_PROMPTS)
    first = keys[::stride][:SHOWN_PROMPTS]
    shown = []
    for key in [*first, *(key for key in keys if key not in first)][:MOST_PROMPTS]:
        answers: list[dict[str, Any]] = []
        before: str | None = None
        for label, row in [(label, column[key]) for label, column in columns if key in column]:
            answers.append(
                {
                    "label": label,
                    "pieces": changes(before, row["answer"]),
                    "unchanged": before == row["answer"],
                    "holds": row["holds"],
                }
            )
            before = row["answer"]
        found = next(column[key] for _, column in columns if key in column)
        shown.append({"messages": found["prompt"], "tasks": found.get("tasks", []), "answers": answers})
    return shown


def _key(row: Mapping[str, Any]) -> str:
    return "\x00".join(f"{message['role']}\x01{message['content']}" for message in row["prompt"])


def _consolidation(life: Life) -> list[dict[str, Any]]:
    """Per step and segment: the means, and the overlap of every factor, layer by layer."""
    found = []
    for version in life.steps:
        for segment, content in life.directory.json(f"tasks/{version.name}/consolidation.json").items():
            kinds: dict[str, dict[int, float]] = {}
            for name, figures in content["factors"].items():
                layer = LAYER.search(name)
                kind = ".".join(name.removesuffix(".weight").split(".")[-2:])
                kinds.setdefault(kind, {})[int(layer.group(1)) if layer else 0] = figures["overlap_energy"]
            layers = sorted({layer for by_layer in kinds.values() for layer in by_layer})
            strip = [
                {
                    "kind": kind,
                    "cells": [
                        {
                            "layer": layer,
                            "value": by_layer.get(layer),
                            "level": level(by_layer.get(layer, 0.0), 0.0, 0.5),
                        }
                        for layer in layers
                    ],
                }
                for kind, by_layer in kinds.items()
            ]
            means = {key: content["mean"].get(key) for key in FIGURES}
            found.append({"step": version.name, "segment": segment, "means": means, "strip": strip, "layers": layers})
    return found


def _costs(life: Life) -> list[dict[str, Any]]:
    """What each step was made of and what it took."""
    rows = []
    for version in life.steps:
        training = life.directory.json(f"tasks/{version.name}/training.json")
        time = life.directory.json(f"tasks/{version.name}/time.json")
        used = training["pairs"] + training["replayed_pairs"] - len(training["left_out"])
        rows.append(
            {
                "step": version.name,
                "pairs": training["pairs"],
                "held_out": sum(task.test_pairs for task in version.tasks),
                "replayed": training["replayed_pairs"],
                "share": training["replayed_pairs"] / used if used > 0 else 0.0,
                "left_out": len(training["left_out"]),
                "steps": sum(len(stage) for stage in training["stages"].values()),
                "learning": time.get("learning_seconds", time["seconds"]) / 60,
                "minutes": time["seconds"] / 60,
                "megabytes": sum(record.size for record in version.files.values()) / 1e6,
            }
        )
    return rows
