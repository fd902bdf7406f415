"""Every package that the code imports is one that it asks for: not one that happens to come with another."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.blocks import ROOT

import lifealign

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = ("trl", "judge", "serve", "plot", "jieba", "tensorboard", "ray", "slurm", "qlora")


distributions = cache(packages_distributions)


def asked_for() -> set[str]:
    """What is installed with this package and its extras, by name."""
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imports(code: str) -> Iterator[str]:
    """The packages that a file imports, wherever it does, but for Python's own and for its own."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.ImportFrom(module=str(module)):
                found = [module]
            case ast.Import(names):
                found = [alias.name for alias in names]
            case _:
                continue
        for module in found:
            package = module.partition(".")[0]
            if package not in sys.stdlib_module_names and package != "lifealign":
                yield package


def undeclared(code: str) -> set[str]:
    """Packages that a file imports and that are not asked for."""
    known, declared = distributions(), asked_for()
    return {
        package
        for package in imports(code)
        if not {canonicalize_name(name) for name in known.get(package, [package])} & declared
    }


def test_what_is_imported_is_declared() -> None:
    files = sorted(Path(lifealign.__file__).parent.rglob("*.py"))
    assert len(files) > 200
    assert {path.name: found for path in files if (found := undeclared(path.read_text("utf-8")))} == {}


def test_what_only_comes_with_another_package_is_found() -> None:
    """Transformers needs regex, and we do not ask for it."""
    assert undeclared("import os, regex\nfrom torch import Tensor\n") == {"regex"}
