"""Rubrics: what a judge looks at, and what each mark from 1 to 10 means; one Markdown file each."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lifealign.errors import ConfigError
from lifealign.settings.faults import nearest

FOLDER = Path(__file__).parent / "rubrics"
GENERAL = "general"
MARKS = range(1, 11)
HEADING = "## Marks"

PLACEHOLDERS = {"prompt": "CONVERSATION", "answer": "ANSWER", "reference": "REFERENCE"}
"""Placeholders of a rubric, and the names under which the judge sees that material."""
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_ANCHOR = re.compile(r"(\d+):\s+(\S.*)")


@dataclass(frozen=True)
class Rubric:
    """What a judge goes by. Only this becomes an instruction; the material it names never does.

    Attributes:
        name: Name of the file, without its ending.
        criteria: What to look at. It contains ``{prompt}`` and ``{answer}``, which stand for names of material.
        anchors: What each mark means, from mark 1 to mark 10.
    """

    name: str
    criteria: str
    anchors: tuple[str, ...]

    @property
    def shows_reference(self) -> bool:
        """Whether the judge is shown the reference, which it is if the rubric names it."""
        return "{reference}" in "".join((self.criteria, *self.anchors))

    @property
    def fingerprint(self) -> str:
        """Content hash (SHA-256, 16 hexadecimal digits)."""
        return hashlib.sha256("\n".join((self.criteria, *self.anchors)).encode()).hexdigest()[:16]

    def instructions(self) -> str:
        """The criteria, with the names of the material filled in."""
        return _PLACEHOLDER.sub(_block_name, self.criteria)

    def marks_text(self) -> str:
        """What the marks mean, from 10 down, one per line."""
        lines = [f"{mark}: {self.anchors[mark - 1]}" for mark in reversed(MARKS)]
        return _PLACEHOLDER.sub(_block_name, "\n".join(lines))


def load_rubric(path: str | Path) -> Rubric:
    """Reads a rubric.

    The file is UTF-8 text in two parts. The first says what to look at. The second begins with the line ``## Marks``
    and has one entry for each mark from 1 to 10, in any order: ``7: what an answer with this mark is like``. An entry
    may continue on further lines. The first part has to contain ``{prompt}`` and ``{answer}``: they name the material,
    which is shown to the judge separately, between markers. If ``{reference}`` occurs anywhere, the reference is shown
    too.

    Args:
        path: The file.

    Raises:
        ConfigError: If the file cannot be read, or lacks one of these parts.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: found a byte that is not UTF-8 at offset {error.start}, expected a rubric"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: could not be read: {error.strerror}; expected a rubric") from error
    lines = [line.rstrip() for line in text.splitlines()]
    if lines.count(HEADING) != 1:
        raise ConfigError(
            f"{path}: found the line {HEADING!r} {lines.count(HEADING)} times, expected it once, between what to look "
            "at and the meaning of the marks"
        )
    place = lines.index(HEADING)
    criteria = "\n".join(lines[:place]).strip()
    _require_placeholders(path, criteria, text)
    return Rubric(path.stem, criteria, _anchors(path, lines[place + 1 :], place + 2))


@cache
def rubric_for(task: str) -> Rubric:
    """The rubric of a task of the paper, by its name in the catalog; the general one for any other task.

    Example:
        >>> rubric_for("truthfulqa").name, rubric_for("tone").name
        ('truthfulqa', 'general')
    """
    return load_rubric(FOLDER / f"{task if task in known_rubrics() else GENERAL}.md")


@cache
def known_rubrics() -> tuple[str, ...]:
    """Names of the rubrics that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.md")))


def _block_name(found: re.Match[str]) -> str:
    return PLACEHOLDERS.get(found[1], found[0])


def _require_placeholders(path: Path, criteria: str, text: str) -> None:
    for name in _PLACEHOLDER.findall(text):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise ConfigError(
                f"{path}: found the placeholder {{{name}}}, expected some of {known}{nearest(name, PLACEHOLDERS)}"
            )
    for name in ("prompt", "answer"):
        if f"{{{name}}}" not in criteria:
            raise ConfigError(
                f"{path}: found no {{{name}}} above {HEADING!r}, expected it where the text mentions "
                f"{'the conversation' if name == 'prompt' else 'the answer to be judged'}"
            )


def _anchors(path: Path, lines: list[str], first: int) -> tuple[str, ...]:
    """The meaning of each mark, read from the lines after the heading; ``first`` is the number of the first line."""
    found: dict[int, str] = {}
    mark = 0
    for number, line in enumerate(lines, start=first):
        if entry := _ANCHOR.fullmatch(line):
            mark = int(entry[1]) if len(entry[1]) < 4 else 0
            if mark not in MARKS or mark in found:
                fault = "a second time" if mark in found else "outside 1 to 10"
                raise ConfigError(
                    f"{path}:{number}: found the mark {entry[1][:4]} {fault}, expected each of 1 to 10 once"
                )
            found[mark] = entry[2]
        elif line and not mark:
            raise ConfigError(
                f"{path}:{number}: found {line[:40]!r}, expected a mark with its meaning, as in '7: good'"
            )
        elif line:
            found[mark] += f" {line.strip()}"
    if missing := [str(one) for one in MARKS if one not in found]:
        raise ConfigError(
            f"{path}: found no meaning of the marks {', '.join(missing)}, expected one for each of 1 to 10"
        )
    return tuple(found[one] for one in MARKS)
