"""A memory on disk for adapters that another trainer made: refined updates in order, and a manifest that names them.

The folder has the guarantees of a life: what ``memory.json`` does not name does not exist, an update becomes part of it
whole or not at all, every file is checked before it is used, and one process at a time holds it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from lifealign.errors import LifeError, Unsynced
from lifealign.life.disk.manifest import FileRecord, StepName
from lifealign.life.disk.names import MANIFEST as LIFE
from lifealign.life.disk.step_files import Consolidated, as_json
from lifealign.life.disk.typed_json import Record, validated
from lifealign.memory.long_term import HISTORY_LIMIT, LongTermMemory
from lifealign.memory.update import Adapter
from lifealign.model.peft_config import LoraKind
from lifealign.storage.files import (
    file_record,
    read_json,
    read_sealed_json,
    sync_folder,
    verify_file,
    write_json,
    write_sealed_json,
)
from lifealign.storage.inside import below, inside, remove
from lifealign.storage.lock import LOCK, LOCK_HOLDER, exclusive_lock
from lifealign.storage.temporary import is_temporary, remove_unheld
from lifealign.storage.tensors import read_tensors, write_tensors

logger = logging.getLogger(__name__)

MANIFEST, UPDATES = "memory.json", "updates"
FORMAT_VERSION = 1

Fingerprint = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]


class Kind(Record):
    """What the factors of the adapters mean, under PEFT's names (:class:`~lifealign.model.peft_config.LoraKind`)."""

    base_model_name_or_path: str | None
    revision: str | None
    r: Annotated[int, Field(ge=1)]
    lora_alpha: Annotated[float, Field(gt=0)]
    use_rslora: bool
    fan_in_fan_out: bool


class Entry(Record):
    """One consolidation.

    Attributes:
        name: Its number and name, such as ``02-tone``.
        before: Fingerprint of the adapter that the training began from.
        after: Fingerprint of the adapter that it ended in.
        consolidated: Fingerprint of the adapter that came of it, as it is in each dtype that a trainer may load it in.
        folder: Where that adapter was written.
        energy_kept: Share of the update's energy that was kept.
        overlap_kept: Share of its overlap with the updates before it that was kept.
        update: Record of the file with the refined update.
        figures: Record of the file with what consolidation did to each factor.
    """

    name: StepName
    before: Fingerprint
    after: Fingerprint
    consolidated: dict[str, Fingerprint]
    folder: str
    energy_kept: Annotated[float, Field(gt=0, le=1)]
    overlap_kept: Annotated[float, Field(ge=0, le=1)]
    update: FileRecord
    figures: FileRecord


class MemoryManifest(Record):
    """``memory.json``: what the adapters are, and every update that was taken, oldest first.

    Attributes:
        format_version: Version of this format.
        history_limit: Number of updates that later ones are projected against exactly; beyond it a sketch stands for
            all of them.
        adapter: What the factors mean; None before the first update.
        entries: The updates, oldest first.
    """

    format_version: int
    history_limit: Annotated[int, Field(ge=1)]
    adapter: Kind | None
    entries: list[Entry]

    @model_validator(mode="after")
    def _names_everything_once(self) -> Self:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names) or bool(names) != (self.adapter is not None):
            raise ValueError("found entries that do not belong together, expected each name once, and one adapter")
        return self


def update_file(name: str) -> str:
    """The file of a refined update, inside the memory."""
    return f"{UPDATES}/{name}.safetensors"


def figures_file(name: str) -> str:
    """The file of what consolidation did to each factor."""
    return f"{UPDATES}/{name}.json"


