"""Licences of everything that is installed with this package, extra by extra, read from the packages' own metadata.

What metadata does not say, such as the licences of libraries that are bundled in a wheel, is not seen here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from importlib.metadata import Distribution, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MIT-CMU",
    "PSF-2.0",
    "Public Domain",
    "Unlicense",
    "Zlib",
}
"""By their SPDX names. They ask for a notice at most, so that what is under Apache-2.0 may be built on them."""

OTHER_NAMES = {
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "PSFL": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""What packages without a licence expression write, in a classifier or as a short text."""

MPL = "asks for changes to its own files to be published; there are none, and it is not shipped with this package"
RST_EL = "public domain and BSD but for a mode of Emacs, which is not used; only the site of the documentation needs it"
CUDA = "NVIDIA's own terms; a CUDA build of torch requires it on its user's machine, and it is not shipped either"
ACCEPTED = {
    "certifi": ("MPL-2.0", MPL),
    "tqdm": ("MPL-2.0", MPL),
    "hypothesis": ("MPL-2.0", MPL),  # only dev, as the next one
    "pathspec": ("MPL-2.0", MPL),
    "docutils": ("GNU General Public License (GPL)", RST_EL),
    "nvidia-*": ("*", CUDA),
    "cuda-*": ("*", CUDA),
}
"""Packages under a licence that is not in ``ALLOWED``: that licence, and why it is no obstacle."""

Packages = Mapping[str, Distribution]


def packages_in(*folders: Path) -> Packages:
    """The packages in some folders, by default those that can be imported here, by canonical name."""
    found = Distribution.discover(path=[*map(str, folders)]) if folders else Distribution.discover()
    return {canonicalize_name(package.metadata["Name"]): package for package in found}


def closure(packages: Packages, extra: str = "") -> tuple[Packages, set[str]]:
    """What is installed with this package, and with one of its extras, itself apart; and what of it is not there."""
    found: dict[str, Distribution] = {}
    missing, seen, waiting = set(), set(), [("lifealign", ""), ("lifealign", extra)]
    while waiting:
        name, wanted = asked = waiting.pop()
        if asked in seen:
            continue
        seen.add(asked)
        if name not in packages:
            missing.add(name)
            continue
        found[name] = packages[name]
        for line in found[name].requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": wanted}):
                waiting += [(canonicalize_name(needed.name), one) for one in ("", *needed.extras)]
    return {name: package for name, package in sorted(found.items()) if name != "lifealign"}, missing


def licences(package: Distribution) -> list[str]:
    """The licences that a package names, by their SPDX names if these are known; none if it names none.

    They are in its licence expression; else in classifiers and a licence text of one line; else in a longer text, which
    is then nothing that is known. Where one may choose between licences, all count: a person has to look.
    """
    said = package.metadata
    expression, text = said.get("License-Expression") or "", " ".join((said.get("License") or "").split())
    named = _parts(expression)
    if not named:
        classifiers = [line for line in said.get_all("Classifier", []) if line.startswith("License ::")]
        named = [line.split(" :: ")[-1] for line in classifiers]
        if not named or "\n" not in (said.get("License") or "").strip():
            named += [text] if text in OTHER_NAMES else _parts(text)
    return sorted({OTHER_NAMES.get(one, one) for one in named})


def _parts(expression: str) -> list[str]:
    """The licences of an expression."""
    return [part.strip() for part in re.split(r"\b(?:AND|OR)\b|[()]", expression) if part.strip()]


def faults(packages: Packages) -> Iterator[str]:
    """Packages whose licence is unknown, or not one to build on."""
    for name, package in packages.items():
        named = licences(package)
        accepted = [licence for pattern, (licence, _) in ACCEPTED.items() if fnmatch(name, pattern)]
        wrong = [one for one in named if one not in ALLOWED and not any(fnmatch(one, licence) for licence in accepted)]
        if wrong or not named:
            found = ", ".join(one if len(one) < 80 else f"{one[:80]} ..." for one in wrong) or "no licence"
            yield f"{name} {package.version}: found {found}, expected one of ALLOWED, or an entry in ACCEPTED"


INSTALLED = packages_in()
EXTRAS = metadata("lifealign").get_all("Provides-Extra", [])


