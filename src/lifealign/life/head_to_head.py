"""Two versions of a life compared by a judge: which version's answers are better, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lifealign.errors import LifeError
from lifealign.evaluation.judge import AnswerPair, Judge, Preferences, Rubric, rubric_for, win_rate
from lifealign.life.disk import names
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.measurements import comparable, held_out_of
from lifealign.life.disk.step_files import Against, as_json
from lifealign.life.workspace import Workspace
from lifealign.model.adapter import adapter_fingerprint, install_adapter

if TYPE_CHECKING:
    from lifealign.data.pair import Pair
    from lifealign.evaluation.settings import EvaluationConfig
    from lifealign.model.generate import Prompt

ALL = "all"
"""Name of the row for the prompts of all tasks together."""


def compare_versions(
    work: Workspace,
    judge: Judge,
    settings: EvaluationConfig,
    *,
    version: str | None = None,
    against: str,
    rubric: Rubric | None = None,
) -> dict[str, Any]:
    """Has a judge compare two versions' answers to the held-out prompts, and keeps its preferences.

    The judge is asked about every prompt of the tasks learnt by ``version``, with the two answers in both orders.
    Another call under the same settings asks only for what is missing.

    Args:
        work: The life.
        judge: The judge.
        settings: Length and number of the answers, batch size.
        version: The version whose answers are ours; None for the last one.
        against: The version whose answers are theirs; ``00-base`` is the base model.
        rubric: Rubric for every task; None takes the one with the task's name, or the general one.

    Returns:
        ``tasks``: by task, and in ``all``, wins, ties, losses, missing, the win ``rate`` with ``low`` and ``high``, and
        ``moved``; None if too much is missing. ``outcomes``: by task, one per prompt.

    Raises:
        LifeError: If there is no such version, both are the same, nothing was learnt, or there are no held-out pairs.
        JudgeError: If the judge cannot go on; its replies so far are in its cache.
    """
    if not work.steps:
        raise LifeError(f"{work.directory.path}: found no task learnt, expected at least one; `lifealign learn` first")
    ours, theirs = work.directory.versions[-1].name if version is None else version, against
    position = work.directory.index(ours)
    work.directory.index(theirs)
    if ours == theirs or position == 0:
        raise LifeError(f"found {ours} compared with {theirs}, expected a version with a task and a different version")
    tasks = [
        task
        for step in work.directory.versions[1 : position + 1]
        for task in held_out_of(work.directory, step)
        if task.pairs
    ]
    asked = {task.name: task.pairs[: settings.prompts] for task in tasks}
    if not asked:
        raise LifeError(f"{work.directory.path}: found no held-out pairs, expected some; `lifealign learn --test FILE`")
    with work.writing():
        try:
            answers = [_answers(work, settings, asked, name) for name in (ours, theirs)]
        finally:
            work.forget_loaded()
        preferences = {
            task: judge.preferences(
                [
                    AnswerPair(
                        pair.prompt,
                        answers[0][pair.prompt],
                        answers[1][pair.prompt],
                        pair.chosen,
                        rubric or rubric_for(task),
                    )
                    for pair in pairs
                ]
            )
            for task, pairs in asked.items()
        }
        result = {
            "version": ours,
            "against": theirs,
            "judge": {"model": judge.config.model, "place": judge.config.place},
            "settings": comparable("judge", settings),
            "tasks": {
                name: None if (rate := win_rate(found, judge.config.max_missing)) is None else asdict(rate)
                for name, found in (preferences | {ALL: _together(list(preferences.values()))}).items()
            },
            "outcomes": {name: list(found.outcomes) for name, found in preferences.items()},
        }
        work.directory.extend(ours, {names.preferences(ours, theirs): as_json(Against.model_validate(result))})
    return result


def _answers(
    work: Workspace, settings: EvaluationConfig, asked: Mapping[str, Sequence[Pair]], version: str
) -> Mapping[Prompt, str]:
    evaluator = work.evaluator(settings)
    if work.directory.index(version) == 0:
        return evaluator.generated(asked, None)
    adapter = read_adapter_of(work.directory, version)
    install_adapter(work.runtime.model, adapter)
    return evaluator.generated(asked, adapter_fingerprint(adapter))


def _together(parts: Sequence[Preferences]) -> Preferences:
    return Preferences(
        tuple(outcome for part in parts for outcome in part.outcomes),
        tuple(reason for part in parts for reason in part.reasons),
        tuple(moved for part in parts for moved in part.moved),
        parts[-1].tally,
    )
