"""Reasoning blocks: text between two tags in which a model thinks before it answers, not part of its answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Reasoning = Literal["strip", "keep", "refuse"]
"""What to do with reasoning: remove it, keep it, or refuse it with an error."""


class Tags(NamedTuple):
    """The opening and the closing tag of a block."""

    open: str
    close: str


THINK = Tags("<think>", "</think>")
"""The tags of Qwen3, DeepSeek R1, QwQ, SmolLM3, GLM and most others; answers may use them with any template."""
CHANNELS = Tags("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")
"""The harmony format of gpt-oss: everything between the two, other messages included, is not part of the answer."""


def tags_in(source: str) -> tuple[Tags, ...]:
    """Pairs of tags that a template may use for reasoning: every closing tag in its source, with its opening tag."""
    found = [THINK]
    found += [Tags(f"<{name}>", f"</{name}>") for name in re.findall(r"</([A-Za-z][\w:.-]{0,40})>", source)]
    found += [Tags(f"[{name}]", f"[/{name}]") for name in re.findall(r"\[/([A-Z][A-Z_]{1,40})\]", source)]
    found += [Tags(f"<|START_{name}|>", f"<|END_{name}|>") for name in re.findall(r"<\|END_([A-Z_]{1,40})\|>", source)]
    found += [CHANNELS] if "<|channel|>" in source else []
    return tuple(dict.fromkeys(found))


def without_reasoning(text: str, pairs: Iterable[Tags]) -> str:
    r"""Removes the reasoning from an answer; an answer without any is returned unchanged.

    A block begins where its opening tag begins the answer or a line, and ends with the next closing tag. A block
    without an end is removed with everything after it: its answer was never written. A closing tag without an opening
    one, at the beginning or end of a line, ends a block that the prompt opened. Tags within a line are ordinary text.

    Args:
        text: An answer.
        pairs: Tags to look for.

    Example:
        >>> without_reasoning("<think>2 + 2?</think>\n\nFour.", [THINK])
        'Four.'
        >>> without_reasoning("2 + 2?\n</think>\n\nFour.", [THINK]), without_reasoning("<think>Well, 2", [THINK])
        ('Four.', '')
        >>> without_reasoning("Write <think> before it.", [THINK])
        'Write <think> before it.'
    """
    for tags in pairs:
        if tags.open in text or tags.close in text:
            text = _without_blocks(_without_end(text, tags), tags)
    return text


def _without_end(text: str, tags: Tags) -> str:
    """Removes everything up to a closing tag that has no opening tag before it."""
    limit = text.find(tags.open) if tags.open in text else len(text)
    place = text.find(tags.close)
    while 0 <= place < limit:
        before, after = text[:place], text[place + len(tags.close) :]
        if not before.rpartition("\n")[2].strip() or not after.partition("\n")[0].strip():
            return after.lstrip()
        place = text.find(tags.close, place + 1)
    return text


def _without_blocks(text: str, tags: Tags) -> str:
    """Removes the blocks whose opening tag begins the text or a line."""
    place = text.find(tags.open)
    while place >= 0:
        line = text.rfind("\n", 0, place) + 1
        if text[line:place].strip():
            place = text.find(tags.open, place + 1)
            continue
        before = text[:line] if text[:line].strip() else ""
        end = text.find(tags.close, place)
        if end < 0:
            return before
        text = before + text[end + len(tags.close) :].lstrip()
        place = text.find(tags.open, len(before))
    return text
