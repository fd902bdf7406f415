"""Files that tests of the command line and of experiments read: rows of a task, and settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.tiny import letter_task

from lifealign.data.pair import Pair


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
