"""What was measured for each step of a life: by the step itself, and by later evaluations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from lifealign.data.answer_check import AnswerCheck
from lifealign.errors import LifeError
from lifealign.evaluation.matrix import ScoreMatrix, matrices
from lifealign.evaluation.metrics import METRICS, PERPLEXITY
from lifealign.evaluation.scores import HeldOut, Scores
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import TaskRecord, Version
from lifealign.life.disk.pair_files import read_pairs
from lifealign.life.disk.step_files import (
    Against,
    Answer,
    General,
    LaterGeneral,
    LaterScores,
    OwnScores,
    own_scores,
    read_answers,
    read_record,
)
from lifealign.storage.files import write_json

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]

GENERAL_TEXT = "general text"
"""Stands in place of a task's name for perplexity, which belongs to no task."""


@dataclass
class Record:
    """What was measured for a model after one step.

    Attributes:
        scores: Scores by metric, then task.
        base: Scores of the base model, on the new tasks and on others that were first scored here.
        outcomes: The value of every held-out example, by metric, then task, for metrics that are means over examples.
        counts: By metric, then task, the number of held-out examples behind a score.
        holes: By metric, then task, why a requested score is missing; for ``perplexity`` under ``GENERAL_TEXT``.
        base_holes: The same for the base model.
        against: A judge's preferences, by the version that this one was compared with: per task, and in ``all``, wins,
            ties, losses and the win rate with its interval.
        general: Loss and perplexity on general text, ``text`` (its content hash), ``tokens``, and the same for the base
            in ``base``; None if they were not measured.
        read_answers: Reads the answers of the model and of the base; the numbers are available without them.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    base: dict[str, dict[str, float]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    holes: dict[str, dict[str, str]] = field(default_factory=dict)
    base_holes: dict[str, dict[str, str]] = field(default_factory=dict)
    against: dict[str, dict[str, Any]] = field(default_factory=dict)
    general: dict[str, Any] | None = None
    read_answers: Callable[[], tuple[Rows, Rows]] = field(default=lambda: ([], []), repr=False, compare=False)

    @cached_property
    def answers(self) -> Rows:
        """Generated answers: rows with ``prompt``, ``answer``, ``tasks``, ``holds`` and ``draw``, from 0.

        Raises:
            LifeError: If a file with answers is damaged.
        """
        return self.read_answers()[0]

    @cached_property
    def base_answers(self) -> Rows:
        """The same for the base model."""
        return self.read_answers()[1]

    @property
    def missing(self) -> dict[str, list[str]]:
        """Scores that were requested but are missing, in words, by the reason."""
        found = [(metric, task, why) for metric, holes in self.holes.items() for task, why in holes.items()]
        found += [
            (metric, f"the base model on {task}", why)
            for metric, holes in self.base_holes.items()
            for task, why in holes.items()
        ]
        by_reason: dict[str, list[str]] = {}
        for metric, what, why in found:
            by_reason.setdefault(why, []).append(f"{metric} of {what}")
        return by_reason


def own_scores_of(scores: Scores, base: Scores, general: Mapping[str, Any] | None) -> OwnScores:
    """What a step stores of its scores and those of the base; holes and general text only if there are any."""
    also: dict[str, Any] = {key: holes for key, holes in (("holes", scores.holes), ("base_holes", base.holes)) if holes}
    if general is not None:
        also["general"] = General.model_validate(general)
    return OwnScores(scores=scores.values, base=base.values, outcomes=scores.outcomes, counts=scores.counts, **also)


def later_scores_of(metric: str, settings: Mapping[str, Any], scores: Scores, base: Scores) -> LaterScores:
    """What an evaluation stores for one metric of the tasks, with the settings that must match for comparisons."""
    uses_answers, judged = METRICS[metric].measured_on != "pairs", METRICS[metric].measured_on == "judge"

    def rows(found: Scores) -> list[Answer]:
        answers = [row for row in found.answers if not (judged and row.get("draw"))] if uses_answers else []
        return [Answer.model_validate(row) for row in answers]

    return LaterScores(
        metric=metric,
        settings=dict(settings),
        scores=scores.values.get(metric, {}),
        base=base.values.get(metric, {}),
        outcomes=scores.outcomes.get(metric),
        counts=scores.counts.get(metric, {}),
        holes=scores.holes.get(metric, {}),
        base_holes=base.holes.get(metric, {}),
        answers=rows(scores),
        base_answers=rows(base),
    )


def has_numbers(later: Mapping[str, Any]) -> bool:
    """Whether an evaluation has measured anything; if not, its settings do not count either."""
    return "general" in later or bool(later["scores"] or later["base"])


def known_under(
    directory: LifeDirectory, version: Version, metric: str, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A version's results on a metric under some settings, holes included, for the model and for the base.

    Both have the form that :meth:`~lifealign.evaluation.scores.Scores.carry` takes.
    """
    later = evaluations(directory, version).get(metric)
    parts = ("scores", "outcomes", "counts", "holes")
    found: Mapping[str, Any] = {}
    if later is not None and has_numbers(later) and later["settings"] == settings:
        found = later
    elif own_settings(directory, version, metric) == settings:
        own = own_scores(directory, version.name).model_dump()
        found = {key: own[key].get(metric) for key in (*parts, "base", "base_holes")}
    elif later is None and own_settings(directory, version, metric) is None:  # nothing but holes
        own = own_scores(directory, version.name).model_dump()
        found = {key: own[key].get(metric) for key in ("holes", "base_holes")}
    model = {key: {metric: found[key]} for key in parts if found.get(key)}
    base = {
        key: {metric: found[of_base]}
        for key, of_base in (("scores", "base"), ("holes", "base_holes"))
        if found.get(of_base)
    }
    return model, base


