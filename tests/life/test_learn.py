"""The main path: what memory adds up to, what is replayed and scored, and that a killed run ends as if it had not been.

The losses of a small run are pinned in ``references/two_tasks.json``. If they change for a good reason, write them anew
with ``LIFEALIGN_UPDATE_REFERENCES=1 python -m pytest tests/life/test_learn.py`` and say the reason in the commit.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from tests.conftest import TrainedStage
from tests.tiny import letter_task
from tests.writers import write_general_text, write_splits

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import LifeError
from lifealign.experiments.run import run_experiment
from lifealign.experiments.settings import load_experiment
from lifealign.life import learn as lifelong
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.settings import derive_seed
from lifealign.model import answer_cache
from lifealign.model.adapter import read_adapter
from lifealign.model.runtime import Runtime
from lifealign.report.page.life_page import life_page
from lifealign.report.progress import Progress
from lifealign.storage import files as storage

MakeLife = Callable[..., Life]
ONE, TWO = letter_task("one", "a", "b"), letter_task("two", "c", "d")
LONGER = {"sft": {"num_train_epochs": 3}, "preference": {"num_train_epochs": 3}}
REFERENCE = Path(__file__).parents[1] / "references" / "two_tasks.json"
UPDATE = os.environ.get("LIFEALIGN_UPDATE_REFERENCES") == "1"


def everything(life: Path) -> dict[str, bytes]:
    """Content by path of what two lives must have in common: all but times, their hashes, and who holds the lock."""
    content = {}
    for path in sorted(life.rglob("*")):
        name = path.relative_to(life).as_posix()
        if path.is_dir() or name.startswith(".lock") or path.name == "time.json":
            continue
        content[name] = path.read_bytes()
        if name == "life.json":
            manifest = json.loads(path.read_bytes()) | {"sha256": ""}
            for version in manifest["versions"]:
                version["files"] = {key: value for key, value in version["files"].items() if "/time.json" not in key}
            content[name] = json.dumps(manifest).encode()
        if name == "result.json":
            result = json.loads(path.read_bytes())
            result["steps"] = [step | {"seconds": None} for step in result["steps"]]
            measured = ("seconds", "seconds_with_scoring", "peak_memory_bytes")
            result["cost"] = {name: value for name, value in result["cost"].items() if name not in measured}
            del result["content_hash"]  # of these times, too
            content[name] = json.dumps(result).encode()
    return content


def rows(life: Life, version: str) -> dict[str, list[dict[str, float]]]:
    """The training log of a step, by stage."""
    stages: dict[str, list[dict[str, float]]] = life.directory.json(f"tasks/{version}/training.json")["stages"]
    return stages


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["seqft", "lifealign", {"name": "lifealign", "consolidate_at": "stage"}], ids=str)
def test_long_term_memory_is_the_first_adapter_plus_all_refined_updates(make_life: MakeLife, method: Any) -> None:
    life = make_life(method=method, **LONGER)
    run_stream(life.workspace, [ONE, TWO, letter_task("three", "e", "f")])
    expected = read_adapter_of(life.directory, "00-base")
    for version in life.steps:
        for name, update in life.directory.tensors(f"memory/{version.name}.safetensors").items():
            factor = name.split("/", 1)[1]
            expected[factor] = expected[factor] + update
        adapter = read_adapter_of(life.directory, version.name)
        assert adapter.keys() == expected.keys()
        for factor in adapter:
            torch.testing.assert_close(adapter[factor], expected[factor], rtol=0, atol=1e-6)
    moved = [
        float((read_adapter_of(life.directory)[name] - read_adapter_of(life.directory, "00-base")[name]).norm())
        for name in expected
    ]
    assert min(moved) > 1e-2  # so that 1e-6 says something


def test_what_lifealign_keeps_is_less_than_what_was_trained(make_life: MakeLife) -> None:
    life = make_life(**LONGER)
    run_stream(life.workspace, [ONE, TWO])
    for version, overlapping in (("01-one", False), ("02-two", True)):
        factors = life.directory.json(f"tasks/{version}/consolidation.json")["task"]["factors"]
        assert len(factors) == 8
        for figures in factors.values():
            assert 0.9 <= figures["energy_kept"] <= 1
            assert figures["norm_after"] ** 2 <= figures["energy_kept"] * figures["norm_before"] ** 2 * (1 + 1e-5)
            assert (figures["overlap_energy"] > 0) == overlapping
            # lambda 1/2 halves the part inside the span of history, which had rho of the energy
            kept = figures["energy_kept"] * (1 - 0.75 * figures["overlap_energy"])
            assert figures["norm_after"] ** 2 == pytest.approx(kept * figures["norm_before"] ** 2, rel=1e-4)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_the_score_matrix_gains_a_row_a_step_and_a_column_a_task(make_life: MakeLife) -> None:
    checked = Task(TWO.name, TWO.train, TWO.test, AnswerCheck(max_words=3))
    unscored = letter_task("three", "e", "f", test=0)
    life = make_life(**LONGER)
    run_stream(life.workspace, [ONE, checked, unscored])
    accuracy, margin, adherence = (life.scores[name] for name in ("preference_accuracy", "margin", "adherence"))
    for matrix in (accuracy, margin):
        assert [list(row) for row in matrix.rows] == [["one"], ["one", "two"], ["one", "two"]]
        assert (list(matrix.tasks), matrix.learnt_at) == (["one", "two"], {"one": 0, "two": 1})
    assert [list(row) for row in adherence.rows] == [[], ["two"], ["two"]]
    assert accuracy.base == {"one": 0.5, "two": 0.5}  # the base against itself has no preference
    assert margin.base == {"one": 0.0, "two": 0.0}
    assert accuracy[0, 0] == 1.0 and accuracy[1, 1] == 1.0  # one letter or another: three epochs are enough
    assert (margin[0, 0] or 0) > 0.05
    written = json.loads((life.directory.path / "scores.json").read_text())
    assert written == {name: matrix.as_dict() for name, matrix in life.scores.items()}


# -- the pinned run ----------------------------------------------------------------------------------------------------


def test_the_losses_of_two_tasks_are_those_of_the_reference_run(make_life: MakeLife) -> None:
    life = make_life(**LONGER)
    run_stream(life.workspace, [ONE, TWO])
    found = {
        version.name: {stage: [row["loss"] for row in log] for stage, log in rows(life, version.name).items()}
        for version in life.steps
    }
    if UPDATE:
        REFERENCE.parent.mkdir(exist_ok=True)
        REFERENCE.write_text(json.dumps(found, indent=2) + "\n")
    expected = json.loads(REFERENCE.read_text())
    # 8 pairs, then 8 and 1 replayed; batches of 4; 3 epochs: 2 x 3 and 3 x 3 optimizer steps in both stages
    shape = {version: {stage: len(losses) for stage, losses in log.items()} for version, log in found.items()}
    assert shape == {"01-one": {"sft": 6, "preference": 6}, "02-two": {"sft": 9, "preference": 9}}
    residuals = []
    for version, log in expected.items():
        for stage, losses in log.items():
            assert found[version][stage] == pytest.approx(losses, rel=1e-4), (version, stage)
            residuals += [a / b - 1 for a, b in zip(found[version][stage], losses, strict=True)]
    assert abs(fmean(residuals)) < 2e-5  # a drift that is the same everywhere shows here before it shows in a point


# -- interrupted and finished ------------------------------------------------------------------------------------------


class Interrupting(Progress):
    """Ends the run, as Ctrl-C would, after some optimizer step of a stage of the second task."""

    def __init__(self, stage: str, step: int) -> None:
        super().__init__(Console(quiet=True))
        self.at = ("02-two", stage, step)

    def update(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if (self.title, stage, done) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("stage", "step"), [("sft", 1), ("preference", 2)])
@pytest.mark.parametrize("reopened", [True, False], ids=["reopened", "same object"])
def test_a_stream_interrupted_in_its_second_task_ends_as_if_it_had_not_been(
    make_life: MakeLife, stage: str, step: int, reopened: bool
) -> None:
    smooth, interrupted = make_life(), make_life()
    run_stream(smooth.workspace, [ONE, TWO])
    with pytest.raises(KeyboardInterrupt):
        run_stream(interrupted.workspace, [ONE, TWO], Interrupting(stage, step))
    assert [version.name for version in interrupted.steps] == ["01-one"]
    again = Life.open(interrupted.directory.path) if reopened else interrupted
    assert [version.name for version in run_stream(again.workspace, [ONE, TWO])] == ["01-one", "02-two"]
    assert everything(interrupted.directory.path) == everything(smooth.directory.path)


KILLED = """
import os, signal, sys
from lifealign.storage import files as storage
from lifealign.report.progress import Progress

