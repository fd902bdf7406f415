"""Transcripts: conversations in flat text, ``Human: ... Assistant: ...``, split into turns.

A text is a transcript if it starts with ``Human:``, or starts with ``System:`` and has a ``Human:`` at the start of a
later line. Turns begin at the start of a line, and consecutive turns of one speaker are one turn. The text after a
``System:`` at the very beginning is the system message; anywhere else, ``System:`` is ordinary text (people paste
``System: Windows 11``).
"""

from __future__ import annotations

import re
from itertools import groupby

from lifealign.data.pair import Message

TURN_START = re.compile(r"^(Human|Assistant):", re.MULTILINE)
HUMAN_START = re.compile(r"^Human:", re.MULTILINE)
ANSWER_START = re.compile(r"\A(?:\s*Assistant:)+")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def turns_of(text: str) -> tuple[Message, ...]:
    r"""Splits a transcript into alternating turns of user and assistant; empty if the text is not a transcript.

    The first turn after the system message may be the assistant's.

    Example:
        >>> [tuple(turn) for turn in turns_of("System: be kind\n\nHuman: Hi\n\nAssistant:")]
        [('system', 'be kind'), ('user', 'Hi'), ('assistant', '')]
    """
    text = text.strip()
    begins = text.startswith("System:") and HUMAN_START.search(text)
    if not (begins or text.startswith("Human:")):
        return ()
    before, *parts = TURN_START.split(text)
    system = before.removeprefix("System:").strip()
    by_speaker = groupby(zip(parts[::2], parts[1::2], strict=True), key=lambda turn: turn[0])
    turns = [Message(SPEAKERS[name], join(*(words.strip() for _, words in turns))) for name, turns in by_speaker]
    return (*([Message("system", system)] if system else []), *turns)


def answer_transcript(turns: tuple[Message, ...], *answers: str) -> tuple[tuple[Message, ...], str, str]:
    """Removes the speaker's name from two answers to a transcript, and moves the start of an answer to them.

    A leading ``Assistant:`` is removed from the answers. A prompt that ends with the assistant's turn contains the
    beginning of an answer (hh files in circulation are cut like that). That turn is put before each answer that does
    not start a turn of its own with ``Assistant:``, or before both answers if both do.

    Returns:
        The prompt, which ends with the user's turn, and the two answers.
    """
    opens = [ANSWER_START.match(answer) is not None for answer in answers]
    chosen, rejected = (ANSWER_START.sub("", answer).strip() for answer in answers)
    if turns[-1].role == "user":
        return turns, chosen, rejected
    *prompt, (_, begun) = turns
    if not opens[0] or all(opens):
        chosen = join(begun, chosen)
    if not opens[1] or all(opens):
        rejected = join(begun, rejected)
    return tuple(prompt), chosen, rejected


def join(*texts: str) -> str:
    """Joins texts with newlines, leaving out empty ones."""
    return "\n".join(text for text in texts if text)
