"""Runs tests on the oldest version of each dependency that pyproject.toml allows, in an environment made for it.

    python -m tests.lowest -m "not slow"        # arguments are pytest's

What the dependencies themselves need is the newest that fits, as for anybody who installs the package today.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.environments import PINNED, ROOT, Environment, outside_environment

OURS = {"dev", "docs"}
"""Extras of those who work on this package; the tests are run with the pinned versions of the first."""


def lowest(project: dict[str, Any], pinned: str) -> list[str]:
    """Constraints: the oldest version of each dependency and of those of each extra, and the pinned ones of the tools.

    Args:
        project: The section ``project`` of pyproject.toml.
        pinned: What constraints.txt holds.

    Raises:
        ValueError: If a dependency does not say from which version on.

    Example:
        >>> project = {"dependencies": ["numpy>=2.0"], "optional-dependencies": {"dev": ["numpy>=1", "pytest"]}}
        >>> lowest(project, "numpy==2.4.6\\npytest==9.2.0\\nidna==3.20")
        ['numpy==2.0', 'pytest==9.2.0']
    """
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(lines for extra, lines in extras.items() if extra not in OURS)]
    oldest = {}
    for needed in (Requirement(line) for group in groups for line in group):
        bounds = [one.version for one in needed.specifier if one.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"pyproject.toml: found {needed}, expected one lower bound, such as {needed.name}>=1.0")
        oldest[canonicalize_name(needed.name)] = f"{needed.name}=={bounds[0]}"
    tools = {canonicalize_name(Requirement(line).name) for line in extras["dev"]} - oldest.keys()
    pins = (line for line in pinned.splitlines() if canonicalize_name(line.partition("==")[0]) in tools)
    return [*oldest.values(), *pins]


def main(arguments: Sequence[str]) -> int:
    """Makes the environment and runs pytest in it; returns its exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        constraints = folder / "lowest.txt"
        constraints.write_text("\n".join(lowest(project, PINNED.read_text("utf-8"))) + "\n")
        print(constraints.read_text())
        environment = Environment(folder / "environment", constraints)
        environment.install("-e", f"{ROOT}[{','.join(project['optional-dependencies'].keys() - {'docs'})}]")
        environment.install_embedded_model()
        home = folder / "home"
        home.mkdir()
        tests = [environment.programs / "python", "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(tests, cwd=ROOT, env=outside_environment(home)).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
