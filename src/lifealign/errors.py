"""The errors a user can meet; each says what was found, where, what was expected and how to fix it.

::

    LifeAlignError                exit code 2 unless noted
    ├── DataError                 a preference row or file that cannot be used
    ├── ConfigError               an unknown key, a value out of range, an unknown method
    ├── ModelError                a model or adapter that is missing or does not fit
    ├── LifeError                 a directory that is not a life, has another format, is damaged or in use
    │   └── Unsynced              a file that is in place but may not survive a power loss
    ├── TrainingError             invalid numbers in training or consolidation (exit code 1)
    ├── LostProcess               another process of the same run has ended (exit code 1)
    ├── Refused                   a step that would cost earlier tasks too much; the life is as it was (exit code 3)
    ├── Unscored                  scores that could not be measured; what was learnt is kept (exit code 1)
    ├── Unfinished                cells of a comparison that failed; the others are finished (exit code 1)
    └── JudgeError                a judge that cannot continue (exit code 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class LifeAlignError(Exception):
    """Base of every error this package raises on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 2


class DataError(LifeAlignError):
    """A preference row or file that cannot be used.

    Args:
        path: File the row came from.
        found: What was found, in words.
        expected: What was expected and, where it helps, how to fix it.
        line: Line (or record) number from 1, if the fault is in one.
        field: Name of the field, if the fault is in one.

    Example:
        >>> str(DataError("rows.jsonl", found="a number (7)", expected="a string", line=3, field="chosen"))
        'rows.jsonl:3: chosen: found a number (7), expected a string'
    """

    def __init__(
        self, path: str | Path, *, found: str, expected: str, line: int | None = None, field: str | None = None
    ) -> None:
        self.path, self.line, self.field, self.found, self.expected = str(path), line, field, found, expected
        where = self.path if line is None else f"{self.path}:{line}"
        what = f"found {found}, expected {expected}"
        super().__init__(f"{where}: {field}: {what}" if field else f"{where}: {what}")


@dataclass(frozen=True)
class SettingFault:
    """A mistake in one setting. Fields that do not apply are None.

    Attributes:
        path: File of the setting, or its other source, such as ``--set seed=x``.
        line: Line of the file, from 1.
        field: The setting with its sections, dotted: ``tasks[0].train``.
        found: What was found, in words.
        expected: What was expected and, where it helps, how to fix it.
    """

    path: str | None = None
    line: int | None = None
    field: str | None = None
    found: str | None = None
    expected: str | None = None


class ConfigError(LifeAlignError):
    """A setting that does not exist or has a value outside its range.

    Args:
        message: One line for each mistake.
        faults: The same mistakes as structured values, in the order of the lines; empty unless the settings came from
            a file, from ``--set`` or from plain values.
    """

    def __init__(self, message: str, faults: Sequence[SettingFault] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__(message)


class ModelError(LifeAlignError):
    """A base model or adapter that is missing, or the two do not fit together."""


class LifeError(LifeAlignError):
    """A directory that is not a life, has another format version, is damaged, or is in use by another process."""


class Unsynced(LifeError):
    """A file has been replaced, but the system could not guarantee that its name survives a power loss."""


class TrainingError(LifeAlignError):
    """Training or consolidation produced numbers that must not be committed.

    The message names the task, the stage and, where there is one, the optimizer step. Nothing of the task has been
    committed when this is raised.
    """

    exit_code = 1

    def __init__(self, what: str, *, task: str, stage: str, step: int | None = None, way_out: str = "") -> None:
        self.task, self.stage, self.step = task, stage, step
        where = f"task {task!r}, stage {stage!r}" + (f", optimizer step {step}" if step is not None else "")
        super().__init__(f"{where}: {what}{'. ' + way_out if way_out else ''}")


class LostProcess(LifeAlignError):
    """Another process of a run on several has ended. What is on disk is whole, and the same command goes on from it."""

    exit_code = 1


class Refused(LifeAlignError):
    """A step that was learnt but not accepted, because an earlier task may have lost too much. The life is as it was.

    Args:
        life: Directory of the life.
        step: Name that the step would have had.
        losses: What was lost, such as ``greet: 9 of 48 lost, 0 gained; at most 33.2 % lost, allowed 10 %``.
        evidence: File with the prompts that flipped.
    """

    exit_code = 3

    def __init__(self, life: str | Path, step: str, losses: Sequence[str], evidence: str | Path) -> None:
        self.life, self.step, self.losses, self.evidence = str(life), step, tuple(losses), Path(evidence)
        super().__init__(
            f"{life}: {step} refused: {'; '.join(losses)}. The life is as it was; {evidence} has the prompts that "
            "flipped. Teach it again with other settings or more replay, or keep it all the same with --force"
        )


class Unscored(LifeAlignError):
    """Scores that could not be measured. What was learnt is committed, and so are all other scores.

    Args:
        life: Directory of the life.
        holes: What is missing and why, such as ``02-tone: margin of tone (RuntimeError: out of memory)``.
        kept: What is there all the same, and how to get the rest; by default what was learnt, and ``evaluate``.
    """

    exit_code = 1

    def __init__(self, life: str | Path, holes: Sequence[str], kept: str | None = None) -> None:
        self.life, self.holes = str(life), tuple(holes)
        number = f"{len(holes)} {'score' if len(holes) == 1 else 'scores'}"
        shown = "; ".join(holes[:3]) + ("; ..." if len(holes) > 3 else "")
        kept = kept or f"What was learnt is kept; `lifealign evaluate {life}` measures what is missing"
        super().__init__(f"{life}: {number} could not be measured: {shown}. {kept}")


class Unfinished(LifeAlignError):
    """Cells of a comparison that failed. All others are finished, and the next call tries the failed ones again.

    Args:
        causes: Name and error of each failed cell.
        cells: Total number of cells.
    """

    exit_code = 1

    def __init__(self, causes: Sequence[str], cells: int) -> None:
        self.causes = tuple(causes)
        lines = "\n".join(f"  {cause}" for cause in causes)
        super().__init__(
            f"{len(causes)} of {cells} cells could not be finished; the same command tries them again:\n{lines}"
        )


def describe(value: Any) -> str:
    """Describes a value from a file in a few words, for ``found ...`` in a message.

    Example:
        >>> describe(7), describe([1, 2]), describe(None)
        ('a number (7)', 'a list of 2', 'null')
    """
    match value:
        case None:
            return "null"
        case bool():
            return f"a boolean ({str(value).lower()})"
        case int() | float():
            return f"a number ({value})"
        case str():
            return "an empty string" if not value.strip() else f"the string {value[:40]!r}"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object with " + (", ".join(repr(key) for key in list(value)[:6]) or "no keys")
        case _:
            return f"a {type(value).__name__}"


class JudgeError(LifeAlignError):
    """A judge that cannot continue: no server, a refused key, an unknown model, a cache that cannot be opened.

    No reply is lost: earlier ones are in the judge's cache, and the same call continues from there. The message never
    contains the key, and no exception of the client, which might contain it, is chained to this one.
    """

    exit_code = 1