def evaluations(directory: LifeDirectory, version: Version) -> dict[str, dict[str, Any]]:
    """Later measurements of a version, by metric."""
    found = {}
    for metric in (*METRICS, PERPLEXITY):
        if (file := names.later_scores(version.name, metric)) in version.files:
            kind = LaterGeneral if metric == PERPLEXITY else LaterScores
            found[metric] = read_record(directory, file, kind).model_dump()
    return found


def comparable(metric: str, settings: EvaluationConfig) -> dict[str, Any]:
    """Settings that must match for two scores to be comparable (for a judge, in addition to its identity).

    A judge sees the first of several draws, so their number decides nothing for it.
    """
    if METRICS[metric].measured_on == "pairs":
        return {"pairs": settings.pairs}
    decisive = ["max_new_tokens", "prompts", "do_sample"]
    decisive += ["temperature", "top_p", "top_k"] if settings.do_sample else []
    decisive += ["draws"] if settings.draws > 1 and METRICS[metric].measured_on != "judge" else []
    return {key: getattr(settings, key) for key in decisive}


def own_settings(directory: LifeDirectory, version: Version, metric: str) -> dict[str, Any] | None:
    """Settings under which a step itself measured a metric; None if it did not."""
    own = own_scores(directory, version.name)
    if metric == PERPLEXITY:
        return None if own.general is None else {"text": own.general.text}
    if metric not in own.scores:
        return None
    return comparable(metric, _evaluation_settings(directory))


def _evaluation_settings(directory: LifeDirectory) -> EvaluationConfig:
    return EvaluationConfig.model_validate(directory.manifest.config["evaluation"])


def read_records(directory: LifeDirectory) -> list[Record]:
    """One record per step of a life.

    Numbers of one metric have to be comparable across steps. If a metric was measured again later under other settings,
    only those measurements are used, and not what the steps themselves measured under the life's settings.
    """
    steps = directory.manifest.versions[1:]
    later = [evaluations(directory, version) for version in steps]
    settings = {
        metric: record["settings"] for found in later for metric, record in found.items() if has_numbers(record)
    }
    return [_read(directory, version, found, settings) for version, found in zip(steps, later, strict=True)]


def score_matrices(
    directory: LifeDirectory, also: tuple[Sequence[TaskRecord], Record] | None = None
) -> dict[str, ScoreMatrix]:
    """One score matrix per metric that any task of a life was scored on.

    Args:
        directory: The life's files.
        also: Tasks and record of a step that is about to be committed, to be included; or None.
    """
    steps = [version.tasks for version in directory.steps]
    records = read_records(directory)
    if also is not None:
        steps, records = [*steps, list(also[0])], [*records, also[1]]
    learnt_at = {task.name: step for step, tasks in enumerate(steps) for task in tasks}
    last = _evaluation_settings(directory).evaluate_last
    return matrices(records, learnt_at, [] if last is None else first_asked([len(tasks) for tasks in steps], last))


def first_asked(tasks: Sequence[int], last: int | None) -> list[int]:
    """For each step the place of the oldest task that it is to score, in the order in which they were learnt.

    Args:
        tasks: How many tasks each step learns.
        last: How many of the earlier ones are scored beside its own; None for all.

    Example:
        >>> first_asked([1, 1, 2, 1], 2), first_asked([1, 1, 2], 0), first_asked([1, 1, 2], None)
        ([0, 0, 0, 2], [0, 1, 2], [0, 0, 0])
    """
    earlier = accumulate(tasks, initial=0)
    return [0 if last is None else max(0, before - last) for before, _ in zip(earlier, tasks, strict=False)]


