"""Files of a life: written whole or not at all, checked before use, never pickled. The only file that writes files.

Every write goes the same way: a temporary file in the same directory, flush, fsync, rename over the old name, fsync of
the directory. Whenever the process dies, a reader finds the old content or the new one. The same value gives the same
bytes in every run, so two runs can be compared file by file.

What is read is a regular file (a pipe would be waited for) of a limited size; nothing larger is written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lifealign.errors import LifeError, Unsynced, describe
from lifealign.storage.inside import below, remove
from lifealign.storage.regular_file import limited, named, open_regular, read_bytes
from lifealign.storage.strict_json import parse_json

TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}$")  # what write_bytes appends: the writer's process id and a random word
SEAL = "sha256"
"""Key under which a sealed JSON file keeps the SHA-256 of its other content."""

LARGEST_JSON, LARGEST_ROWS = 256 * 2**20, 2**30
"""Most bytes of a JSON file, and of one with rows; years of a life have less, and a machine can hold as much."""


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replaces a file as a whole, creating its folder if need be.

    Raises:
        LifeError: If the system refuses (disk full, no permission, ...); the old content is then still there.
        Unsynced: If only the last step failed, the sync of the folder: the new content is there, and may not survive a
            power loss.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    with named(path, "written", "What was there before is unchanged"):
        _make_folder(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report; remove_leftovers comes by later
                temporary.unlink()
            raise
    sync_folder(path.parent, f"{path}: the new content is in place")


def write_text(path: str | Path, text: str) -> None:
    """Replaces a file by UTF-8 text; raises as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Replaces a file by JSON that a person can read and compare: indented, keys sorted.

    Raises:
        LifeError: If the value holds NaN or infinity, which JSON has no words for, is larger than ``LARGEST_JSON``, or
            as :func:`write_bytes` does.
    """
    write_bytes(path, limited(path, _document(path, value), LARGEST_JSON))


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        LifeError: If the file is missing, not a regular file, larger than ``LARGEST_JSON``, or not JSON as
            :func:`~lifealign.storage.strict_json.parse_json` takes it; the message has the file, and where it can, line
            and column.
    """
    return _parsed(path, read_bytes(path, LARGEST_JSON))


def write_sealed_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Replaces a file by a JSON object that carries a hash of itself.

    Under ``sha256`` stands the SHA-256 of the file as :func:`write_json` would write it without that key.

    Args:
        path: The file.
        value: The object; a seal that it has already is replaced.

    Raises:
        LifeError: As :func:`write_json`.
    """
    write_json(path, _sealed(path, value))


def read_sealed_json(path: str | Path, check_first: Callable[[Any], None] = lambda value: None) -> dict[str, Any]:
    """Reads what :func:`write_sealed_json` wrote, without the seal.

    Args:
        path: The file.
        check_first: Called with the value before its seal is looked at, to refuse what was written by other rules.

    Raises:
        LifeError: If any byte is another than was written, or as :func:`read_json`.
    """
    content = read_bytes(path, LARGEST_JSON)
    value = _parsed(path, content)
    check_first(value)
    if not isinstance(value, dict):
        raise LifeError(f"{path}: found {describe(value)}, expected an object")
    if content != _document(path, _sealed(path, value)):  # in the layout, too
        raise LifeError(
            f"{path}: found content that does not match its own {SEAL}, expected it as lifealign wrote it. The file "
            "was changed or damaged; restore it from a copy"
        )
    return {key: part for key, part in value.items() if key != SEAL}


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Replaces a file by JSONL, one value a line; raises as :func:`write_json` does, beyond ``LARGEST_ROWS``."""
    write_bytes(path, limited(path, b"".join(_json(path, row) + b"\n" for row in rows), LARGEST_ROWS))


def read_rows(path: str | Path) -> list[Any]:
    """Reads a JSONL file.

    Raises:
        LifeError: If the file is missing, not a regular file, larger than ``LARGEST_ROWS``, or a line of it is not
            JSON; the message has the line.
    """
    rows = []
    for number, line in enumerate(read_bytes(path, LARGEST_ROWS).splitlines(), start=1):  # bytes: at newlines only
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            raise LifeError(f"{path}:{number}: found no valid JSON ({error})") from error
    return rows


def tensor_bytes(path: str | Path) -> int:
    """Bytes of all tensors in a safetensors file together; reads no more than where they begin.

    Raises:
        LifeError: If the file is missing, unreadable or too short for its own header.
    """
    with open_regular(path) as file, named(path, "read"):
        header = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size - 8 - header
    if size < 0:
        raise LifeError(f"{path}: found no valid safetensors file (its header is longer than the file)")
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
        LifeError: If the file is missing or differs; the message has the path, what was found and what was expected.
    """
    found = file_record(path)
    if found != dict(record):
        told = [f"{one['size']} bytes, sha256 {one['sha256']}" for one in (found, record)]
        raise LifeError(
            f"{path}: found {told[0]}, expected {told[1]}. The file was changed or damaged after it was written; "
            "restore it from a copy, or roll back to a version before it"
        )


def remove_leftovers(directory: str | Path) -> list[Path]:
    """Deletes temporary files that a killed process left below a directory, and returns them.

    Only for the holder of the lock: another process may be about to rename its own.

    Raises:
        LifeError: If the system refuses.
    """
    directory = Path(directory)
    found = [path for path in below(directory) if is_temporary(path)]
    for path in found:
        remove(directory, path)
    return found


def is_temporary(path: Path) -> bool:
    """Whether a path is a temporary file of :func:`write_bytes`."""
    return bool(TEMPORARY.search(path.name)) and (path.is_symlink() or not path.is_dir())


def sync_folder(folder: Path, what: str) -> None:
    """Makes the names in a folder safe against power loss.

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


def _json(path: str | Path, value: Any, indent: int | None = None) -> bytes:
    def encode(ascii_only: bool) -> bytes:
        return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=ascii_only, allow_nan=False).encode()

    try:
        return encode(ascii_only=False)
    except UnicodeEncodeError:  # half of a surrogate pair in someone's data has no UTF-8, but it has an escape
        return encode(ascii_only=True)
    except ValueError as error:
        raise LifeError(
            f"{path}: found a number that is NaN or infinite, expected finite ones; nothing was written"
        ) from error


def _document(path: str | Path, value: Any) -> bytes:
    return _json(path, value, indent=2) + b"\n"


def _sealed(path: str | Path, value: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: part for key, part in value.items() if key != SEAL}
    return rest | {SEAL: hashlib.sha256(_document(path, rest)).hexdigest()}


def _parsed(path: str | Path, content: bytes) -> Any:
    try:
        return parse_json(content)
    except json.JSONDecodeError as error:
        raise LifeError(f"{path}:{error.lineno}:{error.colno}: found no valid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise LifeError(f"{path}: found a byte that is not UTF-8 at offset {error.start}, expected JSON") from error
    except ValueError as error:
        raise LifeError(f"{path}: found no valid JSON ({error})") from error


def _make_folder(folder: Path) -> None:
    """Creates a folder and those above it, each of them safe against power loss like the files in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and needs no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such call either
            raise
    finally:
        os.close(descriptor)
