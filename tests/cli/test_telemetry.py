"""No telemetry: the commands switch off what libraries below them report to their makers; the library touches nothing.

Most tests are a process of its own, because a library reads its switch once, when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.sides import Spec

import lifealign
from benchmarks import alternate
from lifealign.__main__ import NO_TELEMETRY

# `check` of a hub dataset imports huggingface_hub by itself, and ends there, offline.
COMMAND = """
import sys
from lifealign.__main__ import main
assert "huggingface_hub" not in sys.modules
sys.argv = ["lifealign", "check", "hub:nobody/nothing"]
try:
    main()
except SystemExit as ended:
    assert ended.code == 2, ended.code
assert "huggingface_hub" in sys.modules
"""
LIBRARY = """
import lifealign.__main__, lifealign.cli.main
lifealign.Task
"""  # with all of a life in between: tests/cli/test_process.py
SEEN = """
import json, multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from huggingface_hub import constants

# As compare starts its workers.
with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    worker = pool.submit(os.getenv, "HF_HUB_DISABLE_TELEMETRY").result()
print(json.dumps([constants.HF_HUB_DISABLE_TELEMETRY, worker, dict(os.environ)]))
"""


def seen(code: str, **own: str) -> tuple[bool, str | None, dict[str, str | None]]:
    """After some code, with variables of the user's own: whether the hub's library is silent, what a worker has, and
    the three variables."""
    environment = {name: value for name, value in os.environ.items() if name not in NO_TELEMETRY}
    environment |= {"PYTHONPATH": str(Path(lifealign.__file__).parents[1]), "HF_HUB_OFFLINE": "1"} | own
    ended = subprocess.run([sys.executable, "-c", code + SEEN], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    silent, worker, found = json.loads(ended.stdout.splitlines()[-1])
    return silent, worker, {name: found.get(name) for name in NO_TELEMETRY}


def test_a_command_switches_it_off_before_the_hub_is_imported_and_so_for_its_workers() -> None:
    assert seen(COMMAND) == (True, "1", NO_TELEMETRY)


def test_what_the_user_has_set_stays() -> None:
    """Who wants to be counted may be."""
    silent, worker, found = seen(COMMAND, HF_HUB_DISABLE_TELEMETRY="0")
    assert (silent, worker) == (False, "0") and found == NO_TELEMETRY | {"HF_HUB_DISABLE_TELEMETRY": "0"}


def test_imported_as_a_library_it_leaves_the_environment_to_whom_it_belongs() -> None:
    assert seen(LIBRARY) == (False, None, dict.fromkeys(NO_TELEMETRY))


def test_the_sides_of_a_benchmark_report_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL, the other side, reports every trainer that is made."""
    for name in NO_TELEMETRY:
        monkeypatch.delenv(name, raising=False)
    given: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        given.update(options)
        return subprocess.CompletedProcess(command, 0, stdout='{"seconds": 1.0}\n', stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    side = Spec("trl", "preference", "m", "float32", data="", name="rows", pairs=1, batch=1, epochs=1, threads=1)
    assert alternate.run_side(side) == {"seconds": 1.0}
    assert given["env"].items() >= NO_TELEMETRY.items()