@pytest.mark.parametrize("extra", ["", *EXTRAS], ids=lambda extra: extra or "no extra")
def test_every_package_that_comes_with_this_one_has_a_licence_to_build_on(extra: str) -> None:
    found, missing = closure(INSTALLED, extra)
    if extra and missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")
    assert not missing and found.keys() > {"torch", "numpy", "huggingface-hub", "tqdm", "certifi"}
    assert [*faults(found)] == []


def test_nothing_is_accepted_that_nobody_needs() -> None:
    """An exception that is not used any more would let the next licence of that package pass unread."""
    closures = [closure(INSTALLED, extra) for extra in ("", *EXTRAS)]
    found = {name: package for packages, _ in closures for name, package in packages.items()}
    whole = not any(missing for _, missing in closures)
    for name, (licence, _) in ACCEPTED.items():
        if name in found or (whole and "*" not in name):
            assert licence in licences(found[name]), name


def distribution(folder: Path, name: str, *lines: str) -> None:
    """Metadata of a package as an installer writes it."""
    place = folder / f"{name}-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("\n".join([f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0", *lines, "", ""]))


@pytest.mark.parametrize(
    ("lines", "named", "wrong"),
    [
        (["License-Expression: MIT"], ["MIT"], None),
        (["License-Expression: MIT AND (BSD-2-Clause OR Zlib)"], ["BSD-2-Clause", "MIT", "Zlib"], None),
        (["License-Expression: Apache-2.0 WITH LLVM-exception"], ["Apache-2.0 WITH LLVM-exception"], None),
        (["License: BSD", "Classifier: License :: OSI Approved :: BSD License"], ["BSD-3-Clause"], None),
        (
            ["License: A text\n        of two lines", "Classifier: License :: OSI Approved :: MIT License"],
            ["MIT"],
            None,
        ),
        (["License-Expression: GPL-3.0-only"], ["GPL-3.0-only"], "GPL-3.0-only"),
        (["License-Expression: MIT OR GPL-2.0-only"], ["GPL-2.0-only", "MIT"], "GPL-2.0-only"),
        (["License: GPLv3", "Classifier: License :: OSI Approved :: MIT License"], ["GPLv3", "MIT"], "GPLv3"),
        (["License-Expression: MPL-2.0"], ["MPL-2.0"], "MPL-2.0"),  # accepted by name of the package only
        (
            ["Classifier: License :: OSI Approved :: GNU General Public License (GPL)"],
            ["GNU General Public License (GPL)"],
            "GNU General Public License (GPL)",
        ),
        (["License: Do what\n        you like"], ["Do what you like"], "Do what you like"),
        ([], [], "no licence"),
    ],
)
def test_a_licence_is_read_from_wherever_a_package_names_it(
    tmp_path: Path, lines: list[str], named: list[str], wrong: str | None
) -> None:
    distribution(tmp_path, "some", *lines)
    packages = packages_in(tmp_path)
    assert licences(packages["some"]) == named
    expected = [] if wrong is None else [f"some 1.0: found {wrong}, expected one of ALLOWED, or an entry in ACCEPTED"]
    assert [*faults(packages)] == expected


def test_packages_are_found_through_others_and_their_extras(tmp_path: Path) -> None:
    """Only what is asked for here: not another system's packages, and not the extras of others that nobody asks for."""
    needs = [
        "below[fast]>=1",
        "elsewhere; sys_platform == 'nowhere'",
        "shown; extra == 'plot'",
    ]
    distribution(tmp_path, "lifealign", *(f"Requires-Dist: {one}" for one in needs), "Provides-Extra: plot")
    distribution(
        tmp_path,
        "below",
        "Requires-Dist: Deep_Down",
        "Requires-Dist: quick; extra == 'fast'",
        "Requires-Dist: lifealign",
    )
    for name in ("Deep_Down", "quick", "unrelated"):
        distribution(tmp_path, name, "License-Expression: GPL-3.0-only")
    packages = packages_in(tmp_path)
    found, missing = closure(packages)
    assert ([*found], missing) == (["below", "deep-down", "quick"], set())
    assert [fault.split(":")[0] for fault in faults(found)] == ["below 1.0", "deep-down 1.0", "quick 1.0"]
    assert closure(packages, "plot")[1] == {"shown"}
