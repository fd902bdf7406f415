"""``life.json``, the manifest of a life: what it does not name is not part of the life.

A life may come from somebody else, so every name in it is checked before it becomes a path or is printed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import TASK_NAME
from lifealign.errors import LifeError
from lifealign.life.disk.names import MANIFEST, OWNED
from lifealign.storage.files import read_sealed_json, write_sealed_json
from lifealign.storage.inside import inside
from lifealign.storage.regular_file import named
from lifealign.storage.strict_json import CONTROL

FORMAT_VERSION = 1

STEP_NAME = rf"[0-9]{{2,9}}-{TASK_NAME.pattern}(\+{TASK_NAME.pattern})*"
FILE_NAME = rf"({'|'.join(OWNED)})(/[A-Za-z0-9][A-Za-z0-9._+-]*)+"


def _check(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the check of a task unchanged, after validating it."""
    try:
        if value is not None:
            AnswerCheck.model_validate(value)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error
    return value


Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]  # whole numbers that every reader of JSON reads exactly
TaskName = Annotated[str, StringConstraints(pattern=f"^{TASK_NAME.pattern}$")]
StepName = Annotated[str, StringConstraints(pattern=f"^{STEP_NAME}$")]


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 (hexadecimal) of a file."""

    model_config = ConfigDict(extra="forbid")
    size: Count
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class TaskRecord(BaseModel):
    """A learnt task: its numbers of pairs, a content hash of its data and check, and the tasks that it supersedes."""

    model_config = ConfigDict(extra="forbid")
    name: TaskName
    train_pairs: Count
    test_pairs: Count
    data_hash: Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
    check: Annotated[dict[str, Any] | None, AfterValidator(_check)] = None
    supersedes: list[TaskName] = Field(default_factory=list)

    @model_serializer(mode="wrap")
    def _only_superseded_ones(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves the superseded tasks out if there are none."""
        return {name: value for name, value in plain(self).items() if name != "supersedes" or value}


class Version(BaseModel):
    """The life after one step: its name (``02-tone``), the tasks learnt in it, and every file it added.

    The files are below ``versions/``, ``memory/``, ``replay/`` and ``tasks/``, each under the version's name.
    """

    model_config = ConfigDict(extra="forbid")
    name: StepName
    tasks: list[TaskRecord]
    files: dict[Annotated[str, StringConstraints(pattern=f"^{FILE_NAME}$")], FileRecord]

    @model_validator(mode="after")
    def _names_its_own_files(self) -> Self:
        own = tuple(f"{folder}/{self.name}{mark}" for folder in OWNED for mark in "/.")
        for file in self.files:
            if not file.startswith(own):
                raise ValueError(f"found the file {file!r} in version {self.name!r}, expected files under its name")
        return self


class BaseRecord(BaseModel):
    """The frozen base model that a life belongs to.

    Attributes:
        model_name_or_path: A hub id, or a folder or file.
        fingerprint: Content hash of its weights.
        tokenizer: Content hash of its tokenizer.
        chat_template: Content hash of its chat template.
        revision: Hub commit, or None.
        exact: Which shortcuts were proven exact on it, and what runs the plain way and why, in words.
    """

    model_config = ConfigDict(extra="forbid")
    model_name_or_path: str
    fingerprint: str
    tokenizer: str
    chat_template: str
    revision: str | None
    exact: dict[str, str]


class Manifest(BaseModel):
    """Everything that is committed; replaced as a whole by one rename, after all other files are written."""

    model_config = ConfigDict(extra="forbid")
    format_version: int
    base: BaseRecord
    config: dict[str, Any]
    environment: dict[str, str]
    versions: list[Version]

    @model_validator(mode="after")
    def _names_everything_once(self) -> Self:
        for what, names in (
            ("version", [version.name for version in self.versions]),
            ("task", [task.name for version in self.versions for task in version.tasks]),
            ("file", [file for version in self.versions for file in version.files]),
        ):
            if len(set(names)) < len(names):
                twice = Counter(names).most_common(1)[0][0]
                raise ValueError(f"found the {what} {twice!r} twice, expected it once")
        return self

    def save(self, life: Path) -> None:
        """Makes this manifest the life's, which is the moment of commit.

        Raises:
            LifeError: If it contains control characters, or cannot be written; the life is then as it was.
            Unsynced: If it is now the life's manifest, but may not survive a power loss.
        """
        content = self.model_dump(mode="json")
        _refuse_control_characters(life / MANIFEST, content)
        write_sealed_json(life / MANIFEST, content)

    @classmethod
    def read(cls, life: Path) -> Manifest:
        """Reads a life's manifest.

        Raises:
            LifeError: If the directory is not a life, has another format version, or its manifest is damaged: any
                changed byte is detected, and so is any name that this package would not have written.
        """
        path = life / MANIFEST
        with named(path, "read"):
            try:
                os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                what = "a directory without life.json" if life.is_dir() else "no such directory"
                raise LifeError(f"{life}: found {what}, expected a life; `lifealign init {life}` makes one") from None
        content = read_sealed_json(inside(life, MANIFEST), check_first=lambda found: _same_format(path, found))
        _refuse_control_characters(path, content)
        try:
            manifest = cls.model_validate(content)
        except ValidationError as error:
            raise LifeError(f"{path}: {_first_fault(error)}; the manifest is damaged") from error
        if not manifest.versions:
            raise LifeError(f"{path}: versions: found none, expected at least one; the manifest is damaged")
        return manifest


def _same_format(path: Path, content: Any) -> None:
    found = content.get("format_version") if isinstance(content, dict) else None
    if type(found) is not int or found != FORMAT_VERSION:  # True and 1.0 are equal to 1
        raise LifeError(
            f"{path}: format_version: found {repr(found)[:80]}, expected {FORMAT_VERSION}; use the version of "
            "lifealign that wrote this life"
        )


def _refuse_control_characters(path: Path, content: dict[str, Any]) -> None:
    """Refuses control characters in names and settings, because these are printed and a terminal would obey them."""
    for place, text in _texts(content):
        pattern = place[:1] == ("versions",) and "check" in place  # the pattern of a task's check; never printed as is
        if CONTROL.search(text) and not pattern:
            raise LifeError(
                f"{path}: {'.'.join(place)!r}: found {text[:80]!r}, with control characters, expected text without any"
            )


def _texts(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in a value, with its place."""
    match value:
        case str():
            yield place, value
        case dict():
            for key, part in value.items():
                yield place, key
                yield from _texts(part, (*place, key))
        case list():
            for number, part in enumerate(value):
                yield from _texts(part, (*place, str(number)))


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = repr(".".join(str(part) for part in first["loc"]))[1:-1]  # it may be a key of somebody else's making
    found = "" if isinstance(first["input"], dict | list) else f" (found {repr(first['input'])[:80]})"
    return ": ".join(part for part in (where, first["msg"].removeprefix("Value error, ") + found) if part)
