"""Forgetting on purpose: byte for byte the life that never learnt the task, whatever interrupts it."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeLife, NoTraining
from tests.life.test_learn import everything
from tests.tiny import letter_task
from tests.writers import write_splits

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError, Refused
from lifealign.life import forget, learn
from lifealign.life import gate as gates
from lifealign.life.decisions import decisions_of
from lifealign.life.disk import names
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.disk.learnt import read_taught
from lifealign.life.learn import run_stream
from lifealign.life.life import Life

ONE, TWO, THREE = letter_task("one", "a", "b"), letter_task("two", "c", "d"), letter_task("three", "e", "f")
KEEP = {"keep_training_pairs": True}


def same(life: Life, other: Life) -> bool:
    """Whether two lives have every byte in common, but for times, caches and views that say when they were written."""
    ours, theirs = (
        {name: content for name, content in everything(one.directory.path).items() if not name.startswith(names.CACHE)}
        for one in (life, other)
    )
    assert ours.keys() == theirs.keys()
    return all(ours[name] == theirs[name] for name in ours)


@pytest.mark.parametrize(
    ("method", "forgotten"), [("lifealign", 0), ("lifealign", 1), ("lifealign", 2), ("er", 1), ("ewc", 1)]
)
def test_the_life_is_the_one_that_never_learnt_it(make_life: MakeLife, method: str, forgotten: int) -> None:
    tasks = [ONE, replace(TWO, check=AnswerCheck(max_words=3)), THREE]
    life, never = make_life(method=method, **KEEP), make_life(method=method, **KEEP)
    run_stream(life.workspace, tasks)
    gone = tasks.pop(forgotten)
    versions = life.forget(gone.name)
    run_stream(never.workspace, tasks)
    assert [version.name for version in versions] == [version.name for version in never.versions]
    assert same(life, never)
    assert same(Life.open(life.directory.path), never)
    assert life.workspace.memory.remembered == 2
    life.learn(gone)  # and it can be learnt again
    never.learn(gone)
    assert same(life, never)


def test_with_a_gate_too(make_life: MakeLife) -> None:
    """The decisions about the forgotten task and after it are gone with it."""
    gate = {"mode": "warn", "set_aside": 0.25}
    life, never = make_life(retention=gate, **KEEP), make_life(retention=gate, **KEEP)
    tasks = [
        letter_task(name, good, bad, train=16)
        for name, good, bad in (("a", "a", "b"), ("b", "c", "d"), ("c", "e", "f"))
    ]
    run_stream(life.workspace, tasks)
    assert len(decisions_of(life.directory)) == 2
    life.forget("b")
    run_stream(never.workspace, [tasks[0], tasks[2]])
    assert same(life, never)
    assert len(decisions_of(life.directory)) == 1


def test_nothing_of_the_task_is_left(make_life: MakeLife) -> None:
    """Neither its name nor its texts, in any file of the life."""
    secret = Task("secret", tuple(replace(pair, chosen="xyzzy") for pair in TWO.train), TWO.test)
    life = make_life(**KEEP)
    run_stream(life.workspace, [ONE, secret, replace(THREE, supersedes=("secret",))])
    (life.directory.path / names.PAGE).write_text("secret xyzzy")
    (life.directory.path / names.RETENTION).mkdir(exist_ok=True)
    (life.directory.path / names.refusal("03-x")).write_text("secret xyzzy")
    life.forget("secret")
    assert [task.supersedes for version in life.steps for task in version.tasks] == [[], []]
    for path in life.directory.path.rglob("*"):
        assert "secret" not in path.name
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            assert b"secret" not in content and b"xyzzy" not in content, path
    for folder in (names.REBUILDING, names.CACHE):
        assert not [path for path in (life.directory.path / folder).rglob("*") if path.is_file()]


def test_what_a_task_was_taught_with_is_kept_as_it_was_given(make_life: MakeLife) -> None:
    life = make_life(retention={"mode": "warn", "set_aside": 0.25}, **KEEP)
    task = replace(ONE, gate=TWO.train, max_loss=0.3, check=AnswerCheck(max_words=3))
    life.learn(task)
    (kept,) = read_taught(life.directory, life.steps[0])
    assert kept == replace(task, max_loss=None)  # which is in the gate's evidence
    assert [pair.source for pair in kept.train] == [pair.source for pair in task.train]


@pytest.mark.parametrize("moment", ["before anything", "between two steps", "before the change", "after the change"])
def test_whatever_interrupts_it_the_life_is_whole_and_the_same_call_ends_it(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    four = letter_task("four", "g", "h")
    life, never = make_life(**KEEP), make_life(**KEEP)
    run_stream(life.workspace, [ONE, TWO, THREE, four])
    run_stream(never.workspace, [ONE, THREE, four])
    before = everything(life.directory.path)

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    learnt: list[str] = []
    learn_step = learn.learn_step

    def once(work: Any, step: Any, *rest: Any, **more: Any) -> Any:
        if moment == "between two steps" and learnt:
            raise KeyboardInterrupt
        learnt.append(step.name)
        return learn_step(work, step, *rest, **more)

    with monkeypatch.context() as patch:
        if moment == "before anything":
            patch.setattr(forget, "_begun", interrupted)
        elif moment == "before the change":
            patch.setattr("lifealign.life.disk.directory.LifeDirectory.replace", interrupted)
        elif moment == "after the change":
            patch.setattr(forget, "finish_forgetting", interrupted)
        patch.setattr(forget, "learn_step", once)
        with pytest.raises(KeyboardInterrupt):
            life.forget("two")
    again = Life.open(life.directory.path)
    if moment == "after the change":
        assert [version.name for version in again.versions] == [version.name for version in never.versions]
        again.directory.verify(again.versions)
        with again.workspace.writing():  # whatever comes next deletes what still quotes the task
            pass
        assert same(again, never) and not again.directory.inside(names.REBUILDING).exists()
        return
    committed = {name for version in again.versions for name in version.files}
    now = everything(life.directory.path)
    assert all(now[name] == before[name] for name in committed if "time.json" not in name)
    seen: list[str] = []

    def counted(work: Any, step: Any, *rest: Any, **more: Any) -> Any:
        seen.append(step.name)
        return learn_step(work, step, *rest, **more)

    monkeypatch.setattr(forget, "learn_step", counted)
    again.forget("two")
    assert same(again, never)
    expected = {"between two steps": ["03-four"], "before the change": []}.get(moment, ["02-three", "03-four"])
    assert seen == expected  # what was learnt before the interruption is not learnt again


def test_another_task_than_the_one_that_was_interrupted_starts_anew(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    life, never = make_life(**KEEP), make_life(**KEEP)
    run_stream(life.workspace, [ONE, TWO, THREE])
    with monkeypatch.context() as patch:
        patch.setattr(
            "lifealign.life.disk.directory.LifeDirectory.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            life.forget("two")
    again = Life.open(life.directory.path)
    again.forget("one")
    run_stream(never.workspace, [TWO, THREE])
    assert same(again, never)


def test_without_kept_pairs_the_files_are_named_by_their_hash(
    make_life: MakeLife, train_nothing: NoTraining, tmp_path: Path
) -> None:
    life, never = make_life(), make_life()
    run_stream(life.workspace, [ONE, TWO, THREE])
    before = everything(life.directory.path)
    with train_nothing(), pytest.raises(LifeError, match=rf"three \(8 pairs, data hash {THREE.data_hash}\)"):
        life.forget("two")
    other = replace(THREE, train=THREE.train[1:])
    with train_nothing(), pytest.raises(LifeError, match="found other pairs for three"):
        life.forget("two", given=[other])
    assert {name: before[name] for name in before if "cache" not in name}.items() <= everything(
        life.directory.path
    ).items()
    life.forget("two", given=[Task.from_files("three", *write_splits(tmp_path, THREE))])
    run_stream(never.workspace, [ONE, THREE])
    with_sources = {name for name in everything(life.directory.path) if "replay" in name or "test.jsonl" in name}
    ours, theirs = everything(life.directory.path), everything(never.directory.path)
    assert all(
        ours[name] == theirs[name]
        for name in ours
        if name.startswith(("versions", "memory")) and name not in with_sources
    )


@pytest.mark.parametrize("kept", [True, False])
def test_the_loss_that_is_allowed_of_a_task_is_not_forgotten(make_life: MakeLife, kept: bool) -> None:
    life = make_life(retention={"mode": "warn", "set_aside": 0.25}, keep_training_pairs=kept)
    run_stream(life.workspace, [ONE, TWO, replace(THREE, max_loss=0.37)])
    life.forget("two", given=() if kept else [THREE])
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.held["three"].max_loss == 0.37


@pytest.mark.parametrize(
    ("name", "found"), [("tow", "expected a task that was learnt: one, two; did you mean two"), ("", "''")]
)
def test_a_task_that_was_not_learnt_cannot_be_forgotten(make_life: MakeLife, name: str, found: str) -> None:
    life = make_life(**KEEP)
    run_stream(life.workspace, [ONE, TWO])
    with pytest.raises(ConfigError, match=found):
        life.forget(name)


def test_a_gate_that_refuses_a_later_task_leaves_the_life_as_it_was(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce = {"mode": "enforce", "max_loss": 0.95, "set_aside": 0.5, "scales": [1.0]}
    life = make_life(retention=enforce, **KEEP)
    run_stream(life.workspace, [ONE, TWO, THREE])
    names_before = [version.name for version in life.versions]
    loss = gates.loss_since
    monkeypatch.setattr(
        gates, "loss_since", lambda one, seen, alpha: loss(one, seen, alpha).model_copy(update={"bound": 1.0})
    )
    with pytest.raises(Refused):
        life.forget("two")
    again = Life.open(life.directory.path)
    assert [version.name for version in again.versions] == names_before
    again.forget("two", force=True)
    assert [version.name for version in again.versions] == ["00-base", "01-one", "02-three"]


def test_tasks_learnt_together_are_learnt_again_without_it(make_life: MakeLife) -> None:
    life, never = make_life(method="mtl", **KEEP), make_life(method="mtl", **KEEP)
    run_stream(life.workspace, [ONE, TWO, THREE])
    life.forget("two")
    run_stream(never.workspace, [ONE, THREE])
    assert same(life, never)


def test_a_packed_file_that_is_damaged_is_one_clear_error(make_life: MakeLife, tmp_path: Path) -> None:
    from lifealign.storage.files import read_packed_rows, write_packed_rows

    path = tmp_path / "rows.jsonl.gz"
    write_packed_rows(path, [{"a": 1}, {"b": "é"}])
    assert read_packed_rows(path) == [{"a": 1}, {"b": "é"}]
    first = path.read_bytes()
    write_packed_rows(path, [{"a": 1}, {"b": "é"}])
    assert path.read_bytes() == first  # no time in it
    for content in (b"plain", first[:-9], first[:12] + b"\xff" * 8 + first[20:]):
        path.write_bytes(content)
        with pytest.raises(LifeError, match="found no whole gzip file"):
            read_packed_rows(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    from lifealign.cli.main import main

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["lifealign", *arguments])
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_the_command_line_forgets(make_life: MakeLife, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    life = make_life()
    run_stream(life.workspace, [ONE, TWO, THREE])
    path = str(life.directory.path)
    code, out, err = run(capsys, "forget", path, "two")
    assert (code, out) == (2, "") and "forget needs --rebuild" in err
    code, out, err = run(capsys, "forget", path, "two", "--rebuild")
    assert (code, out) == (2, "") and "--data NAME=TRAIN[,TEST[,GATE]]" in err
    for text, message in (("three", "expected NAME=TRAIN"), ("x=a.jsonl", "expected a task that was learnt: one, two")):
        code, _, err = run(capsys, "forget", path, "two", "--rebuild", "--data", text)
        assert code == 2 and message in err
    train, test = write_splits(tmp_path, THREE)
    code, out, _ = run(capsys, "forget", path, "two", "--rebuild", "--data", f"three={train},{test}")
    assert code == 0 and f"{path}: two forgotten; 00-base, 01-one, 02-three" in out
