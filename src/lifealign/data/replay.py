"""Replay: a seeded random share of every finished task, within a shared capacity."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from lifealign.data.pair import Pair
from lifealign.settings.section import Settings


def sample_for_replay(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[Pair, ...]:
    """Draws the pairs of a finished task to remember, in random order.

    Args:
        pairs: The task's training pairs.
        fraction: Share to remember, in [0, 1] (0.2 in the paper); the number of pairs is rounded down, but is at least
            1 for a fraction above 0.
        seed: Seed of the draw; the same seed draws the same pairs.

    Example:
        >>> pairs = [Pair((), f"good {number}", "bad") for number in range(10)]
        >>> len(sample_for_replay(pairs, 0.25, seed=0))
        2
    """
    if fraction == 0:
        return ()
    return tuple(random.Random(seed).sample(list(pairs), max(1, int(fraction * len(pairs)))))


def quotas(stored: Sequence[int], capacity: int) -> list[int]:
    """Shares a capacity among tasks: as even as possible, none given more than it has stored.

    Args:
        stored: Number of remembered pairs of each task, oldest first.
        capacity: Maximum total number of pairs.

    Returns:
        Number of pairs to keep of each task; they sum to ``min(capacity, sum(stored))``.

    Example:
        >>> quotas([10, 2, 10], capacity=12)
        [5, 2, 5]
    """
    kept = [0] * len(stored)
    left = min(capacity, sum(stored))
    while left:
        open_tasks = [task for task, number in enumerate(stored) if kept[task] < number]
        # What cannot be split evenly goes to the oldest tasks, which have gone without practice the longest.
        share, lucky = left // len(open_tasks) or 1, open_tasks[:left]
        for task in lucky:
            given = min(share, stored[task] - kept[task])
            kept[task] += given
            left -= given
    return kept


def distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs in their order, without repetitions."""
    return list({pair.key: pair for pair in pairs}.values())


@dataclass
class ReplayBuffer:
    """What is remembered of finished tasks.

    Eviction is balanced: when the capacity is full, every task keeps an equal quota. Because a task's pairs were drawn
    in random order, its first ``quota`` pairs are again a random sample.

    Attributes:
        capacity: Maximum total number of pairs; 0 switches replay off.
        tasks: Remembered pairs by step, oldest first, before quotas are applied.
    """

    capacity: int
    tasks: dict[str, tuple[Pair, ...]] = field(default_factory=dict)

    def release(self, names: Iterable[str]) -> None:
        """Forgets the pairs of tasks whose rule another one replaces: replaying them would teach the old rule again."""
        for name in names:
            self.tasks.pop(name, None)

    def by_task(self) -> dict[str, tuple[Pair, ...]]:
        """Remembered pairs by task, within quotas, oldest task first; tasks with no pairs are left out."""
        kept = quotas([len(pairs) for pairs in self.tasks.values()], self.capacity)
        return {
            name: pairs[:number] for number, (name, pairs) in zip(kept, self.tasks.items(), strict=True) if number > 0
        }

    def pairs(self) -> list[Pair]:
        """All remembered pairs within quotas, oldest task first."""
        return [pair for pairs in self.by_task().values() for pair in pairs]

    def mix(self, current: Iterable[Pair]) -> list[Pair]:
        """The current task's pairs followed by the remembered ones; a pair in both occurs once."""
        return distinct([*current, *self.pairs()])


class ReplayConfig(Settings):
    """What is remembered of finished tasks.

    Attributes:
        fraction: Share of each finished task's pairs to remember, in [0, 1].
        capacity: Maximum total number of pairs; 0 switches replay off.
    """

    fraction: float = Field(0.2, ge=0, le=1)  # paper: 20 %
    capacity: int = Field(3000, ge=0)  # released code
