"""Logs in, pairs out: everything that is made of some logs, and everything that is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifealign.data.clean import count_text
from lifealign.data.collect.answered import Answer, Opinion
from lifealign.data.collect.masking import mask_pair
from lifealign.data.collect.pairs import CollectedPair, pair_up, settle
from lifealign.data.collect.recognise import read_log
from lifealign.data.collect.undecided import Undecided, find_undecided
from lifealign.errors import DataError

MOST_REASONS = 4
"""Maximum number of reasons that the error about logs without a pair names."""


@dataclass(frozen=True)
class LogFile:
    """What one file gave.

    Attributes:
        path: The file.
        format: The name of its format.
        answers: Number of answers in it.
        feedback: How often somebody says something in it.
        pairs: Number of pairs whose opinion is in it.
    """

    path: str
    format: str
    answers: int
    feedback: int
    pairs: int


@dataclass(frozen=True)
class Collected:
    """What was made of some logs.

    Attributes:
        files: What each gave, in the order given.
        pairs: The pairs, in the order of the opinions behind them.
        undecided: Prompts with several answers that nobody has decided between.
        left_out: Places of what made no pair, by reason; a place is ``file:line``, and the answer it names if that is
            the reason.
    """

    files: tuple[LogFile, ...]
    pairs: tuple[CollectedPair, ...]
    undecided: tuple[Undecided, ...]
    left_out: dict[str, list[str]]


def collect_logs(paths: Sequence[str | Path], kinds: Collection[str] = ()) -> Collected:
    """Turns what people said of answers into pairs.

    The logs belong together: feedback in one may be about answers in another.

    Args:
        paths: Files of accepted formats (:data:`lifealign.data.collect.recognise.SOURCES`).
        kinds: Personal data to mask, some of :data:`lifealign.data.collect.masking.KINDS`.

    Raises:
        DataError: If a file cannot be read, is of no accepted format, or has a broken row.
    """
    readings = [(str(path), *read_log(path)) for path in paths]
    answers: list[Answer] = [answer for *_, reading in readings for answer in reading.answers]
    opinions: list[Opinion] = [opinion for *_, reading in readings for opinion in reading.opinions]
    left_out: dict[str, list[str]] = {}
    for *_, reading in readings:
        for reason, places in reading.left_out.items():
            left_out.setdefault(reason, []).extend(places)
    made = [mask_pair(pair, kinds) for pair in pair_up(answers, opinions, left_out)]
    pairs, against = settle(made, left_out)
    given = Counter(pair.source.rpartition(":")[0] for pair in pairs)
    files = tuple(
        LogFile(path, name, len(reading.answers), reading.feedback, given[path]) for path, name, reading in readings
    )
    return Collected(files, tuple(pairs), tuple(find_undecided(answers, pairs, against, kinds)), left_out)


def require_pairs(collected: Collected) -> None:
    """Refuses logs that make no pair.

    Raises:
        DataError: If there is none; the message says what there is instead.
    """
    if collected.pairs:
        return
    answers, feedback = (sum(getattr(file, name) for file in collected.files) for name in ("answers", "feedback"))
    there = [
        count_text(answers, "answer", "answers"),
        count_text(feedback, "piece of feedback", "pieces of feedback"),
    ]
    reasons = [f"{reason}: {count_text(len(places))}" for reason, places in collected.left_out.items()]
    there += reasons[:MOST_REASONS] + [f"{len(reasons) - MOST_REASONS} more reasons"] * (len(reasons) > MOST_REASONS)
    if collected.undecided:
        prompts = count_text(len(collected.undecided), "prompt", "prompts")
        there.append(f"{prompts} to decide: --undecided FILE without --out writes them")
    raise DataError(
        ", ".join(file.path for file in collected.files),
        found=f"no pair ({'; '.join(there)})",
        expected="an edit, a choice between two answers, or opposite thumbs on two answers to one prompt. Nothing was "
        "written",
    )


def masked_in(rows: Iterable[CollectedPair | Undecided], kinds: Iterable[str]) -> dict[str, int]:
    """How often something of each kind was masked in some rows."""
    rows = list(rows)
    return {kind: sum(row.masked.get(kind, 0) for row in rows) for kind in kinds}
