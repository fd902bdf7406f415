"""The directory of a life: lock, all-or-nothing commit, verified reads, rollback. Knows files, not models."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from lifealign import storage
from lifealign.errors import LifeError
from lifealign.manifest import MANIFEST, FileRecord, Manifest, TaskRecord, Version

OWNED = ("versions", "memory", "replay", "tasks")
"""Folders in which only what the manifest names exists."""

LOGS = "logs"
"""Folder of what trackers write, one folder a step."""

Content = Mapping[str, Any] | Sequence[Any] | str


class LifeDirectory:
    """Files of a life, as its manifest names them.

    Args:
        path: The directory.
        manifest: What is committed in it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._locked = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for writing, after clearing away what an interrupted run left behind.

        Raises:
            LifeError: If another process holds it, with that process's id; or if another process has changed the life
                since this one opened it.
        """
        if self._locked:  # a stream holds the lock over many steps
            yield
            return
        with storage.exclusive_lock(self.path):
            if (self.path / MANIFEST).exists() and Manifest.read(self.path) != self.manifest:
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
        manifest names, which the next holder of the lock deletes.

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
        """Forgets every version after ``to``, whose own files and those before it are verified first."""
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
                storage.verify_file(self.path / name, version.files[name].model_dump())
                return self.path / name
        raise LifeError(f"{self.path}: found no {name} in the manifest, expected one; the life is damaged")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Reads a committed ``.safetensors`` file."""
        return storage.read_tensors(self.verified(name))

    def rows(self, name: str) -> list[Any]:
        """Reads a committed ``.jsonl`` file."""
        return storage.read_rows(self.verified(name))

    def json(self, name: str) -> Any:
        """Reads a committed ``.json`` file."""
        return storage.read_json(self.verified(name))

    def clear_leftovers(self) -> None:
        """Deletes what the manifest does not name from the folders that are the life's own.

        Trackers' logs go with their step: one that is learnt again would continue the curves of the one that is gone.
        """
        storage.remove_leftovers(self.path)
        named = {self.path / name for version in self.manifest.versions for name in version.files}
        for folder in OWNED:
            for path in sorted((self.path / folder).rglob("*"), reverse=True):
                if path.is_dir() and not path.is_symlink():
                    if not any(path.iterdir()):
                        path.rmdir()
                elif path not in named:
                    path.unlink()
        steps = {version.name for version in self.manifest.versions}
        logs = self.path / LOGS
        for run in sorted(logs.iterdir()) if logs.is_dir() else ():
            if run.name not in steps and run.is_dir() and not run.is_symlink():
                shutil.rmtree(run)

    def _write(self, files: Mapping[str, Content]) -> dict[str, FileRecord]:
        """Writes files, each after its suffix, and returns what a manifest says of them."""
        records = {}
        for file, content in files.items():
            path = self.path / file
            if path.suffix == ".safetensors":
                storage.write_tensors(path, content)  # type: ignore[arg-type]
            elif path.suffix == ".jsonl":
                storage.write_rows(path, content)
            elif path.suffix == ".md":
                storage.write_text(path, str(content))
            else:
                storage.write_json(path, content)
            records[file] = FileRecord(**storage.file_record(path))
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
        manifest.save(self.path)  # the one moment in which versions come and go
        self.manifest = manifest
