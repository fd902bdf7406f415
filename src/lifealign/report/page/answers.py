"""What changed between two answers, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

WORDS = re.compile(r"\s+|\w+|[^\w\s]")
LONGEST = 4000
"""Characters; longer answers are shown whole and not compared, which would take quadratic time."""
ALIKE = 0.6
"""Share of words in common (twice the common ones over all) below which an answer counts as written anew."""


class Piece(NamedTuple):
    """A run of text that both answers have, or one of them."""

    kind: Literal["same", "added", "removed", "new"]
    text: str


def changes(before: str | None, after: str) -> list[Piece]:
    """Marks what an answer has gained and lost since the one before.

    Args:
        before: The answer of the version before; None where there is none, then nothing is marked.
        after: The answer.

    Returns:
        A single piece of kind ``new`` where so little is in common that marks would hide the text. Else pieces: without
        those of kind ``removed`` they are ``after``, without those of kind ``added`` ``before``.

    Example:
        >>> [(piece.kind, piece.text) for piece in changes("Hello, my dear friend.", "Hello, our old friend.")]
        [('same', 'Hello, '), ('removed', 'my dear'), ('added', 'our old'), ('same', ' friend.')]
    """
    if before is None or max(len(before), len(after)) > LONGEST:
        return [Piece("same", after)] if after else []
    old, new = WORDS.findall(before), WORDS.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if not _alike(old, new):
        return [Piece("new", after)] if after else [Piece("removed", before)]
    pieces: list[Piece] = []
    removed = added = ""
    for operation, i, j, m, n in matcher.get_opcodes():
        text = "".join(new[m:n])
        if operation != "equal":
            removed, added = removed + "".join(old[i:j]), added + text
        elif removed and added and text.isspace() and n < len(new):
            removed, added = removed + text, added + text  # two changed words in a row read better as one change
        else:
            pieces += [*_marked(removed, added), Piece("same", text)]
            removed = added = ""
    return pieces + _marked(removed, added)


def _alike(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether two answers share enough; spaces do not count, since any two texts have those in common."""
    before, after = ([word for word in text if not word.isspace()] for text in (old, new))
    words = SequenceMatcher(None, before, after, autojunk=False)
    if words.quick_ratio() < ALIKE:  # an upper bound, and much cheaper
        return False
    return words.ratio() >= ALIKE


def _marked(removed: str, added: str) -> list[Piece]:
    pieces = (Piece("removed", removed), Piece("added", added))
    return [piece for piece in pieces if piece.text]
