"""What ``lifealign evaluate`` asks for: metrics of a life, with or without a judge, or a judge's preferences."""

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
    """Measures metrics of a life and keeps them; with a judge also its marks, or its preferences over another version.

    Args:
        work: The life.
        metrics: Names of metrics; none means the judge if there is one, else what the life measures itself.
        overrides: ``KEY=VALUE`` each, on top of the life's settings of evaluation.
        as_of: The one version that is measured; None for all, or for the last one where answers are compared.
        replace: Whether numbers under other settings are forgotten.
        judge: The judge, or None.
        rubric: File of the rubric of every task; None takes those that come along.
        against: Version whose answers ours are compared with; ``00-base`` is the base model.
        say: Called with a line about what is done.

    Returns:
        What the judge prefers, as :func:`~lifealign.life.head_to_head.compare_versions` returns it; None without
        ``against``.

    Raises:
        ConfigError: If something is asked of a judge that is not there, or as
            :func:`~lifealign.life.evaluate.evaluate_life` does.
        LifeError: As :func:`~lifealign.life.evaluate.evaluate_life` and ``compare_versions`` do.
        JudgeError: If the judge cannot go on; what it has said is kept.
    """
    if against is not None and replace and not metrics:
        raise ConfigError(
            "--replace: found it beside --against alone, expected it with --metric, whose numbers it forgets"
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
        say("nothing to do: all of it is measured")
