"""Damage to a life: which files are wrong, and the way back to something whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lifealign.errors import LifeError
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.unfinished import locked
from lifealign.storage.files import file_record, write_bytes
from lifealign.storage.regular_file import read_bytes


@dataclass(frozen=True)
class Damage:
    """What is wrong with the committed files of a life.

    Attributes:
        files: How many files were looked at.
        faults: By version, and in it by file, what was found and what was expected; only versions that have any.
        whole: The last version that is whole together with all before it; None if the first one is not.
    """

    files: int
    faults: Mapping[str, Mapping[str, str]]
    whole: str | None

    @property
    def wrong(self) -> list[str]:
        """The wrong files."""
        return [file for faults in self.faults.values() for file in faults]


def damage_of(directory: LifeDirectory) -> Damage:
    """Compares every committed file of a life with its size and hash; nothing is written."""
    faults: dict[str, dict[str, str]] = {}
    whole: str | None = None
    for version in directory.versions:
        for file in version.files:
            try:
                directory.verified(file)
            except LifeError as error:
                faults.setdefault(version.name, {})[file] = str(error)
        if not faults:
            whole = version.name
    return Damage(sum(len(version.files) for version in directory.versions), faults, whole)


def restore(directory: LifeDirectory, copy: Path) -> list[str]:
    """Replaces wrong files by those of a copy of the life, each only if it is what was committed.

    Args:
        directory: The life.
        copy: A copy of the life, as old as it may be, or as new.

    Returns:
        The files that were replaced.

    Raises:
        LifeError: If another process holds the life, or a file cannot be written.
    """
    with locked(directory):
        wrong, restored = set(damage_of(directory).wrong), []
        records = {name: record for version in directory.versions for name, record in version.files.items()}
        for name in sorted(wrong):
            source = copy / name
            try:
                if file_record(source) != records[name].model_dump():
                    continue
                content = read_bytes(source, records[name].size)
            except LifeError:  # the copy has no such file, or cannot be read
                continue
            write_bytes(directory.inside(name), content)
            restored.append(name)
    return restored
