"""What was decided: what a decision makes of a candidate, and how all of them are kept on disk.

Beside a file of reviewed pairs, ``OUT``, lies the folder ``OUT.review``: ``decisions.json`` has every decision in the
order in which it was taken, by the content of what was decided, and the lock of whoever is deciding. ``OUT`` follows
from it and from the file that is reviewed, and can always be written again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from lifealign.data.formats import parse_row
from lifealign.data.pair import Pair
from lifealign.errors import DataError, LifeError, describe
from lifealign.life.disk.typed_json import Count, Record, validated
from lifealign.service.review.candidates import Candidate, Side
from lifealign.storage.files import read_sealed_json, write_sealed_json

FORMAT: Final = 1
"""Changes whenever the meaning of a side or of a key does: decisions are stored by both."""
FOLDER, NAME = ".review", "decisions.json"


class Decision(Record):
    """What somebody said of one candidate.

    Attributes:
        key: The candidate's.
        choice: The better side, or that there is nothing to learn from it.
        edited: A better text, made from the answer on the chosen side; None if that answer is good as it is.
    """

    key: str
    choice: Literal["a", "b", "skip"]
    edited: str | None = None


class Decisions(Record):
    """The content of ``decisions.json``.

    Attributes:
        format: :data:`FORMAT`.
        file: Name of the file that is reviewed, without its folder.
        version: Grows by one with every change, undoing included.
        outputs: SHA-256 of the contents that ``OUT`` may have: before the last change, and after it.
        decisions: In the order in which they were taken; the last one about a candidate holds.
    """

    format: Literal[1]
    file: str
    version: Count
    outputs: list[str]
    decisions: list[Decision]


def folder_of(out: Path) -> Path:
    """The folder beside a file of reviewed pairs."""
    return out.with_name(out.name + FOLDER)


def read_decisions(out: Path) -> Decisions | None:
    """Reads the decisions of a file of reviewed pairs; None if there are none yet.

    Raises:
        LifeError: If they are damaged or of another format.
    """
    path = folder_of(out) / NAME
    if not path.exists():
        return None

    def check_format(content: Any) -> None:
        if isinstance(content, dict) and content.get("format") != FORMAT:
            found = describe(content.get("format"))
            raise LifeError(f"{path}: format: found {found}, expected {FORMAT}; give another --out")

    return validated(path, read_sealed_json(path, check_format), Decisions)


def write_decisions(out: Path, decisions: Decisions) -> None:
    """Replaces the decisions of a file of reviewed pairs.

    Raises:
        LifeError: If the system refuses; what was there before is unchanged.
    """
    write_sealed_json(folder_of(out) / NAME, decisions.model_dump())


def reviewed_row(candidate: Candidate, decision: Decision) -> dict[str, Any] | None:
    """What is learnt from a decision, as a row; None if the candidate was skipped.

    An edited text is chosen over the answer that it was made from. Answers are plain texts, unless a reader would take
    such a text for a list of messages: then each is one message.

    Raises:
        DataError: If the edited text is empty, is the answer as it was, or has characters that a row cannot hold.
    """
    if decision.choice == "skip":
        return None
    side: Side = decision.choice
    chosen, rejected = candidate.answer(side), candidate.answer("b" if side == "a" else "a")
    if decision.edited is not None:
        _refuse_no_edit(candidate, chosen, decision.edited)
        chosen, rejected = decision.edited, chosen
    pair = Pair(candidate.prompt, chosen, rejected, candidate.source)
    row = {
        "prompt": [message._asdict() for message in pair.prompt],
        "chosen": chosen,
        "rejected": rejected,
        "source": pair.source.encode("utf-8", "backslashreplace").decode(),  # a file's name may be no UTF-8
        "why": "reviewed" if decision.edited is None else "edited",
    }
    as_messages = {name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")}
    _parsed(row | as_messages, candidate)  # refuses what no row can hold
    try:
        plain = _parsed(row, candidate) == pair
    except DataError:
        plain = False
    return row if plain else row | as_messages


def reviewed_line(candidate: Candidate, decision: Decision) -> bytes:
    """What is learnt from a decision, as a line of JSONL; empty if the candidate was skipped.

    Raises:
        DataError: For the reasons given in :func:`reviewed_row`.
    """
    row = reviewed_row(candidate, decision)
    return b"" if row is None else json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _parsed(row: dict[str, Any], candidate: Candidate) -> Pair:
    file, _, line = candidate.source.rpartition(":")
    return parse_row(row, file, int(line))[0]


def _refuse_no_edit(candidate: Candidate, answer: str, edited: str) -> None:
    file, _, line = candidate.source.rpartition(":")
    if not edited.strip():
        raise DataError(file, line=int(line), field="edited", found="an empty text", expected="an answer")
    if edited.strip().splitlines() == answer.strip().splitlines():  # a text box writes every line's end as a newline
        expected = "a text that differs; choose the answer if it is good as it is"
        raise DataError(file, line=int(line), field="edited", found="the answer as it was", expected=expected)