def write_scores(directory: LifeDirectory) -> None:
    """Writes ``scores.json``, a view of the versions' scores for people and scripts."""
    view = {metric: matrix.as_dict() for metric, matrix in score_matrices(directory).items()}
    write_json(directory.path / names.SCORES, view)
    directory.viewed = directory.manifest


def refresh_scores(directory: LifeDirectory) -> None:
    """Writes ``scores.json`` unless this process has done so since the manifest changed; another may not have.

    Raises:
        LifeError: If it cannot be written.
    """
    there = (directory.path / names.SCORES).is_file()
    if not there or directory.viewed is not directory.manifest:
        write_scores(directory)


def update_scores(directory: LifeDirectory) -> None:
    """Writes ``scores.json`` after something was committed, which stands whether or not that succeeds.

    A failure is only a warning: the next command that writes to the life writes it before anything else.
    """
    try:
        write_scores(directory)
    except LifeError as error:
        logger.warning(
            "%s; the life itself is as it should be, and the next command that writes to it tries again", error
        )


def held_out_of(directory: LifeDirectory, version: Version, only: Container[str] | None = None) -> list[HeldOut]:
    """Held-out pairs and checks of the tasks of a version.

    Args:
        directory: The life's files.
        version: The version.
        only: Names of the tasks whose pairs are read; the others have none. None for all.
    """
    return [
        HeldOut(
            task.name,
            read_pairs(directory, names.held_out_pairs(version.name, task.name))
            if only is None or task.name in only
            else (),
            AnswerCheck(**task.check) if task.check else None,
            tuple(task.supersedes),
        )
        for task in version.tasks
    ]


def _read(
    directory: LifeDirectory,
    version: Version,
    later: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
) -> Record:
    own = own_scores(directory, version.name)
    superseded = {
        metric for metric, valid in settings.items() if own_settings(directory, version, metric) not in (None, valid)
    }

    def kept(by_metric: Mapping[str, Any]) -> dict[str, Any]:
        return {metric: dict(found) for metric, found in by_metric.items() if metric not in superseded}

    record = Record(
        kept(own.scores),
        kept(own.base),
        kept(own.outcomes),
        counts=kept(own.counts),
        holes=kept(own.holes),
        base_holes=kept(own.base_holes),
        general=None if PERPLEXITY in superseded or own.general is None else own.general.model_dump(),
        read_answers=lambda: _answers(directory, version, later),
    )
    if any("/against-" in file for file in version.files):
        for other in directory.manifest.versions:
            if (file := names.preferences(version.name, other.name)) in version.files:
                record.against[other.name] = read_record(directory, file, Against).model_dump()
    for metric, found in later.items():
        if metric == PERPLEXITY:
            record.general = found["general"]
            record.holes.pop(PERPLEXITY, None)
            continue
        if has_numbers(found):
            record.scores[metric], record.base[metric] = found["scores"], found["base"]
            record.counts[metric] = found["counts"]
            if found["outcomes"] is not None:
                record.outcomes[metric] = found["outcomes"]
        for holes, there, now in (
            (record.holes, record.scores, found["holes"]),
            (record.base_holes, record.base, found["base_holes"]),
        ):
            left = {task: why for task, why in now.items() if task not in there.get(metric, {})}
            if left or has_numbers(found):
                holes.pop(metric, None)
            if left:
                holes[metric] = left
    return record


def _answers(directory: LifeDirectory, version: Version, later: Mapping[str, Mapping[str, Any]]) -> tuple[Rows, Rows]:
    """Answers of the step and of later evaluations; if both have one, the later one, on which its metric is based."""
    model, base = (
        {_place(row): row for row in _rows(directory, file(version.name))}
        for file in (names.answers, names.base_answers)
    )
    for found in later.values():
        model |= {_place(row): row for row in found.get("answers", ())}
        base |= {_place(row): row for row in found.get("base_answers", ())}
    return list(model.values()), list(base.values())


def _rows(directory: LifeDirectory, file: str) -> Rows:
    return [row.model_dump() for row in read_answers(directory, file)]


def _place(row: Mapping[str, Any]) -> tuple[int, tuple[tuple[str, str], ...]]:
    """The draw and the prompt of an answer."""
    return row["draw"], tuple((message["role"], message["content"]) for message in row["prompt"])