class ForeignMemory:
    """A memory that is held for writing; :func:`opened_memory` makes it.

    Args:
        path: Its folder.
        manifest: Its manifest.
    """

    def __init__(self, path: Path, manifest: MemoryManifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def entries(self) -> list[Entry]:
        """The updates that were taken, oldest first."""
        return self.manifest.entries

    @property
    def kind(self) -> LoraKind | None:
        """What the factors of its adapters mean; None before the first."""
        return None if self.manifest.adapter is None else LoraKind(**self.manifest.adapter.model_dump())

    def update(self, entry: Entry) -> Adapter:
        """The refined update of an entry.

        Raises:
            LifeError: If its file is missing or damaged.
        """
        return read_tensors(self._verified(update_file(entry.name), entry.update))

    def figures(self, entry: Entry) -> Consolidated:
        """What consolidation did to each factor of an entry.

        Raises:
            LifeError: If its file is missing or damaged.
        """
        path = self._verified(figures_file(entry.name), entry.figures)
        return validated(path, read_json(path), Consolidated)

    def long_term(self) -> LongTermMemory:
        """The long-term memory, read from every update, each checked as it is read.

        Raises:
            LifeError: At the first file that is missing or damaged.
        """
        memory = LongTermMemory(self.manifest.history_limit)
        for entry in self.entries:
            memory.remember(self.update(entry))
        return memory

    def take(self, update: Adapter, figures: Consolidated, kind: LoraKind, **entry: Any) -> Entry:
        """Adds an update, all of it or nothing: its files are written and synced first, then the manifest is replaced.

        Args:
            update: The refined update, float32.
            figures: What consolidation did to each factor.
            kind: What the factors mean.
            **entry: The fields of the :class:`Entry`, without the records of the two files.

        Raises:
            LifeError: If a file cannot be written; the memory is as it was.
        """
        paths = [inside(self.path, file(entry["name"])) for file in (update_file, figures_file)]
        try:
            write_tensors(paths[0], update)
            write_json(paths[1], as_json(figures))
        except Unsynced as error:
            raise LifeError(f"{error}; nothing was taken into the memory") from error
        records = [FileRecord(**file_record(path)) for path in paths]
        taken = Entry(update=records[0], figures=records[1], **entry)
        manifest = self.manifest.model_copy(update={"adapter": Kind(**asdict(kind)), "entries": [*self.entries, taken]})
        try:
            write_sealed_json(self.path / MANIFEST, manifest.model_dump(mode="json"))  # the moment of commit
        except Unsynced as error:
            logger.warning("%s", error)
        self.manifest = manifest
        return taken

    def clear_leftovers(self) -> None:
        """Deletes what an interrupted call has left: temporary files, and updates that the manifest does not name.

        A file that cannot be deleted is only a warning: it does no harm, and the next call tries again.
        """
        named = {PurePosixPath(file(entry.name)) for entry in self.entries for file in (update_file, figures_file)}
        try:
            sync_folder(self.path, f"{self.path}: {MANIFEST} is in place")
            for path in reversed(below(self.path)):
                name = PurePosixPath(path.relative_to(self.path).as_posix())
                if is_temporary(path):
                    remove_unheld(self.path, path)
                elif len(name.parts) > 1 and name.parts[0] == UPDATES and name not in named:
                    remove(self.path, path)
        except LifeError as error:
            logger.warning("%s; what is in the memory is not affected, and the next call tries again", error)

    def _verified(self, name: str, record: FileRecord) -> Path:
        path = inside(self.path, name)
        verify_file(path, record.model_dump())
        return path


@contextmanager
def opened_memory(path: Path) -> Iterator[ForeignMemory]:
    """Holds a memory for writing; a folder that is new or empty becomes one.

    Raises:
        LifeError: If another process holds it, the folder has something else in it, or its manifest is damaged or of
            another format version. In all these cases nothing is touched.
    """
    require_memory(path)
    with exclusive_lock(path):
        if not os.path.lexists(path / MANIFEST):
            empty = MemoryManifest(format_version=FORMAT_VERSION, history_limit=HISTORY_LIMIT, adapter=None, entries=[])
            write_sealed_json(path / MANIFEST, empty.model_dump(mode="json"))
        memory = ForeignMemory(path, read_manifest(path))
        memory.clear_leftovers()
        yield memory


def require_memory(path: Path) -> None:
    """Refuses a folder that is neither a memory nor empty.

    Raises:
        LifeError: If there is something else in it, or it is no folder.
    """
    if not os.path.lexists(path) or os.path.lexists(path / MANIFEST):
        return
    if not path.is_dir():
        raise LifeError(f"{path}: found a file, expected a folder, which may be new")
    strange = [
        found.name for found in _entries(path) if found.name not in (LOCK, LOCK_HOLDER) and not is_temporary(found)
    ]
    if LIFE in strange:
        raise LifeError(
            f"{path}: found a life, whose own memory grows with `lifealign learn`, expected a folder for adapters that "
            "another trainer made, which may be new"
        )
    if strange:
        raise LifeError(
            f"{path}: found {strange[0]!r} and no {MANIFEST}, expected a memory that `lifealign consolidate` made, or "
            "a folder that is new or empty"
        )


def read_manifest(path: Path) -> MemoryManifest:
    """The manifest of a memory.

    Raises:
        LifeError: If it is missing, damaged, or of another format version.
    """
    file = inside(path, MANIFEST)
    content = read_sealed_json(file, check_first=lambda found: _same_format(file, found))
    return validated(file, content, MemoryManifest)


def _same_format(file: Path, content: Any) -> None:
    found = content.get("format_version") if isinstance(content, dict) else None
    if type(found) is not int or found != FORMAT_VERSION:
        raise LifeError(
            f"{file}: format_version: found {repr(found)[:80]}, expected {FORMAT_VERSION}; use the version of "
            "lifealign that wrote this memory"
        )


def _entries(path: Path) -> Sequence[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise LifeError(f"{path}: could not be read: {error.strerror}") from error
