"""Files of a life: written atomically, checked before use, never pickled. No other module writes files.

Every write takes the same steps: write a temporary file in the same directory, flush, fsync, rename it over the old
name, fsync the directory. Whenever the process dies, a reader finds either the old content or the new one. The same
value always gives the same bytes, so two runs can be compared file by file.

Only regular files of limited size are read (opening a pipe would block), and nothing larger is written.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from lifealign.errors import LifeError, Unsynced, describe
from lifealign.storage.regular_file import limited, named, open_regular, read_bytes, require_regular
from lifealign.storage.strict_json import parse_json
from lifealign.storage.temporary import hold, remove_abandoned, temporary_name

SEAL = "sha256"
"""Key under which a sealed JSON file stores the SHA-256 of the rest of its content."""

LARGEST_JSON, LARGEST_ROWS = 256 * 2**20, 2**30
"""Maximum bytes of a JSON file and of a JSONL file: more than years of a life need, and little enough for memory."""


def write_bytes(path: str | Path, content: bytes, *, private: bool = False) -> None:
    """Replaces the whole content of a file, creating its folder if needed.

    Args:
        path: The file.
        content: Its content.
        private: Whether only its owner may read it; otherwise the system's default applies.

    Raises:
        LifeError: If the system refuses (disk full, no permission, ...); the old content is then unchanged.
        Unsynced: If only the last step, the fsync of the folder, failed: the new content is in place but may not
            survive a power loss.
    """
    path = Path(path)
    with named(path, "written", "What was there before is unchanged"):
        _make_folder(path.parent)
        remove_abandoned(path)
        _replace(path, content, private)
    sync_folder(path.parent, f"{path}: the new content is in place")


def _replace(path: Path, content: bytes, private: bool) -> None:
    """Writes and syncs a file under a temporary name, then gives it its own."""
    temporary, file, held = _opened(path, private)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # report the first error; whoever writes this file next deletes it
            temporary.unlink()
        raise
    finally:
        if held is not None:
            os.close(held)


def _opened(path: Path, private: bool) -> tuple[Path, IO[bytes], int | None]:
    """A new file with a temporary name, and what holds it."""
    while True:
        temporary = temporary_name(path)
        file = open(temporary, "xb", opener=partial(os.open, mode=0o600) if private else None)  # noqa: SIM115
        try:
            return temporary, file, hold(temporary, file.fileno())
        except FileNotFoundError:  # somebody took it for abandoned, before it was held
            file.close()


def write_text(path: str | Path, text: str) -> None:
    """Replaces the content of a file with UTF-8 text; raises the same errors as :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Replaces the content of a file with JSON that is easy to read and compare: indented, with sorted keys.

    Raises:
        LifeError: If the value holds NaN or infinity, which JSON cannot represent, if the JSON is larger than
            ``LARGEST_JSON``, or for the reasons given in :func:`write_bytes`.
    """
    write_bytes(path, limited(path, _document(path, value), LARGEST_JSON))


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        LifeError: If the file is missing, not a regular file, larger than ``LARGEST_JSON``, or not JSON that
            :func:`~lifealign.storage.strict_json.parse_json` accepts; the message names the file and, where known, the
            line and column.
    """
    return _parsed(path, read_bytes(path, LARGEST_JSON))


def write_sealed_json(path: str | Path, value: Mapping[str, Any], *, private: bool = False) -> None:
    """Replaces the content of a file with a JSON object that contains its own hash.

    The key ``sha256`` holds the SHA-256 of the file that :func:`write_json` would write without that key.

    Args:
        path: The file.
        value: The object; a seal it already has is replaced.
        private: Whether only its owner may read it.

    Raises:
        LifeError: For the reasons given in :func:`write_json`.
    """
    write_bytes(path, limited(path, _sealed(path, value), LARGEST_JSON), private=private)


