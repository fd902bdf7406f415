"""The work of ``lifealign evaluate``: metrics of a life, with or without a judge, or a judge's preferences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lifealign.errors import ConfigError
from lifealign.evaluation.judge import Judge, JudgeConfig, TaskJudge, load_rubric
from lifealign.life.disk import names
from lifealign.life.evaluate import Evaluation, evaluate_life, settings_for
from lifealign.life.head_to_head import compare_versions
from lifealign.life.workspace import Workspace

JUDGE = "judge"


def measure(
    work: Workspace,
    metrics: Sequence[str] = (),
    *,
    overrides: Sequence[str] = (),
    as_of: str | None = None,
    replace: bool = False,
    judge: JudgeConfig | None = None,
    rubric: Path | None = None,
    against: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any] | None:
    """Measures metrics of a life and keeps them; a judge adds its marks, or its preferences against another version.

    Args:
        work: The life.
        metrics: Names of metrics; if empty, the judge's marks if there is a judge, else the life's own metrics.
        overrides: ``KEY=VALUE`` each, on top of the life's evaluation settings.
        as_of: The only version to measure; None for all, or for the last one when answers are compared.
        replace: Whether numbers measured under other settings are forgotten.
        judge: The judge, or None.
        rubric: File with a rubric for every task; None takes the built-in ones.
        against: Version that ours is compared with; ``00-base`` is the base model.
        say: Called with a line about what is done.

    Returns:
        The judge's preferences, as :func:`~lifealign.life.head_to_head.compare_versions` returns them; None without
        ``against``.

    Raises:
        ConfigError: If the metric ``judge`` is given without a judge, ``replace`` has nothing to replace, or
            :func:`~lifealign.life.evaluate.evaluate_life` raises it.
        LifeError: If :func:`~lifealign.life.evaluate.evaluate_life` or ``compare_versions`` raises it.
        JudgeError: If the judge cannot go on; its replies so far are kept.
    """
    if against is not None and replace and not metrics:
        raise ConfigError(
            "--replace needs --metric, whose earlier numbers it forgets; --against alone has nothing to replace"
        )
    if judge is None:
        wanted = tuple(metrics or work.config.evaluation.metrics)
        _measure(work, wanted, overrides, None, replace, as_of, say)
        return None
    told = None if rubric is None else load_rubric(rubric)
    wanted = tuple(metrics) if against is not None else tuple(dict.fromkeys([*metrics, JUDGE]))
    with Judge(judge, work.directory.inside(names.JUDGE_CACHE)) as asked:
        if wanted:
            marker = TaskJudge(asked, told) if JUDGE in wanted else None
            _measure(work, wanted, overrides, marker, replace, as_of, say)
        if against is None:
            return None
        settings = settings_for(work, (), overrides)
        return compare_versions(work, asked, settings, version=as_of, against=against, rubric=told)


def _measure(
    work: Workspace,
    metrics: tuple[str, ...],
    overrides: Sequence[str],
    judge: TaskJudge | None,
    replace: bool,
    as_of: str | None,
    say: Callable[[str], None],
) -> None:
    evaluation = Evaluation(metrics, settings_for(work, metrics, overrides), judge, replace)
    if not evaluate_life(work, evaluation, as_of=as_of, say=say):
        say("nothing to do: everything is already measured")
