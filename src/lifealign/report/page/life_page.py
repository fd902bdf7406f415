"""The report of one life: what its page shows, collected from its files. The model is not loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lifealign.errors import LifeError
from lifealign.evaluation.metrics import PERPLEXITY
from lifealign.life import ADAPTER_FILE, Life
from lifealign.records import Record
from lifealign.report.page.charts import level, line_chart
from lifealign.report.page.prompts import MOST_PROMPTS, SHOWN_PROMPTS, empty_answers, prompt_cards
from lifealign.report.page.render import render
from lifealign.report.page.scores import key_figures, metric_panel

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
        cards=key_figures(matrices, records),
        metrics=[metric_panel(matrix, steps, records) for matrix in matrices.values()],
        unscored=_unscored(life),
        general=_general(records, steps),
        against=_against(life, records),
        prompts=prompt_cards(records, steps),
        empty=empty_answers(records, steps),
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


def _consolidation(life: Life) -> list[dict[str, Any]]:
    """Per step and segment: the means, and of every factor, layer by layer, what is shown as a strip."""
    scales = {
        "overlap_energy": (0.0, 0.5),
        "rank_kept": (0.0, float(life.config.lora.lora_r)),
        "energy_kept": (0.8, 1.0),
    }
    found = []
    for version in life.steps:
        for segment, content in life.directory.json(f"tasks/{version.name}/consolidation.json").items():
            strips = [_strip(content["factors"], figure, *scale) for figure, scale in scales.items()]
            means = {key: content["mean"].get(key) for key in FIGURES}
            found.append({"step": version.name, "segment": segment, "means": means, "strips": strips})
    return found


def _strip(factors: Mapping[str, Mapping[str, float]], figure: str, low: float, high: float) -> dict[str, Any]:
    """One figure of all factors: a row per kind of factor (``q_proj.lora_A``), a cell per layer."""
    kinds: dict[str, dict[int, float]] = {}
    for name, figures in factors.items():
        layer = LAYER.search(name)
        kind = ".".join(name.removesuffix(".weight").split(".")[-2:])
        kinds.setdefault(kind, {})[int(layer.group(1)) if layer else 0] = figures[figure]
    layers = sorted({layer for by_layer in kinds.values() for layer in by_layer})
    rows = [
        {
            "kind": kind,
            "cells": [
                {"layer": layer, "value": by_layer.get(layer), "level": level(by_layer.get(layer, low), low, high)}
                for layer in layers
            ],
        }
        for kind, by_layer in kinds.items()
    ]
    return {"label": FIGURES[figure][0], "low": low, "high": high, "rows": rows, "layers": layers}


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
