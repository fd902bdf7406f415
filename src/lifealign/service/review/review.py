"""A review in progress: what is shown next, and what every decision changes, on disk before it is answered."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lifealign.errors import ConfigError, LifeAlignError, LifeError
from lifealign.service.review.candidates import Candidate, Candidates
from lifealign.service.review.decisions import (
    FORMAT,
    NAME,
    Decision,
    Decisions,
    folder_of,
    read_decisions,
    reviewed_line,
    write_decisions,
)
from lifealign.storage.files import file_record, write_bytes
from lifealign.storage.lock import exclusive_lock

View = dict[str, Any]
"""What a page shows: the progress, the version of the decisions, and a candidate with what was decided about it."""


class Stale(LifeAlignError):
    """A decision that was taken without having seen an earlier one.

    Args:
        message: What has happened.
        view: How things stand now.
    """

    def __init__(self, message: str, view: View) -> None:
        self.view = view
        super().__init__(message)


class Progress(NamedTuple):
    """How far a review has come, in numbers of candidates.

    Attributes:
        total: All of them.
        decided: Those that are pairs now.
        edited: Those of the decided whose chosen answer was edited.
        turned: Those of the decided in which the row had chosen the other answer.
        skipped: Those that were looked at and skipped.
    """

    total: int
    decided: int
    edited: int
    turned: int
    skipped: int


@contextmanager
def open_review(file: str, candidates: Candidates, out: Path) -> Iterator[Review]:
    """Starts or continues a review; what was decided before holds for everything that has not changed since.

    Args:
        file: The file that is reviewed.
        candidates: Its content.
        out: The file of reviewed pairs, which every decision replaces.

    Raises:
        ConfigError: If ``out`` is ``file``, or something that no review has written.
        LifeError: If ``out`` was changed since, another process reviews into it, or its decisions are damaged or about
            another file.
    """
    if out.exists() and Path(file).exists() and os.path.samefile(out, file):
        raise ConfigError(f"--out: found {out}, the file to be reviewed, expected another one; no review changes it")
    if out.exists() and not (folder_of(out) / NAME).exists():
        found = "a directory" if out.is_dir() else "a file that `lifealign review` has not written"
        raise ConfigError(f"{out}: found {found}, expected none; give another --out, or move it away")
    with exclusive_lock(folder_of(out)):
        review = Review(file, candidates, out, read_decisions(out))
        try:
            yield review
        finally:
            review.close()


class Review:
    """Candidates and what was decided about them; may be used by several threads at a time.

    Args:
        file: The file that is reviewed.
        candidates: Its content.
        out: The file of reviewed pairs; its folder of decisions is locked.
        earlier: What was decided before.
    """

    def __init__(self, file: str, candidates: Candidates, out: Path, earlier: Decisions | None) -> None:
        self.out = out
        self._name = Path(file).name
        self._candidates = {candidate.key: candidate for candidate in candidates.candidates}
        self._keys = list(self._candidates)
        self._lines: dict[Decision, bytes] = {}
        self._lock = threading.Lock()
        self._changed: dict[str, int] = {}  # the version at which a candidate was last decided or undone, in this run
        self._ended = False
        self._version = earlier.version if earlier else 0
        self._decisions = list(earlier.decisions) if earlier else []
        lost = {decision.key for decision in self._decisions} - self._candidates.keys()
        self.lost = len(lost)
        """Number of candidates that were decided before and that the file no longer has."""
        if earlier and lost and earlier.file != self._name:
            raise LifeError(
                f"{folder_of(out)}: found decisions about {earlier.file}, {len(lost)} of them about rows that {file} "
                "does not have, expected decisions about this file; give another --out"
            )
        self._written = self._digest_of_out()
        if self._written is not None and earlier and self._written not in earlier.outputs:
            raise LifeError(_changed(out))
        if self._decisions and self._written != _digest(self._content(self._decisions)):
            self._store(self._decisions)  # the file has changed, or the last process ended between two writes

    def progress(self) -> Progress:
        """How far the review has come."""
        with self._lock:
            return self._progress()

    def view(self, number: int | None = None, *, skipped: bool = False) -> View:
        """One candidate; by default the first that is still open, or none if there is none.

        Args:
            number: Its number, from 1.
            skipped: The first one that was skipped, instead of the first that is open.

        Raises:
            ConfigError: If there is no such number.
        """
        with self._lock:
            if number is not None and not 1 <= number <= len(self._keys):
                raise ConfigError(f"number: found {number}, expected 1 to {len(self._keys)}")
            if number is not None:
                return self._view(self._keys[number - 1])
            held = self._held()
            if skipped:
                return self._view(next((key for key in self._keys if key in held and held[key].choice == "skip"), None))
            return self._view(self._next_open(None))

    def decide(self, version: int, decision: Decision) -> View:
        """Takes a decision; an earlier one about the same candidate no longer holds.

        Args:
            version: The version of the decisions that whoever decides has seen.
            decision: The decision.

        Returns:
            The next open candidate, or none if none is left.

        Raises:
            Stale: If something was decided about this candidate since.
            ConfigError: If there is no such candidate.
            DataError: If the edited text cannot be learnt.
            LifeError: If it could not be written.
        """
        with self._lock:
            if decision.key not in self._candidates:
                raise ConfigError("key: found one that the file does not have; reload the page")
            if not self._changed.get(decision.key, 0) <= version <= self._version:
                now = self._view(decision.key)
                raise Stale("This pair was decided elsewhere meanwhile; this is how it stands now", now)
            self._store([*self._decisions, decision], decision.key)
            return self._view(self._next_open(decision.key))

    def undo(self, version: int) -> View:
        """Takes back the last decision; one about the same candidate before that holds again.

        Returns:
            The candidate that it was about.

        Raises:
            Stale: If anything was decided since ``version``: what would be undone is not what was seen.
            ConfigError: If there is nothing to undo.
            LifeError: If it could not be written.
        """
        with self._lock:
            places = [place for place, one in enumerate(self._decisions) if one.key in self._candidates]
            if not places:
                raise ConfigError("there is nothing to undo")
            last = places[-1]
            key = self._decisions[last].key
            if version != self._version:
                raise Stale("Something was decided elsewhere meanwhile; undo is about this one now", self._view(key))
            self._store([*self._decisions[:last], *self._decisions[last + 1 :]], key)
            return self._view(key)

    def close(self) -> None:
        """Ends the review once a decision that is being written is written; later ones are refused."""
        with self._lock:
            self._ended = True
            if self._decisions and self._written != _digest(content := self._content(self._decisions)):
                self._write(content)  # an earlier attempt failed

    def _store(self, decisions: list[Decision], key: str | None = None) -> None:
        """Writes decisions, then the pairs that follow from them; from the first, the second can be written again."""
        if self._ended:
            raise LifeError("the review has ended; the same command again continues it")
        if (written := self._digest_of_out()) not in (None, self._written):
            raise LifeError(_changed(self.out))
        content = self._content(decisions)
        outputs = [digest for digest in (written, _digest(content)) if digest]
        version = self._version + 1
        write_decisions(
            self.out,
            Decisions(format=FORMAT, file=self._name, version=version, outputs=outputs, decisions=decisions),
        )
        self._version, self._decisions = version, decisions
        if key is not None:
            self._changed[key] = version
        self._write(content)

    def _write(self, content: bytes) -> None:
        write_bytes(self.out, content)
        self._written = _digest(content)

    def _content(self, decisions: list[Decision]) -> bytes:
        held = {decision.key: decision for decision in decisions}
        return b"".join(self._line(held[key]) for key in self._keys if key in held)

    def _line(self, decision: Decision) -> bytes:
        """What a decision adds to ``OUT``; worked out once, because every later decision writes it again."""
        if decision not in self._lines:
            self._lines[decision] = reviewed_line(self._candidates[decision.key], decision)
        return self._lines[decision]

    def _digest_of_out(self) -> str | None:
        return str(file_record(self.out)["sha256"]) if self.out.exists() else None

    def _held(self) -> dict[str, Decision]:
        """The decision that holds about each candidate."""
        return {decision.key: decision for decision in self._decisions if decision.key in self._candidates}

    def _next_open(self, after: str | None) -> str | None:
        """The first open candidate after one, and after the last one from the beginning; None if there is none."""
        start = 0 if after is None else self._keys.index(after) + 1
        held = self._held()
        return next((key for key in (*self._keys[start:], *self._keys[:start]) if key not in held), None)

    def _progress(self) -> Progress:
        held = self._held()
        taken = [(self._candidates[key], one) for key, one in held.items() if one.choice != "skip"]
        return Progress(
            total=len(self._keys),
            decided=len(taken),
            edited=sum(one.edited is not None for _, one in taken),
            turned=sum(_turned(candidate, one) for candidate, one in taken),
            skipped=len(held) - len(taken),
        )

    def _view(self, key: str | None) -> View:
        progress = self._progress()
        shown: View = {"version": self._version, "row": None}
        shown |= {"total": progress.total, "decided": progress.decided, "skipped": progress.skipped}
        if key is None:
            return shown
        candidate, decision = self._candidates[key], self._held().get(key)
        return shown | {
            "row": {
                "number": self._keys.index(key) + 1,
                "key": key,
                "source": candidate.source,
                "prompt": [message._asdict() for message in candidate.prompt],
                "a": candidate.a,
                "b": candidate.b,
                "decision": decision and decision.model_dump(exclude={"key"}),
            }
        }


def _turned(candidate: Candidate, decision: Decision) -> bool:
    return decision.edited is None and candidate.chosen not in (None, decision.choice)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _changed(out: Path) -> str:
    return (
        f"{out}: found a file that was changed after `lifealign review` wrote it, expected it as it was; move it away, "
        f"and the same command writes it again from {folder_of(out)}, or give another --out"
    )
