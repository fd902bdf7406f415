"""What changed between two answers, word by word."""

from __future__ import annotations

import re
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
        >>> [(piece.kind, piece.text) for piece in changes("Hello there.", "Hello Ann.")]
        [('same', 'Hello '), ('removed', 'there'), ('added', 'Ann'), ('same', '.')]
    """
    if before is None or max(len(before), len(after)) > LONGEST:
        return [Piece("same", after)] if after else []
    old, new = WORDS.findall(before), WORDS.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.ratio() < ALIKE:
        return [Piece("new", after)] if after else [Piece("removed", before)]
    pieces: list[Piece] = []
    for operation, i, j, m, n in matcher.get_opcodes():
        if operation == "equal":
            pieces.append(Piece("same", "".join(new[m:n])))
            continue
        if i < j:
            pieces.append(Piece("removed", "".join(old[i:j])))
        if m < n:
            pieces.append(Piece("added", "".join(new[m:n])))
    return pieces
