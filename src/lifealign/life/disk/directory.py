"""The directory of a life: lock, all-or-nothing commit, verified reads, rollback. Knows files, not models."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lifealign.errors import LifeError, Unsynced, describe
from lifealign.life.disk.manifest import FileRecord, Manifest, TaskRecord, Version
from lifealign.life.disk.names import CACHE, LOGS, MANIFEST, OWNED
from lifealign.storage.files import (
    file_record,
    is_temporary,
    read_json,
    read_rows,
    sync_folder,
    verify_file,
    write_json,
    write_rows,
    write_text,
)
from lifealign.storage.inside import below, inside, remove
from lifealign.storage.lock import exclusive_lock

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Content = Mapping[str, Any] | Sequence[Any] | str


class LifeDirectory:
    """Files of a life, as its manifest names them; no symbolic link below its directory is ever followed.

    Args:
        path: The directory.
        manifest: What is committed in it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._locked = False

    @property
    def versions(self) -> list[Version]:
        """Committed versions, oldest first; the first is the untrained adapter."""
        return self.manifest.versions

    @property
    def steps(self) -> list[Version]:
        """Versions in which something was learnt, oldest first."""
        return self.versions[1:]

    def inside(self, name: str) -> Path:
        """The path of a file or folder of the life.

        Raises:
            LifeError: If it, or a folder on the way to it, is a symbolic link.
        """
        return inside(self.path, name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for writing, after clearing away what an interrupted run left behind.

        Raises:
            LifeError: If another process holds it, with that process's id; if another process has changed the life
                since this one opened it; or if one of its folders, or anything in its cache, is a symbolic link.
                Nothing was touched then.
        """
        if self._locked:  # a stream holds the lock over many steps
            yield
            return
        for folder in (*OWNED, LOGS, CACHE):
            self.inside(folder)
        for path in below(self.path / CACHE):  # now, and not when a trained step wants to use it
            self.inside(path.relative_to(self.path).as_posix())
        with exclusive_lock(self.path):
            there = os.path.lexists(self.path / MANIFEST) or self.manifest.versions
            if there and Manifest.read(self.path) != self.manifest:
                raise LifeError(f"{self.path}: changed by another process since it was opened; open it again")
            self.clear_leftovers()
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def commit(self, name: str, tasks: Sequence[TaskRecord], files: Mapping[str, Content]) -> Version:
        """Makes a version part of the life: all of it, or nothing.

        Every file is written and synced first; then one manifest is replaced. A crash in between leaves files that no
        manifest names, which the next holder of the lock deletes. Where the system could replace the manifest but not
        promise that it survives a power loss, the version is committed, and a warning says so: whichever manifest is
        there afterwards, the files that it names are whole.

        Args:
            name: Name of the version.
            tasks: Tasks learnt in it.
            files: Content by path inside the life, written after the path's suffix: tensors by name for
                ``.safetensors``, rows for ``.jsonl``, text for ``.md``, anything JSON can hold for ``.json``.
        """
        version = Version(name=name, tasks=list(tasks), files=self._write(files))
        self._replace_versions([*self.manifest.versions, version])
        return version

    def extend(self, name: str, files: Mapping[str, Content]) -> None:
        """Adds files to a version, all of them or nothing; what it had of the same names is forgotten first.

        Args:
            name: Name of the version.
            files: As for :meth:`commit`.

        Raises:
            LifeError: If there is no such version.
        """
        if set(files) & set(self.manifest.versions[self.index(name)].files):
            self.forget(name, files)
        records = self._write(files)
        self._replace_files(name, self.manifest.versions[self.index(name)].files | records)

    def forget(self, name: str, files: Collection[str]) -> None:
        """Takes files away from a version; what it does not have is no matter."""
        kept = self.manifest.versions[self.index(name)].files
        self._replace_files(name, {file: record for file, record in kept.items() if file not in files})
        self.clear_leftovers()

    def rollback(self, to: str) -> None:
        """Forgets every version after ``to``, whose own files and those before it are verified first.

        What goes is not read: it may be what is damaged.
        """
        kept = self.manifest.versions[: self.index(to) + 1]
        self.verify(kept)
        self._replace_versions(kept)
        self.clear_leftovers()

    def index(self, version: str) -> int:
        """Position of a version, from 0.

        Raises:
            LifeError: If there is none of that name; the message lists those there are.
        """
        names = [known.name for known in self.manifest.versions]
        if version not in names:
            raise LifeError(f"{self.path}: found no version {version!r}, expected one of: {', '.join(names)}")
        return names.index(version)

    def verify(self, versions: Sequence[Version]) -> int:
        """Compares every file of some versions with its size and SHA-256; returns how many there are.

        Raises:
            LifeError: At the first file that is missing or differs.
        """
        names = [name for version in versions for name in version.files]
        for name in names:
            self.verified(name)
        return len(names)

    def verified(self, name: str) -> Path:
        """Path of a committed file, once its content has been found to be what was committed.

        Raises:
            LifeError: If the manifest does not name the file, or it is missing or differs.
        """
        for version in self.manifest.versions:
            if name in version.files:
                path = self.inside(name)
                verify_file(path, version.files[name].model_dump())
                return path
        raise LifeError(f"{self.path}: found no {name} in the manifest, expected one; the life is damaged")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Reads a committed ``.safetensors`` file."""
        from lifealign.storage.tensors import read_tensors  # status and report should not wait for torch

        return read_tensors(self.verified(name))

    def rows(self, name: str) -> list[Any]:
        """Reads a committed ``.jsonl`` file, each row of which is an object."""
        rows = read_rows(self.verified(name))
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise LifeError(f"{self.path / name}:{number}: found {describe(row)}, expected an object")
        return rows

    def json(self, name: str) -> Any:
        """Reads a committed ``.json`` file, which holds an object."""
        content = read_json(self.verified(name))
        if not isinstance(content, dict):
            raise LifeError(f"{self.path / name}: found {describe(content)}, expected an object")
        return content

    def clear_leftovers(self) -> None:
        """Deletes what the manifest does not name from the folders that are the life's own.

        Trackers' logs go with their step: one that is learnt again would continue the curves of the one that is gone.
        What cannot be deleted is a warning: it harms nothing, and the next holder of the lock tries again.
        """
        failed = []
        try:
            # What the manifest before this one named may go once it cannot come back with a power loss.
            sync_folder(self.path, f"{self.path}: {MANIFEST} is in place")
            for path in self._leftovers():
                try:
                    remove(self.path, path)
                except LifeError as error:
                    failed.append(str(error))
        except LifeError as error:
            failed.append(str(error))
        if failed:
            more = f", and {len(failed) - 3} more" if len(failed) > 3 else ""
            logger.warning(
                "%s: what an earlier step or run left behind is not all cleared (%s%s); nothing that is committed is "
                "touched by it, and the next command that writes to this life tries again",
                self.path,
                "; ".join(failed[:3]),
                more,
            )

    def _leftovers(self) -> list[Path]:
        """What :meth:`clear_leftovers` deletes, what is in a folder before the folder itself."""
        steps = {version.name for version in self.manifest.versions}
        kept = {PurePosixPath(name) for version in self.manifest.versions for name in version.files}
        kept |= {folder for name in kept for folder in name.parents}  # a link in their place is damage, not a leftover

        def is_left_over(path: Path) -> bool:
            name = PurePosixPath(path.relative_to(self.path).as_posix())
            if is_temporary(path):
                return True
            if len(name.parts) == 1:
                return False
            if name.parts[0] == LOGS:
                run = self.path / LOGS / name.parts[1]
                return name.parts[1] not in steps and (run.is_symlink() or run.is_dir())
            return name.parts[0] in OWNED and name not in kept

        return [path for path in reversed(below(self.path)) if is_left_over(path)]

    def _write(self, files: Mapping[str, Content]) -> dict[str, FileRecord]:
        """Writes files, each after its suffix, and returns what a manifest says of them."""
        records = {}
        for file, content in files.items():
            path = self.inside(file)
            try:
                _write_by_suffix(path, content)
            except Unsynced as error:
                raise LifeError(f"{error}; nothing was committed") from error
            records[file] = FileRecord(**file_record(path))
        return records

    def _replace_files(self, name: str, files: dict[str, FileRecord]) -> None:
        changed = {name: files}
        self._replace_versions(
            [
                version.model_copy(update={"files": changed.get(version.name, version.files)})
                for version in self.manifest.versions
            ]
        )

    def _replace_versions(self, versions: list[Version]) -> None:
        manifest = self.manifest.model_copy(update={"versions": versions})
        try:
            manifest.save(self.path)  # the one moment in which versions come and go
        except Unsynced as error:
            logger.warning("%s", error)
        self.manifest = manifest


def _write_by_suffix(path: Path, content: Content) -> None:
    match path.suffix:
        case ".safetensors":
            from lifealign.storage.tensors import write_tensors

            write_tensors(path, content)  # type: ignore[arg-type]
        case ".jsonl":
            write_rows(path, content)
        case ".md":
            write_text(path, str(content))
        case _:
            write_json(path, content)
