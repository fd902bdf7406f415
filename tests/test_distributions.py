"""What is in the wheel and the sdist, and what they say of themselves. `make test-package` installs and uses them."""

from __future__ import annotations

import contextlib
import subprocess
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml
from hatchling.build import build_sdist, build_wheel
from packaging.requirements import Requirement

import lifealign

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
KINDS = {".py", ".yaml", ".jsonl", ".md", ".j2", ".css", ".js"}
"""What the package is made of: code, a recipe, data, rubrics, templates, style, scripts. And ``py.typed``."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the wheel, by name."""
    folder = tmp_path_factory.mktemp("wheel")
    with contextlib.chdir(ROOT):
        name = build_wheel(str(folder))
    with zipfile.ZipFile(folder / name) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files of the sdist, below its one folder."""
    folder = tmp_path_factory.mktemp("sdist")
    with contextlib.chdir(ROOT):
        name = build_sdist(str(folder))
    with tarfile.open(folder / name) as archive:
        names = [entry.name.partition("/") for entry in archive if entry.isfile()]
    assert {top for top, _, _ in names} == {f"lifealign-{lifealign.__version__}"}
    return {rest for _, _, rest in names}


def metadata_of(wheel: dict[str, bytes]) -> Message:
    return message_from_bytes(wheel[f"lifealign-{lifealign.__version__}.dist-info/METADATA"])


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: dict[str, bytes]) -> None:
    """A template or a file of data that is left out is missed only by who has installed the wheel."""
    source = ROOT / "src"
    files = {path for path in (source / "lifealign").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    ours = {name for name in wheel if ".dist-info/" not in name}
    assert ours == {path.relative_to(source).as_posix() for path in files}
    assert {name for name in ours if Path(name).suffix not in KINDS} == {"lifealign/py.typed"}
    assert {Path(name).suffix for name in ours} == KINDS | {".typed"}
    about = {name.partition(".dist-info/")[2] for name in wheel.keys() - ours}
    assert about == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_the_wheel_says_what_it_is(wheel: dict[str, bytes]) -> None:
    said = metadata_of(wheel)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert said["Version"] == lifealign.__version__ == PROJECT["version"] == cited["version"]
    assert said["License-Expression"] == cited["license"] == "Apache-2.0"
    (entry,) = [text.decode() for name, text in wheel.items() if name.endswith("entry_points.txt")]
    assert entry.split() == ["[console_scripts]", "lifealign", "=", "lifealign.__main__:main"]
    assert set(said.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_sdist_is_the_repository(sdist: set[str]) -> None:
    """All that is committed, because the tests read pages, experiments and results; and nothing that git ignores."""

    def listed(*options: str) -> set[str]:
        command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
        return {*subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")} - {""}

    committed = {name for name in listed() if (ROOT / name).is_file()}
    assert committed - sdist == set()
    assert sdist - committed - listed("--others", "--exclude-standard") == {"PKG-INFO"}


def test_every_pinned_version_is_one_that_the_package_accepts() -> None:
    """Else `make setup` would have no solution, or the tests would run on what users never get."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if line and not line.startswith("#"))
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (Requirement(line) for group in groups for line in group):
        version = pinned[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement}: found {version} in constraints.txt"
