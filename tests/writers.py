"""Files that tests of the command line and of experiments read: rows of a task, and settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.tiny import letter_task

from lifealign.data.pair import Pair
from lifealign.data.task import Task


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(pairs: Iterable[Pair]) -> list[dict[str, str]]:
    """Pairs of one user message as the plainest rows."""
    return [{"prompt": pair.prompt[0].content, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]


def write_task(folder: Path, name: str, good: str, bad: str) -> list[Path]:
    """Training and held-out rows of a task that any model can learn, as ``NAME.jsonl`` and ``NAME-test.jsonl``."""
    task = letter_task(name, good, bad)
    return [
        write_jsonl(folder / f"{name}{suffix}.jsonl", rows_of(pairs))
        for suffix, pairs in (("", task.train), ("-test", task.test))
    ]


def write_splits(folder: Path, task: Task) -> list[Path]:
    """Training and held-out rows of a task, as ``NAME-train.jsonl`` and ``NAME-test.jsonl``."""
    return [
        write_jsonl(folder / f"{task.name}-{split}.jsonl", rows_of(pairs))
        for split, pairs in (("train", task.train), ("test", task.test))
    ]


def write_general_text(folder: Path) -> str:
    """A file of two passages of general text, in place of the 32 that come with the package."""
    path = folder / "general-text.txt"
    path.write_text("The tide comes in twice a day.\n\nBread needs flour, water and salt.\n")
    return str(path)
