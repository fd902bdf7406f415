"""Writes everything that a step has produced, then commits it to the life."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lifealign.data.replay import sample_for_replay
from lifealign.evaluation.metrics import PERPLEXITY
from lifealign.evaluation.scores import reason_of
from lifealign.life.card.markdown import plain
from lifealign.life.card.model_card import CardFacts, model_card
from lifealign.life.disk import names
from lifealign.life.disk.learnt import adapter_files, replay_rows, taught_rows
from lifealign.life.disk.manifest import TaskRecord, Version
from lifealign.life.disk.measurements import GENERAL_TEXT, own_scores_of, score_matrices, update_scores
from lifealign.life.disk.memory import keep_sketch
from lifealign.life.disk.recall_files import Recalling
from lifealign.life.disk.step_files import Adopted, Consolidated, SavedMethod, Time, Training, as_json
from lifealign.life.gate import Gated
from lifealign.life.hold_back import HeldBack
from lifealign.life.mix import Examples
from lifealign.life.score import Measured, ToScore
from lifealign.life.step import Learnt, step_seed
from lifealign.life.workspace import Workspace
from lifealign.methods.base import Step
from lifealign.model.embedded import EMBEDDED_LICENSE
from lifealign.model.prompt_pool import prompt_pool
from lifealign.training.objectives import StageName
from lifealign.training.peak_memory import peak_memory_bytes
from lifealign.training.stage_state import LogRow


def commit(
    work: Workspace,
    held_back: HeldBack,
    held_out: ToScore,
    examples: Examples,
    logs: Mapping[StageName, Sequence[LogRow]],
    gated: Gated,
    learnt: Learnt,
    keys: Mapping[str, Tensor],
    apart: Recalling,
    measured: Measured,
    started: float,
    say: Callable[[str], None],
    *,
    adopted: Adopted | None = None,
) -> Version:
    """Makes a step part of the life: all of it, or nothing.

    Args:
        work: The life, locked.
        held_back: The step of the lifelong loop, and what it held back.
        held_out: What it was scored on.
        examples: What it was trained on.
        logs: Log rows of the optimizer steps, by stage.
        gated: What the gate has decided.
        learnt: What was learnt.
        keys: What is kept of the prompts of its tasks; empty if nothing could be.
        apart: How well these prompts can be told from those of earlier tasks.
        measured: What was measured.
        started: When the step began, on the clock of :func:`time.monotonic`.
        say: Called with a line if the model card cannot be made.
        adopted: Where the adapter is from, if it was not learnt here.

    Raises:
        LifeError: If a file cannot be written; the life is as it was before the step.
    """
    step = held_back.step
    fraction = work.config.replay_or_default.fraction
    drawn = {
        task.name: sample_for_replay(task.train, fraction, step_seed(work, step, f"replay {task.name}"))
        for task in step.tasks
    }
    tasks = [
        TaskRecord(
            name=task.name,
            train_pairs=len(task.train),
            test_pairs=len(scored.pairs),  # held out is what is scored
            data_hash=given.data_hash,
            check=None if task.check is None else task.check.model_dump(mode="json"),
            supersedes=list(task.supersedes),
        )
        for task, given, scored in zip(step.tasks, held_back.given, held_out.new, strict=True)
    ]
    training = Training(
        seed=step_seed(work, step),
        pairs=sum(len(task.train) for task in step.tasks),
        replayed_pairs=examples.replayed,
        left_out=list(examples.left_out),
        left_out_held_out={task: list(places) for task, places in held_out.left_out.items()},
        stages={stage: list(rows) for stage, rows in logs.items()},
    )
    method = SavedMethod(method=work.config.model_dump(mode="json")["method"], values=dict(learnt.values))
    base = work.directory.manifest.base
    files: dict[str, Any] = {
        **adapter_files(step.name, work.runtime.model, learnt.adapter, base),
        names.model_card(step.name): _card(work, step, tasks, measured, gated, say, adopted is not None),
        names.refined_updates(step.name): learnt.refined,
        names.method_tensors(step.name): learnt.tensors,
        names.remembered_pairs(step.name): replay_rows(drawn),
        names.method_values(step.name): as_json(method),
        names.training_log(step.name): as_json(training),
        names.consolidation_figures(step.name): {
            label: as_json(Consolidated.of(result)) for label, result in learnt.consolidated.items()
        },
        names.own_scores(step.name): as_json(own_scores_of(measured.scores, measured.base, measured.general)),
        names.answers(step.name): measured.scores.answers,
        names.base_answers(step.name): measured.base.answers,
        names.time_and_memory(step.name): as_json(
            Time(
                seconds=round(time.monotonic() - started, 1),
                learning_seconds=round(learnt.seconds, 1),
                peak_memory_bytes=peak_memory_bytes(),
            )
        ),
    }
    for task in held_out.new:
        files[names.held_out_pairs(step.name, task.name)] = [pair.as_row() for pair in task.pairs]
    files |= _gate_files(held_back, gated)
    if work.config.keep_training_pairs:
        files |= {names.taught(step.name, task.name): taught_rows(task) for task in held_back.given}
    if keys:
        files[names.keys(step.name)] = dict(keys)
    if adopted is not None:
        files[names.adopted(step.name)] = as_json(adopted)
    if apart.tasks:
        files[names.told_apart(step.name)] = as_json(apart)
    version = work.directory.commit(step.name, tasks, files)
    work.replay.tasks.update(drawn)
    keep_sketch(work.directory, work.memory, work.method.segments)
    update_scores(work.directory)
    return version


def _gate_files(held_back: HeldBack, gated: Gated) -> dict[str, Any]:
    """What the gate stores: its evidence, its pairs, and the answers to them."""
    if gated.evidence is None:
        return {}
    step = held_back.step.name
    files: dict[str, Any] = {names.retention(step): as_json(gated.evidence)}
    for one in held_back.new:
        sets = {names.gate_pairs(step, one.task): one.pairs, names.select_pairs(step, one.task): one.select}
        files |= {file: [pair.as_row() for pair in pairs] for file, pairs in sets.items() if pairs}
    return files | ({names.gate_answers(step): gated.answers} if gated.answers else {})


def _card(
    work: Workspace,
    step: Step,
    tasks: Sequence[TaskRecord],
    measured: Measured,
    gated: Gated,
    say: Callable[[str], None],
    adopted: bool,
) -> str:
    """The model card of the version that this step makes; a minimal one if making it fails."""
    try:
        return _whole_card(work, step, tasks, measured, gated, adopted)
    except Exception as error:  # a card must not cost what was learnt
        say(f"{step.name}: the model card could not be made ({reason_of(error)}); the step is kept")
        return f"# {plain(step.name)}\n\nThe model card could not be made: {plain(reason_of(error))}\n"


def _whole_card(
    work: Workspace, step: Step, tasks: Sequence[TaskRecord], measured: Measured, gated: Gated, adopted: bool
) -> str:
    steps = [*((version.name, version.tasks) for version in work.steps), (step.name, tasks)]
    base, config = work.directory.manifest.base, work.config
    embedded = config.model.is_embedded
    return model_card(
        CardFacts(
            version=step.name,
            base=base.model_name_or_path,
            revision=base.revision,
            fingerprint=base.fingerprint,
            embedded=embedded,
            method=config.method,
            is_adapter=prompt_pool(work.runtime.model) is None,
            steps=[name for name, _ in steps],
            tasks=[
                {
                    "name": task.name,
                    "step": name,
                    "train_pairs": task.train_pairs,
                    "test_pairs": task.test_pairs,
                    "supersedes": task.supersedes,
                }
                for name, learnt in steps
                for task in learnt
            ],
            matrices=score_matrices(work.directory, (tasks, measured.record)),
            general=measured.general,
            settings=config.model_dump(mode="json"),
            environment=dict(sorted(work.directory.manifest.environment.items())),
            license=config.license or (EMBEDDED_LICENSE if embedded else None),
            general_hole=measured.scores.holes.get(PERPLEXITY, {}).get(GENERAL_TEXT),
            retention=() if gated.evidence is None else gated.evidence.summary,
            adopted=step.name if adopted else work.directory.adopted,
        )
    )
