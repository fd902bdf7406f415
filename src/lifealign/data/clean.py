"""Cleaning of preference rows: rows that nothing can be learnt from are dropped, counted and reported."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifealign.data.columns import added_columns, chosen_scores_no_higher, ignored_columns, says_nothing
from lifealign.data.files import read_rows
from lifealign.data.formats import UnclearTranscript, parse_row
from lifealign.data.pair import Pair
from lifealign.errors import DataError

log = logging.getLogger(__name__)

SCORES = "with chosen scored no higher than rejected"
WORDS = "with a text that is only a word like nan"
SYSTEM_PROMPT = "with the prompt taken as system message"


@dataclass(frozen=True)
class CleanPairs:
    """The usable pairs of a file, and what happened to the other rows.

    Attributes:
        pairs: Usable pairs, in file order.
        rows: Number of rows in the file: ``len(pairs)`` plus all dropped rows.
        shapes: Number of rows of each shape (see :mod:`lifealign.data.formats`).
        dropped: Places ``file:line`` of dropped rows by reason: ``empty prompt``, ``empty chosen``,
            ``empty rejected``, ``identical answers``, ``duplicate``, ``unclear transcript``.
        conflicts: Places of two usable pairs that prefer opposite answers to the same prompt. Both are kept: nothing
            in the file says which is right, and dropping either would decide a preference on its author's behalf.
        suspicious: Places of doubtful but usable pairs by reason: :data:`SCORES`, :data:`WORDS`,
            :data:`SYSTEM_PROMPT`. They are kept, for the same reason.
        added: For each column that adds to the prompt (system message, history, input), the number of rows in which it
            does.
        ignored: For each column that is not read, the number of rows in which it holds something.
    """

    pairs: tuple[Pair, ...]
    rows: int
    shapes: dict[str, int]
    dropped: dict[str, list[str]]
    conflicts: tuple[tuple[str, str], ...]
    suspicious: dict[str, list[str]]
    added: dict[str, int]
    ignored: dict[str, int]


def read_clean(path: str | Path, rows: Iterable[tuple[int, Any]] | None = None) -> CleanPairs:
    """Reads a file and drops pairs that teach nothing: empty texts, identical answers, exact repetitions.

    A text of whitespace counts as empty, and answers that differ only in surrounding whitespace count as identical;
    kept texts are not changed. The first of several equal pairs is kept. A warning in the log counts the rows that
    were dropped and the doubtful ones that were kept.

    Args:
        path: A file of any accepted kind and shape, or ``hub:owner/name[:split]``.
        rows: Numbered rows of any accepted shape, at least one, to clean instead of the content of ``path``; ``path``
            is then only their name in messages.

    Raises:
        DataError: At the first malformed row, or if no pair is left; the message then names the first reason and line.
    """
    clean = clean_rows(path, rows)
    if clean.dropped or clean.conflicts or clean.suspicious:
        parts = [f"{len(places)} {reason} (first {places[0]})" for reason, places in clean.dropped.items()]
        parts += [f"{len(clean.conflicts)} conflicting (kept)"] if clean.conflicts else []
        parts += [f"{len(places)} {doubt} (kept, first {places[0]})" for doubt, places in clean.suspicious.items()]
        log.warning("%s: %s; %s", path, verdict(len(clean.pairs), clean.rows), ", ".join(parts))
    return clean


def clean_rows(path: str | Path, rows: Iterable[tuple[int, Any]] | None = None) -> CleanPairs:
    """Does the same as :func:`read_clean`, without the warning in the log."""
    count = 0
    shapes: Counter[str] = Counter()
    dropped: defaultdict[str, list[str]] = defaultdict(list)
    suspicious: defaultdict[str, list[str]] = defaultdict(list)
    added: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    kept: dict[str, Pair] = {}
    conflicts = []
    for line, row in read_rows(path) if rows is None else rows:
        count += 1
        try:
            pair, shape = parse_row(row, path, line)
        except UnclearTranscript:
            shapes["transcript"] += 1
            dropped["unclear transcript"].append(f"{path}:{line}")
            continue
        shapes[shape] += 1
        added.update(added_columns(row))
        ignored.update(ignored_columns(row))
        if reason := _useless(pair) or ("duplicate" if pair.key in kept else ""):
            dropped[reason].append(pair.source)
            continue
        kept[pair.key] = pair
        if opposite := kept.get(Pair(pair.prompt, pair.rejected, pair.chosen).key):
            conflicts.append((opposite.source, pair.source))
        for doubt in _doubts(row, pair, shape):
            suspicious[doubt].append(pair.source)
    if not kept:
        reason, places = next(iter(dropped.items()))
        line = int(places[0].rpartition(":")[2])
        expected = "a prompt and two answers that differ in at least one row"
        raise DataError(path, line=line, found=f"no usable pair in {count} rows (here: {reason})", expected=expected)
    return CleanPairs(
        pairs=tuple(kept.values()),
        rows=count,
        shapes=dict(shapes),
        dropped=dict(dropped),
        conflicts=tuple(conflicts),
        suspicious=dict(suspicious),
        added=dict(added),
        ignored=dict(ignored),
    )


def _useless(pair: Pair) -> str:
    if not pair.prompt[-1].content.strip():
        return "empty prompt"
    if not pair.chosen.strip():
        return "empty chosen"
    if not pair.rejected.strip():
        return "empty rejected"
    return "identical answers" if pair.chosen.strip() == pair.rejected.strip() else ""


def _doubts(row: dict[str, Any], pair: Pair, shape: str) -> Iterator[str]:
    if chosen_scores_no_higher(row):
        yield SCORES
    if any(says_nothing(text) for text in (*(message.content for message in pair.prompt), pair.chosen, pair.rejected)):
        yield WORDS
    if shape == "system prompt":
        yield SYSTEM_PROMPT


def read_split(train: str | Path, test: str | Path | None = None) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Reads and cleans a task's files, and leaves out training pairs whose prompts are held out.

    A training pair whose prompt (the whole conversation) is also the prompt of a held-out pair is left out, whatever
    its answers: otherwise the task's score would measure memory, not preference. A warning in the log counts the pairs
    left out.

    Args:
        train: File of training pairs, of any accepted kind and shape, or a hub address.
        test: File of held-out pairs, likewise, or None.

    Returns:
        Training pairs and held-out pairs, in the order of their files.

    Raises:
        DataError: If a file is missing, malformed or has no usable pair, or every training prompt is held out.
    """
    pairs = read_clean(train).pairs
    if test is None:
        return pairs, ()
    held_out = read_clean(test).pairs
    return leave_out(train, pairs, test, held_out), held_out


