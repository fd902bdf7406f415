"""A folder that appears whole or not at all, and the room that it needs on its disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lifealign.errors import LifeError
from lifealign.storage.files import sync_folder
from lifealign.storage.inside import below
from lifealign.storage.regular_file import named
from lifealign.storage.temporary import hold, remove_abandoned, temporary_name


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Gives a temporary folder beside ``out``, which takes the place of ``out`` when the context ends without an error.

    Every file is synced before the one rename. After an error nothing is left, neither the temporary folder nor parents
    of ``out`` that were made for it. A process that is killed leaves the temporary folder, ``NAME.tmp-...``, which the
    next one that writes ``out`` deletes.

    Args:
        out: A folder that does not exist or is empty.

    Raises:
        LifeError: If the system refuses (disk full, no permission, ...); the message names ``out``.
        Unsynced: If the folder is in place but may not survive a power loss.
    """
    place = out.resolve()
    temporary, held = temporary_name(place), None
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        with named(out, "written", "Nothing of it was kept"):
            remove_abandoned(place)
            temporary.mkdir(parents=True)
            held = _held(temporary)
            yield temporary
            for path in below(temporary):
                _sync(path)
            with suppress(FileNotFoundError):
                place.rmdir()  # a system other than POSIX renames onto nothing, not onto an empty folder
            temporary.rename(place)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, LifeError):  # of a file inside, under a name that nobody knows
            raise LifeError(str(error).replace(str(temporary), str(out))) from error
        raise
    finally:
        if held is not None:
            os.close(held)
    sync_folder(place.parent, f"{out}: the folder is in place")


def _held(temporary: Path) -> int | None:
    """What keeps others from taking a temporary folder away; None where the system has no locks."""
    if os.name == "nt":
        return None
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        return hold(temporary, descriptor)
    finally:
        os.close(descriptor)


def require_room(out: Path, needed: int) -> None:
    """Refuses to begin what would not fit on the disk.

    Args:
        out: Folder that is to be written; it and its parents need not exist.
        needed: Bytes that will be written.

    Raises:
        LifeError: If less is free; the message names both numbers.
    """
    place = out.resolve()
    with named(out, "written"):
        free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
    if free < needed:
        raise LifeError(
            f"{out}: found {free // 2**20:,} MiB free on its disk, expected at least {-(-needed // 2**20):,} MiB, "
            "which is what will be written; make room, or choose a folder on another disk"
        )


def _sync(path: Path) -> None:
    """Syncs a file or folder to disk."""
    if os.name == "nt":  # Windows syncs no file that is open for reading only
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
