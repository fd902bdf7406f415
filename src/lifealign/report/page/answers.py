"""What changed between two answers, word by word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple

from lifealign.life.disk.measurements import Record

WORDS = re.compile(r"\s+|\w+|[^\w\s]")
LONGEST = 4000
"""Maximum characters of an answer that is compared; longer ones are shown whole, as comparing takes quadratic time."""
ALIKE = 0.6
"""Share of common words (twice their number over all words) below which an answer counts as rewritten."""


class Piece(NamedTuple):
    """A run of text that is in both answers or in one of them."""

    kind: Literal["same", "added", "removed", "new"]
    text: str


def changes(before: str | None, after: str) -> list[Piece]:
    """Marks what an answer has gained and lost since the previous one.

    Args:
        before: The answer of the previous version; None if there is none, and then nothing is marked.
        after: The answer.

    Returns:
        A single piece of kind ``new`` if so little is in common that marks would hide the text. Otherwise pieces that
        give ``after`` without those of kind ``removed``, and ``before`` without those of kind ``added``.

    Example:
        >>> [(piece.kind, piece.text) for piece in changes("Hello, my dear friend.", "Hello, our old friend.")]
        [('same', 'Hello, '), ('removed', 'my dear'), ('added', 'our old'), ('same', ' friend.')]
    """
    if before is None or max(len(before), len(after)) > LONGEST:
        return [Piece("same", after)] if after else []
    old, new = WORDS.findall(before), WORDS.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if not _alike(old, new):
        return [Piece("new", after)] if after else [Piece("removed", before)]
    pieces: list[Piece] = []
    removed = added = ""
    for operation, i, j, m, n in matcher.get_opcodes():
        text = "".join(new[m:n])
        if operation != "equal":
            removed, added = removed + "".join(old[i:j]), added + text
        elif removed and added and text.isspace() and n < len(new):
            removed, added = removed + text, added + text  # two changed words in a row read better as one change
        else:
            pieces += [*_marked(removed, added), Piece("same", text)]
            removed = added = ""
    return pieces + _marked(removed, added)


def _alike(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether two answers have enough words in common; spaces are ignored, since all texts share them."""
    before, after = ([word for word in text if not word.isspace()] for text in (old, new))
    words = SequenceMatcher(None, before, after, autojunk=False)
    if words.quick_ratio() < ALIKE:  # an upper bound, and much cheaper
        return False
    return words.ratio() >= ALIKE


def _marked(removed: str, added: str) -> list[Piece]:
    pieces = (Piece("removed", removed), Piece("added", added))
    return [piece for piece in pieces if piece.text]


SHOWN_PROMPTS = 8
"""Number of prompts whose answers are shown unfolded; the others are folded."""


MOST_PROMPTS = 100
"""Maximum number of prompts on the page."""


def prompt_cards(records: Sequence[Record], steps: Sequence[str], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Prompts with the answers of the base and of every version that has one, evenly spaced ones first.

    Of several draws, the first is shown.

    Args:
        records: The record of each step.
        steps: Names of the steps.
        tasks: Names of the tasks in the order in which they were learnt, and in which verdicts are shown.
    """
    place = {task: number for number, task in enumerate(tasks)}
    columns: list[tuple[str, dict[str, dict[str, Any]]]] = []
    base: dict[str, dict[str, Any]] = {}
    asking: dict[str, set[str]] = {}
    for step, record in zip(steps, records, strict=True):
        of_base, of_model = _first_draws(record.base_answers), _first_draws(record.answers)
        for row in of_base:  # asked by the tasks of several steps, each with its own check
            known = base.get(_key(row), row)
            base[_key(row)] = row | {"holds": known["holds"] | row["holds"]}
        for row in (*of_base, *of_model):
            asking.setdefault(_key(row), set()).update(task for task in row.get("tasks", ()) if task in place)
        columns.append((step, {_key(row): row for row in of_model}))
    columns.insert(0, ("base model", base))
    keys = list(dict.fromkeys(key for _, answers in columns for key in answers))
    first = evenly(keys, SHOWN_PROMPTS)
    shown = []
    for key in [*first, *(key for key in keys if key not in first)][:MOST_PROMPTS]:
        answers: list[dict[str, Any]] = []
        before: str | None = None
        for label, row in [(label, column[key]) for label, column in columns if key in column]:
            pieces = changes(before, row["answer"])
            answers.append(
                {
                    "label": label,
                    "pieces": pieces,
                    "state": _state(before, row["answer"], pieces),
                    "holds": dict(sorted(row["holds"].items(), key=lambda one: place.get(one[0], len(place)))),
                }
            )
            before = row["answer"]
        found = next(column[key] for _, column in columns if key in column)
        # If there are verdicts, they already name the tasks.
        asked = [] if any(answer["holds"] for answer in answers) else sorted(asking[key], key=place.__getitem__)
        shown.append({"messages": found["prompt"], "tasks": asked, "recalled": "", "answers": answers})
    return shown


def _first_draws(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first answer to each prompt."""
    return [dict(row) for row in rows if not row.get("draw")]


def evenly(keys: Sequence[str], count: int) -> list[str]:
    """Some of the keys, from the first to the last in equal steps; all keys if there are no more than ``count``.

    Example:
        >>> evenly("abcdefghijk", 3), evenly("ab", 3), evenly("abc", 1)
        (['a', 'f', 'k'], ['a', 'b'], ['a'])
    """
    if len(keys) <= count:
        return list(keys)
    return [keys[round(number * (len(keys) - 1) / max(1, count - 1))] for number in range(count)]


def _state(before: str | None, answer: str, pieces: Sequence[Piece]) -> str:
    """How an answer has changed since the previous version, in one word; empty if marks in the text show it."""
    if before is None:
        return ""
    if before == answer:
        return "unchanged"
    return "rewritten" if any(piece.kind == "new" for piece in pieces) else ""


def _key(row: Mapping[str, Any]) -> str:
    return "\x00".join(f"{message['role']}\x01{message['content']}" for message in row["prompt"])


def empty_answers(records: Sequence[Record], steps: Sequence[str]) -> list[str]:
    """Versions that gave empty answers, in words: these count as answers, which a reader should know."""
    counts = []
    for step, record in zip(steps, records, strict=True):
        counts.append((step, sum(not row["answer"].strip() for row in record.answers), len(record.answers)))
    return [f"{empty} of {total} after {step}" for step, empty, total in counts if empty]
