"""The command that puts a life on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.cli.options import LifePath, say_lines
from lifealign.errors import ConfigError

if TYPE_CHECKING:
    from lifealign.life.export import Form


def push(
    life: LifePath,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the hub, owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make it a private repository.")] = False,
    merged: Annotated[bool, typer.Option("--merged", help="Push a whole model instead of an adapter.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="Push a LoRA file for llama.cpp instead.")] = False,
    as_of: Annotated[str | None, typer.Option(metavar="VERSION", help="Another version than the last one.")] = None,
    report: Annotated[
        bool | None,
        typer.Option("--report/--no-report", help="The life's page too; by default only with --private."),
    ] = None,
) -> None:
    """Put a version of a life on the Hugging Face hub: the adapter with its card, and the life's page.

    The page quotes held-out prompts and answers, so it is left out of a public repository unless --report is given.
    """
    from lifealign.life.life import Life
    from lifealign.service.push import push_life

    if merged and gguf:
        raise ConfigError("--merged and --gguf are two forms; give one of them")
    opened = Life.open(life)
    page = private if report is None else report
    form: Form = "merged" if merged else "gguf" if gguf else "adapter"
    pushed = push_life(opened, repo, private=private, form=form, as_of=as_of, page=page)
    kind = "private" if pushed.private else "public"
    say_lines(f"{pushed.url}: {pushed.version}, {kind}; {', '.join(pushed.files)}")
    if not page:
        say_lines("the life's page is not in it, because it quotes held-out prompts and answers; --report adds it")
