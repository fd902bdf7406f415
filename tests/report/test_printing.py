"""What is printed is what is there: no markup, no commands to a terminal, no letter that cannot be shown."""

import ast
import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

import lifealign
from lifealign.report.printing import (
    CLOSED_PIPE,
    PlainFormatter,
    Terminal,
    escape_what_cannot_be_encoded,
    one_line,
    plain,
    printable,
    say,
)
from lifealign.report.progress import Progress

SOURCE = Path(lifealign.__file__).parent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\bc\x7f", r"a\rb\x08c\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),  # C1: one character for what ESC [ begins, and a line break
        ("\u202etxt\u2066\u2069\u200f", r"\u202etxt\u2066\u2069\u200f"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\U000e0041", r"\U000e0041"),  # an invisible letter
        ("\udce4\ud83d", r"\udce4\ud83d"),
        ("[bold]ä ± “x” 日本 👩\u200d🔬 می\u200cشد\ttab\nline", None),
        ("C:\\new", None),
    ],
)
def test_what_a_terminal_would_obey_is_escaped_and_nothing_else(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
    assert printable(printable(text)) == printable(text)


def test_a_newline_in_a_name_does_not_make_a_line() -> None:
    assert one_line("a\nerror: b") == r"a\nerror: b"


def lines_of(*lines: str, width: int = 40) -> str:
    file = io.StringIO()
    say(Console(file=file, width=width, force_terminal=True, color_system=None), *lines)
    return file.getvalue()


def test_a_line_is_printed_as_it_is_however_long() -> None:
    for text in ("data[v2]/x[/old]/[bold red]y:smile:", "x" * 200, "two  words " * 20 + "end", "12 'a' http://x"):
        assert lines_of(text) == f"{text}\n"
    assert lines_of("a\nb\x1b[31m", "") == "a\\nb\\x1b[31m\n\n"


def test_a_bar_shows_its_title_as_it_is() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=120, force_terminal=True, color_system=None)) as progress:
        progress.begin("01-[/x]\x1b]0;t\x07")
        for done in (1, 2):
            progress.update("sft", done, 2, {"loss": 1.5})
    shown = file.getvalue()
    assert r"  01-[/x]\x1b]0;t\x07 sft    2 steps  loss 1.500" in shown and "\x1b]" not in shown and "\x07" not in shown


def test_an_encoding_that_has_no_such_letter_gets_an_escape() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    escape_what_cannot_be_encoded(stream)
    escape_what_cannot_be_encoded(None)  # a process without stdout
    say(Console(file=stream), "ä 日 “x”")
    stream.flush()
    assert raw.getvalue() == rb"\xe4 \u65e5 \u201cx\u201d" + b"\n"


def test_nobody_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("lifealign.report.printing.forget_output", lambda: None)
    with pytest.raises(SystemExit) as ended:
        say(Terminal(file=Gone()), "x")
    assert ended.value.code == CLOSED_PIPE == 141


def test_a_log_line_is_one_line_and_its_traceback_is_shown_where_it_was_asked_for() -> None:
    try:
        raise RuntimeError("bro\x1b[31mken\nhere")
    except RuntimeError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "%s", ("a\n\x1bb",), (type(error), error, None))
    assert PlainFormatter().format(record) == r"a\n\x1bb: RuntimeError: bro\x1b[31mken\nhere"
    assert PlainFormatter(tracebacks=True).format(record) == "a\\n\\x1bb\nRuntimeError: bro\\x1b[31mken\nhere"


def test_a_cell_has_its_text_and_one_style() -> None:
    assert (plain("[red]\x1b", "bold").plain, plain("x", "bold").style) == (r"[red]\x1b", "bold")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_is_printed_past_the_one_way(path: Path) -> None:
    if path.name in {"printing.py", "generate_support_desk.py"}:  # the way; a tool that the package never imports
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.ImportFrom(module="rich.markup") | ast.ImportFrom(module="rich", names=[ast.alias(name="print")]):
                pytest.fail(f"{path}:{node.lineno}: rich's markup")
            case ast.Call(ast.Name("print")) | ast.Call(ast.Attribute(attr="print")):
                pytest.fail(f"{path}:{node.lineno}: prints past lifealign.report.printing")
            case ast.Call(ast.Attribute(attr="add_row" | "add_column"), arguments):
                values = [
                    value for one in arguments for value in ast.walk(one) if isinstance(value, ast.FormattedValue)
                ]
                numbers = all(value.format_spec is not None for value in values)
                assert numbers, f"{path}:{node.lineno}: text of others in a cell, expected plain(...)"
