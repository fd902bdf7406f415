"""The command line: each verb parses, calls one function, prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from lifealign.errors import ConfigError, Unfinished, Unscored
from lifealign.report.printing import Terminal, plain, say, show

# Each verb imports what it needs: `lifealign check` should not wait for torch.
app = typer.Typer(
    help="Keep a language model aligned for life: teach it one more preference task, keep the others.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Terminal()

LifePath = Annotated[Path, typer.Argument(metavar="LIFE", help="Directory of the life.")]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Folder with NAME/train.jsonl and NAME/test.jsonl, in place of the hub."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as preference.beta=0.2.")
]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Options of every verb."""


@app.command()
def init(
    life: LifePath,
    model: Annotated[str | None, typer.Option(help="smollm2-135m, a folder, a .gguf file or a hub id.")] = None,
    method: Annotated[str | None, typer.Option(help="lifealign, er, ewc, ...; a wrong word lists all.")] = None,
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
    if method is not None:
        overrides.append(f"method={method}")
    settings = load_overrides(LifeConfig, config, overrides)
    made = Life.create(life, settings)
    base = made.directory.manifest.base
    _say(f"{life}: a new life on {base.model_name_or_path}, method {made.config.method.title}")
    _say(f"next: lifealign learn {life} TASK.jsonl --test TASK-test.jsonl")


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSONL, JSON, CSV or Parquet, or hub:owner/name.")],
    model: Annotated[str | None, typer.Option(help="Count tokens with this model's tokenizer.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Most tokens of prompt and answer; needs --model.")
    ] = None,
) -> None:
    """Is this data any good? Rows, shapes, lengths, duplicates, conflicts, what is dropped and why."""
    from lifealign.data.inspection import inspect

    tokenizer = None
    if model is not None:
        from lifealign.model.base_model import load_tokenizer

        tokenizer = load_tokenizer(model)
    elif max_length is not None:
        raise ConfigError("--max-length needs --model, whose tokenizer counts the tokens")
    _say(*inspect(file, tokenizer, max_length).render().split("\n"))


