"""Transcripts: ``Human: ... Assistant: ...`` in flat text, as turns.

A text is a transcript if it starts with ``Human:``, or with ``System:`` and has a ``Human:`` at the start of a later
line. Turns start at line starts, and neighbouring turns of one speaker are one turn. What stands after ``System:`` at
the very beginning is the system message; further on, ``System:`` is text like any other (people paste ``System:
Windows 11``).
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
    r"""Splits a transcript into turns, user and assistant by turns; nothing if the text is no transcript.

    The first turn after the system message is the assistant's where the transcript has it so.

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
    """Takes speakers off two answers to a transcript.

    Answers lose a leading ``Assistant:``. A prompt that ends with the assistant's turn holds the beginning of an answer
    (hh files in circulation are cut like that). That turn goes to the answers: to those that open no turn of their own
    with ``Assistant:``, or to both if both do.

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
    """Texts under each other, without the empty ones."""
    return "\n".join(text for text in texts if text)