def leave_out(
    file: str | Path, pairs: Sequence[Pair], other: str | Path, held_out: Sequence[Pair], kind: str = "training"
) -> tuple[Pair, ...]:
    """The pairs of a file whose prompts are not held out in another one; a warning in the log counts the rest.

    Args:
        file: The file.
        pairs: Its pairs.
        other: The other file.
        held_out: The pairs of that one.
        kind: What the pairs are for, in messages.

    Raises:
        DataError: If every prompt is held out there.
    """
    prompts = {pair.prompt for pair in held_out}
    left_out = [pair for pair in pairs if pair.prompt in prompts]
    if len(left_out) == len(pairs):
        found = f"only prompts that are held out in {other}"
        raise DataError(file, found=found, expected=f"at least one {kind} prompt that is not held out")
    if left_out:
        number = f"{count_text(len(left_out))} of {count_text(len(pairs), f'{kind} pair', f'{kind} pairs')}"
        log.warning("%s: left out %s with a prompt held out in %s (first %s)", file, number, other, left_out[0].source)
    return tuple(pair for pair in pairs if pair.prompt not in prompts)


def test_overlap(train: Iterable[Pair], test: Iterable[Pair]) -> int:
    """Counts the distinct prompts of ``test`` that also occur in ``train``; they measure memory, not preference."""
    return len({pair.prompt for pair in train} & {pair.prompt for pair in test})


test_overlap.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test, by its name


def verdict(pairs: int, rows: int) -> str:
    """Says in words how many of a file's rows can be used."""
    return f"{count_text(pairs, 'usable pair', 'usable pairs')} of {count_text(rows, 'row', 'rows')}"


def count_text(number: int, one: str = "", many: str = "") -> str:
    """Formats a count with spaces between thousands, followed by its noun in the singular or plural."""
    return f"{number:,} {one if number == 1 else many}".rstrip().replace(",", " ")


def line_of(place: str) -> str:
    """The line number in ``file:line``."""
    return place.rpartition(":")[2]
