"""The command that begins a life with an adapter from another trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.cli.options import Settings, console, files_of_task, require_scored, say_lines, show_life
from lifealign.errors import ConfigError

if TYPE_CHECKING:
    from lifealign.data.task import Task


def adopt(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of the adapter, as PEFT saves it.")],
    life: Annotated[Path, typer.Argument(metavar="LIFE", help="Directory of the life; new or empty.")],
    base: Annotated[str, typer.Option(help="The model it was trained on: a folder, a .gguf file or a hub id.")],
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TRAIN[,TEST[,GATE]]", help="A task that it was taught, by its files; repeatable."),
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML with `tasks:`, as in an experiment; with exact checks.")
    ] = None,
    before: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the adapter that its training began from.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="lifealign, er, ewc, ...; an unknown name lists all.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    set_: Settings = None,
) -> None:
    """Begin a life with a LoRA adapter that another trainer has made, and measure what it knows.

    Exit code 1 although the life was made: some scores could not be measured; `lifealign evaluate` measures them.
    """
    from lifealign.experiments.tasks import read_tasks
    from lifealign.life.life import Life
    from lifealign.life.settings import LifeConfig
    from lifealign.report.progress import Progress
    from lifealign.settings.yaml_file import load_overrides

    overrides = [*(set_ or ()), f"model.model_name_or_path={json.dumps(base)}"]
    settings = load_overrides(LifeConfig, config, overrides if method is None else [*overrides, f"method={method}"])
    declared = [*(read_tasks(tasks) if tasks is not None else ()), *(_task(text) for text in task or ())]
    if not declared:
        raise ConfigError("adopt needs --task NAME=TRAIN[,TEST[,GATE]] or --tasks FILE: what was the adapter taught?")
    with Progress(console) as progress:
        made = Life.adopt(life, adapter, declared, settings, before=before, listener=progress)
    say_lines(f"{life}: a life that begins with {adapter}, method {made.config.method.title}")
    if before is None:
        say_lines("what its training has done to lora_A is not known without --before, and is taken to be nothing")
    show_life(made)
    require_scored(made, {version.name for version in made.steps})


def _task(text: str) -> Task:
    from lifealign.data.task import Task

    name, train, test, gate = files_of_task("--task", text)
    return Task.from_files(name, train, test, gate=gate)
