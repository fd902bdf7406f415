"""``life.json``: what a life consists of. What the manifest does not name does not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lifealign import storage
from lifealign.errors import LifeError

FORMAT_VERSION = 1
MANIFEST = "life.json"


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 (hexadecimal) of a file."""

    model_config = ConfigDict(extra="forbid")
    size: int
    sha256: str


class TaskRecord(BaseModel):
    """A learnt task: how many pairs it had, and a content hash of its data and check."""

    model_config = ConfigDict(extra="forbid")
    name: str
    train_pairs: int
    test_pairs: int
    data_hash: str
    check: dict[str, Any] | None = None


class Version(BaseModel):
    """The life after one step: its name (``02-tone``), the tasks learnt in it, and every file it added."""

    model_config = ConfigDict(extra="forbid")
    name: str
    tasks: list[TaskRecord]
    files: dict[str, FileRecord]


class BaseRecord(BaseModel):
    """The frozen base model a life belongs to.

    Attributes:
        model_name_or_path: A hub id, or a folder or file.
        fingerprint: Content hash of its weights.
        tokenizer: Content hash of its tokenizer.
        chat_template: Content hash of its chat template.
        revision: Commit of the hub.
        exact: What was proven exact on it, and what runs the plain way and why, in words.
    """

    model_config = ConfigDict(extra="forbid")
    model_name_or_path: str
    fingerprint: str
    tokenizer: str
    chat_template: str
    revision: str | None
    exact: dict[str, str]


class Manifest(BaseModel):
    """Everything that is committed; replaced as a whole, last, by one rename."""

    model_config = ConfigDict(extra="forbid")
    format_version: int
    base: BaseRecord
    config: dict[str, Any]
    environment: dict[str, str]
    versions: list[Version]

    def save(self, life: Path) -> None:
        """Makes this manifest the life's: the moment of commit."""
        storage.write_json(life / MANIFEST, self.model_dump(mode="json"))

    @classmethod
    def read(cls, life: Path) -> Manifest:
        """Reads a life's manifest.

        Raises:
            LifeError: If the directory is not a life, has another format version, or its manifest is damaged.
        """
        path = life / MANIFEST
        if not path.is_file():
            what = "no such directory" if not life.is_dir() else "a directory without life.json"
            raise LifeError(f"{life}: found {what}, expected a life; `lifealign init {life}` makes one")
        content = storage.read_json(path)
        found = content.get("format_version") if isinstance(content, dict) else None
        if found != FORMAT_VERSION:
            raise LifeError(
                f"{path}: format_version: found {found!r}, expected {FORMAT_VERSION}; use the version of lifealign "
                "that wrote this life"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise LifeError(f"{path}: {where}: {first['msg']}; the manifest is damaged") from error
