"""From answers and opinions to pairs: what makes a pair, what does not and why, and what contradicts what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from lifealign.data.collect.answered import Answer, LeftOut, Opinion, note
from lifealign.data.collect.thumbs import Thumb, match_thumbs
from lifealign.data.pair import Message

REPLACED = "feedback replaced by later feedback"
UNKNOWN = "feedback about an unknown answer"
SEVERAL = "feedback that fits several answers"
APART = "choices between answers to different prompts"
CUT = "votes for an answer that was cancelled or cut"
EMPTY, SAME = "pairs with an empty text", "pairs of two equal answers"
AGAIN = "pairs that are there already"
CONFLICT = "pairs that contradict each other, both sides"
LONG_AGO = datetime.min.replace(tzinfo=UTC)

Why = Literal["edited", "chosen", "thumbs"]


@dataclass(frozen=True)
class CollectedPair:
    """A pair that people's opinions make.

    Attributes:
        prompt: The conversation.
        chosen: The better answer.
        rejected: The other one.
        why: ``edited`` (chosen was written in place of rejected), ``chosen`` (over rejected), or ``thumbs`` (a thumb up
            and a thumb down).
        source: Place of the opinion; of thumbs, that of the thumb up.
        model: Which model gave the answer that the opinion is about, if the log says so.
        time: When it was said, or else when the answer was given, if the log says so.
        masked: How often something was masked in it, by kind.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    why: Why
    source: str
    model: str = ""
    time: datetime | None = None
    masked: Mapping[str, int] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """The pair as a JSON row; what the log does not say is an empty text."""
        return {
            "prompt": [message._asdict() for message in self.prompt],
            "chosen": self.chosen,
            "rejected": self.rejected,
            "why": self.why,
            "source": self.source,
            "model": self.model,
            "time": "" if self.time is None else self.time.isoformat().replace("+00:00", "Z"),
        }


def pair_up(answers: Iterable[Answer], opinions: Sequence[Opinion], left_out: LeftOut) -> list[CollectedPair]:
    """Makes pairs of what was said.

    An edit is a pair, and so is a choice of one of two answers to the same prompt. One thumb up and one thumb down on
    different answers to the same prompt are a pair, too; each thumb is used once, in the order in which they came.

    Args:
        answers: The answers of all logs.
        opinions: What was said of them, in the order in which it was read.
        left_out: Where every opinion that makes no pair is noted.

    Returns:
        The pairs, in the order of their opinions; they may repeat and contradict each other.
    """
    known, latest = _by_name(answers), _latest(opinions)
    found: dict[int, CollectedPair] = {}  # by the place of the opinion in the order
    thumbs = []
    for order, opinion in enumerate(opinions):
        if opinion.source != latest[opinion.slot]:
            note(left_out, REPLACED, opinion.source)
            continue
        answer = _named(opinion.about, opinion.source, known, left_out)
        if answer is None:
            continue
        if opinion.kind == "edited":
            found[order] = _pair(opinion, answer, opinion.edited, answer.text, "edited")
        elif opinion.kind != "down" and not answer.complete:
            note(left_out, CUT, opinion.source)
        elif opinion.kind != "chosen":
            thumbs.append(Thumb(order, opinion, answer))
        elif (other := _named(opinion.over, opinion.source, known, left_out)) is not None:
            if other.prompt == answer.prompt:
                found[order] = _pair(opinion, answer, answer.text, other.text, "chosen")
            else:
                note(left_out, APART, opinion.source)
    decided = [(pair.prompt, pair.chosen, pair.rejected) for pair in found.values()]
    for up, down in match_thumbs(thumbs, decided, left_out):
        found[up.order] = _pair(up.opinion, up.answer, up.answer.text, down.answer.text, "thumbs")
    return [found[order] for order in sorted(found)]


def settle(pairs: Iterable[CollectedPair], left_out: LeftOut) -> tuple[list[CollectedPair], list[CollectedPair]]:
    """Takes out pairs that teach nothing, repetitions, and pairs that prefer opposite answers to one prompt.

    Of a contradiction, both sides are left out: nothing in a log says which is right.

    Args:
        pairs: The pairs.
        left_out: Where those that are taken out are noted.

    Returns:
        The pairs that are left, in order, and those that contradict each other.
    """
    usable = []
    for pair in pairs:
        if not all(text.strip() for text in (pair.prompt[-1].content, pair.chosen, pair.rejected)):
            note(left_out, EMPTY, pair.source)
        elif pair.chosen.strip() == pair.rejected.strip():
            note(left_out, SAME, pair.source)
        else:
            usable.append(pair)
    said = {(pair.prompt, pair.chosen, pair.rejected) for pair in usable}
    kept: dict[tuple[tuple[Message, ...], str, str], CollectedPair] = {}
    against = []
    for pair in usable:
        key = (pair.prompt, pair.chosen, pair.rejected)
        if (pair.prompt, pair.rejected, pair.chosen) in said:
            note(left_out, CONFLICT, pair.source)
            against.append(pair)
        elif key in kept:
            note(left_out, AGAIN, pair.source)
        else:
            kept[key] = pair
    return list(kept.values()), against


def _pair(opinion: Opinion, answer: Answer, chosen: str, rejected: str, why: Why) -> CollectedPair:
    time = opinion.time or answer.time
    return CollectedPair(answer.prompt, chosen, rejected, why, opinion.source, answer.model, time)


def _by_name(answers: Iterable[Answer]) -> dict[str, dict[tuple[object, ...], Answer]]:
    """The answers by each of their names; what one log repeats of another is one answer."""
    known: dict[str, dict[tuple[object, ...], Answer]] = {}
    for answer in answers:
        for name in answer.names:
            known.setdefault(name, {}).setdefault((answer.names, answer.prompt, answer.text), answer)
    return known


def _latest(opinions: Iterable[Opinion]) -> dict[str, str]:
    """For each slot, the place that filled it last: by time, then in the order given; without a time comes first."""
    latest: dict[str, tuple[datetime, str]] = {}
    for opinion in opinions:
        time = opinion.time or LONG_AGO
        if opinion.slot not in latest or time >= latest[opinion.slot][0]:
            latest[opinion.slot] = time, opinion.source
    return {slot: source for slot, (_, source) in latest.items()}


def _named(
    name: str, place: str, known: Mapping[str, Mapping[tuple[object, ...], Answer]], left_out: LeftOut
) -> Answer | None:
    """The one answer of a name, if something can be made of it; else None, and the reason is noted."""
    found = list(known.get(name, {}).values())
    if not found:
        note(left_out, UNKNOWN, f"{place} ({name})")
    elif len(found) > 1:
        note(left_out, SEVERAL, f"{place} ({name})")
    elif found[0].unusable:
        note(left_out, found[0].unusable, place)
    else:
        return found[0]
    return None
