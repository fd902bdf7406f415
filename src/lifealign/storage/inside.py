"""Staying inside a directory: no symbolic link below it is ever followed, to read, to write or to delete."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lifealign.errors import LifeError


def inside(root: Path, name: str) -> Path:
    """The path of a name below a directory, once it is certain that it lies there.

    The directory itself may be reached through links; it is where its owner wanted it. A link below it would lead
    wherever somebody else wanted.

    Args:
        root: The directory.
        name: Path below it, with ``/``; need not exist.

    Raises:
        LifeError: If a part of it is a symbolic link, or the name leads out of the directory.
    """
    path = Path(root)
    for part in PurePosixPath(name).parts:
        if part in ("/", ".."):
            raise LifeError(f"{root}: found the file name {name!r}, expected one inside this directory")
        path /= part
        if _is_link(path):
            raise LifeError(
                f"{path}: found a symbolic link, expected what belongs to the life itself; no link inside a life is "
                "followed. Put what it points to in its place, or remove the link"
            )
    return path


def below(folder: Path) -> list[Path]:
    """Everything below a directory, each folder before what is in it; links are listed and not followed.

    What may not be looked into is listed as if it were empty.

    Raises:
        LifeError: If the system refuses for another reason.
    """
    found: list[Path] = []
    waiting = [folder]
    while waiting:  # not recursive: how deep it goes is not ours to decide
        current = waiting.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except (FileNotFoundError, PermissionError):  # gone meanwhile; or not ours to look into
            continue
        except OSError as error:
            raise LifeError(f"{current}: could not be read: {error.strerror}") from error
        for entry in entries:
            path = Path(entry.path)
            found.append(path)
            if entry.is_dir(follow_symlinks=False) and not _is_link(path):
                waiting.append(path)
    return found


def remove(root: Path, path: Path) -> None:
    """Deletes a file, a link itself, or an empty folder; what is not there, and a folder with something in it, stays.

    Args:
        root: Directory that nothing is deleted outside of.
        path: What is deleted, below ``root``.

    Raises:
        LifeError: If a folder on the way is a symbolic link, or the system refuses.
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
    if os.name == "nt" and hasattr(os.path, "isjunction") and os.path.isjunction(path):
        return True
    return path.is_symlink()
