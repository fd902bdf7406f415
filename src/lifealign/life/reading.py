"""Looks at a life that another process may be changing: reading takes no lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lifealign.errors import LifeError
from lifealign.life.disk.manifest import Manifest
from lifealign.life.life import Life
from lifealign.storage.home import with_home

Seen = TypeVar("Seen")
LOOKS = 10
"""How often a look is begun again; who changes a life more often than that in the time of a look is met by an error."""


def look_at(path: str | Path, look: Callable[[Life], Seen]) -> Seen:
    """Opens a life and looks at it; again from the beginning if it was changed while this went on.

    A file that a rollback has deleted, or an evaluation has replaced, between the moment at which the manifest was read
    and that at which the file was, is no damage. Any error while the manifest is still the same one is.

    Args:
        path: The life's directory.
        look: Reads what it needs and returns it; it must write nothing.

    Raises:
        LifeError: If the directory is no life, or a file is damaged.
    """
    for _ in range(LOOKS - 1):
        opened = Life.open(path)
        try:
            return look(opened)
        except LifeError:
            if Manifest.read(with_home(path)) == opened.directory.manifest:
                raise
    return look(Life.open(path))
