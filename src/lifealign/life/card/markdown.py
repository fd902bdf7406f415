"""Text, code and tables in Markdown, safe whatever characters they contain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lifealign.life.card.loading_code import absolute_path

PUNCTUATION = re.compile(r"([\\`*_\[\]<>|#~$&])")
"""Characters that have a meaning in Markdown or HTML."""
INVISIBLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
"""Control characters, including line ends of every kind."""


def plain(value: object) -> str:
    r"""Text that Markdown shows as it is, in one line.

    Example:
        >>> plain("a_b|c*")
        'a\\_b\\|c\\*'
    """
    return PUNCTUATION.sub(r"\\\1", INVISIBLE.sub(" ", str(value)))


def fenced(language: str, text: str) -> str:
    r"""A block of code whose fence is longer than any run of backticks in the code, so that the code cannot end it.

    Example:
        >>> fenced("yaml", "a: 1")
        '```yaml\na: 1\n```'
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def portable(value: Any) -> Any:
    """The same value with every absolute path cut to its last part, because a card is read on other machines.

    Example:
        >>> portable({"model": {"model_name_or_path": "/srv/models/base"}, "metrics": ["bleu"], "top_k": 3})
        {'model': {'model_name_or_path': 'base'}, 'metrics': ['bleu'], 'top_k': 3}
    """
    match value:
        case Mapping():
            return {key: portable(one) for key, one in value.items()}
        case list() | tuple():
            return [portable(one) for one in value]
        case str() if (path := absolute_path(value)) is not None:
            return path.name or "local"
    return value


def grid(header: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int = 1, escaped: bool = False) -> str:
    """A table in Markdown; columns from ``numbers_from`` on are right-aligned."""
    rule = ["---" if place < numbers_from else "---:" for place in range(len(header))]
    body = [[str(cell) if escaped else plain(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [[plain(cell) for cell in header], rule, *body])


def listed(names: Sequence[str]) -> str:
    """Names separated by commas."""
    return ", ".join(plain(name) for name in names)
