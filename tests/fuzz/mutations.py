"""Damage to files: to their bytes, and to what the bytes say, with everything around it as it should be."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

Random = random.Random

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**30, -0.0, 1.5, 1e308, float("nan"), float("inf")),
    *("", " ", "\n" * 3000, "a", "\0", "\ud800", "\u202e", "é" * 300, "../../x", "/etc/passwd", "<|im_end|>", "nan"),
    *([], [[]], {}, {"a": 1}, [{"role": "user", "content": "a"}], "[{'role': 'user', 'content': 'a'}]"),
    *("Human: a\n\nAssistant: b", "1" * 5000, "x" * 70_000, " " * 70_000),
)
"""Values that a field may have although nobody meant it to."""
PIECES = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r\n", b"\t", b"\\", b'"', b"'", b"{", b"}", b"[", b"]"),
    *(b",", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"-", b"&a", b"*a", b"<<: *a", b"!!python/object:a", b"|\n"),
    *(b"---\n", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"GGUF", b"\x80\x04", b"../", b"\xed\xa0\x80", b"\xe2\x80\xa8"),
    *(
        b"Human:",
        b"Assistant:",
        b"System:",
        b"${HOME}",
        b"~",
        b"%s",
        b"{{ 1 }}",
        b"a@b.c ",
        b"+49 30 1 ",
        b"4111 1111 ",
    ),
)
LONGEST_RUN = 200_000
"""Bytes that one piece is repeated to."""


def mutated(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    """Bytes with one to four faults.

    Args:
        draw: Decides which.
        content: The bytes.
        others: Bytes that parts may be taken from.
    """
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice(BYTES)(draw, content, others)
    return content


def place(draw: Random, content: bytes) -> int:
    return draw.randrange(len(content) + 1)


def flip(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    if not content:
        return b"\1"
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def cut(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    return content[: place(draw, content)]


def without(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    at = place(draw, content)
    return content[:at] + content[at + draw.choice((1, 2, 8, 100)) :]


def inserted(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    at = place(draw, content)
    return content[:at] + draw.choice((draw.choice(PIECES), draw.randbytes(draw.randrange(1, 9)))) + content[at:]


def overwritten(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    at, piece = place(draw, content), draw.choice(PIECES)
    return content[:at] + piece + content[at + len(piece) :]


def run(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    """Something short, again and again."""
    at = place(draw, content)
    piece = draw.choice((draw.choice(PIECES), content[at : at + draw.randrange(1, 40)])) or b" "
    times = draw.choice((2, 70, 3000, LONGEST_RUN // len(piece)))
    return content[:at] + piece * min(times, LONGEST_RUN // len(piece) + 1) + content[at:]


def spliced(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    other = draw.choice(others)
    return content[: place(draw, content)] + other[place(draw, other) :]


def wrapped(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    if draw.random() < 0.8:
        return content
    return draw.choice((lambda: gzip.compress(content, 1, mtime=0), lambda: b"\xef\xbb\xbf" + content))()


BYTES: tuple[Callable[[Random, bytes, list[bytes]], bytes], ...] = (
    *(flip, flip, cut, without, without, inserted, inserted, overwritten, overwritten, run, spliced, wrapped),
)


def mutated_json(draw: Random, content: bytes) -> bytes:
    """The same for JSON, or lines of it: something in it becomes another value, goes, comes twice or moves."""
    lines = content.split(b"\n") if b"\n{" in content.strip() and content[:2] != b"{\n" else [content]
    at = draw.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except ValueError:
        return content
    indent = 2 if len(lines) == 1 else None
    for _ in range(draw.choice((1, 1, 2, 5))):
        lines[at] = json.dumps(_changed(draw, value), indent=indent, sort_keys=indent is not None).encode()
        if len(lines[at]) > 2 * LONGEST_RUN:
            break
        value = json.loads(lines[at])  # no two parts of it are one
    return b"\n".join(lines)


def _changed(draw: Random, value: Any) -> Any:
    holders = [*_holders(value)]
    if not holders or draw.random() < 0.02:
        return draw.choice(ODD)
    holder = draw.choice(holders)
    key = draw.choice([*holder]) if isinstance(holder, dict) else draw.randrange(len(holder))
    match draw.randrange(6):
        case 0 if isinstance(holder, dict):
            holder[
                draw.choice(("", "a", key.upper(), key + "\n", *[one for one in map(str, ODD) if len(one) < 99]))
            ] = 1
        case 0 | 1:
            del holder[key]
        case 2 if isinstance(holder, list):
            holder *= draw.choice((2, 50, 2000)) if len(holder) < 100 else 2
        case 3:
            other = draw.choice(holders)
            there = draw.choice([*other]) if isinstance(other, dict) else draw.randrange(len(other))
            holder[key] = json.loads(json.dumps(other[there]))
        case _:
            holder[key] = draw.choice(ODD)
    return value


def _holders(value: Any) -> Any:
    """Every list and object that is not empty."""
    if isinstance(value, dict | list) and value:
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _holders(part)


def mutated_tensors(draw: Random, content: bytes) -> bytes:
    """The same for safetensors: the header says something else, and is as long as it says."""
    length = int.from_bytes(content[:8], "little")
    header = mutated_json(draw, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
