"""Whatever change to the disk fails, a command ends in one line, nothing committed is lost, and run again it succeeds.

Every command is run once on a sound disk. Then it is run as often as it changed something, each time with another
change refused, and once more on the sound disk: it has to come to the same files as if nothing had happened.
`make test` tries a sample of the changes, `make faults` all of them with every error.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import small_config
from tests.faults import KILL, Ran, run
from tests.forks import import_everything
from tests.peft_adapters import trained
from tests.tiny import letter_task
from tests.writers import write_general_text, write_splits

from lifealign.cli import main as cli
from lifealign.life import adopt, workspace
from lifealign.life.disk.manifest import Manifest
from lifealign.life.life import Life
from lifealign.life.repair import damage_of
from lifealign.model import base_model
from lifealign.model.base_model import load_base
from lifealign.storage.files import file_record
from lifealign.storage.temporary import is_temporary
from lifealign.storage.user_cache import CACHE_VARIABLE

SETTINGS = """\
model: {model_name_or_path: tiny, dtype: float32}
method: er
lora: {lora_r: 4, lora_alpha: 8}
sft: {num_train_epochs: 1, learning_rate: 0.01, per_device_train_batch_size: 4, gradient_accumulation_steps: 1}
preference: {num_train_epochs: 1, learning_rate: 0.01, per_device_train_batch_size: 4, gradient_accumulation_steps: 1}
evaluation: {max_new_tokens: 4, metrics: [margin, perplexity], general_text: general-text.txt}
retention: {mode: off}
save_steps: 2
"""
ADAPT = ["--task", "one=one-train.jsonl,one-test.jsonl"]


def learn(task: str) -> list[str]:
    return ["learn", "bot", f"{task}-train.jsonl", "--name", task, "--test", f"{task}-test.jsonl"]


COMMANDS: dict[str, tuple[str, list[str]]] = {
    "init": ("empty", ["init", "bot", "--config", "settings.yaml"]),
    "learn": ("one", learn("two")),
    "evaluate": ("two", ["evaluate", "bot", "--metric", "bleu"]),
    "rollback": ("two", ["rollback", "bot", "--to", "01-one"]),
    "report": ("two", ["report", "bot", "--figures", "figures"]),
    "repair": ("damaged", ["repair", "bot", "--from", "copy"]),
    "export": ("two", ["export", "bot", "out"]),
    "forget": ("two", ["forget", "bot", "one", "--rebuild"]),
    "adopt": ("empty", ["adopt", "run", "bot", "--base", "tiny", "--config", "settings.yaml", *ADAPT]),
}
"""What is there before, and the command."""
ONCE = {"export", "forget"}
"""Commands that refuse to do again what they have done."""
TIMED = {"time.json", "life.json", "report.html"}
"""Files that say when or how long."""
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, "SIGKILL": KILL}


def lifealign(*arguments: str) -> int:
    """The command line in a process that is its own."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    os.environ[CACHE_VARIABLE] = str(Path("cache").absolute())
    sys.argv = ["lifealign", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    raise AssertionError


Beginnings = dict[str, Path]
Committed = list[dict[str, str]]


class Sound(NamedTuple):
    """What a command comes to on a sound disk: how often it changed something, all files, and what is committed."""

    changes: int
    files: dict[str, str]
    committed: Committed


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model is loaded and proven once, here, and everything is imported; each fork has a copy."""
    import_everything()
    folder = tmp_path_factory.mktemp("loaded")
    config = small_config(tiny_folder, folder)
    base = load_base(config.model)
    Life.create(folder / "life", config, base=base)
    with pytest.MonkeyPatch.context() as patch:
        for module in (base_model, workspace, adopt):
            patch.setattr(module, "load_base", lambda config: base.copied())
        yield


@pytest.fixture(scope="module")
def beginnings(loaded: None, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Beginnings:
    """Folders that commands begin in: without a life, with one of one step, of two, and with a damaged one."""
    top = tmp_path_factory.mktemp("beginnings")
    empty = top / "empty"
    empty.mkdir()
    write_general_text(empty)
    (empty / "tiny").symlink_to(tiny_folder)
    (empty / "settings.yaml").write_text(SETTINGS)
    trained(tiny_folder, empty / "run")
    for name, letters in (("one", "ab"), ("two", "cd")):
        write_splits(empty, letter_task(name, *letters))
    shutil.copytree(empty, top / "one", symlinks=True)
    done(run(top / "one", partial(lifealign, *COMMANDS["init"][1])))
    done(run(top / "one", partial(lifealign, *learn("one"))))
    shutil.copytree(top / "one", top / "two", symlinks=True)
    done(run(top / "two", partial(lifealign, *learn("two"))))
    shutil.copytree(top / "two", top / "damaged", symlinks=True)
    shutil.copytree(top / "two/bot", top / "damaged/copy")
    for file in ("memory/01-one.safetensors", "versions/02-two/adapter_model.safetensors"):
        (top / "damaged/bot" / file).write_bytes(b"")
    return {name: top / name for name in ("empty", "one", "two", "damaged")}


def done(ran: Ran) -> Ran:
    assert ran.code == 0, ran
    return ran


def files(folder: Path) -> dict[str, str]:
    """Everything that there is, by its hash if what is in it matters; locks and what the user's cache keeps aside."""
    return {
        path.relative_to(folder).as_posix(): "" if is_view(path) else file_record(path)["sha256"]
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith(".lock") and (is_temporary(path) or folder / "cache" not in (path, *path.parents))
    }


def is_view(path: Path) -> bool:
    """Whether it does not matter what is in a file: a folder, a cache, or something that says how long things took."""
    return path.is_dir() or path.name in TIMED or "cache" in path.parts


def committed(folder: Path) -> Committed:
    """What the manifest of a life names, version by version, by its hash; nothing if there is no life."""
    if not (folder / "bot/life.json").exists():
        return []
    return [
        {file: record.sha256 for file, record in version.files.items() if Path(file).name not in TIMED}
        for version in Manifest.read(folder / "bot").versions
    ]


@pytest.fixture(scope="module")
def place(beginnings: Beginnings, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``place("learn")``: what there is before the command, always in the same folder, so that paths are the same."""
    folder = tmp_path_factory.mktemp("place") / "here"

    def laid_out(name: str) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(beginnings[COMMANDS[name][0]], folder, symlinks=True)

    return laid_out


@pytest.fixture(scope="module")
def sound(place: Callable[[str], Path]) -> Callable[[str], Sound]:
    """``sound("learn")``: what comes of the command on a sound disk."""
    found: dict[str, Sound] = {}

    def of(name: str) -> Sound:
        if name not in found:
            folder = place(name)
            changes = done(run(folder, partial(lifealign, *COMMANDS[name][1]))).changes
            found[name] = Sound(changes, files(folder), committed(folder))
        return found[name]

    return of


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_refused_change_is_one_line_and_the_next_start_ends_as_if_nothing_had_happened(
    place: Callable[[str], Path], sound: Callable[[str], Sound], name: str, code: str
) -> None:
    command, whole = partial(lifealign, *COMMANDS[name][1]), sound(name)
    wrong = []
    for at in numbers(whole.changes, code):
        folder = place(name)
        before = committed(folder)
        ran = run(folder, command, at, ERRORS[code])
        faults = [*wrong_with(name, ERRORS[code], ran, folder, before, whole.committed)]
        again = run(folder, command)
        if again.code and not (name in ONCE and files(folder) == whole.files):
            faults.append(f"the next start ended with {again.code}: {again.err}")
        if strange := set(files(folder).items()) ^ set(whole.files.items()):
            faults.append(f"after the next start there are other files: {sorted(strange)}")
        wrong += [f"{at}, {ran.refused}: {fault}; {ran.code}: {ran.err}" for fault in faults]
    assert not wrong, "\n".join(wrong)


def numbers(changes: int, code: str) -> range:
    """The changes to refuse: together, the errors take every seventh; or each takes all of them."""
    if os.environ.get("FAULTS") == "all":
        return range(1, changes + 1)
    return range(1 + 7 * list(ERRORS).index(code), changes + 1, 28)


def wrong_with(name: str, code: int, ran: Ran, folder: Path, before: Committed, after: Committed) -> Iterator[str]:
    """What is wrong with how a command ended, and with what it has left."""
    lines = ran.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if code != KILL and not ran.refused:
        yield "nothing was refused"
    if "Traceback" in ran.err or "bug" in ran.err or ran.code not in ((-9,) if code == KILL else (0, 1, 2)):
        yield "it crashed"
    if code != KILL and (len(errors) != (ran.code != 0) or (errors and lines[-1] != errors[0])):
        yield "it did not end in one line"
    now = committed(folder)
    if ran.code == 0 and now != after:
        yield "it said that it was done, and it is not"
    if now not in (before, after, *between(name, before, after, now)):
        yield "what is committed is neither what was nor what comes"
    if now and name != "repair" and damage_of(Life.open(folder / "bot").directory).wrong:
        yield "what is committed is damaged"


def between(name: str, before: Committed, after: Committed, now: Committed) -> list[Committed]:
    """What may be committed on the way: before an adapter is adopted, the untrained one; scores file by file."""
    if name == "adopt":
        return [after[:1]]
    if name != "evaluate":
        return []
    grown = [one.items() <= two.items() <= three.items() for one, two, three in zip(before, now, after, strict=True)]
    return [now] if all(grown) else []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``disk(2**20)``: a disk of so many bytes of its own, or the same one with another size."""
    place = tmp_path / "disk"

    def of_size(size: int) -> Path:
        again = "remount," if place.exists() else ""
        place.mkdir(exist_ok=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", place], capture_output=True
        )
        if made.returncode:
            pytest.skip(f"a disk cannot be mounted here: {made.stderr.decode().strip()}")
        return place

    try:
        yield of_size
    finally:
        if place.is_mount():
            subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount(8)")
@pytest.mark.parametrize("room", [0.2, 0.6, 0.9])
def test_a_disk_that_fills_up_while_learning_costs_nothing_that_was_learnt(
    beginnings: Beginnings, disk: Callable[[int], Path], room: float
) -> None:
    """A real one, which refuses whoever writes; with more room, the same command learns what it would have learnt."""
    top = disk(2**26)
    folder = shutil.copytree(beginnings["one"], top / "here", symlinks=True)
    before, began = committed(folder), shutil.disk_usage(top).used
    done(run(folder, partial(lifealign, *learn("two"))))
    whole, needed = committed(folder), shutil.disk_usage(top).used - began
    shutil.rmtree(folder)
    shutil.copytree(beginnings["one"], folder, symlinks=True)
    disk(began + int(room * needed))
    full = run(folder, partial(lifealign, *learn("two")))
    assert full.code in (1, 2) and "No space left on device" in full.err.splitlines()[-1], full
    assert committed(folder) == before and not damage_of(Life.open(folder / "bot").directory).wrong
    disk(2**26)
    done(run(folder, partial(lifealign, *learn("two"))))
    assert committed(folder) == whole and not [path for path in folder.rglob("*") if is_temporary(path)]
