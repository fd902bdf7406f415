"""What a life can answer as: its versions under the names of models, as they are on disk now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lifealign.errors import LifeAlignError
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import Manifest, Version

BASE, RECALL = "base", "recall"
"""What follows the ``@`` for the untrained model, and for the version that is recalled for each prompt."""


class UnknownModel(LifeAlignError):
    """A model that the life does not have, or has no more."""


@dataclass(frozen=True)
class Voice:
    """A version that can answer.

    Attributes:
        model: Its name as a model, such as ``my-bot@02-tone``.
        version: The version.
        directory: The life as it was when the version was found.
    """

    model: str
    version: Version
    directory: LifeDirectory

    @property
    def content(self) -> str:
        """What the adapter is, whatever the version is called: a name may be given again after a rollback."""
        return _content(self.version)

    @property
    def is_there(self) -> bool:
        """Whether the life still has the version.

        Raises:
            LifeError: If the life is gone or damaged.
        """
        return self.content in map(_content, Manifest.read(self.directory.path).versions)


class Versions:
    """The versions of a life, read again whenever another process has changed it.

    Models are called after the life: ``my-bot`` is its last version, ``my-bot@02-tone`` the version of that name and
    ``my-bot@base`` the untrained one; with ``my-bot@recall`` every prompt is answered by the version recalled for it.

    Args:
        path: Directory of the life.
        name: Name of the life in the names of its models; by default that of the directory.

    Raises:
        LifeError: If the directory is not a life.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name or Path(os.path.abspath(path)).name
        self._seen = self._state()
        self._directory = LifeDirectory(path, Manifest.read(path))

    @property
    def directory(self) -> LifeDirectory:
        """The life as it is now.

        Raises:
            LifeError: If it is gone or damaged.
        """
        state = self._state()
        if state != self._seen:
            self._directory, self._seen = LifeDirectory(self.path, Manifest.read(self.path)), state
        return self._directory

    @property
    def models(self) -> list[str]:
        """Names of all models: the last version, each of them, the untrained one, and recall once there is a task."""
        directory = self.directory
        steps = [f"{self.name}@{version.name}" for version in directory.steps]
        return [self.name, *steps, f"{self.name}@{BASE}", *([f"{self.name}@{RECALL}"] if steps else [])]

    def find(self, model: str) -> Voice:
        """The version that a model is.

        Args:
            model: Name of the model, but not that of recall, which depends on the prompt.

        Raises:
            UnknownModel: If there is none of that name; the message lists those there are.
        """
        directory = self.directory
        life, at, version = model.partition("@")
        found = {one.name: one for one in directory.versions} | {BASE: directory.versions[0]}
        if life != self.name or (at and version not in found):
            raise UnknownModel(f"model {model!r}: found no such model, expected one of {', '.join(self.models)}")
        chosen = found[version] if at else directory.versions[-1]
        named = BASE if chosen is directory.versions[0] else chosen.name
        return Voice(f"{self.name}@{named}", chosen, directory)

    def recalls(self, model: str) -> bool:
        """Whether a model answers each prompt with the version recalled for it."""
        return model == f"{self.name}@{RECALL}" and bool(self.directory.steps)

    def _state(self) -> tuple[int, ...] | None:
        """Changes with every commit: a manifest is a new file each time."""
        try:
            status = os.stat(self.path / names.MANIFEST)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def _content(version: Version) -> str:
    files = (names.adapter_weights(version.name), names.pool_weights(version.name))
    return next(version.files[file].sha256 for file in files if file in version.files)
