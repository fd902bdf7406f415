"""What there is to decide: rows of a file, each as a prompt with two answers, on sides that a hash draws.

A row is a pair of any shape that :mod:`lifealign.data.formats` reads, or nobody has decided about it yet::

    {"prompt": "text", or messages, "answers": ["one", "two", ...]}

More than two answers are asked about in neighbours, the first against the second, the second against the third and so
on, so that every answer is seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lifealign.data.columns import ANSWERS, PROMPTS, Row, foreign_shape
from lifealign.data.files import read_rows
from lifealign.data.formats import SHAPES, UnclearTranscript, parse_row
from lifealign.data.messages import missing
from lifealign.data.pair import Message, Pair
from lifealign.errors import DataError, describe

Side = Literal["a", "b"]

UNDECIDED = "answers"
"""Column of a row that nobody has decided about yet."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt and two answers, of which a reviewer says which is better.

    Attributes:
        key: Content hash of the prompt and the two answers, the same whichever of them a row calls chosen.
        prompt: The conversation so far.
        a: The answer on side A. The key alone decides which one that is: no side tells what a row calls chosen.
        b: The answer on side B.
        source: Where it came from, ``file:line``.
        chosen: The side that the row calls chosen, or None; not for the reviewer's eyes.
    """

    key: str
    prompt: tuple[Message, ...]
    a: str
    b: str
    source: str
    chosen: Side | None

    def answer(self, side: Side) -> str:
        """The answer on a side."""
        return self.a if side == "a" else self.b


@dataclass(frozen=True)
class Candidates:
    """What a file has to decide.

    Attributes:
        candidates: In file order, no key twice.
        dropped: Places ``file:line`` of what is not asked, by reason: ``empty prompt``, ``empty answer``, ``identical
            answers``, ``repeated`` (the same prompt and answers as before, in either order), ``unclear transcript``.
    """

    candidates: tuple[Candidate, ...]
    dropped: dict[str, list[str]]


def read_candidates(file: str | Path) -> Candidates:
    """Reads what a file has to decide.

    Args:
        file: A file of any accepted kind, or ``hub:owner/name[:split]``.

    Raises:
        DataError: At the first malformed row, or if nothing is left to decide.
    """
    found: dict[str, Candidate] = {}
    dropped: defaultdict[str, list[str]] = defaultdict(list)
    for line, row in read_rows(file):
        try:
            for pair, labelled in _pairs(row, file, line):
                candidate = candidate_of(pair, labelled=labelled)
                if reason := _useless(candidate) or ("repeated" if candidate.key in found else ""):
                    dropped[reason].append(candidate.source)
                else:
                    found[candidate.key] = candidate
        except UnclearTranscript:
            dropped["unclear transcript"].append(f"{file}:{line}")
    if not found:
        reason, places = next(iter(dropped.items()))
        raise DataError(
            file,
            line=int(places[0].rpartition(":")[2]),
            found=f"nothing to decide (here: {reason})",
            expected="a prompt and two answers that differ in at least one row",
        )
    return Candidates(tuple(found.values()), dict(dropped))


def candidate_of(pair: Pair, *, labelled: bool) -> Candidate:
    """Puts the two answers of a pair on sides that do not depend on which one is chosen.

    Args:
        pair: The pair.
        labelled: Whether its row says that ``chosen`` is the better one.

    Example:
        >>> prompt = (Message("user", "Hi"),)
        >>> one, turned = (candidate_of(Pair(prompt, *two), labelled=True) for two in (("Yes", "No"), ("No", "Yes")))
        >>> one.key == turned.key, one.a == turned.a, {one.chosen, turned.chosen} == {"a", "b"}
        (True, True, True)
    """
    first, second = sorted((pair.chosen, pair.rejected))
    key = Pair(pair.prompt, first, second).key
    a, b = (first, second) if int(key[-1], 16) % 2 else (second, first)
    chosen: Side = "a" if a == pair.chosen else "b"
    return Candidate(key, pair.prompt, a, b, pair.source, chosen if labelled else None)


def _pairs(row: object, file: str | Path, line: int) -> Iterator[tuple[Pair, bool]]:
    """The pairs of a row, and whether the row says which answer is chosen; if not, the order means nothing."""
    if not isinstance(row, dict) or any(name in row for name in ANSWERS) or foreign_shape(row):
        yield parse_row(row, file, line)[0], True
        return
    if UNDECIDED not in row:
        expected = f"{SHAPES}; or a prompt with {UNDECIDED}, a list of two or more, if none is chosen yet"
        raise DataError(file, line=line, found=missing(row), expected=expected)
    answers = row[UNDECIDED]
    if not isinstance(answers, list) or len(answers) < 2:
        expected = "a list of two or more answers"
        raise DataError(file, line=line, field=UNDECIDED, found=describe(answers), expected=expected)
    rest = {column: value for column, value in row.items() if column != UNDECIDED}
    for number in range(len(answers) - 1):
        try:
            yield parse_row(rest | dict(zip(ANSWERS, answers[number : number + 2], strict=True)), file, line)[0], False
        except DataError as error:
            raise _in_the_words_of_the_row(error, row, number) from error


def _in_the_words_of_the_row(error: DataError, row: Row, number: int) -> DataError:
    """An error about ``chosen`` or ``rejected`` as one about the answer, of this number or the next, that it is."""
    found, expected, field = error.found, error.expected, error.field or ""
    if field == "prompt" and not any(name in row for name in PROMPTS):
        found, expected = missing(row), f"a prompt (or query, or instruction) beside {UNDECIDED}"
    for place, name in enumerate(ANSWERS):
        if field == name or field.startswith(f"{name}["):
            field = f"{UNDECIDED}[{number + place}]{field.removeprefix(name)}"
    return type(error)(error.path, line=error.line, field=field or None, found=found, expected=expected)


def _useless(candidate: Candidate) -> str:
    """Why nobody needs to look at it; empty if somebody should."""
    if not candidate.prompt[-1].content.strip():
        return "empty prompt"
    if not (candidate.a.strip() and candidate.b.strip()):
        return "empty answer"
    return "identical answers" if candidate.a.strip() == candidate.b.strip() else ""
