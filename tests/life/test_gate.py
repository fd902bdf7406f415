"""The gate: what is held back, what a step may cost the tasks before it, and that a refused one leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import MakeLife, NoTraining, TrainedStage
from tests.tiny import letter_task
from tests.writers import write_splits

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import ConfigError, DataError, Refused
from lifealign.evaluation.retention import alpha_of, loss_bound, prompts_needed
from lifealign.experiments.cells import cells_of
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.settings import ExperimentConfig
from lifealign.life import gate as gates
from lifealign.life.decisions import decisions_of
from lifealign.life.disk import names
from lifealign.life.disk.gate_files import GateSet, gate_sets_of, read_refusal, retention_of
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.gate import Seen
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.mix import mix
from lifealign.memory.update import add, subtract
from lifealign.methods import METHODS
from lifealign.report.page.life_page import life_page
from lifealign.report.page.retention import refusal_page

ONE, TWO = letter_task("one", "a", "b", train=20), letter_task("two", "c", "d", train=20)
ENFORCE = {"mode": "enforce", "max_loss": 0.9, "set_aside": 0.5}
"""A limit so wide that ten prompts of the tiny world can show it."""


def files(life: Life) -> dict[str, bytes]:
    """What is committed, and the views of it; not what the gate notes beside it, nor caches."""
    found = {path.relative_to(life.directory.path).as_posix(): path for path in life.directory.path.rglob("*")}
    beside = (names.RETENTION, names.CACHE, names.LOGS, ".lock")
    return {name: path.read_bytes() for name, path in found.items() if path.is_file() and not name.startswith(beside)}


def prompts(life: Life, step: int) -> set[Any]:
    """Every prompt that a step holds back."""
    return {pair.prompt for one in gate_sets_of(life.directory, life.steps[step]) for pair in (*one.pairs, *one.select)}


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``lost({1.0: 5, 0.5: 0})``: how many gate prompts each earlier task has lost at a scale, whatever the model says.

    The tasks' own prompts all hold. Select prompts hold at the scales in ``best``.
    """

    def script(number: dict[float, int], best: Sequence[float] = ()) -> None:
        at = {"scale": 1.0}
        install = gates._install

        def installed(work: Any, learnt: Any, scale: float) -> None:
            at["scale"] = scale
            install(work, learnt, scale)

        def measured(work: Any, asked: Sequence[GateSet], *, select: bool = False) -> Seen:
            if select:
                holds = 1.0 if at["scale"] in best else -1.0
                return Seen({one.task: [holds] * len(one.select) for one in asked}, [], "")
            missing = {one.task: number[at["scale"]] if one.values is not None else 0 for one in asked}
            return Seen(
                {
                    one.task: [-1.0 if place < missing[one.task] else 1.0 for place in range(len(one.pairs))]
                    for one in asked
                },
                [],
                "",
            )

        monkeypatch.setattr(gates, "_install", installed)
        monkeypatch.setattr(gates, "measure", measured)

    return script


# -- what is held back ------------------------------------------------------------------------------------------------


def test_without_a_gate_a_life_is_what_it_was(make_life: MakeLife) -> None:
    life = make_life()
    life.learn(ONE)
    assert not any("gate" in file or "retention" in file for file in life.steps[0].files)
    assert not (life.directory.path / names.RETENTION).exists()
    assert life.steps[0].tasks[0].train_pairs == 20


def test_nothing_that_is_held_back_is_ever_trained_on(make_life: MakeLife, trained: list[TrainedStage]) -> None:
    """Not by its own task, not by a later one with the same prompts, and not by replay."""
    life = make_life(retention={"mode": "warn", "set_aside": 0.25}, replay={"fraction": 1.0})
    same = Task("same", tuple(replace(pair, chosen="eee", rejected="fff") for pair in ONE.train))
    run_stream(life.workspace, [ONE, TWO, same])
    held = prompts(life, 0) | prompts(life, 1) | prompts(life, 2)
    assert len(prompts(life, 0)) == len(prompts(life, 1)) == 5
    assert prompts(life, 2) == prompts(life, 0)  # the same prompts are set aside in every task that has them
    used = {pair.key for stage in trained for pair in stage.pairs}
    keys = {pair.key: pair.prompt for task in (ONE, TWO, same) for pair in task.train}
    assert {keys[key] for key in used} == {pair.prompt for task in (ONE, TWO) for pair in task.train} - held
    assert [version.tasks[0].train_pairs for version in life.steps] == [15, 15, 15]


