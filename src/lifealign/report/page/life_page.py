"""The report of one life: what its page shows, collected from its files."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import yaml

from lifealign.errors import LifeError
from lifealign.evaluation.metrics import PERPLEXITY, PERPLEXITY_CHANGE, PERPLEXITY_METRIC
from lifealign.life.card import loading_code as loading
from lifealign.life.card.loading_code import short_name
from lifealign.life.disk import names
from lifealign.life.disk.measurements import Record
from lifealign.life.disk.step_files import consolidation, time_taken, training
from lifealign.life.life import Life
from lifealign.report.page.answers import MOST_PROMPTS, SHOWN_PROMPTS, empty_answers, prompt_cards
from lifealign.report.page.charts.layer_strips import FIGURES, strip_panels
from lifealign.report.page.charts.lines import line_charts
from lifealign.report.page.recall import recall_panel, recalled_line
from lifealign.report.page.render import render
from lifealign.report.page.retention import retention_panels
from lifealign.report.page.scores import key_figures, metric_panel


def life_page(life: Life, *, recall: bool = False) -> str:
    """The report of a life as one HTML file that needs nothing else.

    The same life gives the same bytes: nothing in it depends on when it was made.

    Args:
        life: The life.
        recall: Whether to say of every prompt which tasks it recalls and which version answers it; the model is loaded
            for it, and for nothing else.

    Raises:
        LifeError: If it has learnt nothing yet, a file of it is damaged, or nothing is kept of the prompts of a task
            that is to be recalled.
        ModelError: If the model cannot be loaded, or does not show its hidden states.
    """
    if not life.steps:
        raise LifeError(f"{life.directory.path}: found no task learnt, expected at least one; `lifealign learn` first")
    records, matrices = life.records, life.scores
    steps = [version.name for version in life.steps]
    tasks = [task.name for version in life.steps for task in version.tasks]
    name, base = folder_name(life), life.directory.manifest.base
    consolidated = _consolidation(life)
    prompts = prompt_cards(records, steps, tasks)
    if recall:
        prompts = [card | {"recalled": recalled_line(life, card["messages"])} for card in prompts]
    return render(
        "life.html.j2",
        title=f"{name}: report",
        name=name,
        base=base.model_dump(),
        base_name=short_name(base.model_name_or_path),
        method=life.shown.method.title,
        one_model=life.shown.method.one_model,
        steps=steps,
        tasks=tasks,
        cards=key_figures(matrices, records),
        metrics=[metric_panel(matrix, steps, records) for matrix in matrices.values()],
        unscored=_unscored(life),
        general=_general(records, steps),
        retention=retention_panels(life),
        recall=recall_panel(life),
        retention_confidence=life.shown.retention.confidence,
        against=_against(life, records),
        prompts=prompts,
        empty=empty_answers(records, steps),
        most_prompts=MOST_PROMPTS,
        shown_prompts=SHOWN_PROMPTS,
        consolidation=consolidated,
        strips=strip_panels(consolidated, life.shown.lora.lora_r),
        figures=FIGURES,
        costs=_costs(life),
        settings=yaml.safe_dump(life.shown.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        environment=dict(sorted(life.directory.manifest.environment.items())),
        peft_code=peft_code(life),
        life_code=life_code(life),
        embedded=life.shown.model.is_embedded,
    )


def _unscored(life: Life) -> list[str]:
    """Tasks without held-out pairs, on which nothing can be measured."""
    return [task.name for version in life.steps for task in version.tasks if not task.test_pairs]


def _general(records: Sequence[Record], steps: Sequence[str]) -> dict[str, Any] | None:
    """Perplexity on general text, of the base and after every step; None if it was never measured."""
    known = [record.general for record in records if record.general is not None]
    if not known:
        return None
    holes = [", ".join(record.holes.get(PERPLEXITY, {}).values()) for record in records]
    base = known[0]["base"]["perplexity"]
    values = [None if record.general is None else record.general["perplexity"] for record in records]
    rows = []
    before: float | None = base
    for step, value, why in zip(steps, values, holes, strict=True):
        rows.append(
            {
                "step": step,
                "perplexity": (why or "not measured") if value is None else PERPLEXITY_METRIC.text(value),
                "from_before": "" if value is None or before is None else _change(value, before),
                "from_base": "" if value is None else _change(value, base),
            }
        )
        before = value
    charts = line_charts({"general text": [base, *values]}, ["base model", *steps], height=200)
    return {
        "base": PERPLEXITY_METRIC.text(base),
        "rows": rows,
        "charts": charts,
        "tokens": known[0]["tokens"],
        "direction": PERPLEXITY_METRIC.direction,
    }


def _change(now: float, before: float) -> str:
    return PERPLEXITY_CHANGE.exact(now / before - 1, signed=True)


def _against(life: Life, records: Sequence[Record]) -> list[dict[str, Any]]:
    """A judge's preferences, version by version."""
    return [
        {"version": version.name, "against": other, "judge": found["judge"]["model"], "tasks": found["tasks"]}
        for version, record in zip(life.steps, records, strict=True)
        for other, found in record.against.items()
    ]


def _consolidation(life: Life) -> list[dict[str, Any]]:
    """Per step and segment, the means over all factors and the figures of each factor."""
    found = []
    for version in life.steps:
        for segment, content in consolidation(life.directory, version.name).items():
            label = version.name if segment == "task" else f"{version.name}, {segment}"
            means = {key: None if content.mean is None else getattr(content.mean, key) for key in FIGURES}
            factors = {name: figures.model_dump() for name, figures in content.factors.items()}
            found.append({"label": label, "means": means, "factors": factors})
    return found


def _costs(life: Life) -> list[dict[str, Any]]:
    """What each step was trained on, and the time and space that it took."""
    rows = []
    for version in life.steps:
        trained, time = training(life.directory, version.name), time_taken(life.directory, version.name)
        skipped = [row["skipped"] for row in trained.stages.get("preference", ()) if "skipped" in row]
        used = trained.pairs + trained.replayed_pairs - len(trained.left_out)
        rows.append(
            {
                "step": f"{version.name} (adopted)" if version.name == life.directory.adopted else version.name,
                "supersedes": [name for task in version.tasks for name in task.supersedes],
                "pairs": trained.pairs,
                "held_out": sum(task.test_pairs for task in version.tasks),
                "replayed": trained.replayed_pairs,
                "share": trained.replayed_pairs / used if used > 0 else 0.0,
                "left_out": len(trained.left_out),
                "steps": sum(row.get("skipped") != 1 for stage in trained.stages.values() for row in stage),
                "skipped": fmean(skipped) if skipped else 0.0,
                "learning": time.learning_seconds / 60,
                "minutes": time.seconds / 60,
                "megabytes": sum(record.size for record in version.files.values()) / 1e6,
            }
        )
    return rows


def peft_code(life: Life) -> str | None:
    """Code that loads the last version with PEFT and without lifealign; None if it is not a LoRA adapter."""
    last, base = life.versions[-1], life.directory.manifest.base
    if names.adapter_weights(last.name) not in last.files:
        return None
    adapter = f"{folder_name(life)}/{names.version_folder(last.name)}"
    shown = life.shown.model
    return loading.peft_code(
        base.model_name_or_path, adapter, dtype=shown.dtype, in_4bit=shown.load_in_4bit, revision=base.revision
    )


def life_code(life: Life) -> str:
    """Code that loads the last version with lifealign."""
    return loading.life_code(folder_name(life), life.versions[-1].name)


def folder_name(life: Life) -> str:
    """Name of the life's directory without its location, because the page may be read on another machine."""
    return life.directory.path.absolute().name
