"""Whether a path is free for a new life."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lifealign.errors import ConfigError, LifeError
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import Manifest
from lifealign.life.settings import STORED_AUTO, LifeConfig
from lifealign.settings.section import build_config
from lifealign.storage.lock import LOCK, LOCK_HOLDER
from lifealign.storage.temporary import TEMPORARY


def require_free(path: Path, config: LifeConfig) -> bool:
    """Refuses a path that is in use, except by what an interrupted ``create`` of the same life has left there.

    Args:
        path: The directory to make.
        config: Settings of the life.

    Returns:
        Whether the life is there already, because the process ended after the last rename but before it returned.

    Raises:
        LifeError: If something else is there, or the path cannot be read.
    """
    try:
        found = {entry for entry in os.listdir(path) if not TEMPORARY.search(entry)}
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        found = {path.name}
    except OSError as error:
        raise LifeError(f"{path}: could not be read: {error.strerror}") from error
    ours = {LOCK, LOCK_HOLDER, names.CONFIG, "versions"}
    if not found or (LOCK in found and found <= ours):
        return False
    if names.MANIFEST in found and found <= {*ours, names.MANIFEST, names.CACHE} and _is_unused(path, config):
        return True
    raise LifeError(f"{path}: found a file or a directory that is not empty, expected an empty or new directory")


def life_with(path: Path, config: LifeConfig) -> LifeDirectory | None:
    """The life with these settings at a path, if it is there and complete; None otherwise."""
    with suppress(LifeError, ConfigError):
        directory = LifeDirectory(path, Manifest.read(path))
        directory.verify(directory.versions)
        stored = build_config(LifeConfig, directory.manifest.config, source=str(path)).settled(STORED_AUTO)
        if stored == config.settled(stored.model.dtype):
            return directory
    return None


def _is_unused(path: Path, config: LifeConfig) -> bool:
    """Whether the life with these settings is there, complete, and has learnt nothing."""
    directory = life_with(path, config)
    return directory is not None and not directory.steps