@app.command()
def learn(
    life: LifePath,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Training pairs of the task.")],
    test: Annotated[str | None, typer.Option(help="Held-out pairs, to score the task on from now on.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the task; by default the file's.")] = None,
    max_words: Annotated[int | None, typer.Option(min=1, help="Exact check: most words of an answer.")] = None,
    matches: Annotated[list[str] | None, typer.Option(help="Exact check: a pattern every answer contains.")] = None,
    lacks: Annotated[list[str] | None, typer.Option(help="Exact check: a pattern no answer contains.")] = None,
) -> None:
    """Teach one more task and keep the others.

    Exit code 1 with a version learnt means that some of its scores could not be measured; `lifealign evaluate` does it.
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
    task = Task.from_files(task_name, file, test, check=exact)
    with Progress(console) as progress:
        known = len(opened.steps)
        version = opened.learn(task, progress)
    if len(opened.steps) == known:
        _say(f"{task.name}: already learnt from this data in {version.name}; nothing to do")
    _show(opened)
    _require_scored(opened, {step.name for step in opened.steps[known:]})


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="A stream of tasks and its settings.")],
    set_: Settings = None,
    data: DataFolder = None,
    result: Annotated[Path | None, typer.Option(help="Also write the result file here.")] = None,
) -> None:
    """Live through a whole stream; the same command again finishes an interrupted one.

    Exit code 1 with all of it learnt means that some scores could not be measured; `lifealign evaluate` does it.
    """
    from lifealign.experiments.result_of_life import save_result
    from lifealign.experiments.run import run_experiment
    from lifealign.experiments.settings import load_experiment
    from lifealign.report.progress import Progress

    loaded = load_experiment(experiment, [*(set_ or ()), *_data_setting(data)])
    with Progress(console) as progress:
        life = run_experiment(loaded, progress)
    if result is not None:
        save_result(life, result)
    _show(life)
    _require_scored(life, {step.name for step in life.steps})


@app.command()
def compare(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="A stream and a section 'compare'.")],
    set_: Settings = None,
    data: DataFolder = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time, each in a process of its own.")] = 1,
    results: Annotated[Path | None, typer.Option(help="Folder of result files and tables.")] = None,
    only_tables: Annotated[
        bool, typer.Option("--only-tables", help="Run nothing; tables of what is finished.")
    ] = False,
) -> None:
    """Compare methods x orders x seeds on one stream; the same command again goes on, cell by cell."""
    from lifealign.experiments.cells import cells_of
    from lifealign.experiments.compare import run_comparison
    from lifealign.experiments.comparison import comparison_of
    from lifealign.experiments.settings import load_experiment
    from lifealign.report.progress import Progress
    from lifealign.report.table_formats import terminal, write_tables

    loaded = load_experiment(experiment, [*(set_ or ()), *_data_setting(data)])
    folder = results or loaded.output_dir / "results"
    cells = cells_of(loaded, folder)
    failures = []
    if not only_tables:
        with Progress(console) as progress:
            failures = run_comparison(cells, jobs=jobs, say=_say, progress=progress)
    against = loaded.compare.reference_label
    comparison = comparison_of(cells, against)
    if comparison is not None:
        show(console, *terminal(comparison))
        if comparison.against != against:
            _say(f"no result of {against} yet, so nothing is compared with it")
        _say(f"also as: {', '.join(str(path) for path in write_tables(comparison, folder))}")
    if failures:
        raise Unfinished([f"{failure.cell.name}: {failure.error}" for failure in failures], len(cells))
    if comparison is None:
        raise ConfigError(f"{folder}: found no result of this comparison, expected at least one finished cell")


@app.command()
def status(life: LifePath) -> None:
    """What a life has learnt, and how well it still knows it."""
    from lifealign.life.life import Life

    opened = Life.open(life)
    files = opened.directory.verify(opened.versions)
    base = opened.directory.manifest.base
    _say(
        f"{life}: {len(opened.steps)} learnt on {base.model_name_or_path}, method {opened.config.method.title}; "
        f"{files} files, all as committed"
    )
    for version in opened.steps:
        tasks = ", ".join(
            f"{task.name} ({task.train_pairs} pairs, {task.test_pairs} held out)" for task in version.tasks
        )
        _say(f"  {version.name}: {tasks}")
    _show(opened)


@app.command()
def evaluate(
    life: LifePath,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="bleu, rouge_l, judge, ...; may repeat; a wrong word lists all. By default the life's own."),
    ] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Only this version; by default all of them.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the evaluation, such as max_new_tokens=256."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Forget what was measured under other settings.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="Have the judge prefer answers: ours or this version's; 00-base is the base."
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's model, as its endpoint names it.")] = None,
    judge_url: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1.")
    ] = None,
    judge_key: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Environment variable that holds the key, by default OPENAI_API_KEY; never the key itself.",
        ),
    ] = None,
    rubric: Annotated[
        Path | None, typer.Option(help="Rubric of every task, in place of those that come along.")
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=0, help="Most requests to the judge now; what is left is asked next time.")
    ] = None,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, help="Requests to the judge at a time; 8 by default.")
    ] = None,
) -> None:
    """Measure what a life has learnt, at any version, without training; what is measured already is not repeated."""
    from lifealign.evaluation.judge import JudgeConfig
    from lifealign.life.life import Life
    from lifealign.life.measure import measure
    from lifealign.report.terminal import preference_table
    from lifealign.settings.section import build_config

    options = {
        "base_url": judge_url,
        "api_key_env": judge_key,
        "max_requests": max_requests,
        "max_parallel": max_parallel,
    }
    given = {name: value for name, value in options.items() if value is not None}
    opened = Life.open(life)
    if judge_model is None:
        asked = [*given, *(name for name, value in (("rubric", rubric), ("against", against)) if value is not None)]
        asked += ["metric judge"] if "judge" in (metric or ()) else []
        if asked:
            raise ConfigError(f"found {', '.join(asked)} without a judge, expected --judge-model NAME beside it")
    preferred = measure(
        opened,
        metric or (),
        overrides=set_ or (),
        as_of=as_of,
        replace=replace,
        judge=None
        if judge_model is None
        else build_config(JudgeConfig, given | {"model": judge_model}, source="judge"),
        rubric=rubric,
        against=against,
        say=_say,
    )
    if preferred is not None:
        show(console, preference_table(preferred))
    _show(opened)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="LIFE | RUN...", help="A life; or several lives and result files.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; by default report.html, in the life if it is one."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Of several runs: the method the others are compared with.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also figures for papers, as SVG and PNG; needs lifealign\\[plot].",  # help is read as markup
        ),
    ] = None,
) -> None:
    """Show a life, or several runs side by side, on one page that needs no network."""
    from lifealign.report.write import write_report

    path, drawn = write_report(runs, out, against=against, figures=figures)
    _say(f"report: {path}")
    if drawn:
        _say(f"figures: {len(drawn)} files in {figures}")


@app.command()
def rollback(
    life: LifePath, to: Annotated[str, typer.Option(help="Version that becomes the last one; 00-base forgets all.")]
) -> None:
    """Undo everything learnt after a version."""
    from lifealign.life.life import Life

    opened = Life.open(life)
    undone = [version.name for version in opened.versions[opened.directory.index(to) + 1 :]]
    opened.rollback(to)
    _say(f"{life}: back at {to}; forgot {', '.join(undone) or 'nothing'}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's lives.")] = Path("lifealign-demo"),
    full: Annotated[bool, typer.Option("--full", help="Also experience replay (ER) alone.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Root seed.")] = 42,
) -> None:
    """Teach an embedded model four house rules, one after the other, with and without LifeAlign."""
    from lifealign.cli.demo import run_demo

    run_demo(console, out, full=full, seed=seed)


def _say(*lines: str) -> None:
    """Prints lines as they are, above a progress bar if there is one."""
    say(console, *lines)


def _data_setting(folder: Path | None) -> list[str]:
    """The setting that ``--data`` is short for."""
    return [] if folder is None else [f"data_dir={json.dumps(str(folder.absolute()))}"]


def _show(life: object) -> None:
    from lifealign.evaluation.metrics import METRICS, PERPLEXITY, general_line
    from lifealign.life.life import Life
    from lifealign.report.terminal import holes_text, matrix_table, summary_line

    assert isinstance(life, Life)
    for matrix in life.scores.values():
        say(console, "", plain(METRICS[matrix.metric].label, "bold"))
        show(console, matrix_table(matrix, [version.name for version in life.steps]))
        _say(f"  {summary_line(matrix)}")
        if missing := holes_text(matrix, [version.name for version in life.steps]):
            _say(f"  missing: {missing}; `lifealign evaluate` measures what can be measured")
    general = life.records[-1].general if life.steps else None
    if general is not None:
        _say("", general_line(general))
    elif life.steps and (why := life.records[-1].holes.get(PERPLEXITY)):
        _say("", f"{PERPLEXITY} is missing: {', '.join(why.values())}; `lifealign evaluate` measures it")
    folder = life.directory.path / "versions" / life.versions[-1].name
    _say("", f"adapter: {folder}")


def _require_scored(life: object, versions: Collection[str]) -> None:
    """Ends the command with exit code 1 where versions that it has learnt lack scores."""
    from lifealign.life.life import Life

    assert isinstance(life, Life)
    holes = [
        f"{version.name}: {what} ({why})"
        for version, record in zip(life.steps, life.records, strict=True)
        if version.name in versions
        for why, missing in record.missing.items()
        for what in missing
    ]
    if holes:
        raise Unscored(life.directory.path, holes)


def main() -> None:
    """Runs the command line and ends the process; see :mod:`lifealign.cli.exit` for what it says and returns."""
    from lifealign.cli.exit import run

    run(app, sys.argv[1:])
