"""Shows text on a terminal as it is: nothing in a name, a path or an answer acts as markup or as a terminal command.

Everything that is printed goes through :func:`say` (lines), :func:`write_on` (lines that grow), :func:`show` (tables,
with :func:`plain` cells) or :class:`PlainFormatter` (logs).
"""

from __future__ import annotations

import io
import logging
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

CLOSED_PIPE = 141
"""Exit code after the reader of the output has gone: 128 + SIGPIPE, which a shell reports for any other program."""
JOINERS = "\u200c\u200d"  # between letters of Persian and parts of emoji


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal would obey, or that is invisible or cannot be encoded.

    These are control characters except newline and tab, marks that are invisible or reverse the direction of writing,
    line separators, and halves of surrogate pairs, which is how Python represents the bytes of a file name that is not
    UTF-8.

    Example:
        >>> print(printable("red \x1b[31m, back\r, \u202etxt.exe, \udce4, two\nlines"))
        red \x1b[31m, back\r, \u202etxt.exe, \udce4, two
        lines
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if _obeyed(one) else one for one in text)


def one_line(text: str) -> str:
    r"""The text as :func:`printable` returns it, in one line.

    Example:
        >>> print(one_line("a\nerror: b"))
        a\nerror: b
    """
    return printable(text).replace("\n", r"\n")


def plain(text: str, style: str = "") -> Text:
    """A cell, title or heading for rich, which shows the text as it is, in one style."""
    return Text(printable(text), style)


def say(console: Console, *lines: str | Text, style: str = "") -> None:
    """Prints lines as they are, however long; a newline inside one is shown, not obeyed.

    Args:
        console: Where to print.
        *lines: One line each; a :class:`~rich.text.Text` if parts of the line have a style.
        style: Style of plain lines.
    """
    for line in lines:
        text = Text(one_line(line), style) if isinstance(line, str) else line
        console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def write_on(console: Console, piece: str) -> None:
    """Prints a piece of a text that goes on, such as an answer that is being written; newlines in it are obeyed."""
    console.print(Text(printable(piece)), end="", highlight=False, markup=False, emoji=False, soft_wrap=True)


def show(console: Console, *parts: RenderableType) -> None:
    """Prints tables and texts whose cells were made by :func:`plain`."""
    for part in parts:
        console.print(part)


def printed(console: Console, work: Callable[[], None]) -> str:
    """What some work prints on a console, kept back: nothing of it appears if the work fails."""
    with console.capture() as kept:
        work()
    return kept.get()


def print_again(console: Console, text: str) -> None:
    """Prints what :func:`printed` has kept back."""
    console.file.write(text)


class Terminal(Console):
    """A console that silently ends the program when its reader is gone, as in ``lifealign status bot | head -1``."""

    def on_broken_pipe(self) -> None:
        """Ends with the exit code of a closed pipe."""
        self.quiet = True
        forget_output()
        raise SystemExit(CLOSED_PIPE)


def forget_output() -> None:
    """Discards output that is still unwritten, so that Python's final flush does not complain about a closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError, AttributeError):
            pass  # a full disk, a closed stream, or no stream
    os.close(nowhere)


def escape_what_cannot_be_encoded(stream: TextIO | None) -> None:
    r"""Makes a stream write ``ä`` as ``\xe4`` instead of failing if its encoding has no such letter."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class PlainFormatter(logging.Formatter):
    """Log records for a terminal: the message in one line, and its traceback only on request.

    Args:
        tracebacks: Whether tracebacks are shown.
    """

    def __init__(self, tracebacks: bool = False) -> None:
        super().__init__("%(message)s")
        self.tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        line = one_line(record.getMessage())
        if record.exc_info is None:
            return line
        if self.tracebacks:
            return f"{line}\n{printable(self.formatException(record.exc_info))}"
        kind, error, _ = record.exc_info
        return line if kind is None else f"{line}: {one_line(f'{kind.__name__}: {error}')}"


def log_to_stderr(tracebacks: bool = False, lowest: int = logging.INFO) -> None:
    """Sets up logging for a process of ours: lines from this package, and warnings and errors from others.

    Args:
        tracebacks: Whether to show tracebacks, and every log record of this package.
        lowest: Lowest level of this package's records that is shown otherwise.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter(tracebacks))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("lifealign").setLevel(logging.DEBUG if tracebacks else lowest)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # other libraries' deprecations are not for our users


def _obeyed(character: str) -> bool:
    if character in "\n\t" or character in JOINERS:
        return False
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
