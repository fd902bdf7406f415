"""Which tasks of a life are about the same prompts, on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.data.pair import Message
from lifealign.life.disk.recall_files import MOST_OTHERS, overlap_of
from lifealign.life.life import Life
from lifealign.memory.scope import HOUSE_RULE

MOST_TASKS = 16
"""Most tasks in the table, the latest ones; a life may have hundreds."""


def recalled_line(life: Life, prompt: Sequence[Mapping[str, str]]) -> str:
    """What a life recalls for a prompt, and which version answers it, in words.

    Args:
        life: The life; its model is loaded.
        prompt: Messages, each with ``role`` and ``content``.
    """
    found = life.recall([Message(message["role"], message["content"]) for message in prompt])
    tasks = [
        f"{one.task} ({'rule of the house' if one.house_rule else f'p = {one.p_value:.2f}'})" for one in found.recalled
    ]
    return f"recalls {', '.join(tasks) or 'no task'}; answered by {found.version}"


def recall_panel(life: Life) -> dict[str, Any] | None:
    """A row for each task, and in it how much of its prompts each other task shares; None without two tasks to compare.

    What is measured is by the prompts' features alone; see ``docs/recall.md``.
    """
    overlap = overlap_of(life.directory)
    if len(overlap.tasks) < 2:
        return None
    tasks = overlap.tasks[-MOST_TASKS:]
    rows = []
    for task in tasks:
        house = overlap.scopes[task] >= HOUSE_RULE
        cells: list[dict[str, Any]] = []
        for other in tasks:
            value = overlap.overlaps.get((task, other))
            if task == other or value is None:
                cells.append({"level": None, "text": "" if task == other else "not measured", "tip": ""})
                continue
            text = f"{100 * value:.0f} %"
            cells.append({"level": round(10 * value), "text": text, "tip": f"{task}, told from {other}: {text} alike"})
        rows.append({"task": task, "cells": cells, "scope": f"{100 * overlap.scopes[task]:.0f} %", "house": house})
    return {
        "tasks": tasks,
        "rows": rows,
        "fewest": min(overlap.prompts[task] for task in tasks),
        "left_out": len(overlap.tasks) - len(tasks),
        "compared": MOST_OTHERS if len(overlap.tasks) > MOST_OTHERS + 1 else 0,
        "house": [row["task"] for row in rows if row["house"]],
        "domains": [row["task"] for row in rows if not row["house"]],
    }
