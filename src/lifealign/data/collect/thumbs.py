"""Thumbs: which of them make a pair, and what becomes of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from lifealign.data.collect.answered import Answer, LeftOut, Opinion, note
from lifealign.data.pair import Message

LONE_UP, LONE_DOWN = "lone thumbs up", "lone thumbs down"
AGREES = "thumbs that say what a pair says already"
BOTH = "thumbs up and down on one text"

Decided = tuple[tuple[Message, ...], str, str]
"""A prompt, the answer to it that was chosen, and the one that was rejected."""


class Thumb(NamedTuple):
    """A thumb up or down.

    Attributes:
        order: Its place among all opinions.
        opinion: The opinion.
        answer: The answer that it is about.
    """

    order: int
    opinion: Opinion
    answer: Answer


def match_thumbs(thumbs: Iterable[Thumb], decided: Iterable[Decided], left_out: LeftOut) -> list[tuple[Thumb, Thumb]]:
    """Matches thumbs up with thumbs down on other answers to the same prompt, first with first, second with second.

    Each thumb is used once, so that every pair rests on two observations of its own. A text with thumbs of both kinds
    is in no pair.

    Args:
        thumbs: The thumbs, in order.
        decided: What edits and choices say.
        left_out: Where thumbs that make no pair are noted: those that agree with a pair, and the lone ones.

    Returns:
        A thumb up and a thumb down for each pair.
    """
    by_prompt: defaultdict[tuple[Message, ...], tuple[list[Thumb], list[Thumb]]] = defaultdict(lambda: ([], []))
    for thumb in thumbs:
        by_prompt[thumb.answer.prompt][thumb.opinion.kind == "down"].append(thumb)
    matched: list[tuple[Thumb, Thumb]] = []
    alone: list[Thumb] = []
    for ups, downs in by_prompt.values():
        torn = {_text(thumb) for thumb in ups} & {_text(thumb) for thumb in downs}
        for thumb in (*ups, *downs):
            if _text(thumb) in torn:
                note(left_out, BOTH, thumb.opinion.source)
        up, down = ([thumb for thumb in side if _text(thumb) not in torn] for side in (ups, downs))
        pairs = min(len(up), len(down))
        matched += zip(up[:pairs], down[:pairs], strict=True)
        alone += [*up[pairs:], *down[pairs:]]
    said = {("up", prompt, text.strip()) for prompt, text, _ in decided}
    said |= {("down", prompt, text.strip()) for prompt, _, text in decided}
    said |= {_key(thumb) for both in matched for thumb in both}
    for thumb in alone:
        lone = LONE_UP if thumb.opinion.kind == "up" else LONE_DOWN
        note(left_out, AGREES if _key(thumb) in said else lone, thumb.opinion.source)
    return matched


def _key(thumb: Thumb) -> tuple[str, tuple[Message, ...], str]:
    return thumb.opinion.kind, thumb.answer.prompt, _text(thumb)


def _text(thumb: Thumb) -> str:
    return thumb.answer.text.strip()
