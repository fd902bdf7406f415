"""Runs the command line in this process, for every test of a command."""

from __future__ import annotations

import importlib
import io
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import lifealign.cli as lifealign_cli
from lifealign.cli import main as cli
from lifealign.report.printing import Terminal


class Result(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def lifealign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Command]:
    """``lifealign("status", "bot")``, in a folder of its own; ``given`` is what is piped in."""
    monkeypatch.chdir(tmp_path)
    console = Terminal(width=160)
    for module in pkgutil.iter_modules(lifealign_cli.__path__, f"{lifealign_cli.__name__}."):
        if hasattr(loaded := importlib.import_module(module.name), "console"):
            monkeypatch.setattr(loaded, "console", console)
    levels = {name: logging.getLogger(name).level for name in ("py.warnings", "lifealign")}

    def command(*arguments: object, given: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["lifealign", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, out, err)

    yield command
    logging.captureWarnings(False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
