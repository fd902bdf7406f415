"""An adapter of any of the tasks that a life has learnt: which of them, scores, and the folder that PEFT loads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lifealign.errors import ConfigError, LifeError
from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import METRICS
from lifealign.evaluation.rules import kept_together
from lifealign.life.card.composition_card import composition_card
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.gate_files import Loss, gate_sets_of
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.measurements import held_out_of, score_matrices
from lifealign.life.disk.step_files import as_json
from lifealign.life.gate import loss_since, measure
from lifealign.life.score import general_figures, general_text_of
from lifealign.life.workspace import Workspace
from lifealign.memory.compose import compose, whole_steps
from lifealign.memory.update import Adapter
from lifealign.model.adapter import adapter_fingerprint, install_adapter
from lifealign.settings.faults import nearest
from lifealign.storage.files import write_json, write_text
from lifealign.storage.tensors import write_tensors

COMPOSED = "composed"
"""Name of the row for a composition in a table, below that of the last version."""


@dataclass(frozen=True)
class Composition:
    """An adapter made of some of a life's updates.

    Attributes:
        weights: How much of each step's update is in it, by the step's name, oldest first.
        adapter: The adapter, of the same rank as the life's versions.
        version: The version that it is, byte for byte; None if it is one that the life never was.
    """

    weights: Mapping[str, float]
    adapter: Adapter
    version: str | None


@dataclass(frozen=True)
class Measurement:
    """What was measured of a composition.

    Attributes:
        matrices: By metric, two rows: the last version's scores, as far as they are known, and the composition's. Of
            joint adherence the composition is asked for the rules of the steps whose weight is not 0.
        gates: What the composition has lost of each task's gate prompts since the version that learnt the task; each
            bound is for one look at one task, at the life's confidence. Empty without gates.
        general: Loss and perplexity on general text, of the composition and of the base; None if not measured.
        missing: What could not be measured, and why.
    """

    matrices: Mapping[str, ScoreMatrix]
    gates: Mapping[str, Loss]
    general: Mapping[str, Any] | None
    missing: tuple[str, ...]


def compose_life(
    work: Workspace,
    *,
    without: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
    as_of: str | None = None,
) -> Composition:
    """Puts an adapter together from a life's updates; see :meth:`lifealign.life.life.Life.compose`."""
    directory, method = work.directory, work.config.method
    if method.indivisible:
        raise LifeError(f"{directory.path}: a life of {method.title} cannot be composed: {method.indivisible}")
    chosen = _weights(directory, without, weights or {}, as_of)
    whole = whole_steps(list(chosen.values()))
    if whole is not None:
        version = directory.versions[whole].name
        return Composition(chosen, read_adapter_of(directory, version), version)
    read = (read_adapter_of(directory, version.name) for version in directory.versions)
    adapter = compose(read, list(chosen.values()))
    if not all(torch.isfinite(factor).all() for factor in adapter.values()):
        largest = max(chosen.values(), key=abs)
        raise ConfigError(f"weights: found {largest:g}, with which the adapter is not finite, expected a smaller one")
    return Composition(chosen, adapter, None)


def score_composition(work: Workspace, composition: Composition) -> Measurement:
    """Scores a composition on the held-out data of every task, on their gate prompts and on general text.

    Scores are made under the life's own settings; on gate prompts a model answers greedily, as at the gate itself.
    Nothing is kept but what the caches hold.

    Raises:
        ConfigError: If the general text differs from that of the life's steps.
        LifeError: If another process holds the life.
    """
    steps = {version.name: held_out_of(work.directory, version) for version in work.directory.steps}
    in_it = kept_together([steps[name] for name, weight in composition.weights.items() if weight])
    asked = {task.name: task for task in in_it}
    tasks = [asked.get(task.name, task) for learnt in steps.values() for task in learnt]
    policy = adapter_fingerprint(composition.adapter)
    passages = general_text_of(work)
    gates = [one for step in work.steps for one in gate_sets_of(work.directory, step) if one.values is not None]
    with work.writing():
        try:
            install_adapter(work.runtime.model, composition.adapter)
            scores = work.evaluator().score(tasks, policy)
            general = general_figures(work, work.evaluator(), passages, policy, scores)
            seen = measure(work, gates)
        finally:
            work.forget_loaded()
    known = score_matrices(work.directory)
    matrices = {}
    for metric, row in scores.values.items():
        matrix = known.get(metric) or ScoreMatrix(metric, METRICS[metric].higher_is_better, (), {}, [{}], counts=[{}])
        scored = [task.name for task in tasks if task.name in row or task.name in matrix.tasks]
        matrices[metric] = replace(
            matrix,
            tasks=scored,
            learnt_at=dict.fromkeys(scored, 0),
            rows=[matrix.rows[-1], row],
            counts=[matrix.counts[-1], scores.counts[metric]],
            reasons={},
            asked_from=(),
        )
    alpha = 1 - work.config.retention.confidence
    losses = {one.task: loss_since(one, seen, alpha) for one in gates if one.task in seen.values}
    return Measurement(matrices, losses, general, (*scores.broken, *([seen.why] if seen.why else [])))


