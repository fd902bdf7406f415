"""The directory of a life: nothing outside it is touched, nothing in it is taken on trust, what failed is said."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lifealign.errors import LifeError
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import BaseRecord, Manifest, TaskRecord
from lifealign.storage import files as storage
from lifealign.storage.inside import below, inside
from lifealign.storage.lock import LOCK_HOLDER

FOLDERS = ("versions", "memory", "replay", "tasks", "logs", "cache")
CHECK = {"max_words": 3, "min_words": 1, "matches": [], "lacks": ["\n"]}


def files_of(step: str, task: str) -> dict[str, Any]:
    return {
        f"versions/{step}/adapter_model.safetensors": {"lora_A": torch.ones(2)},
        f"memory/{step}.safetensors": {"task/lora_A": torch.ones(2)},
        f"replay/{step}.jsonl": [{"task": task}],
        f"tasks/{step}/scores.json": {"scores": {}},
    }


def record(name: str) -> TaskRecord:
    return TaskRecord(name=name, train_pairs=1, test_pairs=0, data_hash="0" * 32, check=CHECK)


@pytest.fixture
def life(tmp_path: Path) -> LifeDirectory:
    """A life with two steps, as files: no model is needed to look after them."""
    base = BaseRecord(
        model_name_or_path="/models/ü\u202f[v2]",
        fingerprint="f",
        tokenizer="t",
        chat_template="c",
        revision=None,
        exact={"shared_prompts": "full attention"},
    )
    manifest = Manifest(format_version=1, base=base, config={"seed": 1e-05}, environment={"torch": "2"}, versions=[])
    directory = LifeDirectory(tmp_path / "life", manifest)
    with directory.lock():
        directory.commit("00-base", [], {"versions/00-base/adapter_model.safetensors": {"lora_A": torch.zeros(2)}})
        directory.commit("01-one", [record("one")], files_of("01-one", "one"))
        directory.commit("02-two", [record("two")], files_of("02-two", "two"))
    for folder in ("logs/02-two", "cache"):
        (directory.path / folder).mkdir(parents=True)
    return directory


def opened(life: LifeDirectory) -> LifeDirectory:
    return LifeDirectory(life.path, Manifest.read(life.path))


def content(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder, links by where they lead; not who held the lock."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
        if not path.name.startswith(".lock")
    }


def linked(path: Path, elsewhere: Path) -> Path:
    """Moves a file or folder to another place, with something precious if it is a folder, and leaves a link."""
    shutil.move(path, elsewhere)
    if elsewhere.is_dir():
        (elsewhere / "precious.txt").write_text("mine")
        (elsewhere / "precious.txt.tmp-1-00000000").write_text("mine")
    path.symlink_to(elsewhere)
    return elsewhere


# -- inside ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_is_a_link_is_refused_before_anything_is_touched(
    life: LifeDirectory, tmp_path: Path, folder: str
) -> None:
    outside = linked(life.path / folder, tmp_path / "outside")
    (life.path / LOCK_HOLDER).unlink()
    before, there = content(tmp_path), sorted(life.path.iterdir())
    refused = pytest.raises(LifeError, match=rf"life/{folder}: found a symbolic link, expected a file or")
    with refused, opened(life).lock():
        pass
    assert sorted(life.path.iterdir()) == there  # not even a lock
    life.clear_leftovers()  # even without the lock
    life.manifest.versions.pop()
    life.clear_leftovers()
    assert all((tmp_path / name).exists() for name in before if name.startswith("outside/"))
    assert (outside / "precious.txt").read_text() == "mine"
    assert (outside / "precious.txt.tmp-1-00000000").exists()


def test_an_empty_folder_elsewhere_gets_nothing_either(life: LifeDirectory, tmp_path: Path) -> None:
    shutil.rmtree(life.path / "tasks")
    (tmp_path / "outside").mkdir()
    (life.path / "tasks").symlink_to(tmp_path / "outside")
    with pytest.raises(LifeError, match="life/tasks: found a symbolic link"):
        life.commit("03-three", [record("three")], {"tasks/03-three/scores.json": {}})
    assert list((tmp_path / "outside").iterdir()) == []
    assert [version.name for version in opened(life).manifest.versions] == ["00-base", "01-one", "02-two"]


@pytest.mark.parametrize("name", ["versions/02-two", "tasks/02-two", "tasks/02-two/scores.json", "replay/02-two.jsonl"])
def test_what_is_committed_is_not_read_through_a_link_and_rollback_takes_the_link_alone(
    life: LifeDirectory, tmp_path: Path, name: str
) -> None:
    outside = linked(life.path / name, tmp_path / "outside")
    before = content(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(LifeError, match=rf"life/{name}: found a symbolic link"):
        life.verify(life.manifest.versions)  # though the content is as committed
    with life.lock():
        assert (life.path / name).is_symlink()  # a person may still put the files back
    with life.lock():
        life.rollback("01-one")
    assert not os.path.lexists(life.path / name)
    assert (content(outside) if outside.is_dir() else outside.read_bytes()) == before
    assert life.verify(life.manifest.versions) == 5


def test_a_stray_link_is_deleted_and_not_followed(life: LifeDirectory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("mine")
    before = content(life.path)
    strays = ["versions/x", "tasks/01-one/x", "memory/x", "logs/03-three", "report.html.tmp-12-0123abcd"]
    for number, stray in enumerate(strays):
        (life.path / stray).symlink_to(outside / "precious.txt" if number == 2 else outside)
    (life.path / "notes").symlink_to(outside)  # a person's own, and not in a folder of ours
    (outside / "a.json.tmp-12-0123abcd").write_text("mine, too")
    with life.lock():
        pass
    assert content(life.path) == before | {"notes": str(outside)}
    assert sorted(path.name for path in outside.iterdir()) == ["a.json.tmp-12-0123abcd", "precious.txt"]


def test_a_life_may_itself_be_reached_through_a_link(life: LifeDirectory, tmp_path: Path) -> None:
    (tmp_path / "my-bot").symlink_to(life.path)
    linked_life = LifeDirectory(tmp_path / "my-bot", Manifest.read(tmp_path / "my-bot"))
    with linked_life.lock():
        linked_life.commit("03-three", [record("three")], files_of("03-three", "three"))
        assert linked_life.verify(linked_life.manifest.versions) == 13
        linked_life.rollback("00-base")
    assert [version.name for version in opened(life).manifest.versions] == ["00-base"]


@pytest.mark.parametrize("name", [".lock", "life.json"])
def test_the_lock_and_the_manifest_are_no_links(life: LifeDirectory, tmp_path: Path, name: str) -> None:
    outside = linked(life.path / name, tmp_path / "outside")
    before = outside.read_bytes()
    with pytest.raises(LifeError, match=rf"life/{name}: found a symbolic link"), opened(life).lock():
        pass
    assert outside.read_bytes() == before and (life.path / name).is_symlink()


def test_a_view_that_is_a_link_is_replaced_and_what_it_led_to_stays(life: LifeDirectory, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (life.path / "scores.json").symlink_to(tmp_path / "outside")
    storage.write_json(life.path / "scores.json", {})
    assert (life.path / "scores.json").read_text() == "{}\n" and (tmp_path / "outside").read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "tasks/../../x", "tasks/.."])
def test_a_name_that_leads_out_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(LifeError, match="expected one inside this directory"):
        inside(tmp_path, name)


# -- life.json ---------------------------------------------------------------------------------------------------------


def test_every_changed_byte_of_the_manifest_is_noticed(life: LifeDirectory) -> None:
    path = life.path / "life.json"
    life.manifest.model_copy(update={"versions": life.manifest.versions[:1]}).save(life.path)
    whole = path.read_bytes()
    assert Manifest.read(life.path) and len(whole) > 500
    damaged = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    damaged += [whole[:i] + b" " + whole[i + 1 :] for i in range(0, len(whole), 5) if whole[i : i + 1] != b" "]
    damaged += [whole[:i] + b"\t" + whole[i:] for i in range(0, len(whole), 5)]
    damaged += [whole[:i] for i in range(0, len(whole), 50)]
    damaged += [whole.replace(b"1e-05", b"1E-05"), whole.replace("ü".encode(), b"\\u00fc")]  # the same, said otherwise
    assert whole not in damaged
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(LifeError, match=r"life\.json") as raised:
            Manifest.read(life.path)
        assert "\n" not in str(raised.value)


def test_the_hash_is_that_of_the_file_without_it_and_the_same_in_every_run(life: LifeDirectory) -> None:
    path = life.path / "life.json"
    whole = path.read_bytes()
    rest = json.loads(whole)
    seal = rest.pop("sha256")
    storage.write_json(path, rest)
    assert storage.file_record(path)["sha256"] == seal
    life.manifest.save(life.path)
    assert path.read_bytes() == whole


def change(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets what stands at a place of a manifest; with None it is a key that gets another name."""

    def changed(manifest: dict[str, Any]) -> None:
        *way, last = place.split(" ")
        part: Any = manifest
        for key in way:
            part = part[int(key) if isinstance(part, list) else key]
        part[int(last) if isinstance(part, list) else last] = value

    return changed


