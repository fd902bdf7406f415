"""How the command line ends: the message shown for an error, and the exit code.

====  =================================================================================================
0     done
1     not everything could be done: training failed, a judge did not answer, the disk or the memory is full
2     the request is invalid: data, settings, a life, a file or an option
3     refused: a step would have cost earlier tasks more than the life's retention allows
70    a bug in this package; ``--debug`` shows its traceback
130   Ctrl-C
141   the reader of the output has gone, as in ``lifealign status bot | head -1``
====  =================================================================================================
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

import typer
from rich.text import Text

from lifealign.cli.launch import follow, follows, leading
from lifealign.errors import ConfigError, LifeAlignError, Unfinished
from lifealign.report.printing import (
    CLOSED_PIPE,
    Terminal,
    escape_what_cannot_be_encoded,
    forget_output,
    log_to_stderr,
    one_line,
    plain,
    printable,
    say,
)

BUG, INTERRUPTED = 70, 130
LONGEST = 400
"""Maximum characters shown of an error message that is not this package's own."""
PATHS = {errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP}
"""System errors that mean a path cannot be used; all others are about the machine, such as a full disk."""

LESS_MEMORY = (
    "lower per_device_train_batch_size or data.max_tokens_per_batch for training, per_device_eval_batch_size for "
    "scoring, or data.max_length, or set gradient_checkpointing; `lifealign doctor` says what a step needs"
)

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer's own, or click's in earlier versions


def run(app: typer.Typer, arguments: Sequence[str]) -> NoReturn:
    """Runs the command line and ends the process, which must have no other work to do.

    Args:
        app: The commands.
        arguments: What follows the program's name. ``--debug`` may be anywhere before a ``--``.

    Raises:
        SystemExit: Always, except that with ``--debug`` an error is raised as it is.
    """
    options, rest = _split_at_double_dash(arguments)
    debug = "--debug" in options
    for stream in (sys.stdout, sys.stderr):
        escape_what_cannot_be_encoded(stream)
    log_to_stderr(tracebacks=debug, lowest=logging.WARNING if follows() else logging.INFO)
    if debug:
        sys.excepthook = _print_traceback
    try:
        code = _code(app, [*(option for option in options if option != "--debug"), *rest], debug)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
        code = CLOSED_PIPE
    sys.exit(code)


def _code(app: typer.Typer, arguments: list[str], debug: bool) -> int:
    try:
        refuse_empty(arguments)
        if follows():
            return follow()
        with leading():
            code = int(app(arguments or ["--help"], prog_name="lifealign", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        lines, code = explained(error)
        _print_error(lines)
        return code
    if code == INTERRUPTED:  # typer returns this code for Ctrl-C, too
        say(Terminal(stderr=True), "interrupted; everything finished so far is kept")
        return code
    return code if arguments else 2


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuses empty arguments: no option takes one, and it is usually an unset variable in a script.

    Raises:
        ConfigError: If an argument is empty; the message names its option or position.
    """
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "=", argument)
        if equals and not value.strip():
            before = arguments[place - 1] if place and arguments[place - 1].startswith("--") else ""
            named = option or before or f"argument {place + 1}"
            raise ConfigError(
                f"{named}: found an empty value, expected text that is not empty; to use the default, leave it out"
            )


def explained(error: Exception) -> tuple[list[str], int]:
    """The lines to show for an error, and the exit code."""
    text = str(error).strip()
    if isinstance(error, LifeAlignError):
        several = isinstance(error, ConfigError | Unfinished)  # their messages have a line for each fault
        return (text.split("\n") if several else [text]), error.exit_code
    if isinstance(error, UsageError):
        return [_usage(error)], 2
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename!s}: " if error.filename is not None else ""
        return [f"{where}{error.strerror}"], 2 if error.errno in PATHS else 1
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in text:
        return [f"{cut(f'out of memory: {text or name}')}; {LESS_MEMORY}"], 1
    return [f"{cut(f'{name}: {text}' if text else name)}: this is a bug; run again with --debug"], BUG


def cut(text: str) -> str:
    r"""Puts a text on one line of at most ``LONGEST`` characters.

    Example:
        >>> cut("two\nlines"), len(cut(1000 * "x"))
        ('two lines', 400)
    """
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def _split_at_double_dash(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits arguments into those before ``--``, where options may be, and the rest, where they may not."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end]], [*arguments[end:]]


def _usage(error: Exception) -> str:
    """Typer's message about a wrong option or argument, and the command that lists the right ones."""
    message = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    return f"{message}{'' if context is None else f' See `{context.command_path} --help`.'}"


def _print_error(lines: Sequence[str]) -> None:
    first, *others = lines
    say(Terminal(stderr=True), Text.assemble(plain("error:", "bold red"), plain(f" {one_line(first)}")), *others)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))