def write_composition(work: Workspace, composition: Composition, out: Path, measured: Measurement | None) -> None:
    """Writes a composition as a folder that PEFT loads, with a card and ``composition.json``.

    The file that PEFT looks for first is written last.

    Args:
        work: The life.
        composition: The composition.
        out: A folder that does not exist or is empty, outside the life.
        measured: What was measured of it; None if it was not scored.

    Raises:
        LifeError: If there is something in the folder, it is in the life, or it cannot be written.
    """
    require_free(work.directory, out)
    config = work.directory.json(names.adapter_config(work.directory.versions[-1].name))
    record = {
        "life": work.directory.path.absolute().name,
        "base": work.directory.manifest.base.fingerprint,
        "weights": dict(composition.weights),
        "version": composition.version,
        "adapter": adapter_fingerprint(composition.adapter),
        "scores": {metric: dict(matrix.rows[-1]) for metric, matrix in measured.matrices.items()} if measured else {},
        "gates": {task: as_json(loss) for task, loss in measured.gates.items()} if measured else {},
        "general": measured.general if measured else None,
    }
    card = composition_card(
        work.directory.manifest.base,
        work.config.model,
        work.config.license,
        work.directory.steps,
        composition.weights,
        composition.version,
        measured.matrices if measured else {},
        {task: loss.text for task, loss in measured.gates.items()} if measured else {},
        measured.general if measured else None,
    )
    write_tensors(out / names.ADAPTER_WEIGHTS, composition.adapter)
    write_json(out / "composition.json", record)
    write_text(out / "README.md", card)
    write_json(out / "adapter_config.json", config)


def require_free(directory: LifeDirectory, out: Path) -> None:
    """Refuses a folder that is in use, or inside the life, where a file that it does not know would be deleted."""
    if out.resolve().is_relative_to(directory.path.resolve()):
        raise LifeError(f"{out}: found a folder of the life itself, expected one outside it")
    try:
        if any(out.iterdir()):
            raise LifeError(f"{out}: found a directory that is not empty, expected an empty or new one")
    except FileNotFoundError:
        return
    except OSError as error:
        raise LifeError(f"{out}: could not be read: {error.strerror}") from error


def _weights(
    directory: LifeDirectory, without: Collection[str], weights: Mapping[str, float], as_of: str | None
) -> dict[str, float]:
    """The weight of each step.

    Raises:
        ConfigError: If a task is named that was not learnt by then, is named twice, or shares its step with others
            that are not named; or a weight is not finite.
        LifeError: If there is no such version.
    """
    last = len(directory.steps) if as_of is None else directory.index(as_of)
    tasks = {task.name: version for version in directory.steps[:last] for task in version.tasks}
    given = {name: 0.0 for name in without}
    for name, weight in weights.items():
        if name in given:
            raise ConfigError(f"{name}: found it left out and with a weight, expected one or the other")
        if not math.isfinite(weight):
            raise ConfigError(f"{name}: found a weight of {weight}, expected a finite number")
        given[name] = float(weight)
    for name in given:
        if name not in tasks:
            by_then = "a task that was learnt" + (f" by {as_of}" if as_of is not None else "")
            raise ConfigError(f"found {name!r}, expected {by_then}: {', '.join(tasks) or 'none'}{nearest(name, tasks)}")
    chosen = {}
    for place, version in enumerate(directory.steps):
        of_step = {given.get(task.name, 1.0) for task in version.tasks} if place < last else {0.0}
        if len(of_step) > 1:
            learnt = ", ".join(task.name for task in version.tasks)
            raise ConfigError(f"{version.name}: found different weights for {learnt}, which were learnt in one step")
        chosen[version.name] = of_step.pop()
    return chosen
