"""The command line: each command parses its arguments, calls one function and prints the result."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated

import typer

from lifealign.cli.adopt import adopt
from lifealign.cli.collect import collect
from lifealign.cli.config import config
from lifealign.cli.consolidate import consolidate
from lifealign.cli.doctor import doctor
from lifealign.cli.exit import run as run_and_exit
from lifealign.cli.export import export
from lifealign.cli.lives import check, compose, forget, init, learn, recall, rollback
from lifealign.cli.measure import evaluate, report
from lifealign.cli.options import say_lines
from lifealign.cli.push import push
from lifealign.cli.review import review
from lifealign.cli.service import chat, serve
from lifealign.cli.state import repair, status, verify
from lifealign.cli.streams import compare, demo, run

app = typer.Typer(
    help="Keep a language model aligned for life: teach it one more preference task, keep the others.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    init,
    check,
    learn,
    run,
    compare,
    status,
    evaluate,
    report,
    rollback,
    verify,
    repair,
    forget,
    compose,
    recall,
    chat,
    serve,
    collect,
    review,
    export,
    push,
    consolidate,
    adopt,
    demo,
    doctor,
):
    app.command()(command)
app.add_typer(config, name="config")


def _show_version(asked: bool) -> None:
    if asked:
        say_lines(f"lifealign {importlib.metadata.version('lifealign')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """Runs the command line and ends the process; :mod:`lifealign.cli.exit` describes messages and exit codes."""
    run_and_exit(app, sys.argv[1:])
