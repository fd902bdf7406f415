"""The rows that both sides of a comparison are given."""

import random
from pathlib import Path

from lifealign.data.pair import Pair
from lifealign.data.suites.support_desk import load_suite
from lifealign.data.task import Task

SETS = ("hh-harmless", "hh-helpful", "safe-rlhf", "truthfulqa")
SUITE = "support-desk"
"""What is used where there is no folder with real data."""


def rows_of(name: str, folder: Path | None, count: int) -> list[Pair]:
    """The first rows of a data set after one fixed shuffle; ``support-desk`` comes with the package."""
    if name == SUITE:
        pairs = [pair for task in load_suite() for pair in task.train]
    else:
        assert folder is not None
        files = (str(folder / name / f"{split}.jsonl") for split in ("train", "test"))
        pairs = list(Task.from_files(name, *files).train)
    random.Random(0).shuffle(pairs)
    if len(pairs) < count:
        raise SystemExit(f"{name}: found {len(pairs)} pairs, expected at least {count}")
    return pairs[:count]
