"""The result of a life: the content of its result file, gathered from the files of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from lifealign.errors import ConfigError, LifeError
from lifealign.evaluation.metrics import PERPLEXITY
from lifealign.experiments.result import (
    Base,
    Cost,
    LearntTask,
    Matrix,
    RunResult,
    StageSummary,
    StepResult,
    StepRetention,
)
from lifealign.experiments.result_file import load_result, write_result
from lifealign.life.disk import names
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.disk.manifest import Version
from lifealign.life.disk.step_files import Figures, General, consolidation, saved_method, time_taken, training
from lifealign.life.disk.typed_json import validated
from lifealign.life.life import Life
from lifealign.storage.files import tensor_bytes


def result_of(life: Life, *, label: str | None = None, order: str | None = None) -> RunResult:
    """The content of a life's result file: settings, scores, consolidation figures, sizes and times.

    Args:
        life: The life.
        label: Row of a comparison's tables; the method's title by default.
        order: Name of the order of its tasks; their names by default.

    Raises:
        LifeError: If one of its files is damaged, or is not as a step writes it.
    """
    method, manifest = life.shown.method, life.directory.manifest
    content = {
        "label": method.title if label is None else label,
        "order": ", ".join(task.name for step in life.steps for task in step.tasks) if order is None else order,
        "method": method.key,
        "settings": life.shown.model_dump(mode="json"),
        "environment": manifest.environment,
        "base": Base(**manifest.base.model_dump()),
        "one_model": method.one_model,
        "scores": {metric: Matrix(**matrix.as_dict()) for metric, matrix in life.scores.items()},
        "outcomes": _outcomes(life),
        "general_text": [None if one.general is None else General(**one.general) for one in life.records],
        "general_text_holes": {
            version.name: why
            for version, record in zip(life.steps, life.records, strict=True)
            for why in record.holes.get(PERPLEXITY, {}).values()
        },
        "cost": _cost(life),
        "steps": [_step(life, version) for version in life.steps],
    }
    return validated(life.directory.path, content, RunResult)


def save_result(life: Life, path: Path) -> None:
    """Writes a life's result file to another place, such as ``results/``."""
    write_result(path, result_of(life))


def _step(life: Life, version: Version) -> StepResult:
    directory, trained = life.directory, training(life.directory, version.name)
    consolidated = consolidation(directory, version.name)
    return StepResult(
        name=version.name,
        tasks=[LearntTask(**task.model_dump(exclude={"check", "supersedes"})) for task in version.tasks],
        replayed_pairs=trained.replayed_pairs,
        left_out=len(trained.left_out),
        stages={stage: _stage_summary(rows) for stage, rows in trained.stages.items()},
        losses={stage: [round(row["loss"], 5) for row in rows] for stage, rows in trained.stages.items()},
        method_state=saved_method(directory, version.name).values,
        consolidation={name: one.mean for name, one in consolidated.items() if one.mean is not None},
        consolidation_by_factor={name: _by_kind(one.factors) for name, one in consolidated.items() if one.factors},
        seconds=time_taken(directory, version.name).seconds,
        retention=_retention(life, version),
    )


def _retention(life: Life, version: Version) -> StepRetention | None:
    evidence = retention_of(life.directory, version)
    if evidence is None or not evidence.losses:
        return None
    worst = max(loss.flips.change for loss in evidence.losses.values())
    return StepRetention(kept=evidence.verdict == "kept", worst=round(worst, 5))


def _outcomes(life: Life) -> dict[str, list[dict[str, list[float | None]]]]:
    """Per metric and step, by task, the value of every held-out example.

    A step in which no task had the metric, such as one before the first task with a check, has an empty row. A metric
    that is not a mean over examples, such as BLEU of a corpus, is absent.
    """
    rows = [record.outcomes for record in life.records]
    return {
        metric: [
            {
                task: [None if one is None else round(one, 4) for one in outcomes]
                for task, outcomes in row.get(metric, {}).items()
            }
            for row in rows
        ]
        for metric in life.scores
        if any(metric in row for row in rows)
    }


def _cost(life: Life) -> Cost:
    """What the method took: seconds of learning, bytes it has to keep, peak memory."""
    directory, method = life.directory, life.shown.method
    times = [time_taken(directory, version.name) for version in life.steps]
    kept = [names.refined_updates(version.name) for version in life.steps] if method.keeps_updates else []
    kept += [names.remembered_pairs(version.name) for version in life.steps]
    sizes = {name: record.size for version in life.versions for name, record in version.files.items()}
    if missing := [name for name in kept if name not in sizes]:
        raise LifeError(f"{directory.path}: found no {missing[0]} in the manifest, expected one; the life is damaged")
    state = directory.verified(names.method_tensors(life.steps[-1].name)) if life.steps else None
    last = f"{names.version_folder(life.versions[-1].name)}/"
    tensors = [name for name in sizes if name.startswith(last) and name.endswith(".safetensors")]
    return Cost(
        seconds=sum(time.learning_seconds for time in times),
        seconds_with_scoring=sum(time.seconds for time in times),
        state_bytes=sum(sizes[name] for name in kept) + (0 if state is None else tensor_bytes(state)),
        adapter_bytes=sum(sizes[name] for name in tensors) * (1 if method.one_model else len(life.steps)),
        peak_memory_bytes=max((time.peak_memory_bytes for time in times), default=None),
    )


def _stage_summary(rows: Sequence[Mapping[str, float]]) -> StageSummary:
    """The first and the last optimizer step of a stage, and the mean over all of them."""
    if not rows:
        return StageSummary(optimizer_steps=0, first=None, last=None, mean=None)
    mean = {name: round(fmean(row[name] for row in rows), 5) for name in rows[0] if all(name in row for row in rows)}
    return StageSummary(optimizer_steps=len(rows), first=dict(rows[0]), last=dict(rows[-1]), mean=mean)


def _by_kind(factors: Mapping[str, Figures]) -> dict[str, Figures]:
    """Means of the figures over the layers, per target module and factor (``q_proj.lora_A``)."""
    kinds: dict[str, list[Figures]] = {}
    for name, figures in factors.items():
        kinds.setdefault(".".join(name.removesuffix(".weight").split(".")[-2:]), []).append(figures)
    return {
        kind: Figures(**{name: round(fmean(getattr(row, name) for row in rows), 5) for name in Figures.model_fields})
        for kind, rows in kinds.items()
    }


def load_run(path: Path) -> RunResult:
    """Reads a run: the directory of a life, or a result file.

    Raises:
        ConfigError: If the path is neither.
        LifeError: If the life or the file is damaged, or the file is not a result file.
    """
    if (path / names.MANIFEST).is_file():
        return result_of(Life.open(path))
    if path.is_file():
        return load_result(path)
    what = "a directory without life.json" if path.is_dir() else "nothing"
    raise ConfigError(f"{path}: found {what}, expected a life or a result file")
