"""What a killed process was writing is gone after the next write of the same; what is being written stays."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Lived
from tests.tiny import letter_task

from lifealign.errors import LifeError
from lifealign.life.life import Life
from lifealign.storage import temporary
from lifealign.storage.files import write_text
from lifealign.storage.temporary import remove_abandoned, temporary_name, unheld
from lifealign.storage.whole_folder import whole_folder

Write = Callable[[Path, str], None]


def folder_with(path: Path, text: str) -> None:
    with whole_folder(path) as folder:
        write_text(folder / "deep" / "file.txt", text)


WRITERS: dict[str, Write] = {"a file": write_text, "a folder": folder_with}
STRANGERS = ("out.tmp-3", "out.tmp-3-0123456", "out.tmp-x-01234567", "outer.tmp-3-01234567", "out.txt")
"""Names that a person may have given."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stopped(write: Write, path: Path) -> int:
    """A process that stops in the middle of writing: all is there but the last rename."""
    child = os.fork()
    if child == 0:
        rename, replace = Path.rename, os.replace

        def stop(*_: object) -> None:
            Path.rename, os.replace = rename, replace  # type: ignore[method-assign]
            os.kill(os.getpid(), signal.SIGSTOP)

        def moved(self: Path, target: Path) -> Path:
            stop()
            return rename(self, target)

        def replaced(source: Path, target: Path) -> None:
            if str(target) == str(path):
                stop()
            replace(source, target)

        Path.rename, os.replace = moved, replaced  # type: ignore[method-assign,assignment]
        try:
            write(path, "first")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    return child


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_a_killed_process_was_writing_goes_with_the_next_write(tmp_path: Path, write: Write) -> None:
    for stranger in STRANGERS:
        (tmp_path / stranger).write_text("mine")
    child = stopped(write, tmp_path / "out")
    assert len(names(tmp_path)) == len(STRANGERS) + 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    write(tmp_path / "out", "second")
    assert names(tmp_path) == sorted(["out", *STRANGERS])
    assert all((tmp_path / stranger).read_text() == "mine" for stranger in STRANGERS)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_another_process_is_writing_stays_and_is_finished(tmp_path: Path, write: Write) -> None:
    """Even when its process id means nothing here, as in another container: it is held, not named."""
    child = stopped(write, tmp_path / "out")
    try:
        remove_abandoned(tmp_path / "out")
        (left,) = tmp_path.iterdir()
        with unheld(left) as free:
            assert not free
    finally:
        os.kill(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(tmp_path) == ["out"]


def test_a_life_that_is_written_to_leaves_what_another_process_writes_in_it(lived: Lived, tmp_path: Path) -> None:
    """A report takes no lock: `learn` beside it must not take its page away."""
    life = Life.open(shutil.copytree(lived([letter_task("one", "a", "b")]).directory.path, tmp_path / "bot"))
    child = stopped(write_text, tmp_path / "bot/report.html")
    with life.directory.lock():
        pass
    assert len([*(tmp_path / "bot").glob("report.html.tmp-*")]) == 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with life.directory.lock():
        pass
    assert not [*(tmp_path / "bot").glob("report.html*")]


def test_what_is_taken_away_before_it_is_held_is_written_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between making a file and holding it, in which another process may take it for abandoned."""
    made: list[Path] = []
    real = temporary.fcntl.flock

    def raced(descriptor: int, how: int) -> None:
        if not made:
            made.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            made[0].unlink()
        real(descriptor, how)

    monkeypatch.setattr(temporary.fcntl, "flock", raced)
    write_text(tmp_path / "out", "text")
    assert names(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "text" and made


def test_where_there_are_no_locks_nothing_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = temporary_name(tmp_path / "out")
    left.write_text("another's")

    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(temporary.fcntl, "flock", refused)
    write_text(tmp_path / "out", "mine")
    assert names(tmp_path) == sorted(["out", left.name])


def test_what_cannot_be_deleted_keeps_nobody_from_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary_name(tmp_path / "out").write_text("left")

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        write_text(tmp_path / "out", "mine")
    assert (tmp_path / "out").read_text() == "mine" and len(names(tmp_path)) == 2
    write_text(tmp_path / "out", "mine")
    assert names(tmp_path) == ["out"]


def test_a_write_that_fails_where_nothing_can_be_deleted_is_cleared_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        patch.setattr(Path, "unlink", refused)
        with pytest.raises(LifeError, match="Input/output error"):
            write_text(tmp_path / "out", "first")
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "out", "second")
    assert names(tmp_path) == ["out"]