def read_sealed_json(path: str | Path, check_first: Callable[[Any], None] = lambda value: None) -> dict[str, Any]:
    """Reads an object written by :func:`write_sealed_json`, without the seal.

    Args:
        path: The file.
        check_first: Called with the value before its seal is checked, to refuse files written in another format.

    Raises:
        LifeError: If any byte differs from what was written, or for the reasons given in :func:`read_json`.
    """
    content = read_bytes(path, LARGEST_JSON)
    value = _parsed(path, content)
    check_first(value)
    if not isinstance(value, dict):
        raise LifeError(f"{path}: found {describe(value)}, expected an object")
    if content != _sealed(path, value):  # compares whitespace and key order too
        raise LifeError(
            f"{path}: found content that does not match its own {SEAL}, expected the file as lifealign wrote it. The "
            "file was changed or damaged; restore it from a copy"
        )
    return {key: part for key, part in value.items() if key != SEAL}


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Replaces the content of a file with JSONL, one value per line; only its owner may read it, for rows hold texts.

    Raises:
        LifeError: For the reasons given in :func:`write_json`, with the limit ``LARGEST_ROWS``.
    """
    content = limited(path, b"".join(json_line(path, row) for row in rows), LARGEST_ROWS)
    write_bytes(path, content, private=True)


def read_rows(path: str | Path) -> list[Any]:
    """Reads a JSONL file.

    Raises:
        LifeError: If the file is missing, not a regular file, larger than ``LARGEST_ROWS``, or one of its lines is not
            JSON; the message names the line.
    """
    return _rows(path, read_bytes(path, LARGEST_ROWS))


def append_row(path: str | Path, row: Any) -> None:
    """Adds one line to a JSONL file; see :func:`append_rows`."""
    append_rows(path, [row])


def append_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Adds lines to a JSONL file, in a single write, creating it for its owner alone if needed.

    The one kind of file that grows in place: logs and caches. Lines are not synced, so a power loss may cost the last
    ones. A line that was cut off by one is closed first, so that it does not swallow the next.

    Raises:
        LifeError: If the system refuses, the file would become larger than ``LARGEST_ROWS``, or for the reasons given
            in :func:`write_json`.
    """
    path = Path(path)
    line = b"".join(json_line(path, row) for row in rows)
    with named(path, "written"):
        _make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            require_regular(path, os.fstat(handle))
            size = os.fstat(handle).st_size
            if size + len(line) > LARGEST_ROWS:
                raise LifeError(f"{path}: found no room for more, expected at most {LARGEST_ROWS} bytes in such a file")
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            written = os.write(handle, line)
            if written < len(line):  # a disk that became full in the middle of it
                os.ftruncate(handle, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)


def write_packed_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Replaces the content of a file with JSONL, compressed by gzip; the same rows give the same bytes.

    Raises:
        LifeError: For the reasons given in :func:`write_rows`.
    """
    content = limited(path, b"".join(json_line(path, row) for row in rows), LARGEST_ROWS)
    write_bytes(path, gzip.compress(content, mtime=0), private=True)


def read_packed_rows(path: str | Path) -> list[Any]:
    """Reads what :func:`write_packed_rows` wrote.

    Raises:
        LifeError: For the reasons given in :func:`read_rows`; also if it is not gzip, or unpacks to more than
            ``LARGEST_ROWS``.
    """
    packed = read_bytes(path, LARGEST_ROWS)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            content = file.read(LARGEST_ROWS + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LifeError(f"{path}: found no whole gzip file ({error})") from error
    if len(content) > LARGEST_ROWS:
        raise LifeError(f"{path}: found more than {LARGEST_ROWS} bytes unpacked, expected at most that")
    return _rows(path, content)


def _rows(path: str | Path, content: bytes) -> list[Any]:
    rows = []
    for number, line in enumerate(content.splitlines(), start=1):  # bytes split at newlines only
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            raise LifeError(f"{path}:{number}: found invalid JSON ({error})") from error
    return rows


def tensor_bytes(path: str | Path) -> int:
    """Total bytes of all tensors in a safetensors file; reads only the length of its header.

    Raises:
        LifeError: If the file is missing, unreadable or too short for its own header.
    """
    with open_regular(path) as file, named(path, "read"):
        header = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size - 8 - header
    if size < 0:
        raise LifeError(f"{path}: found an invalid safetensors file (its header is longer than the file)")
    return size


def file_record(path: str | Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 (hexadecimal) of a file, as a manifest stores them.

    Raises:
        LifeError: If the file is missing or unreadable.
    """
    with open_regular(path) as file, named(path, "read"):
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def verify_file(path: str | Path, record: Mapping[str, Any]) -> None:
    """Compares a file with its record.

    Raises:
        LifeError: If the file is missing or differs; the message names the path, what was found and what was expected.
    """
    found = file_record(path)
    if found != dict(record):
        told = [f"{one['size']} bytes, sha256 {one['sha256']}" for one in (found, record)]
        raise LifeError(
            f"{path}: found {told[0]}, expected {told[1]}. The file was changed or damaged after it was written; "
            "restore it from a copy, or roll back to a version before it"
        )


