"""One process at a time: a directory is held by a lock that ends with its holder."""

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
    """Holds a directory for this process; a second process, or a second time in this one, is refused at once.

    The system releases the lock when its holder ends, however it ends, so there are no stale locks to clear.

    Raises:
        LifeError: If the directory is held; the message names the process that holds it, and where it runs. If the
            lock file is a link or no file at all.
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
                f"{directory}: found in use by {_holder(directory)}, expected one process at a time. "
                "Wait until it has finished, or end it; nothing else needs to be cleared"
            ) from None
    try:
        # A file of its own, because some releases of filelock empty the lock file when they find it held.
        write_json(directory / LOCK_HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        lock.release()


def _holder(directory: Path) -> str:
    """The process that holds a directory, in words; it may have taken it this moment and not have signed yet."""
    with suppress(LifeError):
        match read_json(inside(directory, LOCK_HOLDER)):
            case {"pid": int(pid), "host": str(host)} if HOST.fullmatch(host):
                return f"process {pid} on {host}"
    return "another process"
