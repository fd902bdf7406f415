"""Measures a life again: any metric, of any version, without training; numbers already there are not repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lifealign.errors import ConfigError, LifeError, Unscored
from lifealign.evaluation.evaluator import Evaluator, general_record
from lifealign.evaluation.general import general_passages, passages_hash
from lifealign.evaluation.metrics import METRICS, PERPLEXITY
from lifealign.evaluation.rules import JOINT, apart_text, counting, kept_together, kept_when_learnt
from lifealign.evaluation.scores import HeldOut, Scores, reason_of
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.life.disk import names
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.measurements import (
    comparable,
    evaluations,
    first_asked,
    has_numbers,
    held_out_of,
    known_under,
    later_scores_of,
    own_settings,
    read_records,
    update_scores,
)
from lifealign.life.disk.step_files import as_json, own_scores
from lifealign.life.workspace import Workspace
from lifealign.model.adapter import adapter_fingerprint, install_adapter
from lifealign.settings.faults import differences, nearest
from lifealign.settings.yaml_file import load_overrides

if TYPE_CHECKING:
    from lifealign.data.pair import Pair
    from lifealign.life.disk.manifest import Manifest, TaskRecord, Version


class Marker(Protocol):
    """A judge of answers; :class:`lifealign.evaluation.judge.TaskJudge` is one."""

    max_missing: float
    """Share of a task's marks that may be missing."""

    def __call__(self, task: HeldOut, pairs: Sequence[Pair], answers: Sequence[str]) -> Sequence[float | None]:
        """Marks of a task's answers to some of its pairs' prompts, in points; None for an answer without a mark."""

    def identity(self) -> dict[str, Any]:
        """What decides a mark: model, place and rubrics. Marks of different judges are not comparable."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and how.

    Attributes:
        metrics: Names of ``METRICS``, and ``perplexity``.
        settings: Batch size, answers, number of prompts, which tasks; its own ``metrics`` are ignored.
        judge: The judge that gives marks; needed for the metric ``judge``, not allowed otherwise.
        replace: Whether numbers measured under other settings are forgotten; otherwise they are an error.
    """

    metrics: tuple[str, ...]
    settings: EvaluationConfig
    judge: Marker | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        _require_known(self.metrics)
        if ("judge" in self.metrics) != (self.judge is not None):
            raise ConfigError("the metric 'judge' needs a judge, and a judge needs that metric; give both or neither")
        needing = [metric for metric in self.metrics if metric != PERPLEXITY and METRICS[metric].measured_on != "pairs"]
        if needing and not self.settings.generate:
            raise ConfigError(
                f"metric: found {needing[0]!r} with evaluation.generate: false, expected generate: true, because it is "
                "measured on generated answers"
            )


def settings_for(work: Workspace, metrics: Sequence[str], overrides: Sequence[str] = ()) -> EvaluationConfig:
    """A life's evaluation settings for some metrics, with overrides.

    Args:
        work: The life.
        metrics: The metrics to measure.
        overrides: ``KEY=VALUE`` each, such as ``max_new_tokens=256``.

    Raises:
        ConfigError: If a metric does not exist, or a setting does not exist, is out of range, or would have no effect.
    """
    _require_known(metrics)
    given = work.config.evaluation.model_dump() | {"metrics": [name for name in metrics if name != "judge"]}
    given["evaluate_last"] = None  # this is where all tasks are scored, however few a step scores
    if PERPLEXITY not in metrics:
        given["general_text"] = None
    return load_overrides(EvaluationConfig, None, overrides, given)


