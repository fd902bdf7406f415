"""Commands for a life in service: talk to it, serve it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.cli.options import LifePath, console, say_lines
from lifealign.errors import ConfigError, LifeAlignError

if TYPE_CHECKING:
    from lifealign.model.sampling import Sampling
    from lifealign.service.versions import Versions

AsOf = Annotated[
    str | None, typer.Option(metavar="VERSION", help="The version that answers; `base` for the untrained one.")
]


def chat(
    life: LifePath,
    as_of: AsOf = None,
    recall: Annotated[
        bool, typer.Option("--recall", help="Answer each prompt with the version recalled for it.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer in tokens.")] = 256,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="0 takes the most likely token each time; else answers are sampled.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that together hold this.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampled answers the same every time.")] = None,
) -> None:
    """Talk to a life, or to any of its versions; /help lists what else can be said.

    With prompts piped in, one a line, it prints one JSON object a line.
    """
    from lifealign.life.life import Life
    from lifealign.service.chat import Chat, answer_lines, as_line, model_named
    from lifealign.service.speaker import Speaker
    from lifealign.service.versions import RECALL, Versions

    if recall and as_of is not None:
        raise ConfigError("--recall chooses a version for each prompt; leave out --as-of")
    sampling = _sampling(temperature, top_p, seed)
    versions = Versions(life)
    model = model_named(versions, RECALL if recall else as_of)
    opened = Life.open(life)
    speaker = Speaker(opened.workspace)
    talk = Chat(speaker, versions, console, model, max_new_tokens, sampling)
    if not sys.stdin.isatty():
        failed = 0
        for row in answer_lines(talk, sys.stdin):
            failed += "error" in row
            say_lines(as_line(row))
        if failed:
            raise ConfigError(
                f"{failed} {'prompt' if failed == 1 else 'prompts'} could not be answered; each line says why"
            )
        return
    speaker.load()
    say_lines(f"{talk.model}; /help lists the commands, Ctrl-D ends")
    _talk(talk.take)


def serve(
    life: LifePath,
    engine: Annotated[
        str, typer.Option(help="transformers, in this process, or vllm; by default vllm with CUDA if it is installed.")
    ] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Name of the models; by default that of the directory.")] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write down every conversation, answer and feedback, as JSONL.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer in tokens.")] = 512,
    max_body: Annotated[int, typer.Option(min=1024, help="Maximum size of a request in bytes.")] = 2**20,
    print_: Annotated[bool, typer.Option("--print", help="Only print vLLM's command.")] = False,
) -> None:
    """Serve every version of a life as a model of an OpenAI-compatible endpoint; new ones appear without a restart.

    A key that clients have to send is read from the environment variable LIFEALIGN_API_KEY.
    """
    from lifealign.service.versions import Versions

    versions = Versions(life, name)
    if engine not in ("auto", "transformers", "vllm"):
        raise ConfigError(f"--engine: found {engine!r}, expected transformers or vllm")
    if engine == "vllm" or print_ or (engine == "auto" and _can_vllm()):
        _serve_by_vllm(versions, host, port, log, only_print=print_)
        return
    try:
        from lifealign.service.answering import Limits, Service
        from lifealign.service.app import build_app
        from lifealign.service.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serve needs {error.name}, which is not installed; install it with `pip install 'lifealign[serve]'`"
        ) from error
    from lifealign.life.life import Life
    from lifealign.service.access import allowed_hosts, api_key
    from lifealign.service.log import AnswerLog
    from lifealign.service.speaker import Speaker

    key = api_key(host)
    kept = AnswerLog(log) if log is not None else None
    opened = Life.open(life)
    speaker = Speaker(opened.workspace)
    speaker.load()
    service = Service(speaker, versions, opened.config.evaluation, kept, Limits(max_body, max_tokens))

    def ready(address: str) -> None:
        say_lines(f"{address}  (Ctrl-C ends)")
        say_lines(*(f"  {model}" for model in versions.models))
        if kept is not None:
            say_lines(f"every conversation, as it is, goes into {kept.path}; only its owner can read it")

    try:
        serve(build_app(service, hosts=allowed_hosts(host), key=key), host, port, ready)
    finally:
        service.close()


def _sampling(temperature: float, top_p: float, seed: int | None) -> Sampling | None:
    """How tokens are drawn; None for the most likely one each time."""
    import random

    from lifealign.model.sampling import Sampling

    if not 0 < top_p <= 1:
        raise ConfigError(f"--top-p: found {top_p}, expected a number greater than 0 and at most 1")
    if temperature == 0:
        if top_p < 1 or seed is not None:
            raise ConfigError("--top-p and --seed need sampled answers; add --temperature")
        return None
    return Sampling(temperature, top_p, 0, random.SystemRandom().getrandbits(63) if seed is None else seed)


def _talk(take: Callable[[str], bool]) -> None:
    """Reads lines until the conversation ends; Ctrl-C cuts an answer short, or ends if nothing is being answered."""
    with suppress(ImportError):  # not on every system: without it, input() has no arrow keys and no history
        import_module("readline")
    while True:
        try:
            line = input("you> ")
        except EOFError:
            say_lines("")
            return
        try:
            if not take(line):
                return
        except KeyboardInterrupt:
            say_lines("", "(cut short)")


def _can_vllm() -> bool:
    import torch

    return torch.cuda.is_available() and shutil.which("vllm") is not None


def _serve_by_vllm(versions: Versions, host: str, port: int, log: Path | None, *, only_print: bool) -> None:
    """Starts vLLM in place of this process, or prints how."""
    from lifealign.service.access import api_key
    from lifealign.service.vllm import vllm_command

    if log is not None:
        raise ConfigError("--log needs --engine transformers; vLLM does not write conversations down")
    command = vllm_command(versions.directory, host, port)
    key = api_key(host)
    environment = [f"{name}={shlex.quote(value)}" for name, value in command.environment.items()]
    shown = " ".join([*environment, shlex.join(command.arguments)])
    if only_print:
        say_lines(shown)
        return
    if shutil.which("vllm") is None:
        raise ConfigError(
            f"--engine vllm needs vLLM, which is not installed; `pip install vllm`, or run elsewhere: {shown}"
        )
    say_lines(shown, *(f"  {model}" for model in command.models))
    secret = {"VLLM_API_KEY": key} if key else {}
    try:
        os.execvpe("vllm", list(command.arguments), os.environ | command.environment | secret)
    except OSError as error:
        raise LifeAlignError(f"vllm: could not be started: {error.strerror}") from error
