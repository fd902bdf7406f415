"""Files are written whole or not at all; damage is seen before use; a life has one user at a time."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import pytest
import torch

from lifealign.errors import LifeError, Unsynced
from lifealign.storage import files as storage
from lifealign.storage.lock import LOCK_HOLDER, exclusive_lock
from lifealign.storage.tensors import read_tensors, write_tensors

HOLD = """
import sys
from lifealign.storage.lock import exclusive_lock
with exclusive_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
WRITE = """
import sys, torch
from lifealign.storage.tensors import write_tensors
names = ["b", "a", "d", "c"]
tensors = {name: torch.full((2, 3), 1.0 * number) for number, name in enumerate(names)}
write_tensors(sys.argv[1], tensors)
"""


def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def refuse(code: int) -> Callable[..., Never]:
    def refused(*_args: Any, **_kwargs: Any) -> Never:
        raise OSError(code, os.strerror(code))

    return refused


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("value", [{"b": [1, 2.5, None], "a": "ü\u2028 \x85 {}"}, [], "text", {"lone": "\ud800"}])
def test_json_and_rows_come_back(tmp_path: Path, value: Any) -> None:
    storage.write_json(tmp_path / "new" / "folder" / "value.json", value)
    assert storage.read_json(tmp_path / "new" / "folder" / "value.json") == value
    storage.write_rows(tmp_path / "rows.jsonl", [value, value])
    assert storage.read_rows(tmp_path / "rows.jsonl") == [value, value]


def test_json_is_sorted_indented_and_ends_with_a_newline(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "a", {"b": 1, "a": "ü"})
    assert (tmp_path / "a").read_bytes() == '{\n  "a": "ü",\n  "b": 1\n}\n'.encode()
    storage.write_rows(tmp_path / "b", [{"b": 1, "a": 2}])
    assert (tmp_path / "b").read_bytes() == b'{"a": 2, "b": 1}\n'
    storage.write_text(tmp_path / "c", "ü")
    assert (tmp_path / "c").read_bytes() == "ü".encode()


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LifeError, match=r"scores\.json: found a number that is NaN"):
        storage.write_json(tmp_path / "scores.json", {"last": float("nan")})
    assert files(tmp_path) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64])
def test_tensors_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.arange(12).reshape(3, 4).to(dtype)
    tensors = {"transposed": whole.T, "empty": torch.zeros(0, dtype=dtype), "scalar": torch.tensor(1, dtype=dtype)}
    path = tmp_path / "memory.safetensors"
    write_tensors(path, tensors)
    found = read_tensors(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == dtype for name in tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_that_is_not_finite_is_refused_by_name(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"lora_A": torch.ones(2)})
    with pytest.raises(LifeError, match=r"a\.safetensors: tensor 'lora_B': found 1 values that are NaN or infinite"):
        write_tensors(path, {"lora_A": torch.zeros(2), "lora_B": torch.tensor([1.0, value])})
    assert torch.equal(read_tensors(path)["lora_A"], torch.ones(2))


def test_the_same_tensors_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    # Were there several keys of metadata, in the random order of safetensors, they would differ.
    runs = [start(WRITE, tmp_path / name) for name in "123"]
    assert [run.communicate()[1] for run in runs] == ["", "", ""]
    first, *others = [(tmp_path / name).read_bytes() for name in "123"]
    assert others == [first, first]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_refused_write_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "life.json"
    storage.write_json(path, {"tasks": 1})
    monkeypatch.setattr(os, call, refuse(code))
    with pytest.raises(LifeError) as caught:
        storage.write_json(path, {"tasks": 2})
    assert str(caught.value) == f"{path}: could not be written: {os.strerror(code)}. What was there before is unchanged"
    assert storage.read_json(path) == {"tasks": 1}
    assert files(tmp_path) == ["life.json"]


def test_every_write_is_synced_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def note(name: str) -> None:
        real = getattr(os, name)

        def noted(*arguments: Any) -> None:
            calls.append(name)
            real(*arguments)

        monkeypatch.setattr(os, name, noted)

    note("fsync")
    note("replace")
    storage.write_json(tmp_path / "a.json", 1)
    assert calls == ["fsync", "replace", "fsync"]


