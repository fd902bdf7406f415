"""A step that was interrupted while it trained goes on from its checkpoint, and ends in the very same life."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import MakeLife, small_config
from tests.tiny import letter_task

from lifealign.errors import LifeError, TrainingError
from lifealign.life import progress
from lifealign.life.disk import names, progress_files
from lifealign.life.disk.progress_files import interrupted, read_checkpoint
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.report.printing import Terminal
from lifealign.report.progress import Progress as Bar
from lifealign.training import stage as training_stage
from lifealign.training.moments import MethodState
from lifealign.training.stage_state import StageState

ONE, TWO = letter_task("one", "a", "b", train=10), letter_task("two", "c", "d", train=10)
STAGE = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
METHODS: dict[str, dict[str, Any]] = {
    "seqft": {},
    "er": {"lora": {"lora_dropout": 0.3}},
    "stl": {},
    "ewc": {},
    "gem": {},
    "agem": {},
    "olora": {},
    "l2p": {},
    "cppo": {},
    "lifealign": {"preference": STAGE | {"skip_mastered": 0.9}},
    "stages": {"method": {"name": "lifealign", "consolidate_at": "stage"}},
    "preference": {"method": {"name": "lifealign", "consolidate_at": "preference"}},
    "start": {"method": "er", "preference": STAGE | {"reference": "stage_start"}},
    "cumulative": {"method": {"name": "cumulative", "own_answers": 2, "rehearsed_prompts": 8}},
}
"""What is learnt by each method, and by the settings that make a stage depend on more than its own parameters."""


class Dies:
    """Ends the process, or raises, once so many optimizer steps were taken in it."""

    def __init__(self, after: int, how: Callable[[], None]) -> None:
        self.left, self.how = after, how

    def begin(self, title: str) -> None: ...
    def say(self, text: str) -> None: ...
    def scored(self, values: Mapping[str, Mapping[str, float]]) -> None: ...

    def update(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        self.left -= 1
        if self.left == 0:
            self.how()


class Death(BaseException):
    """What a test dies of where it must not take the tests with it."""


def die() -> None:
    raise Death


@pytest.fixture
def make(make_life: MakeLife, tmp_path: Path) -> Callable[..., Life]:
    """``make("gem", "name")``: a life that knows ONE and keeps the state of training after every second step."""

    begun_with: dict[str, Path] = {}

    def begun(what: str, name: str, **more: Any) -> Life:
        sections: dict[str, Any] = {"method": what, "sft": STAGE, "preference": STAGE, "save_steps": 2}
        sections |= METHODS[what] | more
        if repr(sections) not in begun_with:
            life = make_life(f"begun-{len(begun_with)}", **sections)
            life.learn(ONE)
            begun_with[repr(sections)] = life.directory.path
        return Life.open(shutil.copytree(begun_with[repr(sections)], tmp_path / name))

    return begun


def learn(path: Path, listener: Any = None) -> Life:
    """TWO, as another process would learn it."""
    life = Life.open(path)
    life.learn(TWO, listener)
    return life


def die_after(path: Path, *deaths: int) -> None:
    """Learns TWO and dies, again and again, each time after so many optimizer steps."""
    for after in deaths:
        with pytest.raises(Death):
            learn(path, Dies(after, die))


def committed(life: Life) -> dict[str, str]:
    """Every committed file by its hash, without how long things took."""
    return {
        file: record.sha256
        for version in life.versions
        for file, record in version.files.items()
        if not file.endswith("time.json")
    }


@pytest.mark.parametrize("what", METHODS)
def test_wherever_training_dies_the_life_becomes_the_one_that_was_never_interrupted(
    make: Callable[..., Life], what: str
) -> None:
    """In the first stage, in the last one, after the last step, and again while it goes on."""
    whole = make(what, "whole")
    count = Dies(-1, die)
    whole.learn(TWO, count)
    expected, steps = committed(whole), -1 - count.left
    assert steps >= 8
    for number, deaths in enumerate([(3,), (steps // 2 + 1, 2, steps // 2 - 2), (steps,)]):
        life = make(what, f"broken-{number}")
        die_after(life.directory.path, *deaths)
        assert interrupted(life.directory) is not None
        again = learn(life.directory.path)
        assert committed(again) == expected, deaths
        assert not (life.directory.path / names.LEARNING).exists()


def test_processes_killed_at_any_step_leave_the_same_life(make: Callable[..., Life]) -> None:
    """SIGKILL, which nothing can catch, in a process of its own; each life is killed twice. `make soak` has more."""
    expected = make("lifealign", "whole")
    expected.learn(TWO)
    drawn = random.Random(7)
    for number in range(int(os.environ.get("KILLED_LIVES", "10"))):
        path = make("lifealign", f"killed-{number}").directory.path
        for after in (drawn.randint(1, 6), drawn.randint(1, 7)):
            child = os.fork()
            if child == 0:
                try:
                    learn(path, Dies(after, lambda: os.kill(os.getpid(), signal.SIGKILL)))
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert committed(learn(path)) == committed(expected)


@contextmanager
def patched(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> Iterator[None]:
    """Changes every checkpoint that is read."""
    with monkeypatch.context() as patch:
        patch.setattr(progress, "read_checkpoint", lambda directory: change(read_checkpoint(directory)))
        yield


def without(*starts: str) -> Callable[[Any], Any]:
    """A checkpoint whose stage lacks some tensors, each of them zero, or the generator's as it was in the beginning."""

    def change(found: Any) -> Any:
        if found is None:
            return None
        torch.manual_seed(0)
        tensors = {
            name: (torch.get_rng_state() if name.startswith("random") else torch.zeros_like(tensor))
            if name.startswith(starts)
            else tensor
            for name, tensor in found.within.tensors.items()
        }
        return replace(found, within=replace(found.within, tensors=tensors))

    return change


