"""Strict JSON: UTF-8, no repeated keys, finite numbers only, limited nesting."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Never

DEEPEST = 64
"""Maximum nesting of objects and lists; files of a life have fewer than ten levels."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Control characters, which a terminal obeys instead of displaying."""


def parse_json(content: bytes) -> Any:
    """Parses one JSON value.

    Args:
        content: The text, in UTF-8.

    Raises:
        ValueError: If the content is not acceptable: a ``json.JSONDecodeError`` with the position for a syntax error,
            a ``UnicodeDecodeError`` for another encoding, and a plain ``ValueError`` for a key that is repeated or has
            control characters, a number that is not finite or has thousands of digits, or nesting deeper than
            ``DEEPEST``.

    Example:
        >>> parse_json(b'{"a": [1, 2.5, null]}')
        {'a': [1, 2.5, None]}
        >>> parse_json(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' occurs twice
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
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:80]!r} occurs twice")
    if CONTROL.search("".join(value)):
        bad = next(key for key in value if CONTROL.search(key))
        raise ValueError(f"the key {bad[:80]!r} contains control characters")
    return value


def _no_number(text: str) -> Never:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text[:80]} is too large")
    return number


def _is_deeper(value: Any) -> bool:
    """Whether a value is nested too deeply; checked level by level, so that the check needs no deep stack itself."""
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
    return ValueError(f"lists and objects are nested more than {DEEPEST} levels deep")