def test_a_prompt_of_an_earlier_gate_is_left_out_of_training_and_counted(make_life: MakeLife) -> None:
    life = make_life(retention="warn")
    life.learn(replace(ONE, train=ONE.train[:10], gate=ONE.train[10:]))
    said: list[str] = []

    class Listening:
        def say(self, text: str) -> None:
            said.append(text)

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    again = Task("again", tuple(replace(pair, chosen="eee") for pair in ONE.train), gate=TWO.train)
    life.learn(again, Listening())  # type: ignore[arg-type]
    assert life.steps[1].tasks[0].train_pairs == 10
    assert "  again: 10 of 20 training pairs left out: another gate holds their prompts" in said
    with pytest.raises(DataError, match="found only prompts that the life holds back for its gates"):
        life.learn(Task("third", tuple(replace(pair, chosen="ggg") for pair in ONE.train[10:]), gate=TWO.train[:3]))


def test_what_a_later_gate_holds_back_is_not_replayed_either(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier task was trained on these prompts and remembers them, in the mix and for methods that hold them."""
    life = make_life(retention={"mode": "warn", "set_aside": 0.0}, replay={"fraction": 1.0})
    mixed = []

    def noted(*arguments: Any) -> Any:
        mixed.append(mix(*arguments))
        return mixed[-1]

    monkeypatch.setattr("lifealign.life.learn.mix", noted)
    gate = tuple(replace(pair, chosen="eee", rejected="fff") for pair in ONE.train[:5])
    run_stream(life.workspace, [ONE, replace(TWO, gate=gate)])
    held = {pair.key for pair in ONE.train[:5]}
    kept = {pair.key for pair in ONE.train[5:]}
    assert {pair.key for pair in mixed[1].pairs} & (held | kept) == kept
    assert {pair.key for pair in mixed[1].memories["one"]} == kept


def test_a_gate_is_read_from_a_file_and_is_neither_trained_on_nor_scored(tmp_path: Path) -> None:
    train, test = write_splits(tmp_path, ONE)
    gate, _ = write_splits(tmp_path / "gate", Task("gate", (*TWO.train, ONE.train[0], ONE.test[0])))
    task = Task.from_files("one", train, test, gate=gate, max_loss=0.2)
    assert task.max_loss == 0.2
    assert {pair.key for pair in task.gate} == {pair.key for pair in (*TWO.train, ONE.train[0])}
    assert {pair.key for pair in task.train} == {pair.key for pair in ONE.train[1:]}
    assert task.data_hash != Task.from_files("one", train, test).data_hash


def test_a_task_already_learnt_is_not_repeated_although_some_of_it_was_set_aside(
    make_life: MakeLife, train_nothing: NoTraining
) -> None:
    life = make_life(retention="warn")
    first = life.learn(ONE)
    with train_nothing():
        assert life.learn(ONE) == first


@pytest.mark.parametrize("task", [replace(ONE, gate=TWO.train), replace(ONE, max_loss=0.2)])
def test_a_gate_that_the_life_would_not_use_is_refused(
    make_life: MakeLife, train_nothing: NoTraining, task: Task
) -> None:
    with train_nothing(), pytest.raises(ConfigError, match=r"found a gate or max_loss, expected neither: .* is off"):
        make_life().learn(task)
    with train_nothing(), pytest.raises(ConfigError, match="is idle, because STL has one model per task"):
        make_life(method="stl", retention="warn").learn(task)


def test_a_gate_of_held_out_prompts_is_refused() -> None:
    with pytest.raises(ConfigError, match="task 'one': gate: found a prompt of test"):
        replace(ONE, gate=ONE.test)


@pytest.mark.parametrize("max_loss", [0.0, 1.0, float("nan"), -0.1])
def test_a_limit_that_is_no_share_is_refused(max_loss: float) -> None:
    with pytest.raises(ConfigError, match="max_loss: found"):
        replace(ONE, max_loss=max_loss)


# -- warn -------------------------------------------------------------------------------------------------------------


def test_a_new_life_warns_unless_it_says_otherwise(tiny_folder: Path, tmp_path: Path) -> None:
    life = Life.create(tmp_path / "life", model=str(tiny_folder))
    assert life.config.retention.mode == "warn"
    assert Life.open(life.directory.path).shown.retention.mode == "warn"
    assert Life.create(tmp_path / "off", model=str(tiny_folder), retention="off").config.retention.mode == "off"


def test_a_life_from_before_there_was_a_gate_has_none(make_life: MakeLife) -> None:
    life = make_life()
    settings = {key: value for key, value in life.directory.manifest.config.items() if key != "retention"}
    life.directory.manifest = life.directory.manifest.model_copy(update={"config": settings})
    life.directory.manifest.save(life.directory.path)
    assert Life.open(life.directory.path).config.retention.mode == "off"


def test_warn_keeps_the_step_and_says_what_it_cost(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention={"mode": "warn", "set_aside": 0.5})
    run_stream(life.workspace, [ONE])
    lost({1.0: 3})
    run_stream(life.workspace, [ONE, TWO])
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.verdict == "lost" and evidence.decision == 1
    loss = evidence.losses["one"]
    assert (loss.prompts, loss.lost, loss.gained) == (10, [0, 1, 2], [])
    assert loss.bound == loss_bound(3, 0, 10, alpha_of(1 - 0.95, 1))
    assert evidence.summary[0] == "retention: LOST (decision 1)"
    assert evidence.lines == [
        f"one: 3 of 10 prompts lost, 0 gained; at most {100 * loss.bound:.1f} % lost, allowed 10 %"
    ]
    assert "3 prompts lost" in life_page(life)


def test_too_few_prompts_are_not_called_a_loss(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention={"mode": "warn", "set_aside": 0.5})
    lost({1.0: 0})
    run_stream(life.workspace, [ONE, TWO])
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.verdict == "unproven"
    assert evidence.summary[0] == "retention: too few prompts to tell (decision 1)"


@pytest.mark.parametrize(("check", "holds"), [(AnswerCheck(max_words=50), 1.0), (AnswerCheck(matches=("never",)), 0.0)])
def test_what_holds_is_decided_by_the_check_of_a_greedy_answer_or_by_the_margin(
    make_life: MakeLife, check: AnswerCheck, holds: float
) -> None:
    """Sampling settings of the evaluation change nothing here: a flip is the model's doing, not the draw's."""
    sampled = {"do_sample": True, "draws": 2, "prompts": 1, "pairs": 1}
    life = make_life(retention={"mode": "warn", "set_aside": 0.5}, evaluation=sampled)
    checked = replace(TWO, check=check)
    run_stream(life.workspace, [ONE, checked])
    first, second = (retention_of(life.directory, version) for version in life.steps)
    assert first is not None and second is not None
    assert first.held["one"].measure == "margin" and second.held["two"].measure == "adherence"
    assert second.held["two"].values == [holds] * 10
    answers = life.directory.rows(names.gate_answers("02-two"))
    assert len(answers) == 10 and all("draw" not in row for row in answers)
    (one,) = gate_sets_of(life.directory, life.steps[0])
    life.load("01-one")
    again = gates.measure(life.workspace, [one])
    assert list(again.values["one"]) == pytest.approx(list(one.values or ()), abs=1e-5)
    assert not again.why


def test_a_failure_to_measure_costs_no_training_with_warn(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    life = make_life(retention={"mode": "warn", "set_aside": 0.5})
    monkeypatch.setattr(gates, "measure", lambda *_, **__: Seen({}, [], "margin of one (RuntimeError: no memory)"))
    run_stream(life.workspace, [ONE, TWO])
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.verdict == "unmeasured" and "no memory" in evidence.unmeasured


@pytest.mark.parametrize("method", [key for key in METHODS if key != "stl"])
def test_watching_changes_nothing_of_what_is_learnt(make_life: MakeLife, method: str) -> None:
    """With gates of their own the two lives train on the same pairs: every method learns the same adapter and state."""
    gate = letter_task("gate", "x", "y", train=6).train
    watched = make_life(method=method, retention={"mode": "warn", "set_aside": 0.0})
    plain = make_life(method=method)
    run_stream(watched.workspace, [replace(ONE, gate=gate), replace(TWO, gate=gate)])
    run_stream(plain.workspace, [ONE, TWO])
    for version in plain.versions:
        for file in version.files:
            if file.startswith(("versions", "memory", "replay")) and not file.endswith("README.md"):
                ours, theirs = (one.directory.path / file for one in (watched, plain))
                assert ours.read_bytes() == theirs.read_bytes(), file
    evidence = retention_of(watched.directory, watched.steps[-1])
    assert evidence is not None and not evidence.unmeasured
    assert (evidence.verdict == "first") is (len(watched.steps) == 1)


def test_a_task_whose_gate_was_not_measured_is_named_in_every_later_step(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise "every earlier task kept" would be said of a task that nobody looked at."""
    life = make_life(retention={"mode": "warn", "set_aside": 0.5})
    with monkeypatch.context() as patch:
        patch.setattr(gates, "measure", lambda *_, **__: Seen({}, [], "margin of one (RuntimeError: no memory)"))
        life.learn(ONE)
    run_stream(life.workspace, [ONE, TWO, letter_task("three", "e", "f", train=20)])
    second, third = (retention_of(life.directory, version) for version in life.steps[1:])
    bare = "retention: nothing is known of one, whose gate was not measured"
    assert second is not None and second.unbound == ["one"] and second.summary == [bare]
    assert third is not None and list(third.losses) == ["two"] and third.summary[-1] == bare


# -- enforce ----------------------------------------------------------------------------------------------------------


def test_enforce_refuses_and_leaves_no_trace(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention=ENFORCE | {"scales": [1.0, 0.5]})
    life.learn(ONE)
    before = files(life)
    lost({1.0: 8, 0.5: 7}, best=[1.0])
    with pytest.raises(Refused, match="02-two refused: one: 7 of 8 prompts lost, 0 gained; at most") as error:
        life.learn(TWO)
    assert error.value.exit_code == 3
    assert files(life) == before
    assert [version.name for version in Life.open(life.directory.path).versions] == ["00-base", "01-one"]
    refusal = read_refusal(error.value.evidence)
    assert [attempt.scale for attempt in refusal.retention.attempts] == [1.0, 0.5]
    assert [len(attempt.losses["one"].lost) for attempt in refusal.retention.attempts] == [8, 7]
    assert [one.prompt[-1].content for one in refusal.flipped["one"]] == [
        pair.prompt[-1].content for pair in gate_sets_of(life.directory, life.steps[0])[0].pairs[:7]
    ]
    page = refusal_page(refusal)
    assert "02-two" in page and "7 prompts lost" in page and "margin" in page


def test_a_life_goes_on_after_a_refusal_as_if_it_had_not_been(make_life: MakeLife, lost: Callable[..., None]) -> None:
    settings = ENFORCE | {"scales": [1.0]}
    life, other = make_life(retention=settings), make_life(retention=settings)
    three = letter_task("three", "e", "f", train=20)
    life.learn(ONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "loss_since", lambda one, seen, alpha: _lost(one))
        with pytest.raises(Refused):
            life.learn(TWO)
    other.learn(ONE)
    life.learn(three)
    other.learn(three)
    ours, theirs = (read_adapter_of(one.directory) for one in (life, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert retention_of(life.directory, life.steps[1]).decision == 2  # type: ignore[union-attr]
    assert retention_of(other.directory, other.steps[1]).decision == 1  # type: ignore[union-attr]


def _lost(one: GateSet) -> Any:
    count = len(one.pairs)
    return gates.Loss(prompts=count, lost=list(range(count)), gained=[], bound=1.0, max_loss=0.1, values=[-1.0] * count)


def test_a_part_of_the_update_is_kept_in_the_model_and_in_its_memory(
    make_life: MakeLife, lost: Callable[..., None]
) -> None:
    """What memory remembers of the step is what its version has more than the one before."""
    life = make_life(retention=ENFORCE | {"scales": [1.0, 0.5, 0.25]})
    life.learn(ONE)
    lost({1.0: 8, 0.5: 0}, best=[1.0])
    life.learn(TWO)
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.scale == 0.5 and evidence.verdict == "kept"
    assert "0.5 of the update kept" in evidence.summary[0]
    added = subtract(read_adapter_of(life.directory), read_adapter_of(life.directory, "01-one"))
    memory, fresh = life.workspace.memory, Life.open(life.directory.path).workspace.memory
    for remembered in (memory, fresh):
        assert remembered.remembered == len(remembered.updates) == 2
        kept = remembered.updates[1]
        assert kept.keys() == added.keys()
        assert all(torch.allclose(kept[name].double(), added[name].double(), atol=1e-6) for name in added)


def test_the_scale_is_half_of_the_same_training(make_life: MakeLife, lost: Callable[..., None]) -> None:
    """Two lives that differ in nothing but what the gate says: one keeps all of an update, the other half of it."""
    settings = ENFORCE | {"scales": [1.0, 0.5]}
    life, whole = make_life(retention=settings), make_life(retention=settings)
    for one in (life, whole):
        one.learn(ONE)
    lost({1.0: 0, 0.5: 0}, best=[1.0])
    whole.learn(TWO)
    lost({1.0: 0, 0.5: 0}, best=[0.5])
    life.learn(TWO)
    before = read_adapter_of(whole.directory, "01-one")
    update = subtract(read_adapter_of(whole.directory), before)
    half = add(before, {name: 0.5 * factor for name, factor in update.items()})
    kept = read_adapter_of(life.directory)
    assert all(torch.allclose(kept[name], half[name], atol=1e-7) for name in half)
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.selected == {"1": 0.0, "0.5": 1.0}
    assert [attempt.scale for attempt in evidence.attempts] == [0.5]  # larger ones are not tried


def test_each_attempt_spends_its_part_and_no_more(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention=ENFORCE | {"scales": [1.0, 0.5, 0.25]})
    life.learn(ONE)
    lost({1.0: 8, 0.5: 8, 0.25: 0}, best=[1.0])
    life.learn(TWO)
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None
    of_one = alpha_of(1 - 0.95, 1)
    assert [attempt.alpha for attempt in evidence.attempts] == pytest.approx([of_one / 2, of_one / 4, of_one / 4])


def test_force_keeps_it_and_is_recorded(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention=ENFORCE | {"scales": [1.0, 0.5]})
    life.learn(ONE)
    lost({1.0: 8, 0.5: 8}, best=[1.0])
    life.learn(TWO, force=True)
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.forced and evidence.scale == 1.0
    assert "kept with --force" in evidence.summary[0] and "kept with --force" in life_page(life)


def test_forced_and_accepted_is_not_forced(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention=ENFORCE | {"scales": [1.0]})
    life.learn(ONE)
    lost({1.0: 0})
    life.learn(TWO, force=True)
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and not evidence.forced


def test_trying_until_something_passes_is_not_free(make_life: MakeLife, lost: Callable[..., None]) -> None:
    """Another candidate is another decision, even after a rollback; the same one again is not."""
    life = make_life(retention=ENFORCE | {"scales": [1.0]})
    life.learn(ONE)
    lost({1.0: 8})
    for _ in range(2):
        with pytest.raises(Refused):
            life.learn(TWO)
    assert len(decisions_of(life.directory)) == 1
    with pytest.raises(Refused):
        life.learn(letter_task("other", "g", "h", train=20))
    lost({1.0: 0})
    life.learn(letter_task("third", "i", "j", train=20))
    life.rollback("01-one")
    life.learn(letter_task("fourth", "k", "l", train=20))
    assert retention_of(life.directory, life.steps[1]).decision == 4  # type: ignore[union-attr]


def test_too_few_prompts_for_what_is_asked_are_refused_before_training(
    make_life: MakeLife, train_nothing: NoTraining
) -> None:
    life = make_life(retention={"mode": "enforce", "set_aside": 0.5, "scales": [1.0]})
    needed = prompts_needed(0.1, alpha_of(1 - 0.95, 1))
    with train_nothing(), pytest.raises(ConfigError, match=f"found 10 gate prompts of one, expected at least {needed}"):
        life.learn(ONE)
    life.learn(ONE, force=True)
    with train_nothing(), pytest.raises(ConfigError, match="gate prompts of one, expected at least"):
        life.learn(TWO)


def test_a_rule_that_was_replaced_binds_no_longer(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention=ENFORCE | {"scales": [1.0]})
    life.learn(ONE)
    lost({1.0: 8})
    life.learn(replace(TWO, supersedes=("one",)))
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None and evidence.verdict == "first" and evidence.decision == 0


def test_what_cannot_be_measured_is_refused_with_enforce(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    life = make_life(retention=ENFORCE)
    life.learn(ONE)
    monkeypatch.setattr(gates, "measure", lambda *_, **__: Seen({}, [], "margin of one (RuntimeError: no memory)"))
    with pytest.raises(Refused, match="could not be measured"):
        life.learn(TWO)


@pytest.mark.parametrize(
    ("retention", "message"),
    [
        ("always", "mode: found 'always'"),
        ({"mode": "warn", "max_loss": 0}, "max_loss: found 0, expected a number greater than 0"),
        ({"mode": "enforce", "scales": []}, "scales: found .*, expected at least one scale"),
        ({"mode": "enforce", "scales": [1, 1]}, "scales: found .*, expected at least one scale, each once"),
        ({"mode": "enforce", "scales": [0]}, "greater than 0"),
    ],
)
def test_wrong_settings_are_refused(make_life: MakeLife, retention: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_life(retention=retention)


def test_a_yaml_off_is_a_mode(make_life: MakeLife) -> None:
    assert make_life(retention=False).config.retention.mode == "off"
    assert make_life(retention={"mode": False}).config.retention.mode == "off"


# -- what is shown of it ----------------------------------------------------------------------------------------------


def test_a_comparison_takes_no_gate_that_refuses_steps() -> None:
    values = {"output_dir": "x", "suite": "support-desk", "retention": "enforce"}
    with pytest.raises(ConfigError, match="found enforce, expected warn or off"):
        cells_of(ExperimentConfig.model_validate(values))


def test_a_result_and_a_card_say_what_a_step_cost(make_life: MakeLife, lost: Callable[..., None]) -> None:
    life = make_life(retention={"mode": "warn", "set_aside": 0.5})
    run_stream(life.workspace, [ONE])
    lost({1.0: 3})
    run_stream(life.workspace, [ONE, TWO])
    first, second = result_of(life).steps
    assert first.retention is None
    assert second.retention is not None and (second.retention.kept, second.retention.worst) == (False, 0.3)
    card = (life.directory.path / names.model_card("02-two")).read_text()
    assert "## What it cost earlier tasks" in card and "- one: 3 of 10 prompts lost, 0 gained" in card
    assert "## What it cost" not in (life.directory.path / names.model_card("01-one")).read_text()
