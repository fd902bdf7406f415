"""Comparisons: every cell once, whatever happens in between, and every cause of a failure by its name."""

import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from tests.tiny import letter_task, save_tiny
from tests.writers import write_general_text, write_splits

from lifealign.data.replay import ReplayConfig
from lifealign.data.suites.paper import ORDERS
from lifealign.errors import ConfigError, LifeAlignError, LifeError, TrainingError
from lifealign.experiments import compare, executors, worker
from lifealign.experiments.cells import Cell, cells_of, finished
from lifealign.experiments.compare import comparison_of, results_of, run_comparison
from lifealign.experiments.executors import Processes
from lifealign.experiments.result_file import content_hash
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.run import open_or_create
from lifealign.experiments.settings import CompareConfig, ExperimentConfig, Variant
from lifealign.experiments.summary import compare_results
from lifealign.experiments.tasks import load_tasks
from lifealign.life import learn as lifelong
from lifealign.life import step as learning
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.methods import METHODS
from lifealign.methods.er import ER
from lifealign.model.settings import ModelConfig
from lifealign.report.table_formats import write_tables
from lifealign.settings.section import build_config, dump_config
from lifealign.storage import files as storage
from lifealign.storage.lock import exclusive_lock

Experiment = Callable[..., ExperimentConfig]
STAGE = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of three tasks; tests only read them."""
    folder = tmp_path_factory.mktemp("data")
    for name, good, bad in (("one", "a", "b"), ("two", "c", "d"), ("three", "e", "f")):
        write_splits(folder, letter_task(name, good, bad))
    return folder


def task_of(data: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "train": str(data / f"{name}-train.jsonl"), "test": str(data / f"{name}-test.jsonl"), **more}


def configured(output: Path, model: Path, data: Path, **sections: Any) -> ExperimentConfig:
    settings = {
        "output_dir": str(output),
        "model": {"model_name_or_path": str(model), "dtype": "float32"},
        "lora": {"lora_r": 4, "lora_alpha": 8},
        "sft": STAGE | {"learning_rate": 1e-2},
        "preference": STAGE | {"learning_rate": 1e-2},
        "evaluation": {"max_new_tokens": 4, "general_text": write_general_text(data)},
        "tasks": [task_of(data, "one"), task_of(data, "two", check={"max_words": 1})],
    }
    return build_config(ExperimentConfig, settings | sections)


@pytest.fixture
def experiment(tmp_path: Path, tiny_folder: Path, data: Path) -> Experiment:
    """Makes experiments on the tiny model; keywords replace sections."""
    return lambda **sections: configured(tmp_path / "out", tiny_folder, data, **sections)


SEVERAL = {"methods": ["seqft", {"name": "er", "label": "ER, as it is"}], "seeds": [1, 2], "against": "seqft"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, data: Path) -> list[Cell]:
    """Four cells that nothing has disturbed; tests only read them."""
    cells = cells_of(configured(tmp_path_factory.mktemp("compared") / "out", tiny_folder, data, compare=SEVERAL))
    assert run_comparison(cells, say=said) == []
    return cells


def said(text: str) -> None:
    """Where lines go that nobody asks for."""


def run(cells: Sequence[Cell], jobs: int = 1) -> tuple[list[str], dict[str, str]]:
    """Runs cells; returns the lines that were said, and by the name of each failed cell its cause."""
    lines: list[str] = []
    failures = run_comparison(cells, engine=Processes(jobs) if jobs > 1 else None, say=lines.append)
    return lines, {failure.cell.name: failure.error for failure in failures}


def timeless(cell: Cell) -> dict[str, Any]:
    """A result file without what depends on the machine and its hour."""
    result = json.loads(cell.result.read_text())
    for step in result["steps"]:
        del step["seconds"]
    for measured in ("seconds", "seconds_with_scoring", "peak_memory_bytes"):
        del result["cost"][measured]
    del result["content_hash"]  # of these, too
    return dict(result)


def learnt(cell: Cell) -> dict[str, bytes]:
    """Every file of a cell's life that says what it has learnt."""
    folder = cell.experiment.output_dir
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in ("versions", "memory", "replay", "tasks")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file() and path.name != "time.json"
    }