FILE = {"size": 1, "sha256": "0" * 64}
FORGED = {
    "no version": change("versions", []),
    "version out": change("versions 1 name", "../../escaped"),
    "version absolute": change("versions 1 name", "/tmp/01-one"),
    "version without number": change("versions 1 name", "one"),
    "version with a newline": change("versions 1 name", "01-one\n"),
    "version that writes to the terminal": change("versions 1 name", "01-\x1b[2J"),
    "version of another": change("versions 1 name", "03-one"),
    "version twice": lambda manifest: manifest["versions"].append(manifest["versions"][2]),
    "task out": change("versions 1 tasks 0 name", "../../escaped"),
    "task twice": change("versions 1 tasks 0 name", "two"),
    "task with a colour": change("versions 1 tasks 0 name", "\x1b[31mone"),
    "task of no pairs": change("versions 1 tasks 0 train_pairs", -1),
    "task of half a pair": change("versions 1 tasks 0 train_pairs", 1.5),
    "data hash": change("versions 1 tasks 0 data_hash", "../x"),
    "check": change("versions 1 tasks 0 check", {"max_words": 0}),
    "check of another kind": change("versions 1 tasks 0 check", {"run": "rm"}),
    "file absolute": change("versions 1 files", {"/etc/hostname": FILE}),
    "file out": change("versions 1 files", {"tasks/01-one/../../../x": FILE}),
    "file here": change("versions 1 files", {"./tasks/01-one/x": FILE}),
    "file of Windows": change("versions 1 files", {"tasks/01-one\\..\\x": FILE}),
    "file on a drive": change("versions 1 files", {"C:/tasks/01-one/x": FILE}),
    "file at the top": change("versions 1 files", {"config.yaml": FILE}),
    "file in the cache": change("versions 1 files", {"cache/01-one/x": FILE}),
    "file of another version": change("versions 1 files", {"tasks/00-base/x": FILE}),
    "file with a newline": change("versions 1 files", {"tasks/01-one/x\n": FILE}),
    "file without end": change("versions 1 files", {"tasks/01-one/": FILE}),
    "hidden file": change("versions 1 files", {"tasks/01-one/.x": FILE}),
    "size below nothing": change("versions 1 files", {"tasks/01-one/x": FILE | {"size": -1}}),
    "size in words": change("versions 1 files", {"tasks/01-one/x": FILE | {"size": "1"}}),
    "size true": change("versions 1 files", {"tasks/01-one/x": FILE | {"size": True}}),
    "size of no disk": change("versions 1 files", {"tasks/01-one/x": FILE | {"size": 10**30}}),
    "hash": change("versions 1 files", {"tasks/01-one/x": FILE | {"sha256": "z" * 64}}),
    "hash with a newline": change("versions 1 files", {"tasks/01-one/x": FILE | {"sha256": "0" * 64 + "\n"}}),
    "base that clears the screen": change("base model_name_or_path", "\x1b[2J"),
    "setting that rings": change("config seed", "\x07"),
    "setting that rings, deep": change("config seed", [{"check": ["\x9b"]}]),
    "environment with colours": change("environment torch", "\x1b[31m2"),
    "a list": change("base", []),
    "a key more": change("base extra", 1),
    "versions of null": change("versions", None),
    "version of null": change("versions 1", None),
    "format true": change("format_version", True),
    "format 1.0": change("format_version", 1.0),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_manifest_is_refused_in_one_line_that_no_terminal_obeys(
    life: LifeDirectory, forge: Callable[[dict[str, Any]], None]
) -> None:
    manifest = json.loads((life.path / "life.json").read_bytes())
    forge(manifest)
    storage.write_sealed_json(life.path / "life.json", manifest)  # with a hash that fits
    with pytest.raises(LifeError, match=r"life/life\.json: ") as raised:
        Manifest.read(life.path)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 600


def test_a_manifest_that_could_not_be_read_again_is_not_written(life: LifeDirectory) -> None:
    before = content(life.path)
    base = life.manifest.base.model_copy(update={"model_name_or_path": "/models/a\nb"})
    with pytest.raises(LifeError, match=r"base\.model_name_or_path.*found '/models/a\\nb', with control characters"):
        life.manifest.model_copy(update={"base": base}).save(life.path)
    assert content(life.path) == before


def test_a_life_whose_manifest_is_gone_is_not_written_to(life: LifeDirectory) -> None:
    there = opened(life)
    (life.path / "life.json").unlink()
    before = content(life.path)
    with pytest.raises(LifeError, match=r"a directory without life\.json"), there.lock():
        pass
    assert content(life.path) == before


# -- not a file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["life.json", ".lock", "tasks/02-two/scores.json", "memory/02-two.safetensors"])
@pytest.mark.parametrize("kind", ["a pipe", "a directory"])
def test_what_is_no_file_is_refused_at_once(life: LifeDirectory, name: str, kind: str) -> None:
    path = life.path / name
    path.unlink()
    os.mkfifo(path) if kind == "a pipe" else path.mkdir()
    with pytest.raises(LifeError, match=rf"{name}: found {kind}, expected a regular file"):
        there = opened(life)
        there.verify(there.manifest.versions)
        with there.lock():
            pass


def test_a_pipe_in_place_of_what_goes_does_not_keep_rollback_waiting(life: LifeDirectory) -> None:
    for name in life.manifest.versions[2].files:
        (life.path / name).unlink()
        os.mkfifo(life.path / name)
    with life.lock():
        life.rollback("01-one")
    assert life.verify(life.manifest.versions) == 5 and not list(life.path.glob("*/02-two*"))


@pytest.mark.parametrize("value", [[], 3, "text", None])
def test_a_committed_file_that_holds_no_object_is_named(life: LifeDirectory, value: Any) -> None:
    files = {"tasks/02-two/time.json": value, "tasks/02-two/answers.jsonl": [{}, value]}
    with life.lock():
        life.extend("02-two", files)
    with pytest.raises(LifeError, match=r"tasks/02-two/time\.json: found .*, expected an object"):
        life.json("tasks/02-two/time.json")
    with pytest.raises(LifeError, match=r"tasks/02-two/answers\.jsonl:2: found .*, expected an object"):
        life.rows("tasks/02-two/answers.jsonl")


# -- failures around the commit ----------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, call: str, when: Callable[[Any], bool]) -> None:
    """A call of the system fails for some paths or descriptors."""
    real = getattr(owner, call)

    def sometimes(first: Any, *rest: Any, **options: Any) -> Any:
        if when(first):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(first, *rest, **options)

    monkeypatch.setattr(owner, call, sometimes)


def is_life(life: LifeDirectory) -> Callable[[int], bool]:
    """Whether a descriptor is that of the life's directory itself."""
    return lambda descriptor: os.path.samestat(os.fstat(descriptor), life.path.stat())


def test_leftovers_that_cannot_be_deleted_are_a_warning_and_tried_again(
    life: LifeDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch, life.lock():
        failing(patch, Path, "unlink", lambda path: path.name == "scores.json")
        life.rollback("01-one")
    assert [version.name for version in opened(life).manifest.versions] == ["00-base", "01-one"]
    (warning,) = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "tasks/02-two/scores.json: could not be deleted: Input/output error" in warning
    assert "what is committed is not affected" in warning
    assert sorted(path.name for path in life.path.glob("*/02-two*")) == ["02-two"]  # the others are gone
    with opened(life).lock():
        pass
    assert not list(life.path.glob("*/02-two*"))


def test_a_commit_whose_name_may_not_survive_a_power_loss_stands_and_says_so(
    life: LifeDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with life.lock(), monkeypatch.context() as patch:
        failing(patch, os, "fsync", is_life(life))
        life.commit("03-three", [record("three")], files_of("03-three", "three"))
    (warning,) = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "life.json: the new content is in place, but its folder could not be synced (Input/output err" in warning
    assert "unchanged" not in warning
    assert opened(life).manifest == life.manifest and life.manifest.versions[-1].name == "03-three"
    assert life.verify(life.manifest.versions) == 13


def test_nothing_that_a_power_loss_could_bring_back_is_deleted(
    life: LifeDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = content(life.path)
    old = (life.path / "life.json").read_bytes()
    with life.lock(), monkeypatch.context() as patch:
        failing(patch, os, "fsync", is_life(life))
        life.rollback("01-one")
    assert len(caplog.records) == 2 and content(life.path).keys() == before.keys()
    (life.path / "life.json").write_bytes(old)  # the power is lost, and the rename with it
    again = opened(life)
    assert again.verify(again.manifest.versions) == 9
    with again.lock():
        again.rollback("01-one")
    assert not list(life.path.glob("*/02-two*"))


def test_a_file_whose_name_may_not_survive_commits_nothing(
    life: LifeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (life.path / "life.json").read_bytes()
    with life.lock(), monkeypatch.context() as patch:
        failing(patch, os, "fsync", lambda one: os.path.samestat(os.fstat(one), (life.path / "replay").stat()))
        with pytest.raises(LifeError, match=r"replay/03-three\.jsonl: .* power loss; nothing was committed"):
            life.commit("03-three", [record("three")], files_of("03-three", "three"))
    assert (life.path / "life.json").read_bytes() == before
    with opened(life).lock():
        assert not list(life.path.glob("*/03-three*"))


def test_a_folder_that_may_not_be_looked_into_does_not_keep_the_rest_from_being_cleared(
    life: LifeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (life.path / "lost+found").mkdir()
    (life.path / "memory" / "x").write_text("half")
    real = os.scandir

    def guarded(path: Any) -> Any:
        if Path(path).name == "lost+found":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with life.lock():
        pass
    assert not (life.path / "memory" / "x").exists() and (life.path / "lost+found").is_dir()


def test_how_deep_folders_go_is_no_matter(tmp_path: Path) -> None:
    deep = str(tmp_path)
    for _ in range(1200):  # more than Python's stack
        deep += "/a"
        os.mkdir(deep)
    try:
        assert len(below(tmp_path)) == 1200
    finally:
        while deep != str(tmp_path):  # what clears the folders of tests goes down by recursion
            os.rmdir(deep)
            deep = os.path.dirname(deep)


def test_what_another_process_has_changed_between_two_holds_is_noticed(life: LifeDirectory) -> None:
    """Between holds of one process its own manifest is only hashed; it is read again whenever the hash is another."""
    for change in (
        lambda other: other.commit("03-three", [record("three")], files_of("03-three", "three")),
        lambda other: other.rollback("01-one"),
    ):
        with life.lock():
            pass
        other = LifeDirectory(life.path, Manifest.read(life.path))
        with other.lock():
            change(other)
        with pytest.raises(LifeError, match="another process has changed this life"), life.lock():
            pass
        life.manifest = other.manifest
    path = life.path / "life.json"
    manifest = path.read_bytes()
    with life.lock():
        pass
    path.write_bytes(manifest.replace(b'"sha256"', b'"sha257"', 1))
    with pytest.raises(LifeError), life.lock():
        pass
    path.unlink()
    (life.path / "copy.json").write_bytes(manifest)
    path.symlink_to("copy.json")
    with pytest.raises(LifeError, match="found a symbolic link"), life.lock():
        pass


def test_a_manifest_that_is_known_is_not_read_again(life: LifeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    with life.lock():
        life.commit("03-three", [record("three")], files_of("03-three", "three"))
    monkeypatch.setattr(Manifest, "read", lambda path: pytest.fail("read again"))
    with life.lock():
        pass
