"""The judge's replies on disk, so that no process pays for the same reply twice."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from filelock import FileLock

from lifealign.errors import JudgeError
from lifealign.evaluation.judge.settings import JudgeConfig

logger = logging.getLogger(__name__)

APPLICATION = 0x6C6A7564  # "ljud" in the header of the file: it is ours
BUSY, AGAIN = 10.0, 0.02  # seconds: how long to wait for another process that writes, and between two attempts
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises: the second if the text of its own error quotes bytes of a damaged file."""
DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, model TEXT, choice TEXT, reply TEXT) WITHOUT ROWID"


class StoredReply(NamedTuple):
    """A reply that was paid for, and the choice read from it; None if it did not have the required form."""

    choice: str | None
    reply: str


class VerdictCache:
    """Replies by a content hash of everything that decides them; safe to delete, and to share between processes.

    Unreadable replies are kept too: asked the same again at temperature 0, a judge would mostly give the same reply for
    the same money. Another ``seed`` asks anew. Two processes that ask the same question at the same moment both pay for
    it; otherwise the second finds the first one's reply here.

    Args:
        path: File of the cache, created if missing; None keeps it in memory.

    Raises:
        JudgeError: If the file cannot be opened, or is a database of something else. A damaged file is moved aside with
            a warning, and a new one is created.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._connection = _opened(path)
        self._warned = False

    def get(self, key: str) -> StoredReply | None:
        """The reply to a request; None if it is not known."""
        try:
            row = self._connection.execute("SELECT choice, reply FROM verdicts WHERE key = ?", (key,)).fetchone()
        except UNREADABLE as error:
            self._warn("read", error)
            return None
        return None if row is None else StoredReply(*row)

    def put(self, key: str, model: str, stored: StoredReply) -> None:
        """Keeps a reply; if another process was faster, its reply stays."""
        try:
            self._connection.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?)", (key, model, *stored))
        except UNREADABLE as error:
            self._warn("written", error)

    def forget(self, key: str) -> None:
        """Drops a reply that cannot be genuine."""
        try:
            self._connection.execute("DELETE FROM verdicts WHERE key = ?", (key,))
        except UNREADABLE as error:
            self._warn("written", error)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _warn(self, done: str, error: Exception) -> None:
        """Warns once: a cache that fails costs money, not marks."""
        if not self._warned:
            logger.warning("%s: the judge's cache could not be %s (%s)", self.path, done, error)
        self._warned = True


def request_key(config: JudgeConfig, messages: Sequence[dict[str, str]]) -> str:
    """Content hash (SHA-256) of a request: model, address, messages, and every setting that is sent."""
    request = [config.model, config.place, list(messages), 0, config.max_tokens, config.seed]
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is None:
        return _connected(":memory:")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _connected(str(path))
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
        # One process at a time: another one may have created a new file meanwhile, which must not be moved aside too.
        with FileLock(f"{path}.lock"):
            try:
                return _connected(str(path))
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                aside = _moved_aside(path)
                logger.warning(
                    "%s: found the judge's cache damaged (%s); it was moved to %s, and a new one is created",
                    path,
                    error,
                    aside,
                )
            return _connected(str(path))
    except (OSError, sqlite3.Error) as error:
        raise JudgeError(
            f"{path}: could not be opened as the judge's cache ({error}), expected a file that can be written"
        ) from error


def _connected(name: str) -> sqlite3.Connection:
    """Opens a file, waiting for others that open it too: SQLite's own wait does not cover the switch to WAL."""
    until = time.monotonic() + BUSY
    while True:
        try:
            return _connected_once(name)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(AGAIN)


def _connected_once(name: str) -> sqlite3.Connection:
    # Every statement is a transaction of its own, so it is on disk before the next request is paid for. The thread of
    # the event loop writes while the caller's thread waits for it; the two never write at once.
    connection = sqlite3.connect(name, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        if owner != APPLICATION and (tables or owner):
            raise JudgeError(f"{name}: found a database of something else, expected the judge's cache or no such file")
        if (state := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise _Damaged(state)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # with WAL, a power cut loses the last replies at most
        if not owner:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(TABLE)
    except UnicodeDecodeError as error:
        connection.close()
        raise _Damaged(str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


class _Damaged(sqlite3.DatabaseError):
    """A fault that a check of the file found although reading it raised nothing."""


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # extended: its low byte is the kind
    return isinstance(error, _Damaged) or (code is not None and code & 0xFF in DAMAGE)


def _moved_aside(path: Path) -> Path:
    """Renames a file and its journal: an old journal would damage a new file beside it."""
    aside = path.with_name(f"{path.name}.damaged")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside
