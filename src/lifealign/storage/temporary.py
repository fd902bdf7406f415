"""Temporary names: what is written stands under one until it is whole, and nobody else takes it away until then.

The process that writes holds a lock on what it writes, which the system releases when the process ends, however it
ends. So whoever finds such a name can tell what is being written from what was left behind, also in another container
or on another machine. A file system that knows no locks, and Windows, cannot tell.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lifealign.storage.inside import remove

if os.name != "nt":
    import fcntl

TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}$")  # the process id and a random number


def temporary_name(path: Path) -> Path:
    """A new name beside a path, under which it is written until it is whole."""
    return path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def is_temporary(path: Path) -> bool:
    """Whether a path has the temporary name of a file."""
    return bool(TEMPORARY.search(path.name)) and (path.is_symlink() or not path.is_dir())


def hold(path: Path, descriptor: int) -> int | None:
    """Keeps others from taking away what is being written, until the descriptor that is returned is closed.

    Args:
        path: Its temporary name.
        descriptor: The open file or folder.

    Returns:
        Another descriptor of it, or None where the system has no locks.

    Raises:
        FileNotFoundError: If it was taken away before it could be held; write it under another name.
    """
    if os.name == "nt":  # it could not be renamed while it is open
        return None
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return os.dup(descriptor)


@contextmanager
def unheld(path: Path) -> Iterator[bool]:
    """Whether nobody writes what has a temporary name; while the context lasts, nobody begins to.

    Where that cannot be told, somebody does. On Windows nobody does, because what is open cannot be deleted there.
    """
    if os.name == "nt" or path.is_symlink():  # what is written is no link
        yield True
        return
    try:
        descriptor = os.open(path, os.O_NONBLOCK | (os.O_RDONLY if path.is_dir() else os.O_RDWR))
    except OSError as error:
        yield isinstance(error, FileNotFoundError)
        return
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def remove_unheld(root: Path, path: Path) -> None:
    """Deletes a temporary file inside a directory, unless somebody is writing it.

    Raises:
        LifeError: For the reasons given in :func:`~lifealign.storage.inside.remove`.
    """
    with unheld(path) as abandoned:
        if abandoned:
            remove(root, path)


def remove_abandoned(path: Path) -> None:
    """Deletes what processes that were killed have left of a file or folder, beside it; what cannot be deleted stays.

    Args:
        path: What they were writing.
    """
    with suppress(OSError), os.scandir(path.parent) as entries:
        for left in [Path(entry.path) for entry in entries if _is_of(entry.name, path.name)]:
            with unheld(left) as abandoned:
                if abandoned:
                    _delete(left)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_of(name: str, whole: str) -> bool:
    return name.startswith(whole) and TEMPORARY.fullmatch(name, len(whole)) is not None


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
