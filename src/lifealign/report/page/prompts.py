"""The same prompts answered after each task, side by side, with what changed from version to version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.records import Record
from lifealign.report.page.answers import changes

SHOWN_PROMPTS = 6
"""Prompts whose answers stand open; the others are folded."""
MOST_PROMPTS = 100
"""Prompts in the page at all."""


def prompt_cards(records: Sequence[Record], steps: Sequence[str]) -> list[dict[str, Any]]:
    """Prompts with the answers of the base and of every version that has one, evenly spaced ones first."""
    columns: list[tuple[str, dict[str, dict[str, Any]]]] = []
    base: dict[str, dict[str, Any]] = {}
    for step, record in zip(steps, records, strict=True):
        for row in record.base_answers:  # asked by the tasks of several steps, each with its own check
            known = base.get(_key(row), row)
            base[_key(row)] = row | {"holds": known["holds"] | row["holds"]}
        columns.append((step, {_key(row): row for row in record.answers}))
    columns.insert(0, ("base model", base))
    keys = list(dict.fromkeys(key for _, answers in columns for key in answers))
    stride = max(1, len(keys) // SHOWN_PROMPTS)
    first = keys[::stride][:SHOWN_PROMPTS]
    shown = []
    for key in [*first, *(key for key in keys if key not in first)][:MOST_PROMPTS]:
        answers: list[dict[str, Any]] = []
        before: str | None = None
        for label, row in [(label, column[key]) for label, column in columns if key in column]:
            answers.append(
                {
                    "label": label,
                    "pieces": changes(before, row["answer"]),
                    "unchanged": before == row["answer"],
                    "holds": row["holds"],
                }
            )
            before = row["answer"]
        found = next(column[key] for _, column in columns if key in column)
        shown.append({"messages": found["prompt"], "tasks": found.get("tasks", []), "answers": answers})
    return shown


def _key(row: Mapping[str, Any]) -> str:
    return "\x00".join(f"{message['role']}\x01{message['content']}" for message in row["prompt"])


def empty_answers(records: Sequence[Record], steps: Sequence[str]) -> list[str]:
    """Versions that have given empty answers, in words: they count as answers, and a reader should know."""
    counts = []
    for step, record in zip(steps, records, strict=True):
        counts.append((step, sum(not row["answer"].strip() for row in record.answers), len(record.answers)))
    return [f"{empty} of {total} after {step}" for step, empty, total in counts if empty]
