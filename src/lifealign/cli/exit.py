"""How the command line ends: what a person reads of whatever went wrong, and the exit code.

====  =================================================================================================
0     done
1     not all of it could be done: training went wrong, a judge did not answer, a full disk, no memory
2     what was asked for cannot be: data, settings, a life, a file or an option
70    a fault of this package; ``--debug`` shows its traceback
130   Ctrl-C
141   nobody reads on, as in ``lifealign status bot | head -1``
====  =================================================================================================
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

import typer
from rich.text import Text

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
"""Characters of a foreign error's message that are shown."""
PATHS = {errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP}
"""What the system says of a path that cannot be used; anything else it says is of the machine, such as a full disk."""

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer's own, or click's in earlier versions


def run(app: typer.Typer, arguments: Sequence[str]) -> NoReturn:
    """Runs the command line in a process that is its own, and ends it.

    Args:
        app: The verbs.
        arguments: What stands behind the program's name. ``--debug`` may stand anywhere.

    Raises:
        SystemExit: Always, but for an error with ``--debug``, which is raised itself.
    """
    options, rest = _split_at_double_dash(arguments)
    debug = "--debug" in options
    for stream in (sys.stdout, sys.stderr):
        escape_what_cannot_be_encoded(stream)
    log_to_stderr(tracebacks=debug)
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
    if code == INTERRUPTED:  # typer's word for Ctrl-C
        say(Terminal(stderr=True), "interrupted; what was finished before is kept")
        return code
    return code if arguments else 2


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuses an empty argument: mostly a variable of a script that is not set, and never a value.

    Raises:
        ConfigError: It names the option.
    """
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "=", argument)
        if equals and not value.strip():
            before = arguments[place - 1] if place and arguments[place - 1].startswith("--") else ""
            named = option or before or f"argument {place + 1}"
            raise ConfigError(f"{named}: found an empty value, expected one; leave it out for its default")


def explained(error: Exception) -> tuple[list[str], int]:
    """What a person reads of an error, line by line, and the exit code."""
    text = str(error).strip()
    if isinstance(error, LifeAlignError):
        several = isinstance(error, ConfigError | Unfinished)  # settings are checked all at once
        return (text.split("\n") if several else [text]), error.exit_code
    if isinstance(error, UsageError):
        return [_usage(error)], 2
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename!s}: " if error.filename is not None else ""
        return [f"{where}{error.strerror}"], 2 if error.errno in PATHS else 1
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in text:
        return [cut(f"out of memory: {text or name}")], 1
    return [f"{cut(f'{name}: {text}' if text else name)}: this is a bug; run again with --debug"], BUG


def cut(text: str) -> str:
    r"""The text in one line of a sensible length.

    Example:
        >>> cut("two\nlines"), len(cut(1000 * "x"))
        ('two lines', 400)
    """
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def _split_at_double_dash(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What may be options, and what stands from ``--`` on and may not."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end]], [*arguments[end:]]


def _usage(error: Exception) -> str:
    """What typer says of a wrong option or argument, and how to see the right ones."""
    message = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    return f"{message}{'' if context is None else f' See `{context.command_path} --help`.'}"


def _print_error(lines: Sequence[str]) -> None:
    first, *others = lines
    say(Terminal(stderr=True), Text.assemble(plain("error:", "bold red"), plain(f" {one_line(first)}")), *others)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))
