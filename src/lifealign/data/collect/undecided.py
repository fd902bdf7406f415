"""Prompts with several answers that nobody has decided between, for somebody to decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lifealign.data.collect.answered import Answer
from lifealign.data.collect.masking import mask_prompt, masked
from lifealign.data.collect.pairs import CollectedPair
from lifealign.data.pair import Message


@dataclass(frozen=True)
class Undecided:
    """A prompt with several answers.

    Attributes:
        prompt: The conversation.
        answers: Two or more different answers to it, in the order of the logs.
        why: ``undecided`` if nobody has chosen one over another, ``conflict`` if people have chosen opposite ones.
        source: Where the first answer was found.
        masked: How often something was masked in the row, by kind.
    """

    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    why: Literal["undecided", "conflict"]
    source: str
    masked: Mapping[str, int] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """The prompt and its answers as a JSON row."""
        return {
            "prompt": [message._asdict() for message in self.prompt],
            "answers": [*self.answers],
            "why": self.why,
            "source": self.source,
        }


@dataclass
class _Asked:
    """A prompt, and the answers to it with what was masked in each."""

    source: str
    masked: Counter[str]
    answers: dict[str, Counter[str]] = field(default_factory=dict)


def find_undecided(
    answers: Iterable[Answer],
    pairs: Iterable[CollectedPair],
    against: Iterable[CollectedPair],
    kinds: Collection[str] = (),
) -> list[Undecided]:
    """Finds prompts with two or more different answers, none of which was chosen over another.

    Answers that are empty, cancelled or cut do not count: they must not be chosen.

    Args:
        answers: The answers of all logs.
        pairs: The pairs that were made, masked.
        against: Those that contradict each other, masked.
        kinds: What to mask.

    Returns:
        The prompts, in the order in which they were first answered.
    """
    asked: dict[tuple[Message, ...], _Asked] = {}
    for answer in answers:
        if answer.unusable or not answer.complete or not answer.text.strip():
            continue
        prompt, in_prompt = mask_prompt(answer.prompt, kinds)
        text, in_text = masked(answer.text, kinds)
        asked.setdefault(prompt, _Asked(answer.source, in_prompt)).answers.setdefault(text, in_text)
    decided = {
        pair.prompt
        for pair in pairs
        if pair.prompt in asked and {pair.chosen, pair.rejected} <= asked[pair.prompt].answers.keys()
    }
    torn = {pair.prompt for pair in against}
    return [
        Undecided(
            prompt,
            tuple(one.answers),
            "conflict" if prompt in torn else "undecided",
            one.source,
            sum(one.answers.values(), one.masked),
        )
        for prompt, one in asked.items()
        if len(one.answers) > 1 and prompt not in decided
    ]
