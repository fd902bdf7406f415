"""Commands about settings: their schema for editors, what they are with every default, whether they are right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.cli.options import Settings, say_lines
from lifealign.errors import ConfigError

if TYPE_CHECKING:
    from lifealign.life.settings import LifeConfig

config = typer.Typer(help="Settings: their schema for editors, their values, their mistakes.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of a life's settings or of an experiment.")]


@config.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="life or experiment.")] = "life",
) -> None:
    """Print the JSON schema of settings, with which an editor completes and checks a YAML file.

    Keep it beside the file and name it in its first line:  # yaml-language-server: $schema=lifealign.schema.json
    """
    from lifealign.experiments.schema import KINDS, settings_schema

    if kind not in KINDS:
        raise ConfigError(f"schema: found {kind!r}, expected life or experiment")
    say_lines(*json.dumps(settings_schema(kind), indent=2).split("\n"))


@config.command()
def show(
    source: Annotated[Path, typer.Argument(metavar="LIFE|FILE", help="A life, or a YAML file of settings.")],
    set_: Settings = None,
) -> None:
    """Print all settings of a life or of a file as YAML, every default written out."""
    from lifealign.settings.section import dump_config

    if source.is_dir():
        from lifealign.life.life import Life

        if set_:
            raise ConfigError("--set needs a file; the settings of a life do not change")
        say_lines(*dump_config(Life.open(source).config).rstrip("\n").split("\n"))
        return
    say_lines(*dump_config(_read(source, set_)).rstrip("\n").split("\n"))


@config.command()
def validate(file: File, set_: Settings = None) -> None:
    """Say whether a YAML file of settings is right; every mistake at once, with its line."""
    kind = "an experiment" if hasattr(_read(file, set_), "output_dir") else "a life"
    say_lines(f"{file}: settings of {kind}, without a mistake")


def _read(file: Path, overrides: Sequence[str] | None) -> LifeConfig:
    """Reads a file as what it is: an experiment if it has a setting that only an experiment has."""
    from lifealign.experiments.settings import ExperimentConfig
    from lifealign.life.settings import LifeConfig
    from lifealign.settings.yaml_file import keys_in, load_config

    only_there = ExperimentConfig.model_fields.keys() - LifeConfig.model_fields.keys()
    kind = ExperimentConfig if keys_in(file) & only_there else LifeConfig
    return load_config(file, kind, overrides or ())
