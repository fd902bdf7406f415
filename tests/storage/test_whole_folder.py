"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from lifealign.errors import LifeError
from lifealign.storage.files import write_text
from lifealign.storage.whole_folder import require_room, whole_folder

Usage = namedtuple("Usage", "total used free")


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [False, True])
def test_it_appears_only_at_the_end(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "a/b/out"
    if there:
        out.mkdir(parents=True)
    with whole_folder(out) as folder:
        write_text(folder / "deep/file.txt", "one")
        assert folder.parent == out.parent and (not out.exists() or not any(out.iterdir()))
    assert everything(tmp_path) == ["a", "a/b", "a/b/out", "a/b/out/deep", "a/b/out/deep/file.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_after_an_error_nothing_is_left(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(BaseException) as raised, whole_folder(tmp_path / "a/b/out") as folder:
        write_text(folder / "file.txt", "one")
        raise error
    assert everything(tmp_path) == ["mine"]
    if isinstance(error, OSError):
        assert str(raised.value) == (
            f"{tmp_path / 'a/b/out'}: could not be written: No space left on device. Nothing of it was kept"
        )
        assert isinstance(raised.value, LifeError)
    else:
        assert raised.value is error


def test_an_empty_folder_is_still_there_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(LifeError), whole_folder(tmp_path / "out"):
        raise LifeError("no")
    assert everything(tmp_path) == ["out"]


def test_an_error_about_a_file_names_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LifeError) as raised, whole_folder(tmp_path / "out") as folder:
        (folder / "file").mkdir()
        write_text(folder / "file", "one")
    assert str(raised.value).startswith(f"{tmp_path / 'out' / 'file'}: could not be written")


def test_somebody_who_was_faster_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LifeError, match="could not be written: Directory not empty"), whole_folder(out):
        write_text(out / "theirs.txt", "theirs")
    assert everything(tmp_path) == ["out", "out/theirs.txt"]


def test_a_folder_that_a_link_leads_to_is_filled(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place", target_is_directory=True)
    with whole_folder(tmp_path / "link") as folder:
        write_text(folder / "file.txt", "one")
    assert (tmp_path / "link").is_symlink() and everything(tmp_path / "place") == ["file.txt"]


def test_a_file_in_the_place_of_a_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(LifeError, match="could not be written: Not a directory"), whole_folder(tmp_path / "out"):
        pass
    assert everything(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "mine"


def test_every_file_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Any:
        synced.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", renamed)
    with whole_folder(tmp_path / "out") as folder:
        (folder / "weights").write_bytes(b"not by our own writer")
    assert "weights" in synced[: synced.index("renamed")]
    assert synced[synced.index("renamed") + 1 :] == [tmp_path.name]


def test_what_would_not_fit_is_refused_before_it_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(2**30, 2**30 - 5 * 2**20, 5 * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_room(tmp_path / "not/there/yet", 5 * 2**20)
    assert asked == [tmp_path]
    with pytest.raises(LifeError) as raised:
        require_room(tmp_path / "not/there/yet", 2048 * 2**20)
    assert str(raised.value) == (
        f"{tmp_path / 'not/there/yet'}: found 5 MiB free on its disk, expected at least 2,048 MiB, which is what will "
        "be written; make room, or choose a folder on another disk"
    )
    assert everything(tmp_path) == []
