"""Deals out which rules each answer of a task keeps, and how long it is.

The trait that a task is about holds in every chosen answer and in no rejected one. The traits of the stream's other
rules are dealt to both sides alike and independently. Of a rule and its update only the valid one is dealt: the earlier
one before the update's own task, the update from then on. In the pairs of the update itself, half of the rejected
answers keep the rule that it takes the place of.
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
EVENNESS = 0.5  # weight against rows that keep nearly all rules or none, as the first ones would
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


def shuffled(shares: Mapping[str, float], number: int, random: Random) -> list[dict[str, bool]]:
    """Deals ``number`` rows in which every trait has its share over all rows, each in an order of its own."""
    kept = {}
    for name, share in shares.items():
        on = round(share * number)
        kept[name] = [True] * on + [False] * (number - on)
        random.shuffle(kept[name])
    return [_implied({name: kept[name][row] for name in shares}) for row in range(number)]


def balanced(shares: Mapping[Key, float], number: int, random: Random) -> list[dict[Key, bool]]:
    """Deals ``number`` rows in which every trait has its share in every prefix, and no two of them go together.

    After each row a trait has been on less than one time more or less than its share of the rows so far. Among the rows
    that allow for that, one is taken that keeps the covariances of all pairs of traits so far close to zero.
    """
    keys = list(shares)
    means = [shares[key] for key in keys]
    on = [0] * len(keys)
    together = [[0.0] * len(keys) for _ in keys]  # sums of products of two traits' distances from their means
    out = []
    for so_far in range(1, number + 1):
        allowed = [
            [value for value in (False, True) if abs(count + value - mean * so_far) < 1 - 1e-9]
            for count, mean in zip(on, means, strict=True)
        ]
        tries = []
        for _ in range(STARTS):
            row = [random.choice(values) for values in allowed]
            tries.append(_settle(row, [i for i, values in enumerate(allowed) if len(values) == 2], means, together))
        row = min(tries, key=lambda row: _confounding(row, means, together))
        for i, value in enumerate(row):
            on[i] += value
            for j, other in enumerate(row):
                together[i][j] += (value - means[i]) * (other - means[j])
        out.append(dict(zip(keys, row, strict=True)))
    return out


def _settle(row: list[bool], free: list[int], means: list[float], together: list[list[float]]) -> list[bool]:
    """Switches one free trait after another where that brings covariances closer to zero, until nothing changes."""
    changed = True
    while changed:
        changed = False
        for i in free:
            rest = [(together[i][j], value - means[j]) for j, value in enumerate(row) if j != i]
            cost = sum((2 * so_far + EVENNESS) * far + (1 - 2 * means[i]) * far * far for so_far, far in rest)
            if abs(cost) > 1e-9 and row[i] != (cost < 0):  # cost of being on, above that of being off
                row[i] = not row[i]
                changed = True
    return row


def _confounding(row: list[bool], means: list[float], together: list[list[float]]) -> float:
    """The sum of squares of all covariances after a row, and ``EVENNESS`` times the row's own products."""
    far = [value - mean for value, mean in zip(row, means, strict=True)]
    products = ((together[i][j], far[i] * far[j]) for i in range(len(far)) for j in range(i))
    return sum((so_far + product) ** 2 + EVENNESS * product for so_far, product in products)


def deal(
    task: str, rules: Sequence[str], share: Mapping[bool, float], number: int, random: Random
) -> dict[bool, list[dict[str, bool]]]:
    """Deals the traits of all rejected (False) and chosen (True) answers of a split at once, balanced.

    Args:
        task: The rule that the pairs are about.
        rules: The stream.
        share: Share of the other rules' traits in rejected and in chosen answers.
        number: Pairs in the split.
        random: Source of all choices.
    """
    of_both = {
        (chosen, name): value
        for chosen in (True, False)
        for name, value in shares(task, rules, share[chosen], chosen=chosen).items()
    }
    rows = balanced(of_both, number, random)
    return {chosen: [_implied({name: row[chosen, name] for name in rules}) for row in rows] for chosen in (True, False)}


def _implied(traits: dict[str, bool]) -> dict[str, bool]:
    """What is briefer is brief."""
    return traits | {"brief": True} if traits.get("briefer") and "brief" in traits else traits


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
