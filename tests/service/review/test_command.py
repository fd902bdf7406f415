"""`lifealign review` in a process of its own: started, talked to, interrupted, killed, and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lifealign
from lifealign.cli import review as command

CODE = """
import signal
import sys
import typer
from lifealign.cli.exit import run
from lifealign.cli.review import review

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background have it ignored
app = typer.Typer()
app.command()(review)
try:
    run(app, sys.argv[1:])
finally:
    assert not {"torch", "transformers", "datasets"} & sys.modules.keys()
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes = []

    def started(*arguments: object) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(Path(lifealign.__file__).parents[1])}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", CODE, *map(str, arguments)],
                cwd=tmp_path,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def until_served(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """The address that a command prints, and the lines before it."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line):
            return found[0], lines
        lines.append(line.rstrip())
    raise AssertionError(f"no address: {lines}, {process.communicate()}")


def ask(address: str, path: str, body: Any = None) -> Any:
    base, token = address.split("/?token=")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(base + path, data, headers), timeout=20) as answer:
        return json.load(answer)


def decide(address: str, choice: str, **more: Any) -> Any:
    view = ask(address, "/row")
    return ask(address, "/decide", {"key": view["row"]["key"], "version": view["version"], "choice": choice, **more})


def test_ctrl_c_ends_it_and_says_what_was_decided_and_what_is_next(start: Start, rows: Path, tmp_path: Path) -> None:
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    process = start("pairs.jsonl", "--no-browser")
    address, lines = until_served(process)
    assert lines[:2] == [
        "pairs.jsonl: 4 pairs to decide, into pairs-reviewed.jsonl",
        "  1 not asked: repeated (line 5)",
    ]
    decide(address, "a", edited="a better one")
    decide(address, "skip")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and err == ""
    assert out.splitlines()[-2:] == [
        "pairs-reviewed.jsonl: 1 decided (1 edited), 1 skipped, 2 left",
        "next: lifealign check pairs-reviewed.jsonl",
    ]
    (row,) = map(json.loads, (tmp_path / "pairs-reviewed.jsonl").read_text().splitlines())
    assert (row["chosen"], row["source"], row["why"]) == ("a better one", "pairs.jsonl:1", "edited")


def test_finish_ends_it_and_nothing_decided_writes_nothing(start: Start, rows: Path, out: Path) -> None:
    process = start(rows, "--out", out, "--no-browser")
    ask(until_served(process)[0], "/finish", {})
    said, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "") and not out.exists()
    assert said.splitlines()[-1] == f"{out}: 0 decided, 0 skipped, 4 left"


def test_killed_and_started_again_it_goes_on(start: Start, rows: Path, out: Path) -> None:
    process = start(rows, "--out", out, "--no-browser")
    address, _ = until_served(process)
    decide(address, "a")
    process.kill()
    process.wait()
    assert len(out.read_text().splitlines()) == 1
    address, lines = until_served(start(rows, "--out", out, "--no-browser"))
    assert any(re.fullmatch(r"  1 decided.* before", line) for line in lines)
    assert ask(address, "/row")["row"]["number"] == 2


def test_two_at_once_are_refused_and_the_first_is_not_disturbed(start: Start, rows: Path, out: Path) -> None:
    first = start(rows, "--out", out, "--no-browser")
    address, _ = until_served(first)
    second = start(rows, "--out", out, "--no-browser")
    said, err = second.communicate(timeout=20)
    assert (
        second.returncode == 2
        and said == ""
        and re.fullmatch(rf"error: {out}\.review: found it in use by process {first.pid} .*\n", err)
    )
    assert decide(address, "a")["decided"] == 1


def test_what_is_wrong_is_one_line_and_leaves_nothing_behind(start: Start, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("{}\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, message in (
            (("pairs.jsonl", "--port", port), f"error: port {port} is taken; give another --port.*"),
            (("missing.jsonl",), r"error: missing\.jsonl: found no such file.*"),
            (("mine.jsonl",), r"error: mine\.jsonl:1: found no fields, expected .* if none is chosen yet"),
            (
                ("pairs.jsonl", "--out", "mine.jsonl"),
                r"error: mine\.jsonl: found a file that `lifealign review` has not .*",
            ),
            (("pairs.jsonl", "--out", "pairs.jsonl"), r"error: --out: found pairs\.jsonl, the file to be reviewed, .*"),
            (("/dev/stdin",), r"error: /dev/stdin: rows from a pipe .*--out"),
            (("pairs.jsonl", "--port", "-1"), r"error: Invalid value for '--port'.*"),
        ):
            process = start(*arguments, "--no-browser")
            said, err = process.communicate("", timeout=20)
            assert (process.returncode, said) == (2, ""), err
            assert re.fullmatch(message + r"\n", err), err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "named", "opened"),
    [("Mozilla", False, True), ("GenericBrowser", False, False), ("GenericBrowser", True, True)],
)
def test_a_browser_is_opened_unless_it_would_take_the_terminal(
    monkeypatch: pytest.MonkeyPatch, kind: str, named: bool, opened: bool
) -> None:
    browser = getattr(command.webbrowser, kind)("no-such-program")
    seen: list[str] = []
    monkeypatch.setattr(browser, "open", seen.append)
    monkeypatch.setattr(command.webbrowser, "get", lambda: browser)
    monkeypatch.setenv("BROWSER", "x") if named else monkeypatch.delenv("BROWSER", raising=False)
    command.open_browser("http://127.0.0.1:1/")
    assert seen == ["http://127.0.0.1:1/"] * opened


def test_no_browser_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise command.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(command.webbrowser, "get", none)
    command.open_browser("http://127.0.0.1:1/")
