"""The directory of a life: lock, all-or-nothing commit, verified reads, rollback. It knows files, not models."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lifealign.errors import LifeError, Unsynced, describe
from lifealign.life.disk import names
from lifealign.life.disk.manifest import FileRecord, Manifest, TaskRecord, Version
from lifealign.life.disk.names import CACHE, LEARNING, LOGS, MANIFEST, OWNED, RETENTION
from lifealign.storage.files import (
    file_record,
    read_json,
    read_packed_rows,
    read_rows,
    sync_folder,
    verify_file,
    write_bytes,
    write_json,
    write_packed_rows,
    write_rows,
    write_text,
)
from lifealign.storage.inside import below, inside, names_below, remove
from lifealign.storage.lock import exclusive_lock
from lifealign.storage.regular_file import read_bytes
from lifealign.storage.temporary import TEMPORARY, is_temporary, remove_unheld

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")
MOST_PARSED = 32 * 2**20
"""Bytes of committed files whose content a life keeps in memory: those of a thousand steps that score sixteen tasks."""
Content = Mapping[str, Any] | Sequence[Any] | str


class LifeDirectory:
    """The files of a life, as its manifest names them; symbolic links below its directory are never followed.

    Args:
        path: The directory.
        manifest: The manifest of what is committed in it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._locked = False
        self._seen: tuple[Manifest, dict[str, Any]] | None = None
        """A manifest, and the record of ``life.json`` as this process last read or wrote it with that content."""
        self._named: tuple[Manifest, dict[str, FileRecord]] | None = None
        """A manifest, and every file that it names."""
        self.viewed: Manifest | None = None
        """The manifest whose scores this process has last written for people to read."""
        self._parsed: dict[str, tuple[FileRecord, Any]] = {}
        self._parsed_bytes = 0

    @property
    def versions(self) -> list[Version]:
        """Committed versions, oldest first; the first is the untrained adapter."""
        return self.manifest.versions

    @property
    def steps(self) -> list[Version]:
        """Versions in which something was learnt, oldest first."""
        return self.versions[1:]

    @property
    def adopted(self) -> str | None:
        """Name of the step whose adapter came from another trainer; None if everything was learnt here."""
        return next((step.name for step in self.steps if names.adopted(step.name) in step.files), None)

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
            LifeError: If another process holds it (the message gives that process's id), another process has changed
                the life since this one opened it, or one of its folders or anything in its cache is a symbolic link.
                In all these cases nothing is touched.
        """
        if self._locked:  # a stream holds the lock over many steps
            yield
            return
        for folder in (*OWNED, LOGS, CACHE, RETENTION, LEARNING):
            self.inside(folder)
        for path in below(self.path / CACHE):  # found now, not when a trained step needs the cache
            self.inside(path.relative_to(self.path).as_posix())
        with exclusive_lock(self.path):
            if os.path.lexists(self.path / MANIFEST) or self.manifest.versions:
                self._require_unchanged()
            self.clear_leftovers()
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def _require_unchanged(self) -> None:
        """Refuses a life whose manifest is not the one that is known here; of one that is, only the hash is taken."""
        path = self.inside(MANIFEST)
        if self._seen is not None and self._seen[0] is self.manifest and file_record(path) == self._seen[1]:
            return
        if Manifest.read(self.path) != self.manifest:
            raise LifeError(f"{self.path}: another process has changed this life since it was opened; open it again")
        self._seen = self.manifest, file_record(path)

    def commit(self, name: str, tasks: Sequence[TaskRecord], files: Mapping[str, Content]) -> Version:
        """Makes a version part of the life: all of it, or nothing.

        Every file is written and synced first; then the manifest is replaced. A crash in between leaves files that no
        manifest names, which the next holder of the lock deletes. If the system replaced the manifest but cannot
        promise that it survives a power loss, the version is committed and a warning says so: whichever manifest is
        there afterwards, the files that it names are complete.

        Args:
            name: Name of the version.
            tasks: Tasks learnt in it.
            files: Content by path inside the life; the path's suffix decides the format: tensors by name for
                ``.safetensors``, rows for ``.jsonl``, text for ``.md``, anything JSON can hold for ``.json``.
        """
        version = Version(name=name, tasks=list(tasks), files=self._write(files))
        self._replace_versions([*self.manifest.versions, version])
        return version

    def extend(self, name: str, files: Mapping[str, Content]) -> None:
        """Adds files to a version, all of them or nothing; files that it had under the same names are forgotten first.

        Args:
            name: Name of the version.
            files: Content by path, as for :meth:`commit`.

        Raises:
            LifeError: If there is no such version.
        """
        if set(files) & set(self.manifest.versions[self.index(name)].files):
            self.forget(name, files)
        records = self._write(files)
        self._replace_files(name, self.manifest.versions[self.index(name)].files | records)

    def forget(self, name: str, files: Collection[str]) -> None:
        """Removes files from a version; names that it does not have are ignored."""
        kept = self.manifest.versions[self.index(name)].files
        self._replace_files(name, {file: record for file, record in kept.items() if file not in files})
        self.clear_leftovers()

    def rollback(self, to: str) -> None:
        """Forgets every version after ``to``; the files of ``to`` and of the versions before it are verified first.

        The files of forgotten versions are not read, because they may be the damaged ones.
        """
        kept = self.manifest.versions[: self.index(to) + 1]
        self.verify(kept)
        self._replace_versions(kept)
        self.clear_leftovers()

    def copy_files(self, versions: Sequence[Version], to: LifeDirectory) -> None:
        """Writes the files of some versions into another life's directory, each checked as it is read."""
        for version in versions:
            for name, record in version.files.items():
                content = read_bytes(self.verified(name), record.size)
                write_bytes(to.inside(name), content)

    def replace(self, versions: Sequence[Version]) -> None:
        """Makes other versions, whose files are all there, those of the life, and deletes the files of the old ones."""
        self._replace_versions(list(versions))
        self.clear_leftovers()

    def index(self, version: str) -> int:
        """Position of a version, from 0.

        Raises:
            LifeError: If there is no version of that name; the message lists the existing ones.
        """
        names = [known.name for known in self.manifest.versions]
        if version not in names:
            raise LifeError(f"{self.path}: found no version {version!r}, expected one of: {', '.join(names)}")
        return names.index(version)

    def verify(self, versions: Sequence[Version]) -> int:
        """Checks every file of some versions against its size and SHA-256; returns the number of files.

        Raises:
            LifeError: At the first file that is missing or differs.
        """
        names = [name for version in versions for name in version.files]
        for name in names:
            self.verified(name)
        return len(names)

    def verified(self, name: str) -> Path:
        """Path of a committed file, after checking that its content is what was committed.

        Raises:
            LifeError: If the manifest does not name the file, or it is missing or differs.
        """
        record = self._record(name)
        path = self.inside(name)
        verify_file(path, {"size": record.size, "sha256": record.sha256})
        return path

    def _record(self, name: str) -> FileRecord:
        if self._named is None or self._named[0] is not self.manifest:
            self._named = (
                self.manifest,
                {file: record for version in self.manifest.versions for file, record in version.files.items()},
            )
        if name not in self._named[1]:
            raise LifeError(f"{self.path}: found no {name} in the manifest, expected one; the life is damaged")
        return self._named[1][name]

    def parsed(self, name: str, read: Callable[[], Parsed]) -> Parsed:
        """What a committed file says, read once: a life reads the scores of all its steps after each of them.

        What does not fit into ``MOST_PARSED`` bytes of files is read again every time.

        Args:
            name: Path of the file inside the life.
            read: Reads and checks it; what it returns must not be changed.
        """
        record = self._record(name)
        if name in self._parsed and self._parsed[name][0] == record:
            found: Parsed = self._parsed[name][1]
            return found
        found = read()
        if name in self._parsed:
            self._parsed_bytes -= self._parsed.pop(name)[0].size
        if self._parsed_bytes + record.size <= MOST_PARSED:
            self._parsed[name] = record, found
            self._parsed_bytes += record.size
        return found

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Reads a committed ``.safetensors`` file."""
        from lifealign.storage.tensors import read_tensors  # imported here, because status and report need no torch

        return read_tensors(self.verified(name))

    def rows(self, name: str) -> list[Any]:
        """Reads a committed ``.jsonl`` file, or one that is compressed, each row of which is an object."""
        rows = (read_packed_rows if name.endswith(".gz") else read_rows)(self.verified(name))
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
        """Deletes files that the manifest does not name from the folders that belong to the life.

        Trackers' logs are deleted with their step, because otherwise a step that is learnt again would continue the
        curves of the old one. A file that cannot be deleted is only a warning: it does no harm, and the next holder of
        the lock tries again.
        """
        failed = []
        try:
            # Files of the previous manifest may go only once a power loss can no longer bring that manifest back.
            sync_folder(self.path, f"{self.path}: {MANIFEST} is in place")
            for path in self._leftovers():
                try:
                    remove_unheld(self.path, path) if is_temporary(path) else remove(self.path, path)
                except LifeError as error:
                    failed.append(str(error))
        except LifeError as error:
            failed.append(str(error))
        if failed:
            more = f", and {len(failed) - 3} more" if len(failed) > 3 else ""
            logger.warning(
                "%s: some files that an earlier step or run left behind could not be deleted (%s%s); what is committed "
                "is not affected, and the next command that writes to this life tries again",
                self.path,
                "; ".join(failed[:3]),
                more,
            )

    def _leftovers(self) -> list[Path]:
        """Paths that :meth:`clear_leftovers` deletes, the contents of a folder before the folder itself."""
        steps = {version.name for version in self.manifest.versions}
        kept = {name for version in self.manifest.versions for name in version.files}
        kept |= _folders_of(kept)  # a link in their place is damage, not a leftover

        def is_left_over(name: str) -> bool:
            first, *inner = name.split("/")
            if TEMPORARY.search(name) and is_temporary(self.path / name):
                return True
            if first == LOGS and inner:
                run = self.path / LOGS / inner[0]
                return inner[0] not in steps and (run.is_symlink() or run.is_dir())
            return bool(inner) and first in OWNED and name not in kept

        return [self.path / name for name in reversed(names_below(self.path)) if is_left_over(name)]

    def _write(self, files: Mapping[str, Content]) -> dict[str, FileRecord]:
        """Writes files, each in the format of its suffix, and returns their records for the manifest."""
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
            manifest.save(self.path)  # the only moment at which versions appear or disappear
        except Unsynced as error:
            logger.warning("%s", error)
        self.manifest = manifest
        self._seen = manifest, file_record(self.path / MANIFEST)


def _folders_of(names: Iterable[str]) -> set[str]:
    """Every folder on the way to some files.

    Example:
        >>> sorted(_folders_of(["tasks/01-a/b.json", "memory/01-a.json"]))
        ['memory', 'tasks', 'tasks/01-a']
    """
    found: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _write_by_suffix(path: Path, content: Content) -> None:
    match path.suffix:
        case ".safetensors":
            from lifealign.storage.tensors import write_tensors

            write_tensors(path, content)  # type: ignore[arg-type]
        case ".jsonl":
            write_rows(path, content)
        case ".gz":
            write_packed_rows(path, content)
        case ".md":
            write_text(path, str(content))
        case _:
            write_json(path, content)