def within(**parts: Any) -> Callable[[Any], Any]:
    return lambda found: None if found is None else replace(found, within=replace(found.within, **parts))


def zeros(part: str) -> Callable[[Any], Any]:
    def change(found: Any) -> Any:
        if found is None:
            return None
        return replace(found, **{part: {name: torch.zeros_like(one) for name, one in getattr(found, part).items()}})

    return change


PIECES: dict[str, tuple[str, int, Callable[[Any], Any]]] = {
    "the parameters": ("seqft", 3, without("parameter/")),
    "AdamW's first moments": ("seqft", 3, without("exp_avg/")),
    "AdamW's second moments": ("seqft", 3, without("exp_avg_sq/")),
    "AdamW's count of steps": ("seqft", 3, without("step/")),
    "the generator of dropout": ("er", 3, without("random/")),
    "the log, which is the place in the plan": ("seqft", 5, within(log=())),
    "what was seen of mastered pairs": ("lifealign", 11, within(looks={})),
    "GEM's draws": ("gem", 5, within(method=MethodState())),
    "A-GEM's draws": ("agem", 5, within(method=MethodState())),
    "CPPO's window": ("cppo", 12, within(method=MethodState(values={"window": [], "classes": {}}))),
    "the adapter at the segment's start": ("stages", 9, zeros("before")),
    "the adapter at the stage's start": ("start", 9, zeros("start")),
    "the number of rehearsals": (
        "cumulative",
        19,
        lambda found: (
            found and replace(found, began=MethodState(values={"rehearsals": 7, "own_answers_rehearsed": None}))
        ),
    ),
    "logs of finished stages": ("seqft", 9, lambda found: found and replace(found, logs={})),
    "results of finished segments": ("stages", 9, lambda found: found and replace(found, consolidated={})),
}