def die():
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv.pop(1)
if where == "training":
    def update(self, stage, done, total, figures):
        if self.title == "02-two" and stage == "preference" and done == 1:
            die()
    Progress.update = update
else:
    replace = os.replace
    def killing(source, target):
        if str(target).endswith(where):
            die()
        replace(source, target)
    os.replace = killing

from lifealign.cli.main import main
main()
"""


@pytest.fixture
def experiment(tmp_path: Path, tiny_folder: Path) -> Callable[[str], Path]:
    """Writes the YAML of a two-task stream; the argument is its output folder."""
    for task in (ONE, TWO):
        write_splits(tmp_path, task)

    def write(output: str) -> Path:
        stage = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
        settings = {
            "output_dir": str(tmp_path / output),
            "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
            "sft": stage | {"learning_rate": 1e-2},
            "preference": stage | {"learning_rate": 1e-2},
            "evaluation": {"general_text": write_general_text(tmp_path)},
            "tasks": [{"name": n, "train": f"{n}-train.jsonl", "test": f"{n}-test.jsonl"} for n in ("one", "two")],
        }
        path = tmp_path / f"{output}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


def run_command(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


def test_a_killed_run_is_finished_by_the_same_command_to_the_last_byte(
    experiment: Callable[[str], Path], tmp_path: Path
) -> None:
    run_experiment(load_experiment(experiment("smooth")))
    assert Life.open(tmp_path / "smooth").scores["margin"].last is not None
    # killed in the second task's training, again just before a file of its commit appears, and before the commit itself
    for where, steps in (("training", 1), ("02-two/scores.json", 1)):
        killed = run_command(KILLED, where, "run", str(experiment("killed")))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(Life.open(tmp_path / "killed").steps) == steps
    assert list((tmp_path / "killed" / "tasks" / "02-two").iterdir())  # there, and not part of the life
    finished = run_command("from lifealign.cli.main import main; main()", "run", str(experiment("killed")))
    assert finished.returncode == 0, finished.stderr
    assert everything(tmp_path / "killed") == everything(tmp_path / "smooth")


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_life_of_another_stream_is_refused_and_left_alone(make_life: MakeLife) -> None:
    life = make_life()
    run_stream(life.workspace, [ONE, TWO])
    before = everything(life.directory.path)
    other_one = letter_task("one", "x", "b")
    for stream, message in [
        ([TWO, ONE], "found one learnt in step 01-one, expected two; this life belongs to another stream"),
        ([other_one, TWO], "found task 'one' learnt from other data in step 01-one"),
        ([ONE], "found 2 steps, expected at most 1 in this stream"),
    ]:
        with pytest.raises(LifeError, match=message):
            run_stream(Life.open(life.directory.path).workspace, stream)
    assert everything(life.directory.path) == before


def test_a_stream_that_has_grown_goes_on_where_the_life_is(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one, at_once = make_life(), make_life()
    for task in (ONE, TWO):
        one_by_one.learn(task)
    run_stream(at_once.workspace, [ONE])
    run_stream(at_once.workspace, [ONE, TWO])
    assert everything(one_by_one.directory.path) == everything(at_once.directory.path)
    monkeypatch.setattr(lifelong, "learn_step", None)
    assert len(run_stream(at_once.workspace, [ONE, TWO])) == 2


def test_seeds_of_different_purposes_are_different_and_always_the_same() -> None:
    seeds = {derive_seed(root, f"{purpose}") for root in range(50) for purpose in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(4, "2 x") != derive_seed(42, "x")
    # each bit of the seeds is on in about half of them: 2500 draws, 5 standard deviations of 1/100
    for bit in range(63):
        assert 0.45 < sum(seed >> bit & 1 for seed in seeds) / 2500 < 0.55
    assert derive_seed(42, "01-tone") == 1762988503364608280  # the same on every machine and in every version


# -- replay and reference ----------------------------------------------------------------------------------------------


def names(sources: Sequence[str]) -> list[str]:
    return [source.split(":")[0] for source in sources]


def test_a_task_is_mixed_with_a_fifth_of_each_earlier_one_and_never_with_itself(
    make_life: MakeLife, trained: list[TrainedStage]
) -> None:
    life = make_life()
    three = letter_task("three", "e", "f", train=10)
    run_stream(life.workspace, [ONE, TWO, three])
    life.rollback("02-two")
    life.learn(three)
    for number, stage in enumerate(trained):
        assert len(set(stage.sources)) == len(stage.sources)
        counts = {name: names(stage.sources).count(name) for name in ("one", "two", "three")}
        expected = [(8, 0, 0), (1, 8, 0), (1, 1, 10), (1, 1, 10)][number // 2]  # a fifth of 8, rounded down; two stages
        assert counts == dict(zip(counts, expected, strict=True)), stage.task
    for version, replayed in (("01-one", 0), ("02-two", 1), ("03-three", 2)):
        assert life.directory.json(f"tasks/{version}/training.json")["replayed_pairs"] == replayed


def test_a_pair_that_is_both_new_and_remembered_is_trained_once(
    make_life: MakeLife, trained: list[TrainedStage]
) -> None:
    life = make_life(replay={"fraction": 1.0})
    again = Task("again", (*ONE.train[:3], *TWO.train[:2]))
    run_stream(life.workspace, [ONE, again])
    assert sorted(trained[-1].sources) == sorted([*(f"one:{n}" for n in range(8)), "two:0", "two:1"])
    assert life.directory.json("tasks/02-again/training.json")["replayed_pairs"] == 5


def test_methods_without_replay_see_the_new_task_alone(make_life: MakeLife, trained: list[TrainedStage]) -> None:
    run_stream(make_life(method="seqft").workspace, [ONE, TWO])
    run_stream(make_life(replay={"capacity": 0}).workspace, [ONE, TWO])
    assert [set(names(stage.sources)) for stage in trained] == [{"one"}, {"one"}, {"two"}, {"two"}] * 2


def test_the_reference_is_computed_once_per_pair_and_life(make_life: MakeLife) -> None:
    life = make_life()
    life.learn(ONE)
    assert life.workspace.reference.computed == 12  # 8 to train on, 4 held out
    life.learn(TWO)
    assert (
        life.workspace.reference.computed == 24
    )  # neither the replayed pair again, nor the first task's held-out ones
    reopened = Life.open(life.directory.path)
    reopened.rollback("01-one")
    reopened.learn(TWO)
    assert reopened.workspace.reference.computed == 0
    reopened.learn(letter_task("three", "e", "f"))
    assert reopened.workspace.reference.computed == 12


def first_margins(make_life: MakeLife, reference: str) -> list[float]:
    """Mean margin before the first optimizer step of each task, trained in the preference stage alone, no replay."""
    life = make_life(
        method="seqft",
        sft={"num_train_epochs": 0},
        preference={"reference": reference, "per_device_train_batch_size": 8, "num_train_epochs": 4},
    )
    run_stream(life.workspace, [ONE, Task("again", ONE.train[:7])])
    return [rows(life, version.name)["preference"][0]["rewards/margins"] for version in life.steps]


def test_with_task_start_as_the_reference_every_task_begins_at_margin_zero(make_life: MakeLife) -> None:
    # Beta 0.1 times sums of 5 log-probabilities of about -5.5, in float32: differences of batching are below 1e-5.
    assert first_margins(make_life, "task_start") == pytest.approx([0, 0], abs=1e-5)
    first, second = first_margins(make_life, "base")
    assert first == pytest.approx(0, abs=1e-5)  # a new adapter is the base
    assert second > 0.01  # the second task knows what the first one taught


def test_margins_of_the_first_step_count_from_the_reference(make_life: MakeLife) -> None:
    margins: Mapping[str, float] = {
        reference: rows(run_one(make_life, reference), "01-one")["preference"][0]["rewards/margins"]
        for reference in ("base", "task_start")
    }
    # SFT has moved the policy before the preference stage begins; the task began with the base itself.
    assert margins["base"] == pytest.approx(margins["task_start"], abs=1e-5)
    assert abs(margins["base"]) > 1e-3


def test_with_stage_start_as_the_reference_the_preference_stage_begins_at_margin_zero_after_sft(
    make_life: MakeLife,
) -> None:
    computed = []
    for reference in ("task_start", "task_start", "stage_start"):  # the first one fills the cache of the base
        life = make_life(preference={"reference": reference})
        run_stream(life.workspace, [ONE, Task("again", ONE.train[:7])])
        computed.append(life.workspace.reference.computed)
    begun = [rows(life, version.name)["preference"][0]["rewards/margins"] for version in life.steps]
    assert begun == pytest.approx([0, 0], abs=1e-5)
    assert rows(life, "02-again")["preference"][-1]["rewards/margins"] != pytest.approx(0, abs=1e-4)
    assert computed[1] == computed[2]  # no pair is scored at both moments


def test_without_sft_the_stage_starts_as_the_task_does(make_life: MakeLife) -> None:
    lives = []
    for reference in ("task_start", "stage_start"):
        life = make_life(method="ewc", sft={"num_train_epochs": 0}, preference={"reference": reference})
        run_stream(life.workspace, [ONE, Task("again", ONE.train[:7])])  # EWC looks at the objective again at the end
        lives.append(read_adapter(life.workspace.runtime.model))
    assert all(torch.equal(lives[0][name], lives[1][name]) for name in lives[0])


def run_one(make_life: MakeLife, reference: str) -> Life:
    life = make_life(preference={"reference": reference})
    life.learn(ONE)
    return life


def test_reasoning_that_is_taken_off_the_data_is_said_once_with_its_count(make_life: MakeLife) -> None:
    task = letter_task("one", "a", "b")
    thought = [replace(row, chosen=f"<think>\nhm\n</think>\n\n{row.chosen}") for row in task.train[:3]]
    only = replace(task.train[3], rejected="<think>cut")
    console = Console(file=io.StringIO(), width=200)
    make_life().learn(replace(task, train=(*thought, only, *task.train[4:])), listener=Progress(console))
    lines = [line for line in console.file.getvalue().splitlines() if "reasoning" in line]
    assert lines == [
        "  reasoning removed from 4 of 16 answers, 1 of which had nothing else, so their pairs are left out; "
        "data.reasoning: keep would learn it"
    ]


def test_a_second_life_on_the_same_base_pays_nothing_for_what_the_base_computes(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(ONE, check=AnswerCheck(max_words=3))
    one, two = make_life(), make_life()
    one.learn(task)
    asked: list[int] = []
    plain = answer_cache.generate_answers

    def counted(runtime: Any, prompts: Sequence[Any], **options: Any) -> list[str]:
        asked.append(len(prompts))
        return plain(runtime, prompts, **options)

    monkeypatch.setattr(answer_cache, "generate_answers", counted)
    two.learn(task)
    assert two.workspace.reference.computed == 0
    assert sum(asked) == len(task.test)  # answers of the new adapter, and none of the base
    adapters = [read_adapter_of(life.directory) for life in (one, two)]
    assert all(torch.equal(adapters[1][name], factor) for name, factor in adapters[0].items())
    assert one.scores["preference_accuracy"].rows == two.scores["preference_accuracy"].rows


def test_tokens_counted_in_place_of_pairs_change_the_passes_and_not_what_is_learnt(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    batch = Runtime.batch

    def noted(self: Runtime, pairs: Any, completions: Any) -> Any:
        laid_out = batch(self, pairs, completions)
        passes.append(laid_out.input_ids.numel())
        return laid_out

    monkeypatch.setattr(Runtime, "batch", noted)
    adapters = []
    for limit in (None, 100):
        passes.clear()
        life = make_life(data={"max_tokens_per_batch": limit}, evaluation={"generate": False})
        life.learn(ONE)
        adapters.append(read_adapter_of(life.directory))
        assert max(passes) > 100 if limit is None else max(passes) <= 100
    for name, factor in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], factor, rtol=1e-4, atol=1e-5)


def test_mastered_pairs_are_told_on_the_terminal_and_the_page(make_life: MakeLife) -> None:
    """At a share next to 1 every pair whose margin is above 0 is mastered."""
    heard = io.StringIO()
    life = make_life(preference={"skip_mastered": 0.999, "num_train_epochs": 2}, sft={"learning_rate": 5e-2})
    life.learn(ONE, Progress(Console(file=heard, width=160)))
    rows = life.directory.json("tasks/01-one/training.json")["stages"]["preference"]
    share = fmean(row["skipped"] for row in rows)
    assert share > 0
    assert f"mastered {rows[-1]['skipped']:.0%}" in heard.getvalue()
    costs = life_page(life).split('id="costs"')[1]
    assert "mastered, skipped" in costs and re.search(rf"<td>{100 * share:.0f}.?%</td>", costs)


def test_what_the_base_computes_is_kept_apart_for_every_way_of_computing(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, plain = make_life(), make_life(data={"share_prefix": False})
    folders = {life.workspace.reference.shared for life in (packed, plain)}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    folders.add(Life.open(packed.directory.path).workspace.reference.shared)
    assert len(folders) == 3 and None not in folders
    assert make_life().workspace.reference.shared in folders