def evaluate_life(
    work: Workspace, evaluation: Evaluation, *, as_of: str | None = None, say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Measures metrics of a life's versions on the held-out data of the tasks learnt by then, and keeps the numbers.

    Each version is written when it is finished, so an interrupted call loses one version at most, and the next call
    continues from there. Answers, log-probabilities and marks that are in the caches are not made again. A failure
    costs only its own score: the rest is measured and kept.

    Args:
        work: The life.
        evaluation: What is measured, and how.
        as_of: Name of the only version to measure; None for all, which fills the matrix.
        say: Called with a line about each version.

    Returns:
        Names of the versions for which something was measured.

    Raises:
        ConfigError: If a metric does not exist, or was measured before under other settings.
        LifeError: If the life has learnt nothing, there is no such version, or another process holds the life.
        Unscored: At the end, if something failed; the message names the missing scores and the reasons.
    """
    if not work.steps:
        raise LifeError(f"{work.directory.path}: found no task learnt, expected at least one; `lifealign learn` first")
    steps = range(len(work.steps)) if as_of is None else [work.directory.index(as_of) - 1]
    if -1 in steps:
        learnt = ", ".join(version.name for version in work.steps)
        raise LifeError(f"{as_of}: found the untrained adapter, expected a version with a task: {learnt}")
    if not work.method.one_model:  # a version's matrix row includes the scores of the versions before it
        steps = range(steps[-1] + 1)
    passages = general_passages(_path(evaluation.settings.general_text)) if PERPLEXITY in evaluation.metrics else ()
    measuring = _Measuring(work, evaluation, passages)
    done = []
    if JOINT in evaluation.metrics and not work.method.one_model:
        say(apart_text(work.method.title))
    with work.writing():
        measuring.require_comparable()
        try:
            for step in steps:
                missing = measuring.missing(work.steps[step])
                if missing:
                    name = work.steps[step].name
                    say(f"{name}: {', '.join(missing)}")
                    files = measuring.measure(step, missing)
                    if files:
                        work.directory.extend(name, files)
                        done.append(name)
        finally:
            work.forget_loaded()  # the model is the last version again
            update_scores(work.directory)
    if measuring.failures:
        raise Unscored(work.directory.path, measuring.failures)
    return done


class _Measuring:
    """One call of :func:`evaluate_life`: checks what is comparable, finds what is missing, and measures it."""

    def __init__(self, work: Workspace, evaluation: Evaluation, passages: Sequence[str]) -> None:
        self.work, self.evaluation, self.passages = work, evaluation, passages
        self.settings = {metric: self._comparable(metric) for metric in evaluation.metrics}
        self.failures: list[str] = []
        """Scores that failed and are now missing, in words."""
        self._looked_up: tuple[Manifest | None, dict[str, dict[str, Any] | None]] = None, {}

    def require_comparable(self) -> None:
        """Refuses a metric that was measured under other settings, or with ``replace`` forgets those numbers."""
        for metric, settings in self.settings.items():
            for version in self.work.steps:
                found = self._found_under(version, metric)
                if found is None or found == settings:
                    continue
                if not self.evaluation.replace:
                    told = "; ".join(differences(found, settings))
                    raise ConfigError(
                        f"{self.work.directory.path}: found {metric} of {version.name} measured under other settings "
                        f"({told}), expected the same, so that the numbers compare; --replace forgets the old ones"
                    )
                self.work.directory.forget(version.name, [names.later_scores(version.name, metric)])

    def missing(self, version: Version) -> list[str]:
        """Metrics that a version lacks, or has with holes that may be filled now."""
        return [
            metric
            for metric, settings in self.settings.items()
            if self._applies(version, metric)
            and (
                self._found_under(version, metric) != settings
                or self._has_hole(version, metric)
                or self._was_not_asked(version, metric)
            )
        ]

    def _has_hole(self, version: Version, metric: str) -> bool:
        directory = self.work.directory
        later = evaluations(directory, version).get(metric)
        if later is not None:
            return bool(later.get("holes") or later.get("base_holes"))
        own = own_scores(directory, version.name)
        return any(holes.get(metric) for holes in (own.holes, own.base_holes))

    def _was_not_asked(self, version: Version, metric: str) -> bool:
        """Whether a task is to be scored now that the step itself was not to score (``evaluate_last``)."""
        if metric == PERPLEXITY or self.work.config.evaluation.evaluate_last is None:
            return False
        later = evaluations(self.work.directory, version).get(metric)
        own = own_scores(self.work.directory, version.name).scores.get(metric, {})
        known = own if later is None or not has_numbers(later) else later["scores"]
        asked = set(self._asked(self.work.directory.index(version.name) - 1))
        return any(task.name in asked and task.name not in known for task in self._scorable(version, metric))

    def _applies(self, version: Version, metric: str) -> bool:
        """Whether any task learnt by a version can be scored on a metric."""
        return metric == PERPLEXITY or bool(self._scorable(version, metric))

    def _scorable(self, version: Version, metric: str) -> list[TaskRecord]:
        """The tasks learnt by a version that can be scored on a metric."""
        last = self.work.directory.index(version.name)
        tasks = [task for step in self.work.steps[:last] for task in step.tasks]
        if metric == JOINT and not (self.work.method.one_model and counting(tasks)):
            return []
        checked = METRICS[metric].measured_on in ("check", "rules")
        return [task for task in tasks if task.test_pairs and (task.check is not None or not checked)]

    def _asked(self, step: int) -> list[str]:
        """Names of the tasks that a step's version is to be scored on."""
        tasks = [[task.name for task in version.tasks] for version in self.work.steps[: step + 1]]
        first = first_asked(list(map(len, tasks)), self.evaluation.settings.evaluate_last)[-1]
        return [name for names in tasks for name in names][first:]

    def measure(self, step: int, metrics: Sequence[str]) -> dict[str, Any]:
        """Measures the version of a step; returns its new files by path."""
        work, version = self.work, self.work.steps[step]
        install_adapter(work.runtime.model, read_adapter_of(work.directory, version.name))
        policy = adapter_fingerprint(read_adapter_of(work.directory, version.name))
        evaluator = self._evaluator([metric for metric in metrics if metric != PERPLEXITY])
        asked = set(self._asked(step))
        if work.method.one_model:
            steps = [held_out_of(work.directory, one, asked) for one in work.steps[: step + 1]]
            seen, seen_by_base = kept_together(steps), kept_when_learnt(steps)
        else:
            seen = seen_by_base = held_out_of(work.directory, version)
        seen, seen_by_base = ([task for task in tasks if task.name in asked] for tasks in (seen, seen_by_base))
        scores = evaluator.score(seen, policy)
        files: dict[str, Any] = {}
        for metric in metrics:
            if metric == PERPLEXITY:
                try:
                    files[names.later_scores(version.name, metric)] = self._general(evaluator, policy)
                except Exception as error:
                    self.failures.append(f"{version.name}: {metric} ({reason_of(error)})")
                continue
            base = self._base(evaluator, metric, seen_by_base)
            if not work.method.one_model and step:
                scores.carry(self._earlier(step - 1, metric), asked)
            known, known_base = known_under(work.directory, version, metric, self.settings[metric])
            scores.carry(known)
            base.carry(known_base)
            self.failures += [f"base model: {what}" for what in base.broken]
            files[names.later_scores(version.name, metric)] = as_json(
                later_scores_of(metric, self.settings[metric], scores, base)
            )
        self.failures += [f"{version.name}: {what}" for what in scores.broken]
        return files

    def _evaluator(self, metrics: Sequence[str]) -> Evaluator:
        settings = self.evaluation.settings.model_copy(update={"metrics": tuple(metrics)})
        evaluator = self.work.evaluator(settings)
        judge = self.evaluation.judge if "judge" in metrics else None
        return evaluator if judge is None else replace(evaluator, judge=judge, max_missing=judge.max_missing)

    def _base(self, evaluator: Evaluator, metric: str, seen: Sequence[HeldOut]) -> Scores:
        """Scores of the base model on the tasks for which no version has any."""
        known: set[str] = set()
        for version in self.work.steps:
            if self._found_under(version, metric) == self.settings[metric]:
                own = own_scores(self.work.directory, version.name).base.get(metric, {})
                known |= set(evaluations(self.work.directory, version).get(metric, {"base": own})["base"])
        tasks = [task for task in seen if task.name not in known]
        return self._only(evaluator, metric).score(tasks, None)

    def _only(self, evaluator: Evaluator, metric: str) -> Evaluator:
        settings = evaluator.settings.model_copy(update={"metrics": (metric,)})
        judge = evaluator.judge if metric == "judge" else None
        return replace(evaluator, settings=settings, judge=judge)

    def _general(self, evaluator: Evaluator, policy: str) -> dict[str, Any]:
        known = [record.general for record in read_records(self.work.directory) if record.general is not None]
        base = next((one["base"] for one in known if one["text"] == passages_hash(self.passages)), None)
        return {
            "metric": PERPLEXITY,
            "settings": self.settings[PERPLEXITY],
            "general": general_record(evaluator, self.passages, policy, base),
        }

    def _earlier(self, step: int, metric: str) -> dict[str, Any]:
        """The previous step's scores on a metric, for a life in which each task has a model of its own."""
        record = read_records(self.work.directory)[step]
        outcomes = (record.outcomes or {}).get(metric)
        return {
            "scores": {metric: record.scores.get(metric, {})},
            "outcomes": {} if outcomes is None else {metric: outcomes},
            "counts": {metric: record.counts.get(metric, {})},
            "holes": {metric: record.holes[metric]} if metric in record.holes else {},
        }

    def _found_under(self, version: Version, metric: str) -> dict[str, Any] | None:
        """Settings under which a version's valid numbers of a metric were measured; None if it has none."""
        directory, valid = self.work.directory, self._valid(metric)
        found = evaluations(directory, version).get(metric)
        if found is not None and has_numbers(found):
            return valid
        own = own_settings(directory, version, metric)
        return own if valid is None or own == valid else None  # as read_records does

    def _valid(self, metric: str) -> dict[str, Any] | None:
        """Settings of the later measurements of a metric; None if there is none. Looked up once for each manifest."""
        directory = self.work.directory
        if self._looked_up[0] is not directory.manifest:
            self._looked_up = directory.manifest, {}
        known = self._looked_up[1]
        if metric not in known:
            later = (evaluations(directory, step).get(metric) for step in self.work.steps)
            known[metric] = next((one["settings"] for one in later if one is not None and has_numbers(one)), None)
        return known[metric]

    def _comparable(self, metric: str) -> dict[str, Any]:
        """Settings that must match for two numbers of a metric to be comparable."""
        if metric == PERPLEXITY:
            return {"text": passages_hash(self.passages)}
        judge = self.evaluation.judge if metric == "judge" else None
        return comparable(metric, self.evaluation.settings) | ({} if judge is None else judge.identity())


def _require_known(metrics: Sequence[str]) -> None:
    known = [*METRICS, PERPLEXITY]
    for metric in metrics:
        if metric not in known:
            expected = f"one of {', '.join(known)}{nearest(metric, known)}"
            raise ConfigError(f"metric: found {metric!r}, expected {expected}")


def _path(file: str | None) -> Path | None:
    return None if file is None else Path(file)
