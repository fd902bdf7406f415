"""Commands that measure a life and show it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifealign.cli.options import LifePath, console, say_lines, show_life
from lifealign.errors import ConfigError
from lifealign.report.printing import show


def evaluate(
    life: LifePath,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="bleu, rouge_l, judge, ...; repeatable; an unknown name lists all. Default: the life's own."),
    ] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Only this version; by default all of them.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the evaluation, such as max_new_tokens=256."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Discard what was measured under other settings.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="Have the judge compare answers with this version's; 00-base is the base model."
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
    rubric: Annotated[Path | None, typer.Option(help="Rubric for every task, in place of the built-in ones.")] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=0, help="Maximum requests to the judge now; the same command later asks the rest.")
    ] = None,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, help="Maximum requests to the judge at a time; 8 by default.")
    ] = None,
) -> None:
    """Measure what a life has learnt, at any version, without training; existing measurements are not repeated."""
    from lifealign.evaluation.judge import JudgeConfig
    from lifealign.life.life import Life
    from lifealign.life.measure import measure
    from lifealign.report.terminal import preference_table
    from lifealign.settings.section import build_config

    settings = {
        "base_url": judge_url,
        "api_key_env": judge_key,
        "max_requests": max_requests,
        "max_parallel": max_parallel,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    opened = Life.open(life)
    if judge_model is None:
        for_a_judge = {
            "--judge-url": judge_url,
            "--judge-key": judge_key,
            "--max-requests": max_requests,
            "--max-parallel": max_parallel,
            "--rubric": rubric,
            "--against": against,
            "--metric judge": "judge" if "judge" in (metric or ()) else None,
        }
        for option, value in for_a_judge.items():
            if value is not None:
                raise ConfigError(f"{option} needs a judge; add --judge-model NAME")
    preferred = measure(
        opened.workspace,
        metric or (),
        overrides=set_ or (),
        as_of=as_of,
        replace=replace,
        judge=None
        if judge_model is None
        else build_config(JudgeConfig, given | {"model": judge_model}, source="judge"),
        rubric=rubric,
        against=against,
        say=say_lines,
    )
    if preferred is not None:
        show(console, preference_table(preferred))
    show_life(opened)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="LIFE | RUN...", help="One life, or several lives and result files.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of the page; by default report.html, for one life in its directory."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="LABEL", help="For several runs: the method to compare the others with.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also figures for papers, as SVG and PNG; needs lifealign\\[plot].",  # help is read as markup
        ),
    ] = None,
    recall: Annotated[
        bool, typer.Option("--recall", help="Also which tasks each prompt recalls; the model is loaded for it.")
    ] = False,
) -> None:
    """Show a life, or several runs side by side, on one page that needs no network."""
    from lifealign.report.write import write_report

    path, drawn = write_report(runs, out, against=against, figures=figures, recall=recall)
    say_lines(f"report: {path}")
    if drawn:
        say_lines(f"figures: {len(drawn)} files in {figures}")
