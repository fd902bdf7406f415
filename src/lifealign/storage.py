"""Files of a life: written whole or not at all, checked before use, never pickled. The only file that writes files.

Every write goes the same way: a temporary file in the same directory, flush, fsync, rename over the old name, fsync of
the directory. Whenever the process dies, a reader finds the old content or the new one. The same value gives the same
bytes in every run, so two runs can be compared file by file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lifealign.errors import LifeError

TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}$")  # what write_bytes appends: the writer's process id and a random word
LOCK, LOCK_HOLDER = ".lock", ".lock-holder.json"


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replaces a file as a whole, creating its folder if need be.

    Raises:
        LifeError: If the system refuses (disk full, no permission, ...); the old content is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    with _named(path, "written", "What was there before is unchanged"):
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
        _sync_folder(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Replaces a file by UTF-8 text; raises as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Replaces a file by JSON that a person can read and compare: indented, keys sorted.

    Raises:
        LifeError: If the value holds NaN or infinity, which JSON has no words for, or as :func:`write_bytes` does.
    """
    write_bytes(path, _json(path, value, indent=2) + b"\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        LifeError: If the file is missing, unreadable or not JSON; the message has file, line and column.
    """
    content = _read(path)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise LifeError(f"{path}:{error.lineno}:{error.colno}: found no valid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise LifeError(f"{path}: found a byte that is not UTF-8 at offset {error.start}, expected JSON") from error


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Replaces a file by JSONL, one value a line; raises as :func:`write_json` does."""
    write_bytes(path, b"".join(_json(path, row) + b"\n" for row in rows))


def read_rows(path: str | Path) -> list[Any]:
    """Reads a JSONL file.

    Raises:
        LifeError: If the file is missing, unreadable, or a line of it is not JSON; the message has the line.
    """
    rows = []
    for number, line in enumerate(_read(path).splitlines(), start=1):  # bytes split at newlines only, unlike str
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise LifeError(f"{path}:{number}: found no valid JSON ({error})") from error
    return rows


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Replaces a safetensors file, laid out as PEFT's.

    Args:
        path: The file.
        tensors: Tensors by name, of any dtype and device; no two may share memory.

    Raises:
        LifeError: If a tensor holds NaN or infinity, which must never become part of a memory, or as
            :func:`write_bytes` does.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
            count = tensor.numel() - int(finite.sum())
            raise LifeError(
                f"{path}: tensor {name!r}: found {count} values that are NaN or infinite; nothing was written"
            )
    # One key only: safetensors orders the keys of its header at random, and the bytes would differ from run to run.
    write_bytes(path, save(plain, {"format": "pt"}))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads all tensors of a safetensors file.

    Raises:
        LifeError: If the file is missing, unreadable or damaged.
    """
    with _named(path, "read"):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise LifeError(f"{path}: found no valid safetensors file ({error})") from error


def file_record(path: str | Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 (hexadecimal) of a file, as a manifest stores them.

    Raises:
        LifeError: If the file is missing or unreadable.
    """
    with _named(path, "read"), Path(path).open("rb") as file:
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


@contextmanager
def exclusive_lock(directory: str | Path) -> Iterator[None]:
    """Holds a directory for this process; a second process, or a second time in this one, is refused at once.

    The system releases the lock when its holder ends, however it ends, so there are no stale locks to clear.

    Raises:
        LifeError: If the directory is held; the message names the process that holds it, and where it runs.
    """
    directory = Path(directory)
    lock = FileLock(directory / LOCK, timeout=0, thread_local=False)
    with _named(directory, "locked"):
        _make_folder(directory)
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


def remove_leftovers(directory: str | Path) -> list[Path]:
    """Deletes temporary files that a killed process left below a directory, and returns them.

    Only for the holder of the lock: another process may be about to rename its own.

    Raises:
        LifeError: If the system refuses.
    """
    with _named(directory, "cleaned"):
        found = sorted(
            path for path in Path(directory).rglob("*.tmp-*") if TEMPORARY.search(path.name) and path.is_file()
        )
        for path in found:
            path.unlink()
    return found


def _holder(directory: Path) -> str:
    """The process that holds a directory, in words; it may have taken it this moment and not have signed yet."""
    try:
        holder = read_json(directory / LOCK_HOLDER)
        return f"process {holder['pid']} on {holder['host']}"
    except (LifeError, KeyError, TypeError):
        return "another process"


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


def _read(path: str | Path) -> bytes:
    with _named(path, "read"):
        return Path(path).read_bytes()


@contextmanager
def _named(path: str | Path, done: str, comfort: str = "") -> Iterator[None]:
    """Turns an error of the system into one line with the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)  # safetensors' own OSErrors have no strerror
        raise LifeError(f"{path}: could not be {done}: {reason}{'. ' + comfort if comfort else ''}") from error


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
    finally:
        os.close(descriptor)