def failing_folder_sync(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The second sync of a write fails: that of the folder, after the rename."""
    real, calls = os.fsync, [0]

    def second_fails(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", second_fails)


def test_a_folder_that_cannot_be_synced_after_the_rename_does_not_count_as_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "life.json"
    storage.write_json(path, {"tasks": 1})
    failing_folder_sync(monkeypatch, errno.EIO)
    with pytest.raises(Unsynced) as caught:
        storage.write_json(path, {"tasks": 2})
    assert str(caught.value) == (
        f"{path}: the new content is in place, but its folder could not be synced (Input/output error): "
        "it may not survive a power loss"
    )
    assert storage.read_json(path) == {"tasks": 2} and files(tmp_path) == ["life.json"]


def test_a_file_system_that_syncs_no_folders_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_folder_sync(monkeypatch, errno.EINVAL)
    storage.write_json(tmp_path / "a.json", 1)
    assert storage.read_json(tmp_path / "a.json") == 1


READERS: dict[str, Callable[[Path], Any]] = {
    "read_json": storage.read_json,
    "read_rows": storage.read_rows,
    "read_tensors": read_tensors,
    "tensor_bytes": storage.tensor_bytes,
    "file_record": storage.file_record,
    "read_sealed_json": storage.read_sealed_json,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_pipe_or_a_device_is_refused_and_never_waited_for(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a directory")):
        with pytest.raises(LifeError, match=f"^{path}: found {kind}, expected a regular file$"):
            read(path)


def test_what_is_too_large_is_neither_read_nor_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LARGEST_JSON", 6)
    monkeypatch.setattr(storage, "LARGEST_ROWS", 4)
    path = tmp_path / "a.json"
    storage.write_json(path, "abc")  # quotes and a newline are counted
    assert storage.read_json(path) == "abc"
    with pytest.raises(LifeError, match=r"a\.json: found more than 6 bytes, expected at most \d in a file"):
        storage.write_json(path, "abcd")
    assert storage.read_json(path) == "abc"
    path.write_text('"abcd"\n')
    with pytest.raises(LifeError, match=r"a\.json: found more than 6 bytes, expected at most \d in a file"):
        storage.read_json(path)
    storage.write_rows(path, [1, 2])
    assert storage.read_rows(path) == [1, 2]
    with pytest.raises(LifeError, match=r"a\.json: found more than 4 bytes, expected at most \d in a file"):
        storage.write_rows(path, [1, 2, 3])
    path.write_text("1\n2\n3\n")
    with pytest.raises(LifeError, match=r"a\.json: found more than 4 bytes, expected at most \d in a file"):
        storage.read_rows(path)


REFUSED = {
    "endless nesting": ("[" * 100_000, "nested more than 64 levels deep"),
    "deep nesting": ("[" * 65 + "]" * 65, "nested more than 64 levels deep"),
    "deep objects": ('{"a": ' * 65 + "1" + "}" * 65, "nested more than 64 levels deep"),
    "NaN": ('{"a": NaN}', "NaN is not a number in JSON"),
    "infinity": ("[-Infinity]", "-Infinity is not a number in JSON"),
    "too large": ("[1e999]", "the number 1e999 is too large"),
    "thousands of digits": ("1" * 5000, "4300 digits"),
    "a key twice": ('{"a": 1, "b": {"a": 1, "c": 1, "c": 2}}', "the key 'c' occurs twice"),
    "a key that rings": ('{"a\\u0007": 1}', r"the key 'a\x07' contains control characters"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_json_that_is_no_json_of_ours_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    for content, read, place in ((text, storage.read_json, ""), (f"1\n{text}\n", storage.read_rows, ":2")):
        path.write_text(content)
        with pytest.raises(LifeError) as caught:
            read(path)
        said = str(caught.value)
        assert said.startswith(f"{path}{place}: found invalid JSON (") and message in said and said.isprintable()


def test_json_as_deep_as_allowed_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 64 + "1" + "]" * 64)
    value = storage.read_json(tmp_path / "a.json")
    for _ in range(64):
        (value,) = value
    assert value == 1


def test_sealed_json_is_read_only_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"b": 1e-05, "a": "ü", "lone": "\ud800"}
    storage.write_sealed_json(path, value)
    whole = path.read_bytes()
    assert storage.read_sealed_json(path) == value
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        with pytest.raises(LifeError):
            storage.read_sealed_json(path)
    for content in (whole + b"\n", whole.replace(b"  ", b"\t"), whole.replace(b"1e-05", b"0.00001"), whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(LifeError, match=r"a\.json: found content that does not match its own sha256"):
            storage.read_sealed_json(path)
    others: tuple[Any, ...] = ({}, value, [], 3, None)
    for other in others:
        storage.write_json(path, other)
        with pytest.raises(LifeError, match=r"does not match its own sha256|expected an object"):
            storage.read_sealed_json(path)
    storage.write_sealed_json(path, json.loads(whole))  # a seal that is there already is replaced
    assert path.read_bytes() == whole


def test_a_folder_or_a_missing_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    for read in READERS.values():
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(LifeError, match=str(path)):
                read(path)
    (tmp_path / "file").touch()
    with pytest.raises(LifeError, match="could not be written"):
        storage.write_text(tmp_path / "file" / "below", "")


def test_damaged_json_is_named_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n  "a": 1,\n')
    with pytest.raises(LifeError, match=r"a\.json:3:1: found invalid JSON"):
        storage.read_json(path)
    with pytest.raises(LifeError, match=r"a\.json:1: found invalid JSON"):
        storage.read_rows(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(LifeError, match="not UTF-8 at offset 7"):
        storage.read_json(path)
    with pytest.raises(LifeError, match=r"a\.json:1: found invalid JSON"):
        storage.read_rows(path)


def test_every_truncation_and_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.arange(4.0)})
    whole, record = path.read_bytes(), storage.file_record(path)
    assert record["size"] == len(whole)
    storage.verify_file(path, json.loads(json.dumps(record)))
    damaged = [whole[:length] for length in range(len(whole))] + [whole + b"\0"]
    damaged += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(LifeError) as caught:
            storage.verify_file(path, record)
        message = str(caught.value)
        assert message.startswith(f"{path}: found {len(content)} bytes") and record["sha256"] in message
    path.write_bytes(whole[:20])
    with pytest.raises(LifeError, match="an invalid safetensors file"):
        read_tensors(path)


def test_a_second_process_is_refused_by_the_first_ones_pid(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path):
        second = start(HOLD, tmp_path)
        error = second.communicate(timeout=60)[1]
    assert second.returncode == 1
    assert f"LifeError: {tmp_path}: found it in use by process {os.getpid()} on " in error
    with exclusive_lock(tmp_path):
        pass


def test_a_second_time_in_this_process_is_refused(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path):
        for directory in (tmp_path, tmp_path / ".." / tmp_path.name):
            with pytest.raises(LifeError, match=f"in use by process {os.getpid()}"), exclusive_lock(directory):
                pass
        (tmp_path / LOCK_HOLDER).unlink()
        junk = ["", "{", "[" * 100_000, "[]", "3", "{}", '{"pid": "1", "host": "h"}', '{"pid": 1, "host": 2}']
        junk += [
            '{"pid": 1, "host": "\\u001b[2J"}',
            '{"pid": 1, "host": "a b"}',
            '{"pid": 1, "host": "' + "h" * 256 + '"}',
        ]
        for content in (None, *junk):
            if content is not None:
                (tmp_path / LOCK_HOLDER).write_text(content)
            with pytest.raises(LifeError, match="in use by another process"), exclusive_lock(tmp_path):
                pass
        (tmp_path / LOCK_HOLDER).unlink()
        os.mkfifo(tmp_path / LOCK_HOLDER)
        with pytest.raises(LifeError, match="in use by another process"), exclusive_lock(tmp_path):
            pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    first = start(HOLD, tmp_path)
    assert first.stdout and first.stdout.readline() == "held\n"
    with pytest.raises(LifeError, match=f"in use by process {first.pid}"), exclusive_lock(tmp_path):
        pass
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    with exclusive_lock(tmp_path):
        assert storage.read_json(tmp_path / LOCK_HOLDER)["pid"] == os.getpid()


def test_the_lock_is_released_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive_lock(tmp_path):
        _ = 1 / 0
    with exclusive_lock(tmp_path):
        pass


def test_the_bytes_of_tensors_are_counted_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.ones(3, 5), "b": torch.ones(2, dtype=torch.bfloat16)})
    assert storage.tensor_bytes(path) == 3 * 5 * 4 + 2 * 2
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(LifeError, match="its header is longer than the file"):
        storage.tensor_bytes(path)


def test_a_log_grows_by_a_line_and_a_line_that_was_cut_off_is_closed(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    storage.append_row(log, {"b": 1, "a": "ä\n"})
    storage.append_row(log, [2])
    assert log.read_text() == '{"a": "ä\\n", "b": 1}\n[2]\n'
    assert oct(log.stat().st_mode & 0o777) == "0o600"
    log.write_text('{"a": 1}\n{"cut o')
    storage.append_row(log, 3)
    assert log.read_text() == '{"a": 1}\n{"cut o\n3\n'


def test_a_log_that_cannot_grow_is_named_and_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    storage.append_row(log, 1)
    written = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: written(handle, content[:2]))  # the disk is full
    with pytest.raises(LifeError, match=r"log\.jsonl: could not be written: No space left on device"):
        storage.append_row(log, [1, 2, 3])
    assert log.read_text() == "1\n"
    with pytest.raises(LifeError, match="NaN or infinite"):
        storage.append_row(log, float("nan"))
    with pytest.raises(LifeError, match=r"found a directory|could not be written"):
        storage.append_row(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LifeError, match="found a pipe"):
        storage.append_row(tmp_path / "pipe", 1)
