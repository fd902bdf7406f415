"""Commands for one life: create it, check data, teach it, see what it knows, roll it back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.cli.options import (
    LifePath,
    Settings,
    console,
    files_of_task,
    require_scored,
    say_lines,
    show_life,
    show_refusal,
)
from lifealign.errors import ConfigError, Refused, Unscored

if TYPE_CHECKING:
    from lifealign.data.task import Task
    from lifealign.life.disk.manifest import TaskRecord

# Each command imports what it needs: `lifealign check` should not wait for torch.


def init(
    life: LifePath,
    model: Annotated[str | None, typer.Option(help="smollm2-135m, a folder, a .gguf file or a hub id.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of a hub model; the life records the commit.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="lifealign, er, ewc, ...; an unknown name lists all.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    set_: Settings = None,
) -> None:
    """Make a new life on a base model."""
    from lifealign.life.life import Life
    from lifealign.life.settings import LifeConfig
    from lifealign.settings.yaml_file import load_overrides

    overrides = [*(set_ or ())]
    if model is not None:
        overrides.append(f"model.model_name_or_path={json.dumps(model)}")  # a name, whatever YAML would make of it
    if revision is not None:
        overrides.append(f"model.revision={json.dumps(revision)}")
    if method is not None:
        overrides.append(f"method={method}")
    settings = load_overrides(LifeConfig, config, overrides)
    made = Life.create(life, settings)
    base = made.directory.manifest.base
    say_lines(f"{life}: a new life on {base.model_name_or_path}, method {made.config.method.title}")
    say_lines(f"next: lifealign learn {life} TASK.jsonl --test TASK-test.jsonl")


def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSONL, JSON, CSV or Parquet, or hub:owner/name.")],
    model: Annotated[str | None, typer.Option(help="Count tokens with this model's tokenizer.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Maximum tokens of prompt and answer together; needs --model.")
    ] = None,
) -> None:
    """Is this data any good? Rows, shapes, lengths, duplicates, conflicts, what is dropped and why."""
    from lifealign.data.inspection import inspect

    tokenizer = None
    if model is not None:
        from lifealign.model.base_model import load_tokenizer
        from lifealign.model.token_counter import ModelTokens

        tokenizer = ModelTokens(load_tokenizer(model))
    elif max_length is not None:
        raise ConfigError("--max-length needs --model to count tokens with; add --model")
    say_lines(*inspect(file, tokenizer, max_length).render().split("\n"))


def learn(
    life: LifePath,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Training pairs of the task.")],
    test: Annotated[str | None, typer.Option(help="Held-out pairs to score the task on from now on.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the task; by default that of the file.")] = None,
    max_words: Annotated[int | None, typer.Option(min=1, help="Exact check: maximum words in an answer.")] = None,
    matches: Annotated[
        list[str] | None, typer.Option(help="Exact check: a pattern that every answer must contain.")
    ] = None,
    lacks: Annotated[list[str] | None, typer.Option(help="Exact check: a pattern that no answer may contain.")] = None,
    supersedes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An earlier task whose rule this one replaces; repeatable."),
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help="Pairs by which later steps are accepted; by default some of FILE are set aside.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Largest share of this task's gate prompts that later steps may cost.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Keep the task although earlier ones lose too much.")] = False,
) -> None:
    """Teach one more task and keep the others.

    Exit code 1 although a version was learnt: some scores could not be measured; `lifealign evaluate` measures them.
    Exit code 3: the life's retention is enforced, and an earlier task may have lost too much; the life is as it was.
    """
    from lifealign.data.answer_check import AnswerCheck
    from lifealign.data.task import Task, name_of_task
    from lifealign.life.life import Life
    from lifealign.report.progress import Progress
    from lifealign.settings.section import build_config

    task_name = name_of_task(file) if name is None else name
    opened = Life.open(life)
    conditions = {"max_words": max_words, "matches": matches or (), "lacks": lacks or ()}
    exact = build_config(AnswerCheck, conditions, source="check") if any(conditions.values()) else None
    task = Task.from_files(
        task_name, file, test, check=exact, supersedes=supersedes or (), gate=gate, max_loss=max_loss
    )
    known = len(opened.steps)
    try:
        with Progress(console) as progress:
            version = opened.learn(task, progress, force=force)
    except Refused as error:
        show_refusal(error)
        raise
    if len(opened.steps) == known:
        say_lines(f"{task.name}: already learnt from this data in {version.name}; nothing to do")
    show_life(opened)
    require_scored(opened, {step.name for step in opened.steps[known:]})


def rollback(
    life: LifePath, to: Annotated[str, typer.Option(help="Version to go back to; 00-base forgets everything.")]
) -> None:
    """Undo everything learnt after a version."""
    from lifealign.life.life import Life

    opened = Life.open(life)
    undone = [version.name for version in opened.versions[opened.directory.index(to) + 1 :]]
    opened.rollback(to)
    say_lines(f"{life}: back at {to}; forgot {', '.join(undone) or 'nothing'}")


def forget(
    life: LifePath,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task to forget.")],
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Learn again, without it, what was learnt after it.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TRAIN[,TEST[,GATE]]",
            help="Files of a later task whose pairs the life has not kept; repeatable.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Keep later tasks although earlier ones lose too much.")
    ] = False,
) -> None:
    """Forget one task as if it had never been learnt; the life is then the one that never learnt it."""
    from lifealign.life.life import Life
    from lifealign.report.progress import Progress

    if not rebuild:
        raise ConfigError(
            "forget needs --rebuild: later tasks were learnt from a model that knew this one, so only learning them "
            "again takes it out; `lifealign compose LIFE OUT --without TASK` gives an adapter without its update"
        )
    opened = Life.open(life)
    records = {record.name: record for version in opened.steps for record in version.tasks}
    given = [_given(text, records) for text in data or ()]
    try:
        with Progress(console) as progress:
            versions = opened.forget(task, given=given, listener=progress, force=force)
    except Refused as error:
        show_refusal(error)
        raise
    say_lines(f"{life}: {task} forgotten; {', '.join(version.name for version in versions)}")
    say_lines("copies of the life, trackers' logs and the user's cache of the base's answers are not touched")
    show_life(opened)
    require_scored(opened, {version.name for version in opened.steps})


def _given(text: str, records: Mapping[str, TaskRecord]) -> Task:
    """A task that was learnt, from ``NAME=TRAIN[,TEST[,GATE]]``."""
    from lifealign.data.answer_check import AnswerCheck
    from lifealign.data.task import Task

    name, train, test, gate = files_of_task("--data", text)
    if name not in records:
        raise ConfigError(f"--data: found {name!r}, expected a task that was learnt: {', '.join(records)}")
    record = records[name]
    check = AnswerCheck(**record.check) if record.check else None
    return Task.from_files(name, train, test, check=check, supersedes=record.supersedes, gate=gate)


def compose(
    life: LifePath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the adapter to; new or empty.")],
    without: Annotated[list[str] | None, typer.Option(metavar="TASK", help="A task to leave out; repeatable.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="TASK=NUMBER", help="How much of a task's update to take; repeatable.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Take nothing learnt after this version.")
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Score it on every task's held-out pairs and gate prompts.")
    ] = False,
) -> None:
    """Put an adapter together from any of the tasks that were learnt, for PEFT; the life stays as it is.

    Exit code 1 although it was written: some scores could not be measured.
    """
    from lifealign.evaluation.metrics import METRICS, general_line
    from lifealign.evaluation.rules import JOINT
    from lifealign.life.compose import COMPOSED, require_free, score_composition, write_composition
    from lifealign.life.life import Life
    from lifealign.report.printing import plain, say, show
    from lifealign.report.terminal import matrix_table

    opened = Life.open(life)
    require_free(opened.directory, out)
    composed = opened.compose(without=without or (), weights=task_weights(weight or ()), as_of=as_of)
    measured = score_composition(opened.workspace, composed) if score else None
    write_composition(opened.workspace, composed, out, measured)
    for step in opened.steps:
        tasks = ", ".join(task.name for task in step.tasks)
        say_lines(f"  {step.name}: {tasks}, weight {composed.weights[step.name]:g}")
    for matrix in measured.matrices.values() if measured else ():
        say(console, "", plain(METRICS[matrix.metric].label, "bold"))
        show(console, matrix_table(matrix, [opened.versions[-1].name, COMPOSED]))
        if matrix.metric == JOINT and (asked := [name for name, weight in composed.weights.items() if weight]):
            say_lines(f"  composed: of the rules of {', '.join(asked)}")
    if measured is not None and measured.gates:
        say(console, "", plain("gate prompts, since each task was learnt", "bold"))
        say_lines(*(f"  {task}: {loss.text}" for task, loss in measured.gates.items()))
    if measured is not None and measured.general is not None:
        say_lines("", general_line(measured.general))
    if composed.version is not None:
        say_lines(f"this is the version {composed.version}, byte for byte")
    elif not score:
        say_lines("not scored: no version ever was this model; --score measures it on held-out pairs and gate prompts")
    say_lines("", f"adapter: {out}")
    if measured is not None and measured.missing:
        raise Unscored(out, measured.missing, "The adapter is written")


def recall(
    life: LifePath,
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What a user says.")] = None,
    examples: Annotated[
        str | None, typer.Option(metavar="FILE", help="Preferences: which stored patterns do they express?")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance of calling a prompt unknown to the task it belongs to.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which of the tasks that were learnt does a prompt belong to, and which version should answer it?"""
    from dataclasses import asdict

    from lifealign.data.clean import read_clean
    from lifealign.life.life import Life
    from lifealign.report.printing import show
    from lifealign.report.terminal import expressed_table, recalled_table

    if (prompt is None) == (examples is None):
        raise ConfigError("recall needs a prompt or --examples FILE, and not both")
    opened = Life.open(life)
    if examples is not None:
        expressed = opened.recall_examples(read_clean(examples).pairs)
        if as_json:
            say_lines(*json.dumps([asdict(one) for one in expressed], indent=2).split("\n"))
        else:
            show(console, expressed_table(expressed))
        return
    assert prompt is not None
    found = opened.recall(prompt, alpha=alpha)
    if as_json:
        recalled = [one.task for one in found.recalled]
        shown = asdict(found) | {"recalled": recalled, "unknown": found.unknown}
        say_lines(*json.dumps(shown, indent=2).split("\n"))
        return
    show(console, recalled_table(found))
    say_lines(f"answer with: {found.version} ({found.why})")
    if found.never_unlike:
        needed = math.ceil(1 / alpha) - 1
        names = ", ".join(f"{one.task} ({one.compared})" for one in found.never_unlike)
        say_lines(f"no prompt can be called unlike these at alpha {alpha:g}, which needs {needed} to compare: {names}")


def task_weights(given: Sequence[str]) -> dict[str, float]:
    """Weights by task, from ``TASK=NUMBER``."""
    weights = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise ConfigError(f"--weight: found {text!r}, expected TASK=NUMBER, such as greet=0.5")
    return weights
