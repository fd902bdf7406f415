"""JSON as it is read here: UTF-8, each key once, finite numbers, no deeper than anything that this package writes."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Never

DEEPEST = 64
"""Most objects and lists inside one another; files of a life have fewer than ten."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys instead of showing."""


def parse_json(content: bytes) -> Any:
    """Parses one JSON value.

    Args:
        content: The text, in UTF-8.

    Raises:
        ValueError: What is wrong, in a few words: a ``json.JSONDecodeError`` with its place if it is the syntax, a
            ``UnicodeDecodeError`` if it is the encoding, else a key that is there twice or holds control characters, a
            number that is not finite or has thousands of digits, or nesting of more than ``DEEPEST``.

    Example:
        >>> parse_json(b'{"a": [1, 2.5, null]}')
        {'a': [1, 2.5, None]}
        >>> parse_json(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' is there twice
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    if _is_deeper(value):
        raise _too_deep()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:80]!r} is there twice")
    if CONTROL.search("".join(value)):
        raise ValueError(f"the key {next(key for key in value if CONTROL.search(key))[:80]!r} has control characters")
    return value


def _no_number(text: str) -> Never:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text[:80]} is too large")
    return number


def _is_deeper(value: Any) -> bool:
    """Whether something is nested too deep; level by level, since it must not need a deep stack itself."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are nested more than {DEEPEST} deep")
