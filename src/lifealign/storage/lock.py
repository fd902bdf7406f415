"""One process at a time: a directory is locked until the process that holds the lock releases it or ends."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lifealign.errors import LifeError
from lifealign.storage.files import _make_folder, read_json, write_json
from lifealign.storage.inside import inside
from lifealign.storage.regular_file import named, require_regular

LOCK, LOCK_HOLDER = ".lock", ".lock-holder.json"


HOST = re.compile(r"[\w.:-]{1,255}")


@contextmanager
def exclusive_lock(directory: str | Path) -> Iterator[None]:
    """Locks a directory; a second lock is refused at once, from another process or from this one.

    The system releases the lock when the process ends, however it ends, so there are no stale locks to clear.

    Raises:
        LifeError: If the directory is locked already (the message names the process and its host), or if the lock file
            is a link or not a regular file.
    """
    directory = Path(directory)
    lock = FileLock(inside(directory, LOCK), timeout=0, thread_local=False)
    with named(directory, "locked"):
        _make_folder(directory)
        if (directory / LOCK).exists():
            require_regular(directory / LOCK, os.stat(directory / LOCK))
        try:
            lock.acquire()
        except Timeout:
            raise LifeError(
                f"{directory}: found it in use by {_holder(directory)}, expected one process at a time. "
                "Wait until that process has finished, or end it; nothing else needs to be cleared"
            ) from None
    try:
        # The holder has a file of its own, because some releases of filelock empty a lock file that is held.
        write_json(directory / LOCK_HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        lock.release()


def _holder(directory: Path) -> str:
    """The process that holds a directory, in words; one that took the lock just now may not be on record yet."""
    with suppress(LifeError):
        match read_json(inside(directory, LOCK_HOLDER)):
            case {"pid": int(pid), "host": str(host)} if HOST.fullmatch(host):
                return f"process {pid} on {host}"
    return "another process"
