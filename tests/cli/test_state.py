"""``lifealign status``, ``verify`` and ``repair``: every wrong file is named, and there is a way back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Command
from tests.conftest import Lived
from tests.tiny import letter_task

from lifealign.cli import state
from lifealign.errors import LifeError
from lifealign.life.life import Life
from lifealign.life.reading import LOOKS, look_at

ONE, TWO = letter_task("one", "a", "b"), letter_task("two", "c", "d")
FIRST, SECOND = "memory/01-one.safetensors", "versions/02-two/adapter_model.safetensors"


@pytest.fixture
def bot(lived: Lived, lifealign: Command) -> Path:
    """A life with two steps, and a copy of it."""
    for name in ("bot", "copy"):
        shutil.copytree(lived([ONE, TWO], method="er").directory.path, name)
    return Path("bot")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def test_a_whole_life_is_said_to_be_one_and_nothing_is_done(bot: Path, lifealign: Command) -> None:
    before = everything(bot)
    files = sum(len(version.files) for version in Life.open(bot).versions)
    shown = lifealign("verify", "bot")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == f"bot: {files} files of 3 versions, all as committed, up to 02-two\n"
    assert lifealign("repair", "bot").out == f"bot: {files} files, all as committed; nothing to do\n"
    assert everything(bot) == before


def test_every_wrong_file_is_named_and_repair_goes_back_to_what_is_whole(bot: Path, lifealign: Command) -> None:
    flip(bot / SECOND)
    (bot / "tasks/02-two/answers.jsonl").unlink(missing_ok=True)
    (bot / "tasks/02-two/training.json").unlink()
    before = everything(bot)
    shown = lifealign("verify", "bot")
    assert shown.code == 2 and everything(bot) == before
    assert shown.out.startswith("02-two:\n") and f"bot/{SECOND}: found" in shown.out
    assert "bot/tasks/02-two/training.json: could not be read" in shown.out
    assert "the last version that is whole is 01-one" in shown.err and "`lifealign repair bot` goes back" in shown.err
    mended = lifealign("repair", "bot")
    assert (mended.code, mended.out) == (0, "bot: back at 01-one, which is whole; forgot 02-two\n")
    assert lifealign("verify", "bot").code == 0
    assert [version.name for version in Life.open(bot).versions] == ["00-base", "01-one"]


def test_files_are_taken_from_a_copy_where_they_are_what_was_committed(bot: Path, lifealign: Command) -> None:
    whole = everything(bot)
    flip(bot / FIRST)
    flip(bot / SECOND)
    mended = lifealign("repair", "bot", "--from", "copy")
    assert mended.code == 0 and f"  {FIRST}: taken from copy\n  {SECOND}: taken from copy\n" in mended.out
    assert everything(bot) == whole


def test_a_copy_that_is_damaged_too_takes_nothing_away(bot: Path, lifealign: Command) -> None:
    """What fits is taken, the rest is named, and nothing is rolled back unasked."""
    for folder in (bot, Path("copy")):
        flip(folder / FIRST)
    flip(bot / SECOND)
    mended = lifealign("repair", "bot", "--from", "copy")
    assert mended.code == 2 and mended.out == f"  {SECOND}: taken from copy\n"
    assert f"found nothing that fits in copy for {FIRST}; the last version that is whole is 00-base" in mended.err
    assert len(Life.open(bot).versions) == 3
    assert lifealign("repair", "bot", "--from", "nowhere").code == 2
    assert lifealign("repair", "bot").out == "bot: back at 00-base, which is whole; forgot 01-one, 02-two\n"


def test_where_not_even_the_beginning_is_whole_only_a_copy_helps(bot: Path, lifealign: Command) -> None:
    flip(bot / "versions/00-base/adapter_model.safetensors")
    refused = lifealign("repair", "bot")
    assert refused.code == 2 and "no version is whole; `lifealign repair bot --from COPY`" in refused.err
    assert lifealign("repair", "bot", "--from", "copy").code == 0 and lifealign("verify", "bot").code == 0


def test_a_manifest_that_was_altered_is_named(bot: Path, lifealign: Command) -> None:
    manifest = bot / "life.json"
    manifest.write_text(manifest.read_text().replace('"02-two"', '"02-too"', 1))
    for verb in ("verify", "repair"):
        refused = lifealign(verb, "bot")
        assert refused.code == 2 and refused.err.startswith("error: bot/life.json: found"), refused


def test_a_link_in_place_of_a_file_is_not_followed(bot: Path, lifealign: Command) -> None:
    (bot / SECOND).unlink()
    (bot / SECOND).symlink_to(Path("copy").resolve() / SECOND)
    assert lifealign("verify", "bot").code == 2
    assert lifealign("repair", "bot", "--from", "copy").code in (0, 2)
    assert (Path("copy") / SECOND).exists() and not (Path("copy") / SECOND).is_symlink()


def test_a_life_that_changes_while_it_is_looked_at_is_looked_at_again(
    bot: Path, lifealign: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the manifest and a file that it names, another process rolls back; nothing is printed twice."""
    real, looks = state.show_life, []

    def changed(life: Life) -> None:
        looks.append(life)
        if len(looks) == 1:
            Life.open(bot).rollback("01-one")
        real(life)

    monkeypatch.setattr(state, "show_life", changed)
    shown = lifealign("status", "bot")
    assert (shown.code, shown.err, len(looks)) == (0, "", 2), shown
    assert shown.out.count("learnt on") == 1 and "02-two" not in shown.out and "1 version learnt" in shown.out


def test_damage_is_an_error_at_once_and_a_life_that_never_rests_in_the_end(
    bot: Path, lifealign: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Life] = []

    def restless(life: Life) -> None:
        looks.append(life)
        other = Life.open(bot).directory
        with other.lock():
            other.extend("01-one", {"tasks/01-one/evaluation/other.json": {"look": len(looks)}})
        raise LifeError("gone")

    with pytest.raises(LifeError, match="gone"):
        look_at(bot, restless)
    assert len(looks) == LOOKS
    flip(bot / SECOND)
    looks.clear()
    with pytest.raises(LifeError, match=SECOND):
        look_at(bot, lambda life: (looks.append(life), life.directory.verify(life.versions)))
    assert len(looks) == 1
    refused = lifealign("status", "bot")
    assert refused.code == 2 and refused.out == "" and SECOND in refused.err


def test_the_report_of_a_life_is_made_again_if_the_life_changes(bot: Path, lifealign: Command) -> None:
    def rolled_back(life: Life) -> list[str]:
        if len(life.steps) == 2:
            Life.open(bot).rollback("01-one")
        return [task.name for step in life.steps for task in step.tasks if life.directory.verify([step])]

    assert look_at(bot, rolled_back) == ["one"]
    assert lifealign("report", "bot").code == 0