def content(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but for who held a lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that are learnt from here on, each with its life's folder."""
    learnt_steps: list[str] = []
    learn_step = lifelong.learn_step

    def spied(work: Any, step: Any, listener: Any = None) -> Any:
        learnt_steps.append(f"{work.directory.path.name} {step.name}")
        return learn_step(work, step, listener)

    monkeypatch.setattr(lifelong, "learn_step", spied)
    return learnt_steps


def break_training(monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException, from_task: str = "") -> None:
    """Makes one method's preference stage fail."""
    train_stage = learning.train_stage

    def broken(runtime: Any, pairs: Any, objective: Any, config: Any, of: Any, task: str, **more: Any) -> Any:
        if (of.key, objective.stage) == (method, "preference") and from_task in ("", task):
            raise error
        return train_stage(runtime, pairs, objective, config, of, task, **more)

    monkeypatch.setattr(learning, "train_stage", broken)


# -- what is compared --------------------------------------------------------------------------------------------------


def test_the_cells_are_methods_times_orders_times_seeds_and_whole_seeds_come_first(experiment: Experiment) -> None:
    orders = {"there": ["one", "two"], "back": ["two", "one"]}
    cells = cells_of(experiment(compare={"methods": ["er", "mtl"], "orders": orders, "seeds": [7, 3]}))
    assert [cell.name for cell in cells] == [
        f"{label}, {order}, seed {seed}" for seed in (7, 3) for order in ("there", "back") for label in ("ER", "MTL")
    ]
    assert cells[3].result.parts[-3:] == ("out", "results", "back--mtl--seed7.json")
    assert cells[3].experiment.output_dir.parts[-3:] == ("out", "lives", "back--mtl--seed7")
    assert (cells[3].experiment.method.key, cells[3].experiment.seed) == ("mtl", 7)
    assert [list(cell.data) for cell in cells[:4]] == [["one", "two"]] * 2 + [["two", "one"]] * 2
    folders = [place for cell in cells for place in (cell.result, cell.experiment.output_dir)]
    assert len(set(folders)) == 2 * len(cells)


def test_orders_of_the_papers_suite_go_by_their_names(experiment: Experiment, data: Path, tmp_path: Path) -> None:
    for name in ORDERS["order1"]:
        for split in ("train", "test"):
            storage.write_bytes(tmp_path / name / f"{split}.jsonl", (data / f"one-{split}.jsonl").read_bytes())
    paper = {"tasks": None, "suite": "paper", "data_dir": str(tmp_path)}
    cells = cells_of(experiment(**paper, compare={"methods": ["er"], "orders": ["order1", "order3"]}))
    assert [cell.name for cell in cells] == ["ER, order1, seed 42", "ER, order3, seed 42"]
    assert [tuple(cell.data) for cell in cells] == [ORDERS["order1"], ORDERS["order3"]]
    (cell,) = cells_of(experiment(**paper, order="order2", compare={"methods": ["er"]}))
    assert (cell.order, tuple(cell.data)) == ("order2", ORDERS["order2"])


def test_without_a_section_every_method_is_compared_on_the_stream_as_it_is(experiment: Experiment) -> None:
    cells = cells_of(experiment(seed=5))
    assert [cell.variant.method.key for cell in cells] == list(METHODS)
    assert {(cell.order, cell.experiment.seed, tuple(cell.data)) for cell in cells} == {("stream", 5, ("one", "two"))}


def test_a_method_without_a_use_for_replay_is_compared_with_those_that_have_one(experiment: Experiment) -> None:
    cells = cells_of(experiment(replay={"fraction": 0.5}, compare={"methods": ["er", "mtl", "stl", "gem"]}))
    sections = {cell.variant.method.key: cell.experiment.replay for cell in cells}
    assert sections["mtl"] is sections["stl"] is None
    assert sections["er"] == sections["gem"] and sections["er"] is not None and sections["er"].fraction == 0.5


def test_a_row_has_its_own_stage_settings_and_the_experiments_for_the_rest(experiment: Experiment) -> None:
    row = {"name": "lifealign", "label": "no preferences", "preference": {"num_train_epochs": 0}}
    whole = experiment(
        sft={"num_train_epochs": 2, "learning_rate": 1e-3},
        preference={"beta": 0.3, "num_train_epochs": 1},
        compare={"methods": ["er", row, {"name": "er", "label": "slow", "sft": {"learning_rate": 1e-4}}]},
    )
    er, without, slow = (cell.experiment for cell in cells_of(whole))
    assert (er.sft, er.preference) == (whole.sft, whole.preference)
    assert (without.sft, without.preference.num_train_epochs, without.preference.beta) == (whole.sft, 0, 0.3)
    assert (slow.sft.learning_rate, slow.sft.num_train_epochs, slow.preference) == (1e-4, 2, whole.preference)
    again = ExperimentConfig.model_validate(whole.model_dump(mode="json"))
    assert [cell.experiment.preference for cell in cells_of(again)] == [one.preference for one in (er, without, slow)]


def test_a_mistake_in_a_rows_stage_settings_is_named_with_its_place(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"compare\.methods\[0\]\.sft\.learning_rat: .* did you mean learning_rate"):
        experiment(compare={"methods": [{"name": "er", "sft": {"learning_rat": 1}}]})


def test_a_row_has_its_own_replay_or_else_what_its_method_has_a_use_for(experiment: Experiment) -> None:
    own = {"fraction": 0.25, "capacity": 3}
    methods = ["seqft", {"name": "seqft", "label": "SeqFT with replay", "replay": own}, "er"]
    for section in ({}, {"replay": {"fraction": 0.5}}):
        plain, replaying, er = cells_of(experiment(compare={"methods": methods}, **section))
        assert plain.experiment.replay is None
        assert replaying.experiment.replay == ReplayConfig(**own)
        assert er.experiment.replay == (ReplayConfig(fraction=0.5) if section else None)
    assert run([replaying])[1] == {}
    life = Life.open(replaying.experiment.output_dir)
    assert life.config.replay == ReplayConfig(**own)
    assert [step.replayed_pairs for step in result_of(life).steps] == [0, 2]


def test_the_section_is_read_written_and_read_again(experiment: Experiment) -> None:
    methods = ["seqft", {"name": "lifealign", "energy_kept": 0.5, "label": "LifeAlign 0.5", "replay": {"capacity": 9}}]
    read = experiment(compare={"methods": methods, "orders": {"a": ["one"]}, "seeds": [1], "against": "seqft"})
    assert [variant.label for variant in read.compare.methods] == ["SeqFT", "LifeAlign 0.5"]
    assert [variant.slug for variant in read.compare.methods] == ["seqft", "lifealign-0-5"]
    assert read.compare.methods[1].method.model_dump()["energy_kept"] == 0.5
    assert read.compare.methods[1].replay == ReplayConfig(capacity=9)
    assert read.compare.reference_label == "SeqFT"
    assert build_config(ExperimentConfig, yaml.safe_load(dump_config(read))) == read
    made = CompareConfig(methods=(Variant(label="mine", method=ER()),), against="er")
    assert made.reference_label == "mine" and made.methods[0].method == ER()


WRONG = {
    "another method's option": (
        {"methods": [{"name": "er", "energy_kept": 0.5}]},
        r"compare\.methods\[0\]\.energy_kept: found an option that er does not have "
        r"\(it belongs to lifealign, cumulative\), exp",
    ),
    "an option out of range": (
        {"methods": ["er", {"name": "lifealign", "energy_kept": 2}]},
        r"compare\.methods\[1\]\.energy_kept: found 2, expected a number of at most 1",
    ),
    "an unknown method": (
        {"methods": ["lifealing"]},
        r"compare\.methods\[0\]: found 'lifealing', expected one of .*did you mean lifealign",
    ),
    "no method's name": ({"methods": [{"label": "x"}]}, r"compare\.methods\[0\]: found null, expected one of"),
    "one method for a list": ({"methods": "er"}, r"compare\.methods: found 'er', expected a list"),
    "no methods": ({"methods": []}, r"compare\.methods: found a list of 0, expected at least 1 of them"),
    "equal folders": (
        {"methods": ["er", "stl", {"name": "lifealign", "label": "(er)"}]},
        r"compare\.methods\[2\]: found '\(er\)', which shares its folder with methods\[0\] \('ER'\), expected a label",
    ),
    "a method twice": ({"methods": ["er", "er"]}, r"compare\.methods\[1\]: found 'ER', which shares its folder with"),
    "no letter in a label": (
        {"methods": [{"name": "er", "label": "--"}]},
        r"compare\.methods\[0\]\.label: found '--', expected at least one letter or digit",
    ),
    "a label of another kind": (
        {"methods": [{"name": "er", "label": 3}]},
        r"compare\.methods\[0\]\.label: found 3, expected text",
    ),
    "replay of no use": (
        {"methods": ["er", {"name": "mtl", "replay": {"fraction": 0.5}}]},
        r"compare\.methods\[1\]\.replay: found settings, expected none, because mtl uses no pairs of earlier tasks",
    ),
    "replay out of range": (
        {"methods": [{"name": "er", "replay": {"fraction": 2}}]},
        r"compare\.methods\[0\]\.replay\.fraction: found 2, expected a number of at most 1",
    ),
    "a seed twice": ({"seeds": [1, 1]}, r"compare\.seeds: found \[1, 1\], expected each once"),
    "true for a seed": ({"seeds": [True]}, r"compare\.seeds\[0\]: found true, expected a whole number"),
    "one seed for a list": ({"seeds": 42}, r"compare\.seeds: found 42, expected a list"),
    "no seeds": ({"seeds": []}, r"compare\.seeds: found a list of 0, expected at least 1 of them"),
    "an order's name alone": (
        {"orders": "order1"},
        r"compare\.orders: found 'order1', expected a list of orders .* or a mapping from names to lists of tasks",
    ),
    "an order that is no list": (
        {"orders": {"a": "one"}},
        r"compare\.orders\.a: found 'one', expected a list of tasks, at least one",
    ),
    "an order of nothing": (
        {"orders": {"a": ["one"], "b": []}},
        r"compare\.orders\.b: found a list of 0, expected a list of tasks, at least one",
    ),
    "no orders": ({"orders": {}}, r"compare\.orders: found an object with no keys, expected a list of orders"),
    "a task that is no name": ({"orders": {"a": ["one", 2]}}, r"compare\.orders\.a\[1\]: found 2, expected a name"),
    "an order named as no file can be": ({"orders": {"a/b": ["one"]}}, r"compare\.orders: found 'a/b', expected let"),
    "a catalog's order of other tasks": (
        {"orders": ["order1"]},
        r"^compare\.orders: order1: order: found 'order1', expected a list of tasks; only the paper's suite has named "
        r"orders$",
    ),
    "an unknown task": (
        {"orders": {"a": ["one", "tow"]}},
        r"compare\.orders: a: order\[1\]: found 'tow' .*one, two; did you mean two\?",
    ),
    "a task twice": (
        {"orders": {"a": ["one", "one"]}},
        r"a: order\[1\]: found 'one' again in the order, expected each",
    ),
    "a stream too short": (
        {"orders": {"long": ["one", "two"], "short": ["two"]}, "methods": ["er", "mtl"]},
        r"method mtl: found a stream of 1 task, expected at least 2, .*; run the whole stream, or choose a method",
    ),
    "no method to compare with": (
        {"methods": ["er"], "against": "re"},
        r"compare\.against: found 're', expected one of ER, er",
    ),
    "an unknown key": ({"method": ["er"]}, r"compare\.method: found an unknown key; did you mean methods\?"),
}


@pytest.mark.parametrize(("section", "message"), WRONG.values(), ids=WRONG)
def test_a_section_that_cannot_be_is_one_clear_error_and_makes_nothing(
    experiment: Experiment, tmp_path: Path, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        cells_of(experiment(compare=section))
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_of_an_order_only_the_tasks_that_it_names_are_loaded(experiment: Experiment, data: Path) -> None:
    tasks = [task_of(data, "one"), {"name": "lost", "train": str(data / "lost.jsonl")}]
    (cell,) = cells_of(experiment(tasks=tasks, compare={"methods": ["er"], "orders": {"short": ["one"]}}))
    assert [task.name for task in load_tasks(cell.experiment)] == ["one"]


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_every_cell_has_a_result_file_that_says_what_the_cell_was(compared: list[Cell]) -> None:
    folder = compared[0].result.parent
    assert sorted(path.name for path in folder.glob("*.json")) == sorted(
        f"stream--{slug}--seed{seed}.json" for slug in ("seqft", "er-as-it-is") for seed in (1, 2)
    )
    for cell in compared:
        result = finished(cell)
        assert result is not None
        assert (result.label, result.order) == (cell.variant.label, "stream")
        assert (result.method, result.seed) == (cell.variant.method.key, cell.experiment.seed)
        life = Life.open(cell.experiment.output_dir)
        assert result == result_of(life, label=cell.variant.label, order="stream")
    assert [result.label for result in results_of(compared)] == ["SeqFT", "ER, as it is"] * 2
    assert len({repr(result.scores) for result in results_of(compared)}) == 4  # seeds and methods matter


def test_a_life_of_a_comparison_is_a_life_like_any_other(compared: list[Cell]) -> None:
    for cell in compared[:2]:
        life = Life.open(cell.experiment.output_dir)
        assert life.directory.manifest.config.keys() == LifeConfig.model_fields.keys()
        assert (life.config.method.key, life.config.seed) == (cell.variant.method.key, 1)
        assert type(life.config) is LifeConfig
        assert life.directory.verify(life.versions) > 0
    model, _ = life.load("01-one")
    assert model.active_adapter == "default"


def test_the_table_is_the_mean_and_spread_of_the_result_files(compared: list[Cell], tmp_path: Path) -> None:
    comparison = comparison_of(compared, "SeqFT")
    assert comparison is not None and comparison == compare_results(results_of(compared), "SeqFT")
    paths = write_tables(comparison, tmp_path / "tables")
    assert [path.name for path in paths] == ["comparison.csv", "comparison.md", "comparison.tex"]
    with paths[0].open(newline="") as file:
        rows = {(row["metric"], row["label"], row["statistic"]): row for row in csv.DictReader(file)}
    by_label = {
        label: [result for result in results_of(compared) if result.label == label]
        for label in ("SeqFT", "ER, as it is")
    }
    for label, results in by_label.items():
        for metric in ("preference_accuracy", "margin", "adherence"):
            last = [result.scores[metric].summary.last or 0 for result in results]
            row = rows[metric, label, "last"]
            assert float(row["mean"]) == pytest.approx(fmean(last)) and float(row["sd"]) == pytest.approx(stdev(last))
            assert row["seeds"] == "2"
        cost = [result.cost.model_dump() for result in results if result.cost is not None]
        for statistic, key, unit in (
            ("minutes", "seconds", 60),
            ("state_mb", "state_bytes", 1e6),
            ("adapter_mb", "adapter_bytes", 1e6),
            ("peak_memory_gb", "peak_memory_bytes", 1e9),
        ):
            found = float(rows["cost", label, statistic]["mean"])
            assert found == pytest.approx(fmean(one[key] / unit for one in cost))
    er, base = rows["margin", "ER, as it is", "last"], rows["preference_accuracy", "base model", "last"]
    last = {label: float(rows["margin", label, "last"]["mean"]) for label in by_label}
    assert float(er["difference"]) == pytest.approx(last["ER, as it is"] - last["SeqFT"], abs=1e-4)
    assert float(er["low"]) <= float(er["difference"]) <= float(er["high"])
    assert float(base["mean"]) == 0.5 and base["seeds"] == ""
    markdown, latex = (path.read_text() for path in paths[1:])
    for text in (markdown, latex):
        for word in ("base model", "SeqFT", "ER, as it is", "BWT", "minutes", "state MB", "peak GB", "difference from"):
            assert word in text
        assert "±" in text or r"$\pm$" in text


def test_a_task_without_a_check_or_without_held_out_pairs_leaves_a_hole_and_no_more(
    experiment: Experiment, data: Path, tmp_path: Path
) -> None:
    tasks = [task_of(data, "one", test=None), task_of(data, "two"), task_of(data, "three", check={"max_words": 1})]
    cells = cells_of(experiment(tasks=tasks, compare={"methods": ["seqft", "stl", "mtl"], "against": "seqft"}))
    assert run(cells)[1] == {}
    seqft = results_of(cells)[0]
    assert [sorted(row) for row in seqft.outcomes["adherence"]] == [[], [], ["three"]]
    assert [sorted(row) for row in seqft.outcomes["margin"]] == [[], ["two"], ["three", "two"]]
    assert set(seqft.scores) == set(seqft.outcomes)
    comparison = comparison_of(cells, "SeqFT")
    assert comparison is not None
    assert {table.metric: table.tasks for table in comparison.orders[0].metrics} == {
        "adherence": ("three",),
        "preference_accuracy": ("two", "three"),
        "margin": ("two", "three"),
    }
    assert len(write_tables(comparison, tmp_path / "tables")) == 3


def test_a_stream_without_held_out_pairs_has_a_table_of_costs(
    experiment: Experiment, data: Path, tmp_path: Path
) -> None:
    cells = cells_of(experiment(tasks=[task_of(data, "one", test=None)], compare={"methods": ["seqft"]}))
    assert run(cells)[1] == {}
    comparison = comparison_of(cells, None)
    assert comparison is not None and comparison.orders[0].metrics == ()
    assert [cost.label for cost in comparison.orders[0].costs] == ["SeqFT"]
    assert "costs" in write_tables(comparison, tmp_path)[1].read_text()


def test_what_is_not_finished_yet_is_no_obstacle_to_a_table_of_the_rest(compared: list[Cell], tmp_path: Path) -> None:
    def missing(cell: Cell) -> Cell:
        return replace(cell, result=tmp_path / "nothing.json")

    assert comparison_of([missing(cell) for cell in compared], "SeqFT") is None
    without_seqft = [missing(cell) if cell.variant.label == "SeqFT" else cell for cell in compared]
    comparison = comparison_of(without_seqft, "SeqFT")
    assert comparison is not None and comparison.against is None
    assert [row.label for row in comparison.orders[0].metrics[0].rows] == ["base model", "ER, as it is"]


# -- once and never again ----------------------------------------------------------------------------------------------


def test_a_finished_cell_is_never_run_again(
    compared: list[Cell], monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    before = content(compared[0].result.parents[1])
    monkeypatch.setattr(worker, "run_experiment", None)
    lines, failures = run(compared)
    assert lines == ["4 cells, 4 of them finished"] and failures == {} and steps == []
    assert content(compared[0].result.parents[1]) == before


def test_only_what_is_missing_is_run(experiment: Experiment, steps: list[str]) -> None:
    cells = cells_of(experiment(compare={"methods": ["seqft", "er"]}))
    assert run(cells[1:])[1] == {}
    steps.clear()
    lines, failures = run(cells)
    assert lines[0] == "2 cells, 1 of them finished" and failures == {}
    assert lines[1:] == ["SeqFT, stream, seed 42", "SeqFT, stream, seed 42: finished (1 of 1)"]
    assert steps == ["stream--seqft--seed42 01-one", "stream--seqft--seed42 02-two"]
    before, steps[:] = timeless(cells[0]), []
    cells[0].result.unlink()  # killed between the last step and the result file
    assert run(cells)[1] == {} and steps == [] and timeless(cells[0]) == before


def test_a_cell_that_was_interrupted_goes_on_where_it_was_and_ends_as_if_nothing_had_been(
    experiment: Experiment, compared: list[Cell], monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    cells = cells_of(experiment(compare=SEVERAL))[:2]
    with monkeypatch.context() as patch:
        break_training(patch, "er", KeyboardInterrupt(), from_task="two")
        with pytest.raises(KeyboardInterrupt):
            run(cells)
    assert cells[0].result.exists() and not cells[1].result.exists()
    steps.clear()
    lines, failures = run(cells)
    assert lines[0] == "2 cells, 1 of them finished" and failures == {}
    assert steps == ["stream--er-as-it-is--seed1 02-two"]
    for cell, undisturbed in zip(cells, compared, strict=False):
        assert timeless(cell) == timeless(undisturbed)
        assert learnt(cell) == learnt(undisturbed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda result: result["settings"]["lora"].update(lora_r=8), r"\(lora\.lora_r: 8 there, 4 here\)"),
        (lambda result: result["settings"].update(seed=9), r"\(seed: 9 there, 1 here\)"),
        (lambda result: result.update(label="Er"), r"\(label: 'Er' there, 'SeqFT' here\)"),
        (lambda result: result.update(order="order1"), r"\(order: 'order1' there, 'stream' here\)"),
        (
            lambda result: result["steps"][1]["tasks"][0].update(data_hash="f00d"),
            r"\(data\.two: 'f00d' there, '\w{32}' here\)",
        ),
        (lambda result: result["steps"].reverse(), r"\(tasks: \['two', 'one'\] there, \['one', 'two'\] here\)"),
        (
            lambda result: result.update(steps=result["steps"][:1], scores={}, outcomes={}, general_text=[None]),
            r"\(tasks: \['one'\] there, \['one', 'two'\] here; data\.two: None there, '\w{32}' here\)",
        ),
    ],
    ids=["settings", "seed", "label", "order", "data", "order of tasks", "fewer tasks"],
)
def test_a_result_of_something_else_is_refused_before_anything_runs(
    experiment: Experiment,
    compared: list[Cell],
    tmp_path: Path,
    steps: list[str],
    changed: Callable[[dict[str, Any]], Any],
    message: str,
) -> None:
    cells = cells_of(experiment(compare=SEVERAL))
    result = json.loads(compared[0].result.read_text())
    changed(result)
    del result["content_hash"]
    storage.write_json(cells[0].result, result | {"content_hash": content_hash(result)})
    before = content(tmp_path)
    for call in (lambda: run(cells), lambda: comparison_of(cells, None)):
        with pytest.raises(ConfigError) as error:
            call()
        start = re.escape(f"{cells[0].result}: found a result of other settings or data ")
        end = r", expected those of SeqFT, stream, seed 1; choose another output_dir or --results, or delete the file"
        assert re.fullmatch(start + message + end, str(error.value)), str(error.value)
    assert steps == [] and content(tmp_path) == before


def test_more_data_or_another_option_is_something_else_too(
    experiment: Experiment, data: Path, compared: list[Cell]
) -> None:
    results = compared[0].result.parent
    more = [task_of(data, "one", max_train=7), task_of(data, "two", check={"max_words": 1})]
    for sections, message in (
        ({"tasks": more}, r"data\.one: '\w+' there, '\w+' here"),
        ({"preference": STAGE | {"learning_rate": 1e-2, "beta": 0.2}}, r"preference\.beta: 0\.1 there, 0\.2 here"),
    ):
        cells = cells_of(experiment(compare=SEVERAL, **sections), results)
        with pytest.raises(ConfigError, match=message):
            run(cells)
    assert results_of(cells_of(experiment(compare=SEVERAL), results)) == results_of(compared)


@pytest.mark.parametrize(
    ("text", "message"), [("[]", "found a list of 0, expected a result file"), ("{", "invalid JSON")]
)
def test_a_result_file_that_is_none_is_refused(
    experiment: Experiment, steps: list[str], text: str, message: str
) -> None:
    cells = cells_of(experiment(compare=SEVERAL))
    storage.write_text(cells[0].result, text)
    with pytest.raises(LifeAlignError, match=message):
        run(cells)
    assert steps == []


# -- what goes wrong in a cell -----------------------------------------------------------------------------------------

PAIR = {"methods": ["seqft", "er"]}
BROKEN, WHOLE = "SeqFT, stream, seed 42", "ER, stream, seed 42"


def only_the_broken_one_fails(cells: Sequence[Cell], message: str) -> None:
    """Runs the two cells; what is wrong with the first stops neither the second nor the next call."""
    lines, failures = run(cells)
    assert failures.keys() == {BROKEN} and re.search(message, failures[BROKEN]), failures
    assert f"{BROKEN}: failed (1 of 2): {failures[BROKEN]}" in lines and f"{WHOLE}: finished (2 of 2)" in lines
    assert finished(cells[0]) is None and finished(cells[1]) is not None


def test_a_life_of_other_settings_in_a_cells_folder_stays_as_it_is(experiment: Experiment) -> None:
    cells = cells_of(experiment(compare=PAIR))
    made = open_or_create(cells[0].experiment.model_copy(update={"seed": 43}))
    before = content(made.directory.path)
    only_the_broken_one_fails(cells, r"found a life with other settings \(seed: 43 there, 42 here\), expected those")
    assert content(made.directory.path) == before


def test_a_life_that_another_process_holds_is_not_written_to(experiment: Experiment) -> None:
    cells = cells_of(experiment(compare=PAIR))
    life = open_or_create(cells[0].experiment)
    before = content(life.directory.path)
    with life.workspace.writing():
        only_the_broken_one_fails(cells, rf"{life.directory.path}: found it in use by process {os.getpid()} on")
        assert content(life.directory.path) == before
    assert run(cells) == (
        ["2 cells, 1 of them finished", BROKEN, f"{BROKEN}: finished (1 of 1)"],
        {},
    )


def test_a_state_that_another_configuration_has_saved_is_refused(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    def cells_with(strength: float) -> list[Cell]:
        ewc = {"name": "ewc", "label": "SeqFT", "strength": strength, "fisher_examples": 2}
        return cells_of(experiment(compare={"methods": [ewc, "er"]}))

    with monkeypatch.context() as patch:
        break_training(patch, "ewc", KeyboardInterrupt(), from_task="two")
        with pytest.raises(KeyboardInterrupt):
            run(cells_with(1.0))
    cells = cells_with(2.0)
    life = cells[0].experiment.output_dir
    edited = json.loads((life / "life.json").read_text())
    edited["config"]["method"]["strength"] = 2.0  # somebody has helped a changed setting along
    storage.write_sealed_json(life / "life.json", edited)
    before = content(life)
    message = (
        r"state of step 01-one saved under another configuration \(strength: 1\.0 there, 2\.0 here\), expected that of"
    )
    only_the_broken_one_fails(cells, message)
    assert {key: value for key, value in content(life).items() if key != "scores.json"} == {
        key: value for key, value in before.items() if key != "scores.json"
    }


def test_training_that_goes_wrong_is_the_end_of_its_cell_only(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of(experiment(compare=PAIR))
    with monkeypatch.context() as patch:
        gone = TrainingError("the loss is nan", task="two", stage="preference", step=3)
        break_training(patch, "seqft", gone, from_task="two")
        only_the_broken_one_fails(cells, "^task 'two', stage 'preference', optimizer step 3: the loss is nan$")
    assert [version.name for version in Life.open(cells[0].experiment.output_dir).steps] == ["01-one"]
    assert run(cells)[1] == {}


def test_a_fault_that_nobody_foresaw_is_logged_and_the_end_of_its_cell_only(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cells = cells_of(experiment(compare=PAIR))
    break_training(monkeypatch, "seqft", RuntimeError("CUDA out of memory"))
    with caplog.at_level(logging.ERROR, logger="lifealign"):
        only_the_broken_one_fails(cells, "^RuntimeError: CUDA out of memory$")
    (record,) = caplog.records
    assert (
        record.getMessage() == BROKEN and record.exc_info is not None
    )  # where it happened, for whoever has to mend it


def test_a_result_that_cannot_be_written_is_written_by_the_next_call(
    experiment: Experiment, steps: list[str], tmp_path: Path
) -> None:
    cells = cells_of(experiment(compare=PAIR))
    cells[0] = replace(cells[0], result=tmp_path / "file" / "result.json")
    (tmp_path / "file").write_text("in the way")
    only_the_broken_one_fails(cells, r"file(/result\.json)?: could not be written: ")
    (tmp_path / "file").unlink()
    steps.clear()
    assert run(cells)[1] == {} and steps == [] and finished(cells[0]) is not None


# -- what cells share --------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """By the folder of each life that is lived from here on, the reference log-probabilities it has computed."""
    counts: dict[str, int] = {}
    run_experiment = worker.run_experiment

    def counted(*arguments: Any, **more: Any) -> Life:
        life = run_experiment(*arguments, **more)
        counts[life.directory.path.name] = life.workspace.reference.computed
        return life

    monkeypatch.setattr(worker, "run_experiment", counted)
    return counts


def test_what_the_base_says_is_computed_once_for_all_cells_and_changes_no_number(
    experiment: Experiment, computed: dict[str, int], tmp_path: Path, user_cache: Path
) -> None:
    methods = ["seqft", "mtl", "lifealign"]
    together = cells_of(experiment(compare={"methods": methods}))
    assert run(together)[1] == {}
    # 8 pairs to learn and 4 held out, of each of two tasks
    counts = [computed[cell.experiment.output_dir.name] for cell in together]
    assert counts == [24, 0, 0]
    for cell in together[1:]:
        shutil.rmtree(user_cache / "bases")  # what the base says is known to all of a user's lives otherwise
        elsewhere = tmp_path / "alone" / cell.variant.slug
        (alone,) = cells_of(experiment(output_dir=str(elsewhere), compare={"methods": [cell.variant.method.key]}))
        assert run([alone])[1] == {}
        assert computed[alone.experiment.output_dir.name] == 24
        assert timeless(alone) == timeless(cell) and learnt(alone) == learnt(cell)


def test_a_cache_that_is_gone_or_damaged_costs_time_and_nothing_else(
    experiment: Experiment, compared: list[Cell], computed: dict[str, int], tmp_path: Path, user_cache: Path
) -> None:
    cells = cells_of(experiment(compare=SEVERAL))[:2]
    assert run(cells[:1])[1] == {}
    shutil.rmtree(user_cache / "bases")
    for name in ("reference.jsonl", "answers.jsonl"):
        assert (tmp_path / "out" / "cache" / name).is_file()
        (tmp_path / "out" / "cache" / name).write_bytes(b"{")
    assert run(cells)[1] == {}
    assert computed == {"stream--seqft--seed1": 24, "stream--er-as-it-is--seed1": 24}
    for cell, undisturbed in zip(cells, compared, strict=False):
        assert timeless(cell) == timeless(undisturbed)


def test_a_cell_leaves_no_model_behind_and_the_base_as_it_was(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    models: list[weakref.ref[Any]] = []
    loaded: list[str] = []
    run_experiment, load_base = worker.run_experiment, worker.load_base

    def watched(*arguments: Any, **more: Any) -> Life:
        assert [model() for model in models] == [None] * len(models)  # else its memory counts as the next cell's
        life = run_experiment(*arguments, **more)
        models.append(weakref.ref(life.workspace.runtime.model))
        return life

    def counted(settings: Any) -> Any:
        loaded.append(settings.model_name_or_path)
        return load_base(settings)

    monkeypatch.setattr(worker, "_base", None)
    monkeypatch.setattr(worker, "run_experiment", watched)
    monkeypatch.setattr(worker, "load_base", counted)
    monkeypatch.setattr("lifealign.life.workspace.load_base", None)
    cells = cells_of(experiment(compare={"methods": ["l2p", "seqft"]}))
    assert run(cells)[1] == {}
    assert len(models) == 2 and models[-1]() is None
    assert loaded == [str(tiny_folder)]
    base = worker._base
    assert base is not None
    assert not any("lora" in name for name, _ in base[1].model.named_parameters())
    assert base[1].fingerprint == Life.open(cells[0].experiment.output_dir).workspace.base_fingerprint
    other = str(save_tiny(tmp_path / "other", seed=1))
    elsewhere = {"model": ModelConfig(model_name_or_path=other, dtype="float32"), "output_dir": tmp_path / "elsewhere"}
    cells = cells_of(experiment(compare={"methods": ["seqft"]}).model_copy(update=elsewhere))
    assert run(cells)[1] == {} and loaded == [str(tiny_folder), other]
    assert Life.open(cells[0].experiment.output_dir).workspace.base_fingerprint != base[1].fingerprint


# -- several processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cells_in_processes_of_their_own_come_to_the_same_and_one_that_fails_stops_no_other(
    experiment: Experiment, compared: list[Cell], data: Path, tmp_path: Path
) -> None:
    lost = tmp_path / "lost.jsonl"
    lost.write_text((data / "three-train.jsonl").read_text())
    tasks = [
        task_of(data, "one"),
        task_of(data, "two", check={"max_words": 1}),
        task_of(data, "three", train=str(lost)),
    ]
    orders = {"stream": ["one", "two"], "longer": ["one", "two", "three"]}
    section = {"methods": SEVERAL["methods"], "seeds": [1], "orders": orders}
    cells = cells_of(experiment(tasks=tasks, compare=section))
    lost.unlink()
    lines, failures = run(cells, jobs=2)
    cause = f"{lost}: found no such file, expected"
    assert failures.keys() == {"SeqFT, longer, seed 1", "ER, as it is, longer, seed 1"}
    assert all(text.startswith(cause) for text in failures.values()), failures
    assert sorted(re.findall(r"\((\d) of 4\)", "\n".join(lines))) == ["1", "2", "3", "4"]
    for cell, undisturbed in zip(cells[:2], compared, strict=False):
        assert timeless(cell) == timeless(undisturbed)
        assert learnt(cell) == learnt(undisturbed)


class Pool:
    """Runs cells at once, until one of its processes is killed from outside: from the second cell on."""

    given_up: bool | None = None
    """At the end, whether its processes were told to end."""

    def __init__(self, *_: Any, initargs: tuple[Any, ...], **__: Any) -> None:
        self.submitted, self.watched = 0, initargs[1]

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: Any) -> None:
        Pool.given_up = self.watched.poll()

    def submit(self, function: Callable[..., Any], cell: Cell) -> "Future[Any]":
        self.submitted += 1
        future: Future[Any] = Future()
        if self.submitted == 1:
            future.set_result(function(cell))
        else:
            future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly"))
        return future


def test_a_process_that_is_killed_from_outside_is_named_as_the_cause(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of(experiment(compare={"methods": ["seqft", "er", "stl"]}))
    with monkeypatch.context() as patch:
        patch.setattr(executors, "ProcessPoolExecutor", Pool)
        lines, failures = run(cells, jobs=2)
        assert Pool.given_up is False
    assert failures.keys() == {"ER, stream, seed 42", "STL, stream, seed 42"}
    assert set(failures.values()) == {"its process, or another one of the comparison, was killed; out of memory?"}
    assert f"{BROKEN}: finished" in "\n".join(lines)
    assert run(cells)[1] == {}


STUCK = """
import sys, time
from pathlib import Path
from lifealign.life import step as learning

train_stage = learning.train_stage

def stuck(runtime, pairs, objective, config, method, task, **more):
    if task == "two" and objective.stage == "preference":
        Path(sys.argv[1], method.key).touch()
        time.sleep(600)
    return train_stage(runtime, pairs, objective, config, method, task, **more)

learning.train_stage = stuck  # in the processes of the cells too: each of them reads this file

if __name__ == "__main__":
    from lifealign.cli.main import app
    app(sys.argv[2:])
"""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, what
        time.sleep(0.05)


def is_free(folder: Path) -> bool:
    with suppress(LifeError), exclusive_lock(folder):
        return True
    return False


@pytest.mark.slow
def test_cells_killed_in_the_middle_leave_no_process_behind_and_end_as_if_nothing_had_been(
    experiment: Experiment, compared: list[Cell], tmp_path: Path, steps: list[str]
) -> None:
    configured = experiment(compare=SEVERAL | {"seeds": [1]})
    cells = cells_of(configured)
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "experiment.yaml").write_text(dump_config(configured))
    (reached := tmp_path / "reached").mkdir()
    source = Path(compare.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "stuck.py", str(reached), "compare", "experiment.yaml", "--jobs", "2"]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: len(list(reached.iterdir())) == 2, "both cells are in the middle of their second step")
        assert not any(is_free(cell.experiment.output_dir) for cell in cells)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: all(is_free(cell.experiment.output_dir) for cell in cells), "no process holds a life", 30)
    assert [finished(cell) for cell in cells] == [None, None]
    assert run(cells)[1] == {}
    assert steps == ["stream--seqft--seed1 02-two", "stream--er-as-it-is--seed1 02-two"]
    for cell, undisturbed in zip(cells, compared, strict=False):
        assert timeless(cell) == timeless(undisturbed)
        assert learnt(cell) == learnt(undisturbed)


def test_who_gives_up_does_not_wait_for_the_cells_that_are_running(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(text: str) -> None:
        if "finished (" in text:
            raise KeyboardInterrupt

    cells = cells_of(experiment(compare=PAIR))
    monkeypatch.setattr(executors, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(Pool, "given_up", None)
    with pytest.raises(KeyboardInterrupt) as error:
        run_comparison(cells, engine=Processes(2), say=interrupted)
    assert Pool.given_up is True, error  # not only once the error and all that it holds are gone
