"""Rows that are pairs already, of any shape that ``lifealign learn`` reads: they are taken in as choices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lifealign.data.collect.answered import Answer, Opinion, Reading, Source, optional
from lifealign.data.columns import ANSWERS, foreign_shape
from lifealign.data.formats import UnclearTranscript, parse_row

UNCLEAR = "transcripts that part before their last answer"


def recognises(row: dict[str, Any]) -> bool:
    """Whether a row says which of two answers is better."""
    return all(name in row for name in ANSWERS) or foreign_shape(row) is not None


def read(path: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> Reading:
    """Reads pairs.

    Raises:
        DataError: At the first row of no accepted shape.
    """
    reading = Reading()
    for line, row in rows:
        place, model = f"{path}:{line}", optional(row, "model")
        reading.feedback += 1
        try:
            pair, _ = parse_row(row, path, line)
        except UnclearTranscript:
            reading.leave_out(UNCLEAR, place)
            continue
        names = [f"{place} {name}" for name in ANSWERS]
        texts = (pair.chosen, pair.rejected)
        reading.answers += [
            Answer((name,), pair.prompt, text, place, model) for name, text in zip(names, texts, strict=True)
        ]
        reading.opinions.append(Opinion(names[0], "chosen", place, place, over=names[1]))
    return reading


SOURCE = Source("preference rows", recognises, read)
