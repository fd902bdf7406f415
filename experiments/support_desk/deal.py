"""Deals out which rules each answer of a task keeps, and how long it is.

The trait that a task is about holds in every chosen answer and in no rejected one. The traits of the stream's other rules
are dealt to both sides alike and independently. Of a rule and its update only the valid one is dealt: the earlier one
before the update's own task, the update from then on. In the pairs of the update itself, half of the rejected answers
keep the rule that it takes the place of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

from experiments.support_desk.rules import LENGTHENING, UPDATES

SHARE = 0.4  # of the answers keep a rule where the task is another one
REPLACED_SHARE = 0.5  # of an update's rejected answers keep the rule that it takes the place of
BRIEFER_WORDS = range(10, 16)
BRIEF_WORDS = range(19, 26)
LONG_WORDS = (35, 61)  # from, and up to but not with
LONGER_WORDS = (3, 1)  # what every lengthening rule of a stream adds to them
BLOCK = 8  # rows over which lengths are spread evenly
STARTS = 6  # random beginnings of the search for a balanced row

Key = TypeVar("Key")


def shares(task: str, rules: Sequence[str], share: float, *, chosen: bool) -> dict[str, float]:
    """The share of a task's chosen or rejected answers that keep each rule of the stream."""
    now = rules.index(task)
    out = {name: share for name in rules} | {task: float(chosen)}
    for new, old in UPDATES.items():
        if new not in rules or old not in rules:
            continue
        if rules.index(new) > now:
            out[new] = 0.0
        else:
            out[old] = REPLACED_SHARE if task == new and not chosen else 0.0
    return out


def shuffled(shares: Mapping[Key, float], number: int, random: Random) -> list[dict[Key, bool]]:
    """Deals ``number`` rows in which every trait has its share over all rows, each in an order of its own."""
    kept = {}
    for name, share in shares.items():
        on = round(share * number)
        kept[name] = [True] * on + [False] * (number - on)
        random.shuffle(kept[name])
    return [{name: kept[name][row] for name in shares} for row in range(number)]


def balanced(shares: Mapping[Key, float], number: int, random: Random) -> list[dict[Key, bool]]:
    """Deals ``number`` rows in which every trait, and every two of them together, have their share in every prefix.

    After each row a trait has been on less than one time more or less than its share of the rows so far. Among the rows
    that allow for that, the one is taken that brings all pairs of traits closest to what independent traits would have.
    """
    keys = list(shares)
    on = [0] * len(keys)
    both = [[0.0] * len(keys) for _ in keys]  # times that two were on together, above the expected number
    out = []
    for number_so_far in range(1, number + 1):
        allowed = []
        for i, key in enumerate(keys):
            due = shares[key] * number_so_far
            allowed.append([value for value in (False, True) if abs(on[i] + value - due) < 1 - 1e-9])
            for j, other in enumerate(keys):
                both[i][j] -= shares[key] * shares[other]
        rows = [_settled([random.choice(values) for values in allowed], allowed, both, random) for _ in range(STARTS)]
        row = min(rows, key=lambda row: _excess(row, both))
        for i in range(len(keys)):
            on[i] += row[i]
            for j in range(len(keys)):
                both[i][j] += row[i] and row[j]
        out.append(dict(zip(keys, row, strict=True)))
    return out


def _settled(row: list[bool], allowed: list[list[bool]], both: list[list[float]], random: Random) -> list[bool]:
    """Switches one trait after another where that brings the pairs closer, until nothing changes."""
    free = [i for i, values in enumerate(allowed) if len(values) == 2]
    random.shuffle(free)
    changed = True
    while changed:
        changed = False
        for i in free:
            gain = sum(2 * both[i][j] + 1 for j, on in enumerate(row) if on and j != i)
            if gain != 0 and row[i] != (gain < 0):
                row[i] = not row[i]
                changed = True
    return row


def _excess(row: list[bool], both: list[list[float]]) -> float:
    """What a row adds to the squared distances of all pairs of traits from their expected number."""
    on = [i for i, value in enumerate(row) if value]
    return sum(2 * both[i][j] + 1 for i in on for j in on if i < j)


def deal(
    task: str, rules: Sequence[str], share: float, number: int, random: Random
) -> dict[bool, list[dict[str, bool]]]:
    """Deals the traits of all rejected (False) and chosen (True) answers of a split at once, balanced."""
    of_both = {
        (chosen, name): value
        for chosen in (True, False)
        for name, value in shares(task, rules, share, chosen=chosen).items()
    }
    rows = balanced(of_both, number, random)
    return {chosen: [{name: row[chosen, name] for name in rules} for row in rows] for chosen in (True, False)}


def lengths(rows: list[dict[str, bool]], rules: Sequence[str], random: Random, *, even: bool = False) -> list[int]:
    """Deals the number of words that each answer should have, each as often as any other of its kind.

    Args:
        rows: The traits of each answer.
        rules: The stream.
        random: Source of the order.
        even: Whether lengths are spread over every ``BLOCK`` answers of a kind in a row.
    """
    longer = sum(name in LENGTHENING for name in rules)
    long = range(LONG_WORDS[0] + LONGER_WORDS[0] * longer, LONG_WORDS[1] + LONGER_WORDS[1] * longer)
    kinds = [BRIEFER_WORDS if row.get("briefer") else BRIEF_WORDS if row.get("brief") else long for row in rows]
    spread = _evenly if even else _in_any_order
    dealt = {values: spread(values, kinds.count(values), random) for values in (BRIEFER_WORDS, BRIEF_WORDS, long)}
    return [dealt[kind].pop() for kind in kinds]


def _in_any_order(values: range, number: int, random: Random) -> list[int]:
    dealt = [values[i * len(values) // number] for i in range(number)]
    random.shuffle(dealt)
    return dealt


def _evenly(values: range, number: int, random: Random) -> list[int]:
    dealt: list[int] = []
    while len(dealt) < number:
        parts = random.sample(range(BLOCK), BLOCK)
        dealt += [values[int((part + random.random()) * len(values) / BLOCK)] for part in parts]
    return dealt[:number][::-1]  # they are taken from the end