@pytest.mark.parametrize("piece", PIECES)
def test_no_piece_of_the_state_can_be_missing(
    make: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, piece: str
) -> None:
    """With any one of them lost, the life is another one, or learning fails: the test above would see it."""
    what, after, change = PIECES[piece]
    whole = make(what, "whole")
    whole.learn(TWO)
    path = make(what, "broken").directory.path
    die_after(path, after)
    with patched(monkeypatch, change):
        try:
            found = committed(learn(path))
        except (LifeError, TrainingError, KeyError, ValueError, AttributeError):
            return
    assert found != committed(whole)


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """As in a program that a person has started; in the background, a shell has Ctrl-C ignored."""
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_training_after_the_step_under_way_and_nothing_is_lost(
    make: Callable[..., Life], number: signal.Signals, error: type[BaseException]
) -> None:
    whole = make("er", "whole", save_steps=None)
    whole.learn(TWO)
    life = make("er", "asked", save_steps=None)  # kept on a signal only
    with pytest.raises(error) as ended:
        learn(life.directory.path, Dies(3, lambda: os.kill(os.getpid(), number)))
    if error is SystemExit:
        assert ended.value.code == 143  # type: ignore[attr-defined]
    assert interrupted(life.directory) == ("02-two", 3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert committed(learn(life.directory.path)) == committed(whole)


def test_handlers_of_a_program_stay(make: Callable[..., Life], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        make("er", "own").learn(TWO, Dies(2, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_what_was_kept_is_of_no_use_for_other_data_settings_or_versions(
    make: Callable[..., Life], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = make("er", "other").directory.path
    die_after(path, 5)
    other = replace(TWO, train=TWO.train[:9])
    Life.open(path).learn(other, Bar(Terminal(width=200)))
    said = capsys.readouterr().out
    assert "what an interrupted run had learnt is of other data or settings" in said and "goes on after" not in said
    whole = make("er", "never")
    whole.learn(other)
    assert committed(Life.open(path)) == committed(whole)


def test_it_says_how_far_it_was_and_whether_numbers_round_otherwise_here(
    make: Callable[..., Life], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, moved, more in (("same", False, ""), ("moved", True, "; numbers round otherwise here")):
        path = make("er", name).directory.path
        die_after(path, 5)
        with monkeypatch.context() as patch:
            if moved:
                patch.setattr(progress, "_machine", lambda work: "elsewhere")
            learn(path, Bar(Terminal(width=200)))
        said = capsys.readouterr().out
        assert f"goes on after 4 optimizer steps of an interrupted run{more}" in said.replace("\n", " ")


def test_a_damaged_checkpoint_is_as_good_as_none(make: Callable[..., Life], caplog: pytest.LogCaptureFixture) -> None:
    whole = make("er", "whole")
    whole.learn(TWO)
    for number, damage in enumerate(("state", "tensors", "missing", "form")):
        path = make("er", f"damaged-{number}").directory.path
        die_after(path, 5)
        state = path / names.LEARNING / progress_files.STATE
        (tensors,) = (path / names.LEARNING).glob("*.safetensors")
        file = state if damage in ("state", "form") else tensors
        if damage == "missing":
            tensors.unlink()
        elif damage == "form":
            state.write_text("[]")
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        caplog.clear()
        assert committed(learn(path)) == committed(whole)
        assert "what an interrupted run had learnt is learnt again" in caplog.text


def test_a_checkpoint_that_cannot_be_written_ends_no_training(
    make: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise LifeError("no space left on device")

    whole = make("er", "whole")
    whole.learn(TWO)
    life = make("er", "full")
    monkeypatch.setattr(progress, "write_checkpoint", full)
    life.learn(TWO)
    assert "no space left on device; training goes on" in caplog.text and committed(life) == committed(whole)


def test_whatever_dies_while_a_checkpoint_is_written_the_one_before_it_is_there(
    make: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the tensors, before the file that names them: the earlier one is gone on from."""
    whole = make("er", "whole")
    whole.learn(TWO)
    path = make("er", "between").directory.path
    real, written = progress_files.write_sealed_json, []

    def dies(*given: Any) -> None:
        written.append(given)
        if len(written) == 2:
            raise Death
        real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(progress_files, "write_sealed_json", dies)
        with pytest.raises(Death):
            learn(path)
    assert interrupted(Life.open(path).directory) == ("02-two", 2)
    assert len([*(path / names.LEARNING).glob("*.safetensors")]) == 2
    assert committed(learn(path)) == committed(whole)


def test_nothing_is_kept_of_a_step_shorter_than_save_steps_and_nothing_stays_of_any(
    make: Callable[..., Life], tiny_folder: Path, tmp_path: Path
) -> None:
    life = make("er", "short", save_steps=50)
    with pytest.raises(Death):
        learn(life.directory.path, Dies(6, die))
    assert not (life.directory.path / names.LEARNING).exists()
    assert small_config(tiny_folder, tmp_path).save_steps == 50


def test_a_rolled_back_or_forgotten_life_has_nothing_to_go_on_from(make: Callable[..., Life]) -> None:
    life = make("er", "back", keep_training_pairs=True)
    die_after(life.directory.path, 5)
    again = Life.open(life.directory.path)
    again.rollback("00-base")
    assert not (again.directory.path / names.LEARNING).exists() and interrupted(again.directory) is None
    other = make("er", "forgotten", keep_training_pairs=True)
    die_after(other.directory.path, 5)
    Life.open(other.directory.path).forget("one")
    assert not (other.directory.path / names.LEARNING).exists()


def test_a_stream_goes_on_within_its_step(make_life: MakeLife) -> None:
    sections: dict[str, Any] = {"method": "mtl", "sft": STAGE, "preference": STAGE, "save_steps": 1}
    whole, broken = make_life("whole", **sections), make_life("broken", **sections)
    run_stream(whole.workspace, [ONE, TWO])
    with pytest.raises(Death):
        run_stream(broken.workspace, [ONE, TWO], Dies(7, die))
    again = Life.open(broken.directory.path)
    run_stream(again.workspace, [ONE, TWO])
    assert committed(again) == committed(whole)


def test_the_state_of_a_stage_is_a_copy(make: Callable[..., Life], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept at one step is not what the next step makes of it."""
    kept: list[StageState] = []
    real = progress.Progress.keep
    monkeypatch.setattr(progress.Progress, "keep", lambda self, state: (kept.append(state()), real(self, state))[1])
    make("cppo", "copied").learn(TWO)
    assert training_stage.LogRow is not None
    first, second = kept[10], kept[11]
    assert len(first.log) + 1 == len(second.log)
    assert any(not torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert first.method.values != second.method.values