def sync_folder(folder: Path, what: str) -> None:
    """Syncs a folder to disk, so that the names in it survive a power loss.

    Args:
        folder: The folder.
        what: What has been done to it, for the message.

    Raises:
        Unsynced: If the system refuses.
    """
    try:
        _sync_folder(folder)
    except OSError as error:
        raise Unsynced(
            f"{what}, but its folder could not be synced ({error.strerror}): it may not survive a power loss"
        ) from error


def json_line(path: str | Path, value: Any) -> bytes:
    """A value as a line of a JSONL file; the path is for messages."""
    return _in_utf8(path, partial(_dumped, value)) + b"\n"


def _document(path: str | Path, value: Any) -> bytes:
    return _in_utf8(path, partial(_dumped, value, indent=2)) + b"\n"


def _sealed(path: str | Path, value: Mapping[str, Any]) -> bytes:
    """The document of a value and its seal, whose line goes between the keys before it and those after it.

    So a large value is written out once, although its seal is of the document without that line.
    """
    before = {key: part for key, part in value.items() if key < SEAL}
    after = {key: part for key, part in value.items() if key > SEAL}
    inner = len("{\n"), -len("\n}")

    def encode(ascii_only: bool) -> bytes:
        parts = [_dumped(part, ascii_only, indent=2)[slice(*inner)] for part in (before, after) if part]
        rest = b"{\n" + b",\n".join(parts) + b"\n}\n" if parts else b"{}\n"
        seal = f'  "{SEAL}": "{hashlib.sha256(rest).hexdigest()}"'.encode()
        parts.insert(bool(before), seal)
        return b"{\n" + b",\n".join(parts) + b"\n}\n"

    return _in_utf8(path, encode)


def _dumped(value: Any, ascii_only: bool, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=ascii_only, allow_nan=False).encode()


def _in_utf8(path: str | Path, encode: Callable[[bool], bytes]) -> bytes:
    """What ``encode`` gives; with everything but ASCII escaped where it has to be.

    Raises:
        LifeError: If a number is not finite.
    """
    try:
        return encode(False)
    except UnicodeEncodeError:  # a lone surrogate in someone's data cannot be encoded in UTF-8, but can be escaped
        return encode(True)
    except ValueError as error:
        raise LifeError(
            f"{path}: found a number that is NaN or infinite, expected finite numbers only; nothing was written"
        ) from error


def _parsed(path: str | Path, content: bytes) -> Any:
    try:
        return parse_json(content)
    except json.JSONDecodeError as error:
        raise LifeError(f"{path}:{error.lineno}:{error.colno}: found invalid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise LifeError(f"{path}: found a byte that is not UTF-8 at offset {error.start}, expected JSON") from error
    except ValueError as error:
        raise LifeError(f"{path}: found invalid JSON ({error})") from error


def make_private_folder(folder: str | Path) -> None:
    """Creates a folder that only its owner may enter; one that is there stays as it is.

    Raises:
        LifeError: If the system refuses.
    """
    folder = Path(folder)
    with named(folder, "made"):
        if not folder.is_dir():
            _make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder.parent)


def _make_folder(folder: Path) -> None:
    """Creates a folder and its missing parents, each synced to disk like the files in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and needs no sync
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder either
            raise
    finally:
        os.close(descriptor)
