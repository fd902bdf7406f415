"""One row of the score matrix: checks the held-out pairs before training, and scores them afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lifealign.errors import ConfigError, LifeError
from lifealign.evaluation.evaluator import Evaluator, general_record
from lifealign.evaluation.general import general_passages, passages_hash, require_predictable
from lifealign.evaluation.held_out import left_out_text, places, scorable
from lifealign.evaluation.metrics import METRICS, PERPLEXITY
from lifealign.evaluation.rules import JOINT, apart_text, kept_together
from lifealign.evaluation.scores import HeldOut, Scores
from lifealign.evaluation.text import needs_jieba, require_jieba
from lifealign.life.disk.measurements import (
    GENERAL_TEXT,
    Record,
    comparable,
    held_out_of,
    known_under,
    read_records,
)
from lifealign.life.shared_prompts import shared_prompts
from lifealign.life.step import Learnt
from lifealign.life.workspace import Workspace
from lifealign.methods.base import Step
from lifealign.model.adapter import adapter_fingerprint, read_adapter
from lifealign.storage.whole_folder import require_room

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ToScore:
    """What a step will be scored on, checked before anything is trained.

    Attributes:
        new: Held-out pairs of the step's own tasks that can be scored.
        earlier: Held-out pairs of the earlier tasks that are scored again.
        left_out: Places of the new tasks' pairs that cannot be scored, by task.
        passages: General text; empty if perplexity is not measured.
    """

    new: tuple[HeldOut, ...]
    earlier: tuple[HeldOut, ...]
    left_out: Mapping[str, tuple[str, ...]]
    passages: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """What a step has measured.

    Attributes:
        scores: Scores of every task seen so far.
        base: Scores of the base model on the step's own tasks.
        general: Loss and perplexity on general text; None if they were not measured.
        interruption: Ctrl-C while the step was scored; it is raised again after the step is committed.
    """

    scores: Scores
    base: Scores
    general: dict[str, Any] | None
    interruption: KeyboardInterrupt | None

    @property
    def record(self) -> Record:
        """The record that the life will have of it."""
        scores, base = self.scores, self.base
        return Record(
            scores.values, base.values, scores.outcomes, scores.counts, scores.holes, base.holes, general=self.general
        )

    def tracked(self) -> dict[str, dict[str, float]]:
        """Every score, for trackers: by metric, then task."""
        general = {} if self.general is None else {PERPLEXITY: {"general text": self.general["perplexity"]}}
        return self.scores.values | general


def hold_out(work: Workspace, step: Step, say: Callable[[str], None]) -> ToScore:
    """Checks everything that scoring will need before anything is trained, when a fault does not yet cost hours.

    The held-out pairs of the new tasks are tokenised, and those that cannot be scored are reported. Those of earlier
    tasks were checked in the same way under the same settings, which do not change in a life, so they are only read and
    compared with their checksums.

    Args:
        work: The life.
        step: The step of the lifelong loop.
        say: Called with a line about pairs that cannot be scored, or whose prompts another task trains on.

    Raises:
        DataError: If the chat template refuses a held-out prompt, a task has held-out pairs but none of them can be
            scored, or the general text has nothing to predict.
        ConfigError: If a metric needs a package for the held-out answers that is not installed, or the general text
            differs from that of earlier steps.
        LifeError: If held-out pairs of an earlier task are damaged, or the disk has no room for the step.
    """
    passages = general_text_of(work)
    evaluator = work.evaluator()  # opens the caches, too
    earlier, asked = _asked(work, step, say)
    for note in shared_prompts(work, step, earlier):
        say(note)
    new, left_out = [], {}
    for task in asked:
        limits = {"max_length": evaluator.max_length, "new_tokens": evaluator.new_tokens(task)}
        found = scorable(work.runtime, task.name, task.pairs, **limits)
        if text := left_out_text(found, task.name, **limits):
            say(text)
        left_out[task.name] = found.left_out
        new.append(replace(task, pairs=found.pairs))
    if "paper_rouge_l" in work.config.evaluation.metrics and any(
        needs_jieba(pair.chosen) for task in (*earlier, *new) for pair in task.pairs
    ):
        require_jieba()
    if passages:
        require_predictable(work.runtime, passages, _text_file(work), evaluator.max_length)
    _require_room_on_disk(work)
    return ToScore(tuple(new), tuple(earlier), left_out, passages)


def _asked(work: Workspace, step: Step, say: Callable[[str], None]) -> tuple[list[HeldOut], list[HeldOut]]:
    """The earlier tasks that are scored after a step, and its own, with the rules that one model is to keep."""
    learnt = [task.name for version in work.steps for task in version.tasks]
    last = work.config.evaluation.evaluate_last
    scored = set(learnt if last is None else learnt[max(0, len(learnt) - last) :])
    steps = [held_out_of(work.directory, version, scored) for version in work.steps]
    steps.append([HeldOut(task.name, task.test, task.check, task.supersedes) for task in step.tasks])
    if work.method.one_model:
        tasks = kept_together(steps)
    else:
        tasks = [task for found in steps for task in found]
        if JOINT in work.config.evaluation.metrics and not work.steps:
            say(apart_text(work.method.title))
    own = len(step.tasks)
    return [task for task in tasks[:-own] if task.name in scored], tasks[-own:]


def score(work: Workspace, step: Step, held_out: ToScore, learnt: Learnt, say: Callable[[str], None]) -> Measured:
    """Scores the tasks seen so far and the base model on the new ones, and measures general ability.

    No failure here loses the step: what could not be measured becomes a hole with a reason, and ``lifealign evaluate``
    fills it.

    Args:
        work: The life, with its model as learnt.
        step: The step of the lifelong loop.
        held_out: What it is scored on.
        learnt: What was learnt.
        say: Called with a line about scores that are missing.
    """
    evaluator, one_model = work.evaluator(), work.method.one_model
    scores, base = Scores(), Scores()
    general: dict[str, Any] | None = None
    interruption: KeyboardInterrupt | None = None
    try:
        if not one_model and work.steps:  # each earlier task still has the model of its own step
            carried = [task.name for task in held_out.earlier]
            for metric in METRICS:
                settings = comparable(metric, work.config.evaluation)
                scores.carry(known_under(work.directory, work.steps[-1], metric, settings)[0], carried)
        evaluator.score(held_out.new, None, base)
        policy = adapter_fingerprint(learnt.adapter)
        evaluator.score((*held_out.earlier, *held_out.new) if one_model else held_out.new, policy, scores)
        general = general_figures(work, evaluator, held_out.passages, policy, scores)
    except (Exception, KeyboardInterrupt) as error:  # no failure here may cost hours of training
        logger.debug("scoring of %s ended early", step.name, exc_info=True)
        evaluator.fail(held_out.new, base, error)
        evaluator.fail((*held_out.earlier, *held_out.new), scores, error)
        if held_out.passages:
            scores.fail(PERPLEXITY, GENERAL_TEXT, error)
        if isinstance(error, KeyboardInterrupt):
            interruption = error
    measured = Measured(scores, base, general, interruption)
    for why, missing in measured.record.missing.items():
        number = "1 score is missing" if len(missing) == 1 else f"{len(missing)} scores are missing"
        say(
            f"{step.name}: {number} ({why}): {places(missing)}. The step is kept; `lifealign evaluate` measures what "
            "is missing"
        )
    return measured


def general_figures(
    work: Workspace, evaluator: Evaluator, passages: tuple[str, ...], policy: str, scores: Scores
) -> dict[str, Any] | None:
    """Loss and perplexity on general text of the model as it is now, and of the base; a failure becomes a hole.

    Args:
        work: The life.
        evaluator: Its evaluator.
        passages: The text; empty measures nothing.
        policy: Fingerprint of the adapter as it is now.
        scores: Where a failure is noted.
    """
    if not passages:
        return None
    known = _known_general(work)
    try:
        return general_record(evaluator, passages, policy, known["base"] if known else None)
    except Exception as error:
        scores.fail(PERPLEXITY, GENERAL_TEXT, error)
        return None


def general_text_of(work: Workspace) -> tuple[str, ...]:
    """The life's general text; empty if perplexity is not measured.

    Raises:
        ConfigError: If it is another text than at the last step.
    """
    settings = work.config.evaluation
    if PERPLEXITY not in settings.metrics:
        return ()
    passages = general_passages(_text_file(work))
    known = _known_general(work)
    if known is not None and known["text"] != passages_hash(passages):
        raise ConfigError(
            f"{settings.general_text or 'general text'}: found another text than at the last step, expected the "
            "same, because perplexities on two texts are not comparable; `lifealign evaluate LIFE --metric perplexity "
            "--replace` measures every version on this one"
        )
    return passages


def _text_file(work: Workspace) -> Path | None:
    file = work.config.evaluation.general_text
    return None if file is None else Path(file)


def _known_general(work: Workspace) -> dict[str, Any] | None:
    """Figures on general text, from the last step that has any."""
    records = read_records(work.directory)
    return next((record.general for record in reversed(records) if record.general is not None), None)


def _require_room_on_disk(work: Workspace) -> None:
    """Refuses to train for hours if the disk has no room for the result; an estimate that leaves out small files."""
    path = work.directory.path
    adapter = sum(factor.nbytes for factor in read_adapter(work.runtime.model).values())
    needed = adapter * (1 + len(work.method.segments))  # the adapter, and the refined update of each segment
    try:
        require_room(path, needed)
    except LifeError as error:
        raise LifeError(f"{error}; nothing was trained") from None
