"""Shell completion: what a shell is told when somebody presses the tabulator key, and that nobody waits for it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Command

import lifealign
from lifealign.cli.main import app

COMMANDS = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
COMMANDS |= {str(group.name) for group in app.registered_groups}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(lifealign.__file__).parents[1])}
OURS = [sys.executable, "-m", "lifealign"]


def completed(shell: str, typed: str) -> list[str]:
    """What the shell is told for a line that was typed so far, in the variables in which each shell asks."""
    words = typed.split(" ")
    asked = {"_LIFEALIGN_COMPLETE": f"complete_{shell}"}
    asked |= {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}  # bash
    asked |= {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # zsh and fish
    ended = subprocess.run(OURS, env=ENVIRONMENT | asked, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_bash_completes_commands_options_and_subcommands() -> None:
    assert {*completed("bash", "lifealign ")} == COMMANDS > {"init", "learn", "config"}
    assert completed("bash", "lifealign statu") == ["status"]
    assert {*completed("bash", "lifealign config s")} >= {"schema", "show"}
    assert {"--test", "--max-words"} < {*completed("bash", "lifealign learn my-bot greet.jsonl --")}
    assert completed("bash", "lifealign init --rev") == ["--revision"]


@pytest.mark.parametrize("typed", ["lifealign status ", "lifealign learn my-bot gre", "lifealign learn a b --test t"])
def test_where_a_file_is_meant_the_shell_is_told_nothing_and_completes_names_of_files(typed: str) -> None:
    assert "".join(completed("bash", typed)) == ""
    assert completed("zsh", typed) == ["_files"]


def test_zsh_and_fish_are_told_what_a_command_does() -> None:
    (zsh,) = completed("zsh", "lifealign statu")
    assert re.fullmatch(r"""_arguments '\*: :\(\("status":"What a life has learnt, .*"\)\)'""", zsh)
    (fish,) = completed("fish", "lifealign statu")
    assert fish.startswith("status\tWhat a life has learnt, ")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_the_script_for_bash_does_it_in_a_bash(tmp_path: Path) -> None:
    """The script, read by a shell that finds this ``lifealign`` on its path, does what bash calls it for."""
    program = tmp_path / "lifealign"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lifealign "$@"\n')
    program.chmod(0o755)
    typed = """
eval "$(_LIFEALIGN_COMPLETE=source_bash lifealign)"
COMP_WORDS=(lifealign statu) COMP_CWORD=1
_lifealign_completion lifealign
echo "${COMPREPLY[@]}"
complete -p lifealign
"""
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(["bash", "--norc", "-c", typed], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["status", "complete -o default -F _lifealign_completion lifealign"]


def test_a_person_is_not_made_to_wait_for_it() -> None:
    """Under a second of work, torch not imported; time on the processor, so that a busy machine does not count."""
    looked_at = (
        "import sys; from lifealign.__main__ import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    )
    asked = {"_LIFEALIGN_COMPLETE": "complete_bash", "COMP_WORDS": "lifealign ", "COMP_CWORD": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run([sys.executable, "-c", looked_at], env=ENVIRONMENT | asked, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (told.returncode, told.stderr) == (0, "") and {*told.stdout.splitlines()} == COMMANDS
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_the_options_that_set_it_up_are_shown(lifealign: Command) -> None:
    shown = lifealign("--help").out
    assert "--install-completion" in shown and "--show-completion" in shown


def test_the_version_is_that_of_the_package(lifealign: Command) -> None:
    import lifealign as package

    shown = lifealign("--version")
    assert (shown.code, shown.out, shown.err) == (0, f"lifealign {package.__version__}\n", "")
