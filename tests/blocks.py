"""The fenced blocks of the documentation's pages, and what their source says about running them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

Mark = Literal["", "not run", "run by", "runs on"]
"""What a comment on the line above a block says of it: nothing, so that it is run in its place on the page; a reason
why it is not run; the test that runs it; that it is a server, which runs until the page has ended."""

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>not run|run by|runs on)(?::? (?P<said>[^\n]+))? -->\n)?"
    r"^(?P<indent> *)```(?P<language>[^\s`]*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Path of its page in the repository.
        line: Line of its first fence.
        language: As its fence names it.
        title: The file that it is, if it is one.
        mark: What the comment above it says, and ``said``, the comment's reason or test.
    """

    page: str
    line: int
    language: str
    title: str
    code: str
    mark: Mark
    said: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = path.read_text("utf-8")
    return [
        Block(
            path.relative_to(ROOT).as_posix(),
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["title"] or "",
            found["code"],
            found["mark"] or "",
            found["said"] or "",
        )
        for found in FENCE.finditer(text)
    ]
