"""Commands for a whole stream of tasks: run it, compare methods on it, run the demo."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lifealign.cli.launch import processes
from lifealign.cli.options import Settings, console, require_scored, say_lines, show_life
from lifealign.errors import ConfigError, Unfinished
from lifealign.report.printing import log_to_stderr, show

DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Folder with NAME/train.jsonl and NAME/test.jsonl, in place of the hub."
    ),
]


def run(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="A stream of tasks and its settings.")],
    set_: Settings = None,
    data: DataFolder = None,
    result: Annotated[Path | None, typer.Option(help="Also write the result file here.")] = None,
) -> None:
    """Live through a whole stream; the same command again finishes an interrupted one.

    Exit code 1 although all was learnt: some scores could not be measured; `lifealign evaluate` measures them.
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
    show_life(life)
    require_scored(life, {step.name for step in life.steps})


def compare(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="A stream and a section 'compare'.")],
    set_: Settings = None,
    data: DataFolder = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells to run at a time, each in its own process.")] = 1,
    on: Annotated[
        str, typer.Option(metavar="ENGINE", help="processes (of this machine), ray, ray://HOST:PORT, or slurm.")
    ] = "processes",
    cpus: Annotated[int, typer.Option(min=1, help="Processors that a cell asks an engine for.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="Graphics processors that a cell asks an engine for.")] = 0,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A parameter of the queue, as submitit names it; repeatable."),
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Folder for result files and tables.")] = None,
    only_tables: Annotated[
        bool, typer.Option("--only-tables", help="Run nothing; make the tables of what is finished.")
    ] = False,
) -> None:
    """Compare methods x orders x seeds on one stream; the same command again runs the cells that are left."""
    from lifealign.experiments.cells import cells_of
    from lifealign.experiments.compare import comparison_of, run_comparison
    from lifealign.experiments.engines import engine_of
    from lifealign.experiments.settings import load_experiment
    from lifealign.report.progress import Progress
    from lifealign.report.table_formats import terminal, write_tables

    if processes() > 1 and (on or jobs > 1):
        raise ConfigError(
            f"found {processes()} processes of a launcher, expected one with --jobs or --on, which start processes of "
            "their own; leave out the launcher"
        )
    loaded = load_experiment(experiment, [*(set_ or ()), *_data_setting(data)])
    folder = results or loaded.output_dir / "results"
    cells = cells_of(loaded, folder)
    failures = []
    if not only_tables:
        with Progress(console) as progress:
            debug = logging.getLogger("lifealign").isEnabledFor(logging.DEBUG)
            set_up = partial(log_to_stderr, debug, lowest=logging.WARNING)
            logs = loaded.output_dir / "slurm"
            engine = engine_of(on, jobs, cpus=cpus, gpus=gpus, slurm=slurm or (), logs=logs, set_up=set_up)
            failures = run_comparison(cells, engine=engine, say=say_lines, listener=progress)
    against = loaded.compare.reference_label
    comparison = comparison_of(cells, against)
    if comparison is not None:
        show(console, *terminal(comparison))
        if comparison.against != against:
            say_lines(f"no result of {against} yet, so nothing is compared with it")
        say_lines(f"also written to: {', '.join(str(path) for path in write_tables(comparison, folder))}")
    if failures:
        raise Unfinished([f"{failure.cell.name}: {failure.error}" for failure in failures], len(cells))
    if comparison is None:
        raise ConfigError(f"{folder}: found no result of this comparison, expected at least one finished cell")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's lives.")] = Path("lifealign-demo"),
    full: Annotated[
        bool, typer.Option("--full", help="All four rules, more pairs, and experience replay (ER) alone as well.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Root seed.")] = 42,
) -> None:
    """Teach an embedded model house rules, one after another, with and without LifeAlign."""
    from lifealign.cli.demo import run_demo

    run_demo(console, out, full=full, seed=seed)


def _data_setting(folder: Path | None) -> list[str]:
    """The setting that ``--data`` stands for."""
    return [] if folder is None else [f"data_dir={json.dumps(str(folder.absolute()))}"]
