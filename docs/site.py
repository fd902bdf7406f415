"""The documentation as a site in ``build/site``; ``docs/conf.py`` has its look.

::

    python -m docs.site

Pages are kept so that they read well where the repository is looked at, where a link may lead to any file of it. The
site is made of a copy of them in ``build/docs``: there a link to another page of the site leads to that page, by its
title if it was by its file, and of a link to any other file the file's name is left, as code. Three pages of reference
are written from the code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from docs.reference import commands_page, python_page, settings_page

ROOT = Path(__file__).parents[1]
COPIED, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "experiments/README.md": "experiments.md",
    "results/README.md": "results.md",
}
"""Pages of the site that are not in ``docs/``, by their place in the repository."""

NAVIGATION = {
    "Tutorial": ["tutorial"],
    "How-to": [
        "howto_service",
        "howto_engines",
        "other_trainers",
        "howto_compare",
        "howto_report",
        "review",
        "export",
        "general_ability",
        "adding_a_method",
        "contributing",
    ],
    "Explanation": [
        "method",
        "retention",
        "recall",
        "evaluation",
        "deviations",
        "performance",
        "scaling",
        "results",
        "log",
        "track_record",
    ],
    "Reference": [
        "commands",
        "settings",
        "experiments",
        "data",
        "bad_input",
        "collect",
        "serve",
        "models",
        "life_format",
        "api",
        "python",
        "paper_map",
        "security",
        "changelog",
    ],
}
"""Every page but the first, in four groups: for who learns, who works, who wonders, and who looks something up."""

WRITTEN = {"python.md": python_page, "settings.md": settings_page, "commands.md": commands_page}
"""Pages that are written from the code."""

LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<path>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
OUTSIDE = re.compile(r"[a-z]+:")


class DeadLink(Exception):
    """A link to a file that is not there."""


def pages() -> dict[Path, str]:
    """The names on the site of all pages that are kept as files, by their path in the repository."""
    own = {path.relative_to(ROOT): path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    return own | {Path(path): name for path, name in ELSEWHERE.items()}


def for_the_site(text: str, page: Path) -> str:
    """A page with its links as they have to be on the site.

    Args:
        text: The page, in Markdown.
        page: Its path in the repository.

    Raises:
        DeadLink: If a link leads to a file that is not there.
    """
    return "".join(
        part if is_code else LINK.sub(lambda link: _link_on_the_site(link, page), part)
        for part, is_code in _parts(text)
    )


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether it is a block of code."""
    for number, part in enumerate(re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)):
        yield part, number % 2 == 1


def _link_on_the_site(link: re.Match[str], page: Path) -> str:
    text, path, anchor = link["text"], link["path"], link["anchor"] or ""
    if not path or OUTSIDE.match(path):
        return link[0]
    target = Path(os.path.normpath(page.parent / path))
    if not (ROOT / target).exists():
        raise DeadLink(f"{page}: found a link to {path}, which is not there")
    if target in pages():
        by_file = text.strip("`") in (path, target.as_posix())
        return f"[{_title((ROOT / target).read_text('utf-8')) if by_file else text}]({pages()[target]}{anchor})"
    if link["image"]:
        return f"![{text}]({target.name})"
    return text if Path(text.strip("`")).name == target.name else f"{text} (`{target}`)"


def _title(text: str) -> str:
    """The title of a page, as far as its colon."""
    return text.partition("# ")[2].partition("\n")[0].partition(":")[0]


def copy_pages(folder: Path) -> None:
    """Writes every page of the site, and the images on them, into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, name in pages().items():
        (folder / name).write_text(for_the_site((ROOT / path).read_text("utf-8"), path), "utf-8")
    for name, write in WRITTEN.items():
        (folder / name).write_text(write(), "utf-8")
    with (folder / "index.md").open("a", encoding="utf-8") as index:
        index.writelines(_tree(folder, caption, names) for caption, names in NAVIGATION.items())
    for image in (ROOT / "docs").glob("*.png"):
        shutil.copy(image, folder)


def _tree(folder: Path, caption: str, names: Sequence[str]) -> str:
    """A group of the navigation, as Sphinx wants it on the first page."""
    titles = [f"{_title((folder / f'{name}.md').read_text('utf-8'))} <{name}>" for name in names]
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *titles, "```", ""])


def main() -> None:
    """Builds the site; whatever the generator warns of is an error."""
    try:
        copy_pages(COPIED)
    except DeadLink as error:
        sys.exit(f"error: {error}")
    shutil.rmtree(SITE, ignore_errors=True)
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-c", "docs", "-d", "build/doctrees"]
    if code := subprocess.run([*build, str(COPIED), str(SITE)], cwd=ROOT).returncode:
        sys.exit(code)
    print(f"{SITE.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()
