"""Staying inside a directory: no symbolic link in it is ever followed to read, write or delete."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lifealign.errors import LifeError


def inside(root: Path, name: str) -> Path:
    """Joins a directory and a name, after checking that the result lies inside the directory.

    The directory itself may be reached through links, because its owner chose its place. A link inside it could lead
    to a place that somebody else chose.

    Args:
        root: The directory.
        name: Path inside it, with ``/`` between its parts; need not exist.

    Raises:
        LifeError: If part of the path is a symbolic link, or the name leads out of the directory.
    """
    path = Path(root)
    for part in PurePosixPath(name).parts:
        if part in ("/", ".."):
            raise LifeError(f"{root}: found the file name {name!r}, expected one inside this directory")
        path /= part
        if _is_link(path):
            raise LifeError(
                f"{path}: found a symbolic link, expected a file or folder of the life itself; links inside a life "
                "are not followed. Replace the link with what it points to, or remove it"
            )
    return path


def below(folder: Path) -> list[Path]:
    """Lists everything inside a directory, each folder before its content; links are listed but not followed.

    A folder that may not be read is listed as if it were empty.

    Raises:
        LifeError: If a folder cannot be read for another reason.
    """
    return [folder / name for name in names_below(folder)]


def names_below(folder: Path) -> list[str]:
    """What :func:`below` lists, as names inside the directory with ``/`` between their parts.

    A life of a thousand tasks has some twenty thousand files, so this makes no object for each of them.
    """
    found: list[str] = []
    waiting = [""]
    while waiting:  # not recursive: nothing limits how deeply folders are nested
        inner = waiting.pop()
        current = os.path.join(folder, inner)
        try:
            with os.scandir(current) as entries:
                there = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, PermissionError):  # deleted meanwhile, or not readable
            continue
        except OSError as error:
            raise LifeError(f"{current}: could not be read: {error.strerror}") from error
        for entry in there:
            name = f"{inner}/{entry.name}" if inner else entry.name
            found.append(name)
            if entry.is_dir(follow_symlinks=False) and not _is_junction(entry.path):
                waiting.append(name)
    return found


def remove(root: Path, path: Path) -> None:
    """Deletes a file, a link (not its target) or an empty folder.

    A folder that is not empty stays, and a path that does not exist is ignored.

    Args:
        root: Directory outside which nothing is deleted.
        path: What to delete, inside ``root``.

    Raises:
        LifeError: If a folder between ``root`` and ``path`` is a symbolic link, or the system refuses.
    """
    relative = path.relative_to(root)
    path = inside(root, relative.parent.as_posix()) / relative.name
    try:
        if path.is_dir() and not _is_link(path):
            with os.scandir(path) as entries:
                empty = next(entries, None) is None
            if empty:
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise LifeError(f"{path}: could not be deleted: {error.strerror}") from error


def _is_link(path: Path) -> bool:
    return path.is_symlink() or _is_junction(path)


def _is_junction(path: str | Path) -> bool:
    return os.name == "nt" and hasattr(os.path, "isjunction") and os.path.isjunction(path)


def remove_tree(root: Path, path: Path) -> None:
    """Deletes a folder inside a directory with everything in it; links in it are deleted, not followed.

    Raises:
        LifeError: If a folder on the way to it is a symbolic link, or the system refuses.
    """
    for found in reversed(below(path)):
        remove(root, found)
    remove(root, path)
