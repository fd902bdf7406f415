"""The command line as a person uses it: what the verbs print, and one line and exit code 2 for whatever is wrong."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from tests.cli.conftest import Command
from tests.conftest import NoTraining
from tests.scripted_judge import scripted_judge
from tests.tiny import save_tiny
from tests.writers import write_general_text, write_jsonl, write_task

from lifealign.cli import demo as show
from lifealign.cli import main as cli
from lifealign.data.task import Task, name_of_task
from lifealign.errors import LifeAlignError, LifeError
from lifealign.experiments import worker
from lifealign.experiments.tasks import order_of
from lifealign.life import gate as gates
from lifealign.life import learn as lifelong
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.settings.section import build_config
from lifealign.storage import files as storage

STAGE = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
SETTINGS: dict[str, Any] = {
    "lora": {"lora_r": 4, "lora_alpha": 8},
    "sft": STAGE | {"learning_rate": 1e-2},
    "preference": STAGE | {"learning_rate": 1e-2},
    "evaluation": {"max_new_tokens": 4},
}


def a_life(place: Path, model: Path, **more: Any) -> Life:
    """A new life on a tiny model, with settings over those of all tests here."""
    settings = SETTINGS | {
        "model": {"model_name_or_path": str(model), "dtype": "float32"},
        "data": {"max_length": 64},
        "evaluation": SETTINGS["evaluation"] | {"general_text": write_general_text(place.parent)},
    }
    return Life.create(place, build_config(LifeConfig, settings | more))


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a life that has learnt one task, ``bot``; tests copy it."""
    folder = tmp_path_factory.mktemp("made")
    a_life(folder / "bot", tiny_folder).learn(Task.from_files("one", *write_task(folder, "one", "a", "b")))
    return folder / "bot"


@pytest.fixture
def bot(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bot"))


def content(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but for who held a lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def one_line(text: str) -> str:
    """The one line that an error has."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("error: ") and "Traceback" not in text
    return lines[0].removeprefix("error: ")


# -- the verbs ---------------------------------------------------------------------------------------------------------


def test_a_refused_step_ends_with_3_a_table_and_a_page(
    lifealign: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, one_test = write_task(tmp_path, "one", "a", "b")
    two, _ = write_task(tmp_path, "two", "c", "d")
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | {"retention": {"mode": "enforce", "scales": [1.0, 0.5]}}))
    assert lifealign("init", "bot", "--model", tiny_folder, "--config", config).code == 0
    small = lifealign("learn", "bot", one, "--gate", one_test)
    assert (small.code, small.out) == (2, "")
    assert "found 3 gate prompts of one, expected at least 41" in small.err
    assert lifealign("learn", "bot", one, "--gate", one_test, "--max-loss", 0.9).code == 0
    before = Path("bot/life.json").read_bytes()

    loss = gates.loss_since
    monkeypatch.setattr(
        gates, "loss_since", lambda gate, seen, alpha: loss(replace(gate, values=(1.0, 1.0, 1.0)), _worse(seen), alpha)
    )
    refused = lifealign("learn", "bot", two, "--max-loss", 0.99)
    assert refused.code == 3
    assert "02-two, all of its update" in refused.out and "02-two, 0.5 of its update" in refused.out
    assert re.search(r"one +3 +3 +0 +100.0 % +90 %", refused.out)
    assert "error: bot: 02-two refused: one: 3 of 3 prompts lost, 0 gained; at most 100.0 % lost, allowed 90 %" in (
        refused.err
    )
    assert Path("bot/life.json").read_bytes() == before
    page = Path("bot/retention/refused-02-two.html")
    assert f"page: {page}" in refused.out and "3 prompts lost" in page.read_text()

    forced = lifealign("learn", "bot", two, "--max-loss", 0.99, "--force")
    assert forced.code == 0
    assert "retention: LOST, kept with --force (decision 1)" in lifealign("status", "bot").out


def _worse(seen: gates.Seen) -> gates.Seen:
    return replace(seen, values={task: [-1.0] * len(values) for task, values in seen.values.items()})


def test_a_life_from_init_to_rollback(lifealign: Command, tiny_folder: Path, tmp_path: Path) -> None:
    one, one_test = write_task(tmp_path, "one", "a", "b")
    two, two_test = write_task(tmp_path, "two", "c", "d")
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))

    chosen = ("--model", tiny_folder, "--config", config, "--set", "model.dtype=float32", "--method", "er")
    made = lifealign("init", "bot", *chosen)
    assert (made.code, made.err) == (0, "")
    assert f"bot: a new life on {tiny_folder}, method ER" in made.out and "next: lifealign learn bot" in made.out
    settings = Life.open("bot").config
    assert (settings.method.key, settings.model.dtype, settings.sft.learning_rate) == ("er", "float32", 1e-2)

    first = lifealign("learn", "bot", one, "--test", one_test, "--max-words", 3)
    assert (first.code, first.err) == (0, "")
    assert re.search(r"01-one sft +2 steps  loss \d", first.out)
    assert re.search(r"01-one preference +2 steps  loss \d.* margin .* accuracy \d+%", first.out)
    second = lifealign("learn", "bot", two, "--test", two_test, "--name", "second", "--supersedes", "one")
    assert (second.code, second.err) == (0, "")
    assert "adapter: bot/versions/02-second" in second.out
    assert [task.supersedes for version in Life.open("bot").steps for task in version.tasks] == [[], ["one"]]

    shown = lifealign("status", "bot")
    assert (shown.code, shown.err) == (0, "")
    assert f"bot: 2 versions learnt on {tiny_folder}, method ER; 41 files, all as committed" in shown.out
    assert "  01-one: one (6 pairs, 4 held out)" in shown.out
    assert "  02-second: second (6 pairs, 4 held out; supersedes one)" in shown.out
    assert "| second (supersedes one) | 02-second | 6 | 4 |" in Path("bot/versions/02-second/README.md").read_text()
    assert lifealign("report", "bot").code == 0
    assert '<th scope="row">02-second (supersedes one)</th>' in Path("bot/report.html").read_text()
    for table in ("adherence", "preference accuracy", "mean margin"):
        assert table in shown.out
    accuracy = shown.out[shown.out.index("preference accuracy") :]
    assert re.search(r"after +one +second +mean", accuracy)
    assert re.search(r"base model +50 % +50 % +50 %", accuracy)
    assert re.search(r"01-one +\d+ % +\d+ %", accuracy) and re.search(r"02-second +\d+ % +\d+ % +\d+ %", accuracy)
    summary = r"last \d+ %   average \d+ %   learned \d+ %   backward transfer [+-]\d+ %   forgetting \d+ %"
    assert re.search(summary, accuracy)

    composed = lifealign("compose", "bot", "only-two", "--without", "one", "--weight", "second=0.5", "--score")
    assert (composed.code, composed.err) == (0, "")
    assert "  01-one: one, weight 0\n  02-second: second, weight 0.5\n" in composed.out
    assert re.search(r"02-second +\d+ % +\d+ % +\d+ % *\n +composed +\d+ % +\d+ % +\d+ %", composed.out)
    assert re.search(
        r"gate prompts, since each task was learnt\n  one: \d+ of \d+ prompts lost, \d+ gained", composed.out
    )
    assert composed.out.endswith("adapter: only-two\n")
    assert "| this adapter |" in Path("only-two/README.md").read_text()
    same = lifealign("compose", "bot", "as-of-one", "--as-of", "01-one")
    assert (same.code, same.err) == (0, "")
    assert "this is the version 01-one, byte for byte" in same.out

    undone = lifealign("rollback", "bot", "--to", "01-one")
    assert (undone.code, undone.out.strip(), undone.err) == (0, "bot: back at 01-one; forgot 02-second", "")
    assert lifealign("rollback", "bot", "--to", "01-one").out.strip() == "bot: back at 01-one; forgot nothing"
    assert "second" not in lifealign("status", "bot").out


def test_learning_a_file_again_says_that_there_is_nothing_to_do(
    lifealign: Command, bot: Path, made: Path, train_nothing: NoTraining
) -> None:
    before = content(bot)
    with train_nothing():
        again = lifealign("learn", "bot", made.parent / "one.jsonl", "--test", made.parent / "one-test.jsonl")
    assert again.code == 0
    assert "one: already learnt from this data in 01-one; nothing to do" in again.out
    assert content(bot) == before


def test_check_reports_on_a_file_without_a_life(lifealign: Command, tiny_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "c", "rejected": "c"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    plain = lifealign("check", path)
    assert (plain.code, plain.err) == (0, "")
    assert "1 usable pair of 2 rows" in plain.out and "1 identical answers (line 2)" in plain.out
    counted = lifealign("check", path, "--model", tiny_folder, "--max-length", 10)
    assert counted.code == 0 and "takes up all of max_length 10" in counted.out
    refused = lifealign("check", path, "--max-length", 10)
    assert refused.code == 2 and "--model" in refused.err


def test_status_of_a_new_life_has_no_table_to_show(lifealign: Command, tiny_folder: Path) -> None:
    lifealign("init", "bot", "--model", tiny_folder)
    shown = lifealign("status", "bot")
    assert shown.code == 0 and "bot: 0 versions learnt on" in shown.out and "adapter: bot/versions/00-base" in shown.out


@pytest.fixture
def experiment(tiny_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes an experiment of two tasks; keywords replace its sections."""
    for name, good, bad in (("one", "a", "b"), ("two", "c", "d")):
        write_task(tmp_path, name, good, bad)

    def write(**sections: Any) -> Path:
        tasks = [{"name": name, "train": f"{name}.jsonl", "test": f"{name}-test.jsonl"} for name in ("one", "two")]
        settings = SETTINGS | {
            "output_dir": "out",
            "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
            "evaluation": SETTINGS["evaluation"] | {"general_text": write_general_text(tmp_path)},
            "tasks": tasks,
        }
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(settings | sections))
        return path

    return write


def test_run_lives_through_a_stream_and_a_second_run_trains_nothing(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("run", experiment(), "--set", "method=seqft", "--set", "seed=3", "--result", "results/two.json")
    first = lifealign(*command)
    assert (first.code, first.err) == (0, "")
    assert re.search(r"02-two +\d+ % +\d+ % +\d+ %", first.out) and "adapter: out/versions/02-two" in first.out
    life = Life.open("out")
    assert (life.config.method.key, life.config.seed) == ("seqft", 3)
    assert [version.name for version in life.steps] == ["01-one", "02-two"]
    result = json.loads((tmp_path / "results" / "two.json").read_text())
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["method"] == "seqft"
    before = content(tmp_path)
    monkeypatch.setattr(lifelong, "learn_step", None)
    again = lifealign(*command)
    assert (again.code, again.err) == (0, "") and content(tmp_path) == before
    assert again.out in first.out  # the same tables, without the lines of training


def test_run_refuses_a_life_with_other_settings_and_names_the_key(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path
) -> None:
    path = experiment()
    assert lifealign("run", path).code == 0
    before = content(tmp_path)
    result = lifealign("run", path, "--set", "preference.beta=0.3")
    assert result.code == 2
    assert "preference.beta: 0.1 there, 0.3 here" in one_line(result.err)
    assert content(tmp_path) == before


def write_folder(folder: Path, *names: str) -> Path:
    """A folder as ``--data`` takes it, from the files of task ``one``."""
    for name in names:
        (folder / "rows" / name).mkdir(parents=True)
        for suffix, split in (("", "train"), ("-test", "test")):
            shutil.copy(folder / f"one{suffix}.jsonl", folder / "rows" / name / f"{split}.jsonl")
    return folder / "rows"


def test_run_takes_a_folder_in_place_of_the_hub(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path
) -> None:
    tasks = [{"name": name, "train": f"hub:nobody/{name}", "test": f"hub:nobody/{name}:test"} for name in ("x", "y")]
    path = experiment(tasks=tasks)
    write_folder(tmp_path, "x", "y")
    (tmp_path / "rows" / "y" / "train.jsonl").write_text((tmp_path / "two.jsonl").read_text())
    command = ("run", path, "--set", "method=seqft", "--data", "rows")  # relative to where one is, unlike in the file
    assert lifealign(*command).code == 0
    steps = Life.open("out").steps
    assert [(task.name, task.train_pairs, task.test_pairs) for step in steps for task in step.tasks] == [
        ("x", 8, 4),
        ("y", 8, 4),
    ]
    (tmp_path / "rows" / "y" / "test.jsonl").unlink()
    result = lifealign(*command)
    assert result.code == 2 and "rows/y/test.jsonl: found no such file" in one_line(result.err)
    unused = lifealign("run", experiment(), "--data", "rows")
    assert unused.code == 2 and "needs data from the hub" in one_line(unused.err)


# -- evaluate and report -----------------------------------------------------------------------------------------------


def test_evaluate_measures_more_shows_it_and_does_not_repeat_it(lifealign: Command, bot: Path) -> None:
    first = lifealign("evaluate", bot, "--metric", "rouge_l", "--metric", "perplexity")
    assert first.code == 0 and "01-one: rouge_l" in first.out
    assert "ROUGE-L of generated against chosen answers" in first.out and "perplexity on general text" in first.out
    again = lifealign("evaluate", bot, "--metric", "rouge_l")
    assert again.code == 0 and "nothing to do: everything is already measured" in again.out
    own = lifealign("evaluate", bot)  # the life's own metrics: it has all that its only task can have
    assert own.code == 0 and "nothing to do" in own.out
    status = lifealign("status", bot)
    assert "ROUGE-L" in status.out and "all as committed" in " ".join(status.out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "rouge"], "metric: found 'rouge', expected one of adherence, "),
        (["--metric", "judge"], "--metric judge needs a judge; add --judge-model NAME"),
        (["--against", "00-base"], "--against needs a judge; add --judge-model NAME"),
        (["--max-requests", "3"], "--max-requests needs a judge; add --judge-model NAME"),
        (["--judge-model", "m", "--against", "00-base", "--replace"], "--replace needs --metric"),
        (["--as-of", "07-x"], "found no version '07-x', expected one of: 00-base, 01-one"),
        (["--set", "max_new_token=3"], "max_new_token"),
        (
            ["--metric", "rouge_l", "--set", "temperature=0.5"],
            "temperature: needs sampled answers; add do_sample: true",
        ),
        (["--metric", "margin", "--set", "pairs=2"], "pairs: None there, 2 here"),
        (["--judge-model", "m", "--judge-key", "sk-0123456789abcdef0"], "may be the key itself (not shown)"),
        (["--judge-model", "m", "--judge-key", "NOT_SET_HERE"], "NOT_SET_HERE"),
        (["--judge-model", "m", "--judge-url", "ftp://x"], "expected one such as http://127.0.0.1:8000/v1"),
        (["--judge-model", "m", "--rubric", "gone.md"], "gone.md: could not be read"),
    ],
)
def test_evaluate_refuses_in_one_line_what_it_cannot_measure(
    lifealign: Command, bot: Path, arguments: list[str], message: str
) -> None:
    before = content(bot / "tasks")
    result = lifealign("evaluate", bot, *arguments)
    assert result.code == 2 and message in one_line(result.err) and "sk-0123456789abcdef0" not in result.err
    assert content(bot / "tasks") == before


def test_a_judge_marks_and_compares_through_the_command_line(lifealign: Command, bot: Path) -> None:
    with scripted_judge(lambda messages, _: "8" if "ANSWER-A" not in messages[1]["content"] else "A") as server:
        judge = ["--judge-model", "scripted", "--judge-url", server.url]
        marked = lifealign("evaluate", bot, *judge)
        asked = len(server.requests)
        assert marked.code == 0 and "LLM judge" in marked.out and "80.0" in marked.out and asked > 0
        assert lifealign("evaluate", bot, *judge).code == 0 and len(server.requests) == asked
        compared = lifealign("evaluate", bot, *judge, "--against", "00-base")
        assert compared.code == 0 and "01-one against 00-base" in compared.out and "order mattered" in compared.out
        page = lifealign("report", bot)
        assert page.code == 0 and "judged by scripted" in (bot / "report.html").read_text()


def test_a_judge_that_is_not_there_is_one_line_and_loses_nothing(
    lifealign: Command, bot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifealign.evaluation.judge.endpoint.pause", lambda *_: 0.0)
    result = lifealign("evaluate", bot, "--judge-model", "m", "--judge-url", "http://127.0.0.1:9/v1")
    assert result.code == 1 and "the server was not reached, 6 attempts" in one_line(result.err.splitlines()[-1])
    assert lifealign("status", bot).code == 0


def test_report_writes_a_page_and_figures(lifealign: Command, bot: Path, tmp_path: Path) -> None:
    result = lifealign("report", bot, "--figures", tmp_path / "figures")
    assert result.code == 0 and f"report: {bot / 'report.html'}" in result.out
    assert (bot / "report.html").read_text().startswith("<!doctype html>")
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert "matrix-margin.svg" in names and "over-time-preference_accuracy.png" in names
    other = Path(shutil.copytree(bot, tmp_path / "other"))
    refused = lifealign("report", bot, other, "--out", tmp_path / "runs.html")
    assert refused.code == 2 and "found two results, expected one" in refused.err  # the same cell twice
    several = lifealign("report", bot, other, "--recall")
    assert several.code == 2 and "--recall: found it with several runs, expected it with a single life" in several.err
    assert lifealign("report", bot, "--recall", "--out", tmp_path / "recalled.html").code == 0
    single = lifealign("report", bot, "--out", tmp_path / "one.html")
    assert single.code == 0 and (tmp_path / "one.html").read_bytes() == (bot / "report.html").read_bytes()


def test_report_of_several_runs(lifealign: Command, experiment: Callable[..., Path], tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2):
        path = experiment(output_dir=str(tmp_path / f"life-{seed}"), seed=seed)
        assert lifealign("run", path, "--result", tmp_path / f"{seed}.json").code == 0
        runs.append(tmp_path / f"{seed}.json")
    result = lifealign("report", tmp_path / "life-1", runs[1], "--figures", tmp_path / "figures")
    assert result.code == 0 and "report: report.html" in result.out
    assert "2 runs of" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "figures" / "methods-margin.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone: found no such directory"),
        (["bot", "--against", "ER"], "--against: found it with a single life"),
        (["gone", "bot"], "gone: found nothing, expected a life or a result file"),
    ],
)
def test_report_refuses_in_one_line_what_it_cannot_show(
    lifealign: Command, bot: Path, arguments: list[str], message: str
) -> None:
    result = lifealign("report", *arguments)
    assert result.code == 2 and message in one_line(result.err)
    assert not (bot / "report.html").exists()


# -- comparisons -------------------------------------------------------------------------------------------------------

COMPARE = {"methods": ["seqft", "er"], "seeds": [1, 2], "against": "seqft"}


def test_compare_prints_tables_and_writes_files_and_the_same_command_again_trains_nothing(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("compare", experiment(compare=COMPARE), "--results", "found", "--jobs", 1)
    first = lifealign(*command)
    assert (first.code, [line for line in first.err.splitlines() if not line.startswith("loading ")]) == (0, [])
    lines = [line.rstrip() for line in first.out.splitlines()]
    assert lines[0] == "4 cells, 0 of them finished"
    for number, cell in enumerate(f"{label}, stream, seed {seed}" for seed in (1, 2) for label in ("SeqFT", "ER")):
        assert cell in lines and f"{cell}: finished ({number + 1} of 4)" in lines
    assert re.search(r"01-one preference +2 steps  loss \d", first.out)
    accuracy = first.out[first.out.index("stream: preference accuracy") :]
    assert re.search(r"method +seeds +BWT +Last +AP +Learn", accuracy)
    assert re.search(r"base model +- +- +50\.0 +- +-", accuracy)
    spread = r" +[+-]?\d+\.\d±\d+\.\d"
    assert re.search(rf"SeqFT +2(?:{spread}){{4}}", accuracy) and re.search(rf"ER +2(?:{spread}){{4}}", accuracy)
    difference = r" +[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\](?: \*)?"
    assert re.search(r"preference accuracy, difference from SeqFT; percentage points", accuracy.replace("\n", ""))
    assert re.search(rf"ER +2(?:{difference}){{2}}", accuracy)
    assert re.search(r"method +seeds +minutes +state MB +adapter MB +peak GB", accuracy)
    names = [f"found/comparison.{ending}" for ending in ("csv", "md", "tex")]
    assert lines[-1] == f"also written to: {', '.join(names)}"
    cells = [f"stream--{slug}--seed{seed}" for slug in ("er", "seqft") for seed in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == sorted(
        [*(f"{cell}.json" for cell in cells), *(Path(name).name for name in names)]
    )
    assert sorted(path.name for path in (tmp_path / "out" / "lives").iterdir()) == cells
    status = lifealign("status", "out/lives/stream--er--seed2")
    assert status.code == 0 and "2 versions learnt on" in status.out and "method ER" in status.out

    before = content(tmp_path)
    monkeypatch.setattr(worker, "run_experiment", None)
    again = lifealign(*command)
    assert again.code == 0 and again.out.startswith("4 cells, 4 of them finished")
    only = lifealign(*command, "--only-tables")
    assert only.code == 0 and only.out == again.out.partition("\n")[2]
    assert only.out in first.out
    assert content(tmp_path) == before

    other = lifealign(*command, "--set", "preference.beta=0.3")
    assert other.code == 2
    assert "seqft--seed1.json: found a result of other settings or data (preference.beta: 0.1" in one_line(other.err)
    assert content(tmp_path) == before


def test_only_tables_of_what_is_not_finished_runs_nothing(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = experiment(compare=COMPARE | {"seeds": [1]})
    empty = lifealign("compare", path, "--only-tables")
    assert empty.code == 2
    assert one_line(empty.err) == (
        "out/results: found no result of this comparison, expected at least one finished cell"
    )
    assert not (tmp_path / "out").exists()
    assert lifealign("compare", path).code == 0
    (tmp_path / "out" / "results" / "stream--seqft--seed1.json").unlink()
    monkeypatch.setattr(worker, "run_experiment", None)
    half = lifealign("compare", path, "--only-tables")
    assert (half.code, half.err) == (0, "")
    assert "no result of SeqFT yet, so nothing is compared with it" in half.out
    assert re.search(r"ER +1 ", half.out) and not re.search(r"SeqFT +\d", half.out)


def test_compare_names_every_cause_after_the_tables_of_the_rest(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path
) -> None:
    variants = [{"name": "er", "label": f"ER [/{seed}] [bold]"} for seed in "ab"]  # no markup
    path = experiment(compare={"methods": [*variants, "seqft"], "against": "seqft"})
    for slug in ("er-a-bold", "er-b-bold"):
        (tmp_path / "out" / "lives" / f"stream--{slug}--seed42").mkdir(parents=True)
        (tmp_path / "out" / "lives" / f"stream--{slug}--seed42" / "notes[x].txt").touch()
    result = lifealign("compare", path)
    assert result.code == 1
    lines = [line for line in result.err.splitlines() if not line.startswith("loading ")]
    assert lines[0] == "error: 2 of 3 cells could not be finished; the same command tries them again:"
    cause = "found a file or a directory that is not empty, expected an empty or new directory"
    assert lines[1:] == [
        f"  ER [/{seed}] [bold], stream, seed 42: out/lives/stream--er-{seed}-bold--seed42: {cause}" for seed in "ab"
    ]
    assert (
        f"ER [/a] [bold], stream, seed 42: failed (1 of 3): out/lives/stream--er-a-bold--seed42: {cause}" in result.out
    )
    assert "SeqFT, stream, seed 42: finished (3 of 3)" in result.out and "also written to: " in result.out
    shutil.rmtree(tmp_path / "out" / "lives" / "stream--er-a-bold--seed42")
    again = lifealign("compare", path)
    assert again.code == 1 and "error: 1 of 3 cells could not be finished" in again.err
    assert re.search(r"ER \[/a\] \[bold\] +1 ", again.out)


def test_compare_names_every_cause_where_nothing_could_be_finished(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lives").touch()
    result = lifealign("compare", experiment(compare=COMPARE | {"seeds": [1]}))
    assert result.code == 1 and "also as" not in result.out
    lines = [line for line in result.err.splitlines() if not line.startswith("loading ")]
    assert lines[0] == "error: 2 of 2 cells could not be finished; the same command tries them again:"
    assert [line.partition(": ")[0] for line in lines[1:]] == ["  SeqFT, stream, seed 1", "  ER, stream, seed 1"]
    assert all("out/lives" in line for line in lines[1:])


def test_compare_takes_a_folder_in_place_of_the_papers_datasets(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path
) -> None:
    tasks = ("capybara", "hc3", "hh-harmless", "hh-helpful", "safe-rlhf", "truthfulqa")
    sizes = {"suite_pairs": 2, "suite_test_pairs": 1}
    section = {"methods": ["mtl"], "orders": ["order1", "order3"]}
    path = experiment(tasks=None, suite="paper", compare=section, **sizes)
    missing = lifealign("compare", path, "--data", "rows")
    assert missing.code == 2 and "rows: found no such folder, expected a folder with NAME/train" in one_line(
        missing.err
    )
    write_folder(tmp_path, *tasks)
    for name in tasks:  # a prompt of its own for each
        for split in ("train", "test"):
            file = tmp_path / "rows" / name / f"{split}.jsonl"
            file.write_text(file.read_text().replace('"one ', f'"{name} '))
    result = lifealign("compare", path, "--data", "rows")
    assert result.code == 0, result.err
    assert sorted(path.name for path in (tmp_path / "out" / "results").glob("*.json")) == [
        "order1--mtl--seed42.json",
        "order3--mtl--seed42.json",
    ]
    learnt = Life.open("out/lives/order3--mtl--seed42").steps[0].tasks
    assert [task.name for task in learnt] == [
        "hh-harmless", "capybara", "truthfulqa", "hh-helpful", "hc3", "safe-rlhf"
    ]  # fmt: skip
    assert {(task.train_pairs, task.test_pairs) for task in learnt} == {(2, 1)}
    assert "order1: " in result.out and "order3: " in result.out


def test_run_does_not_look_at_what_would_be_compared(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path
) -> None:
    path = experiment(compare={"methods": ["mtl"], "orders": {"back": ["two", "one"]}, "seeds": [9]})
    assert lifealign("run", path, "--set", "method=seqft").code == 0
    life = Life.open("out")
    assert (life.config.method.key, life.config.seed) == ("seqft", 42)
    assert [version.name for version in life.steps] == ["01-one", "02-two"]
    assert "compare" not in life.directory.manifest.config
    assert not (tmp_path / "out" / "lives").exists()


# -- whatever is wrong -------------------------------------------------------------------------------------------------

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
BAD_FILES = {
    "missing": (None, r"FILE: found no such file, expected"),
    "empty": ("", r"FILE: found no rows, expected"),
    "broken JSON": (json.dumps(GOOD) + '\n{"prompt": "p", "chosen"\n', r"FILE:2.*: found .*expected"),
    "not an object": (json.dumps(GOOD) + "\n7\n", r"FILE:2: found a number \(7\), expected an object"),
    "a missing field": ('{"prompt": "p", "chosen": "a"}\n', r"FILE:1: rejected: found no such field .*, expected"),
    "not a string": (
        json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"chosen": 7}),
        r"FILE:2: chosen: found a number \(7\), expected a string",
    ),
    "only empty": (json.dumps(GOOD | {"chosen": " "}), r"FILE:1: found no usable pair .*empty chosen\), expected"),
    "only identical": (json.dumps(GOOD | {"chosen": "b"}), r"FILE:1: found .*identical answers\), expected"),
    "too long": (
        "\n".join(json.dumps(GOOD | {"prompt": letter * 100}) for letter in "xy"),
        r"FILE:1: prompt: found .*max_length = 64 tokens, in all 2 pairs of task 'rows', expected .*; raise data.max",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_cannot_be_learnt_is_one_line_and_changes_nothing(
    lifealign: Command, bot: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    if text is not None:
        path.write_text(text)
    before = content(tmp_path)
    result = lifealign("learn", "bot", path)
    assert result.code == 2 and result.out == ""
    assert re.search(message.replace("FILE", re.escape(str(path))), one_line(result.err)), result.err
    assert content(tmp_path) == before
    assert lifealign("status", "bot").code == 0


@pytest.mark.parametrize("kind", [kind for kind in BAD_FILES if kind != "too long"])
def test_check_and_run_say_the_same_of_a_bad_file(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    text, message = BAD_FILES[kind]
    path = experiment()
    (tmp_path / "two.jsonl").unlink()
    if text is not None:
        (tmp_path / "two.jsonl").write_text(text)
    for arguments in (("check", tmp_path / "two.jsonl"), ("run", path)):
        result = lifealign(*arguments)
        assert result.code == 2 and result.out == ""
        assert re.search(message.replace("FILE", re.escape(str(tmp_path / "two.jsonl"))), one_line(result.err))
    assert not (tmp_path / "out").exists()


BAD_SETTINGS = {
    "an unknown key": (
        {"sft": {"learning_rat": 1}},
        r"\.yaml:\d+: sft.learning_rat: found an unknown key; did you",
    ),
    "a value too high": ({"replay": {"fraction": 1.5}}, r"replay.fraction: found 1.5, expected a number of at most 1"),
    "a value too low": ({"preference": {"beta": 0}}, r"preference.beta: found 0, expected a number greater than 0"),
    "an unknown method": (
        {"method": "lifealing"},
        r"method: found 'lifealing', expected .*did you mean lifealign",
    ),
    "another method's option": (
        {"method": {"name": "er", "energy_kept": 1}},
        r"energy_kept: found an option that er ",
    ),
    "no tasks": ({"tasks": None}, r"needs tasks or a suite; add one of the two"),
    "more pairs than there are": (
        {"tasks": None, "suite": "support-desk", "suite_pairs": 1000},
        r"suite_pairs: found 1000, expected 1 to 160",
    ),
    "a model that is not there": (
        {"model": {"model_name_or_path": "/no/model"}},
        r"model '/no/model': found no config",
    ),
}


@pytest.mark.parametrize(("sections", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_cannot_be_are_one_line_and_make_nothing(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    path = experiment(**sections)
    result = lifealign("run", path)
    assert result.code == 2 and result.out == ""
    assert re.search(message, one_line(result.err)), result.err
    assert not (tmp_path / "out").exists()


BAD_COMPARISONS = {
    "another method's option": (
        {"methods": ["seqft", {"name": "er", "energy_kept": 1}]},
        r"\.yaml:\d+: compare\.methods\[1\]\.energy_kept: found an option that er does not have \(it belongs to",
    ),
    "equal folders": (
        {"methods": ["er", {"name": "seqft", "label": "er"}]},
        r"\.yaml:\d+: compare\.methods\[1\]: found 'er', which shares its folder with methods\[0\] \('ER'\)",
    ),
    "a stream too short": (
        {"methods": ["mtl"], "orders": {"a": ["one"]}},
        r"method mtl: found a stream of 1 task, exp",
    ),
    "an unknown task": (
        {"orders": {"a": ["tow"]}},
        r"compare\.orders: a: order\[0\]: found 'tow'.*; did you mean two\?",
    ),
    "an unknown method": ({"against": "seqtf"}, r"compare\.against: found 'seqtf', .*did you mean seqft\?"),
}


@pytest.mark.parametrize(("section", "message"), BAD_COMPARISONS.values(), ids=BAD_COMPARISONS)
def test_a_comparison_that_cannot_be_is_one_line_and_makes_nothing(
    lifealign: Command, experiment: Callable[..., Path], tmp_path: Path, section: dict[str, Any], message: str
) -> None:
    result = lifealign("compare", experiment(compare=section))
    assert result.code == 2 and result.out == ""
    assert re.search(message, one_line(result.err)), result.err
    assert not (tmp_path / "out").exists()


def test_compare_refuses_no_jobs(lifealign: Command, experiment: Callable[..., Path]) -> None:
    result = lifealign("compare", experiment(), "--jobs", 0)
    assert result.code == 2 and "--jobs" in result.err


def test_a_target_that_the_model_does_not_have_is_one_line(lifealign: Command, tiny_folder: Path) -> None:
    result = lifealign("init", "bot", "--model", tiny_folder, "--set", "lora.lora_target_modules=[qproj]")
    assert result.code == 2
    assert "lora_target_modules: found 'qproj', expected the name of a linear module" in one_line(result.err)


def test_init_can_be_repeated_after_a_target_that_the_model_does_not_have(
    lifealign: Command, tiny_folder: Path
) -> None:
    assert lifealign("init", "bot", "--model", tiny_folder, "--set", "lora.lora_target_modules=[qproj]").code == 2
    assert lifealign("init", "bot", "--model", tiny_folder).code == 0


def test_settings_given_on_the_command_line_are_named_as_they_were_given(lifealign: Command, tiny_folder: Path) -> None:
    for setting, message in [
        ("preference.beta=much", "--set preference.beta=much: preference.beta: found 'much', expected a number"),
        ("beta=0.2", "--set beta=0.2: beta: found an unknown key; did you mean preference.beta?"),
        ("beta", "--set beta: found no key and value, expected KEY=VALUE as in preference.beta=0.2"),
    ]:
        result = lifealign("init", "bot", "--model", tiny_folder, "--set", setting)
        assert result.code == 2 and message in one_line(result.err)
        assert not Path("bot").exists()


def test_every_verb_refuses_what_is_not_a_life(lifealign: Command, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [GOOD])
    (tmp_path / "empty").mkdir()
    for name, found in (("nothing", "no such directory"), ("empty", "a directory without life.json")):
        for arguments in (["status", name], ["learn", name, rows], ["rollback", name, "--to", "00-base"]):
            result = lifealign(*arguments)
            assert result.code == 2
            assert one_line(result.err) == f"{name}: found {found}, expected a life; `lifealign init {name}` makes one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "rows.jsonl"]


def test_a_life_of_another_format_version_is_refused(lifealign: Command, bot: Path) -> None:
    manifest = bot / "life.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 99'))
    before = content(bot)
    for arguments in (["status", "bot"], ["rollback", "bot", "--to", "00-base"]):
        result = lifealign(*arguments)
        assert result.code == 2
        assert "bot/life.json: format_version: found 99, expected 1; use the version" in one_line(result.err)
    assert content(bot) == before


def test_a_life_whose_base_or_adapter_has_changed_is_refused(lifealign: Command, bot: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [GOOD])
    other = save_tiny(tmp_path / "other", seed=1)
    manifest = bot / "life.json"
    honest = manifest.read_text()
    named = json.loads(honest)
    named["config"]["model"]["model_name_or_path"] = str(other)
    storage.write_sealed_json(manifest, named)
    result = lifealign("learn", "bot", rows)
    assert result.code == 2
    assert re.search(r"bot: found base model .*other with fingerprint \w+, expected the one", one_line(result.err))
    manifest.write_text(honest)
    adapter = bot / "versions" / "01-one" / "adapter_model.safetensors"

    shutil.copy(bot / "versions" / "00-base" / "adapter_model.safetensors", adapter)
    for arguments in (["status", "bot"], ["learn", "bot", rows]):
        result = lifealign(*arguments)
        assert result.code == 2
        assert re.search(r"01-one/adapter_model.safetensors: found \d+ bytes, sha256 \w+, exp", one_line(result.err))


def test_other_mistakes_are_one_line_too(lifealign: Command, bot: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [GOOD])
    before = content(tmp_path)
    for arguments, message in [
        (["rollback", "bot", "--to", "07-x"], "bot: found no version '07-x', expected one of: 00-base, 01-one"),
        (["init", "bot"], "bot: found a file or a directory that is not empty, expected an empty or new directory"),
        (["init", "new", "--model", "/no/model"], "model '/no/model': found no config.json there"),
        (["init", "new", "--config", "no.yaml"], "no.yaml: could not be read: No such file or directory"),
        (["learn", "bot", rows, "--name", "a/b"], "task name: found 'a/b', expected 1 to 64 letters"),
        (["learn", "bot", rows, "--name", "one"], "found task 'one' learnt from other data in step 01-one"),
        (
            ["learn", "bot", rows, "--matches", "("],
            "check: matches: found the pattern '(', expected a regular exp",
        ),
        (
            ["learn", "bot", rows, "--name", "new", "--supersedes", "on"],
            "task 'new': supersedes: found 'on', expected a task that is learnt before it: one; did you mean one?",
        ),
        (["check", rows, "--model", "/no/model"], "model '/no/model': found no config.json there"),
        (["compose", "bot", "out", "--without", "on"], "found 'on', expected a task that was learnt: one"),
        (["compose", "bot", "out", "--weight", "one"], "--weight: found 'one', expected TASK=NUMBER"),
        (["compose", "bot", "out", "--weight", "one=much"], "--weight: found 'one=much', expected TASK=NUMBER"),
        (["compose", "bot", "bot/out"], "bot/out: found a folder of the life itself, expected one outside it"),
        (["compose", "bot", rows], "rows.jsonl: could not be read: Not a directory"),
    ]:
        result = lifealign(*arguments)
        assert result.code == 2 and result.out == "", arguments
        assert message in one_line(result.err)
    assert content(tmp_path) == before


def test_a_composition_is_written_and_what_it_was_not_scored_on_is_exit_code_1(
    lifealign: Command, bot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    whole = lifealign("compose", "bot", "whole", "--weight", "one=0.5", "--score")
    assert (whole.code, whole.err) == (0, "") and "perplexity on general text" in whole.out
    monkeypatch.setattr("lifealign.evaluation.evaluator.held_out_margins", fail)
    result = lifealign("compose", "bot", "out", "--weight", "one=0.5", "--score")
    assert result.code == 1 and "adapter: out" in result.out
    assert "margin of one (RuntimeError: out of memory). The adapter is written" in one_line(result.err)
    assert Path("out/adapter_model.safetensors").exists()


def test_text_in_brackets_reaches_the_reader_of_an_error(lifealign: Command, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows[bold].jsonl", [GOOD | {"chosen": ["[red]"]}])
    assert "rows[bold].jsonl:1: chosen[0]: found the string '[red]'" in one_line(lifealign("check", path).err)


def test_a_life_on_a_model_named_by_a_relative_path_can_be_used_from_anywhere(
    lifealign: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "model")
    rows = write_jsonl(tmp_path / "rows.jsonl", [GOOD])
    assert lifealign("init", "bot", "--model", "model").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert lifealign("learn", tmp_path / "bot", rows).code == 0


def test_with_debug_the_error_itself_is_raised(
    lifealign: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert issubclass(LifeError, LifeAlignError)
    monkeypatch.setattr(sys, "argv", ["lifealign", "--debug", "status", str(tmp_path / "nothing")])
    with pytest.raises(LifeError):
        cli.main()


# -- as a process of its own -------------------------------------------------------------------------------------------


def process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    source = Path(cli.__file__).parents[2]
    settings = {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}
    environment = os.environ | settings
    command = [sys.executable, "-m", "lifealign", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def test_the_command_learns_as_a_process_of_its_own_and_its_stderr_is_clean(bot: Path, tmp_path: Path) -> None:
    two, test = write_task(tmp_path, "two", "c", "d")
    learnt = process("learn", "bot", two, "--test", test, cwd=tmp_path)
    assert learnt.returncode == 0
    assert [line for line in learnt.stderr.splitlines() if not line.startswith("loading ")] == []  # no library's noise
    assert re.search(r"02-two +\d+ % +\d+ % +\d+ %", learnt.stdout)


def test_a_traceback_is_shown_with_debug_and_only_with_debug(tmp_path: Path) -> None:
    plain = process("status", "nothing", cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert one_line(plain.stderr).startswith("nothing: found no such directory, expected a life")
    debugged = process("--debug", "status", "nothing", cwd=tmp_path)
    assert debugged.returncode == 1
    assert "Traceback (most recent call last)" in debugged.stderr and "LifeError: nothing: found" in debugged.stderr


# -- the demonstration -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recipe, on the tiny model and four pairs of each task."""
    settings = yaml.safe_load(show.RECIPE.read_text())
    settings |= {"suite_pairs": 4, "suite_test_pairs": 5, "model": {"model_name_or_path": str(tiny_folder)}}
    settings["data"]["max_length"] = 768  # bytes are tokens here
    settings["sft"]["num_train_epochs"] = settings["preference"]["num_train_epochs"] = 1
    folder = tmp_path_factory.mktemp("recipe")
    settings["evaluation"] |= {"prompts": 3, "max_new_tokens": 2, "general_text": write_general_text(folder)}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_the_demo_compares_methods_and_trains_only_what_is_not_there_yet(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "RECIPE", recipe)
    monkeypatch.setattr(
        show, "QUICK", show.QUICK | {"suite_pairs": 4, "suite_test_pairs": 5, "evaluation.general_text": None}
    )
    trained: list[str] = []
    learn_step = lifelong.learn_step

    def spied(work: Any, step: Any, listener: Any) -> Any:
        trained.append(f"{work.config.method.key} {step.name}")
        return learn_step(work, step, listener)

    monkeypatch.setattr(lifelong, "learn_step", spied)

    def demo(full: bool) -> tuple[dict[str, Life], str]:
        with StringIO() as file:
            lives = show.run_demo(Console(file=file, width=160), tmp_path, full=full, seed=5)
            return lives, file.getvalue()

    lives, text = demo(full=False)
    quick = [f"{number:02}-{rule}" for number, rule in enumerate(show.QUICK["order"], start=1)]
    assert trained == [f"{method} {rule}" for method in ("seqft", "lifealign") for rule in quick]
    assert list(lives) == ["SeqFT", "LifeAlign"]
    assert {life.config.seed for life in lives.values()} == {5}
    for title, life in lives.items():
        page = life.directory.path / "report.html"
        assert page.read_text().startswith("<!doctype html>") and re.search(rf"{title} as a page: +{page}", text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lifealign", "seqft"]
    for number, rule in enumerate(show.QUICK["order"], start=1):
        assert f"{number}. {rule}" in text
        assert text.count(f"{number:02}-{rule} keeps") == 2  # once per method, as soon as the step is done
    cells = r" +\d+ %" * (len(quick) + 1)
    assert re.search(" +".join(["after", *show.QUICK["order"], "mean"]), text)
    assert re.search(" +".join(["method", *show.QUICK["order"], "last", "learned", "backward"]), text)
    after_the_last = text[text.index("after the last rule") :]
    for row in ("base model", "SeqFT", "LifeAlign"):
        assert len(re.findall(row + cells, after_the_last)) == 1
    assert after_the_last.count("“") == 3  # three customers
    assert f"versions/{quick[-1]}" in text
    asked = [
        [row["prompt"] for row in life.directory.rows(f"tasks/{quick[-1]}/answers.jsonl")] for life in lives.values()
    ]
    assert asked[0] == asked[1] and len(asked[0]) == 3

    trained.clear()
    full_lives, full_text = demo(full=True)
    rules = ("01-brief", "02-greet", "03-order-number", "04-escalate")
    assert list(full_lives) == ["SeqFT", "ER", "LifeAlign"]
    assert trained == [f"{method} {rule}" for method in ("seqft", "er", "lifealign") for rule in rules]
    assert len({life.workspace.base_fingerprint for life in full_lives.values()}) == 1
    assert len(re.findall(r"\bER +\d+ % +\d+ % +\d+ % +\d+ % +\d+ %", full_text)) == 2  # two metrics
    trained.clear()
    assert demo(full=False)[1].endswith(after_the_last) and not trained


def test_the_demo_verb_hands_on_its_options(lifealign: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(show, "run_demo", lambda _console, out, *, full, seed: seen.append((out, full, seed)))
    assert lifealign("demo").code == 0
    assert lifealign("demo", "--out", "here", "--full", "--seed", 1).code == 0
    assert seen == [(Path("lifealign-demo"), False, 42), (Path("here"), True, 1)]
    assert lifealign("demo", "--seed", -1).code == 2


def test_the_recipe_of_the_demo_is_a_valid_experiment(tmp_path: Path) -> None:
    for method in ("seqft", "er", "lifealign"):
        for full in (False, True):
            experiment = show.demo_experiment(method, tmp_path, 7, full=full)
            assert (experiment.method.key, experiment.seed, experiment.suite) == (method, 7, "support-desk")
            assert experiment.output_dir == (tmp_path / "full" / method if full else tmp_path / method)
            assert bool(experiment.preference.skip_mastered) is not full
            assert len(order_of(experiment)) == (4 if full else len(show.QUICK["order"]))


# -- names, paths and whatever else is printed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("v1.2-x.jsonl", "v1.2-x"),
        ("data/v1.3-x.jsonl", "v1.3-x"),
        ("Tone.JSONL.GZ", "Tone"),
        ("a.tsv", "a"),
        ("a.b.csv", "a.b"),
        ("a.parquet", "a"),
        ("a.Json", "a"),
        ("a", "a"),
        ("a.jsonl.bak", "a.jsonl.bak"),
        ("/dev/shm/tone.jsonl", "tone"),
        ("hub:owner/v1.2-x", "v1.2-x"),
        ("hub:owner/v1.json:test_sft", "v1.json"),
    ],
)
def test_a_task_is_named_after_its_file_without_the_kind(file: str, name: str) -> None:
    assert name_of_task(file) == name


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("ä.jsonl", "ä.jsonl: found 'ä' as the name of the task, expected 1 to 64 letters"),
        (".jsonl", ".jsonl: found '' as the name of the task"),
        ("my tone.jsonl", "my tone.jsonl: found 'my tone' as"),
        ("-", "-: found '-' as the name of the task"),
        ("x" * 65, "xxxx: found 'xxxx"),
        ("/dev/stdin", "/dev/stdin: data from a pipe needs a name for its task"),
        ("/dev/fd/63", "/dev/fd/63: data from a pipe needs"),
        ("/proc/self/fd/0", "/proc/self/fd/0: data from a pipe needs"),
    ],
)
def test_a_file_that_names_no_task_asks_for_a_name(lifealign: Command, bot: Path, file: str, found: str) -> None:
    before = content(bot)
    result = lifealign("learn", "bot", "--", file)
    assert result.code == 2 and found in one_line(result.err) and result.err.endswith("add --name NAME\n")
    assert content(bot) == before


def test_learn_takes_the_name_of_the_file_or_the_one_that_was_given(
    lifealign: Command, bot: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[str] = []

    def learn(life: Life, task: Any, _progress: Any, *, force: bool) -> Any:
        learnt.append(task.name)
        return life.versions[-1]

    monkeypatch.setattr(Life, "learn", learn)
    for name in ("v1.2-x", "v1.3-x"):
        shutil.copy(made.parent / "one.jsonl", f"{name}.jsonl")
        assert lifealign("learn", "bot", f"{name}.jsonl").code == 0
    assert lifealign("learn", "bot", "v1.2-x.jsonl", "--name", "tone").code == 0
    assert learnt == ["v1.2-x", "v1.3-x", "tone"]


def test_a_name_that_is_taken_says_how_to_choose_another(lifealign: Command, bot: Path, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps(GOOD))
    result = lifealign("learn", "bot", "one.jsonl")
    assert result.code == 2 and "--name" in one_line(result.err)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["learn", "bot", "one.jsonl", "--name", ""], "--name"),
        (["learn", "bot", "one.jsonl", "--name="], "--name"),
        (["learn", "bot", "one.jsonl", "--test", " "], "--test"),
        (["learn", "bot", "one.jsonl", "--lacks", ""], "--lacks"),
        (["learn", "", "one.jsonl"], "argument 2"),
        (["evaluate", "bot", "--as-of", ""], "--as-of"),
        (["evaluate", "bot", "--judge-model", ""], "--judge-model"),
        (["evaluate", "bot", "--against="], "--against"),
        (["rollback", "bot", "--to", ""], "--to"),
        (["compose", "bot", "out", "--as-of", ""], "--as-of"),
        (["compose", "bot", "out", "--without", ""], "--without"),
        (["init", "bot", "--model", ""], "--model"),
        (["init", "bot", "--method", ""], "--method"),
        (["init", "bot", "--config", ""], "--config"),
        (["run", "x.yaml", "--data", ""], "--data"),
        (["report", "bot", "--out", ""], "--out"),
        (["check", "one.jsonl", "--model", ""], "--model"),
    ],
)
def test_an_empty_value_is_refused_and_not_ignored(lifealign: Command, arguments: list[str], named: str) -> None:
    result = lifealign(*arguments)
    expected = f"{named}: found an empty value, expected text that is not empty; to use the default, leave it out"
    assert (result.code, result.out, one_line(result.err)) == (2, "", expected)


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", LONG],
        ["learn", "bot", LONG, "--name", "x"],
        ["learn", "bot", "one.jsonl", "--test", LONG],
        ["learn", LONG, "one.jsonl"],
        ["status", LONG],
        ["evaluate", LONG],
        ["evaluate", "bot", "--judge-model", "m", "--rubric", LONG],
        ["rollback", LONG, "--to", "00-base"],
        ["report", LONG],
        ["report", LONG, LONG],
        ["report", "bot", "--out", LONG],
        ["run", LONG],
        ["compare", LONG],
        ["init", LONG],
        ["init", "new", "--model", LONG],
        ["init", "new", "--config", LONG],
    ],
)
def test_a_path_that_is_too_long_is_one_line(lifealign: Command, bot: Path, made: Path, arguments: list[str]) -> None:
    shutil.copy(made.parent / "one.jsonl", "one.jsonl")
    result = lifealign(*arguments)
    assert result.code == 2 and LONG in one_line(result.err) and "bug" not in result.err
    assert "File name too long" in result.err


def test_brackets_and_control_characters_in_paths_are_printed_as_they_are(
    lifealign: Command, made: Path, tmp_path: Path
) -> None:
    name = "w[v2]/[/old]/[bold]\x1b[31m\x07\u202eb"
    shown = r"w[v2]/[/old]/[bold]\x1b[31m\x07\u202eb"
    shutil.copytree(made, tmp_path / name)
    status = lifealign("status", name)
    assert (status.code, status.err) == (0, "")
    assert f"{shown}: 1 version learnt on " in status.out and status.out.endswith(
        f"\nadapter: {shown}/versions/01-one\n"
    )
    assert f"report: {shown}/p[/x].html\n" == lifealign("report", name, "--out", f"{name}/p[/x].html").out
    again = lifealign("learn", name, made.parent / "one.jsonl", "--test", made.parent / "one-test.jsonl")
    assert again.code == 0 and again.out.endswith(f"\nadapter: {shown}/versions/01-one\n")
    assert f"{shown}: found no version '07', expected" in one_line(lifealign("rollback", name, "--to", "07").err)
    assert f"{shown}: back at 00-base; forgot 01-one\n" == lifealign("rollback", name, "--to", "00-base").out
    made_new = lifealign("init", "n[/ew]\x1b", "--model", Life.open(tmp_path / name).config.model.model_name_or_path)
    assert made_new.code == 0 and r"next: lifealign learn n[/ew]\x1b TASK.jsonl" in made_new.out


def test_a_model_in_a_folder_with_a_name_that_yaml_would_read_otherwise(
    lifealign: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(("[v2]", "a: b", "# c", "2024-01-01", "1e3", "null")):
        (tmp_path / name).symlink_to(tiny_folder)
        assert lifealign("init", f"bot{number}", "--model", name).code == 0
        assert Life.open(f"bot{number}").config.model.model_name_or_path == str(tmp_path / name)


def test_the_extra_that_a_verb_needs_is_named_in_its_help(lifealign: Command) -> None:
    assert "lifealign[plot]" in lifealign("report", "--help").out


# -- how the command ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyError("x\x1b[31m"), 70, r"error: KeyError: 'x\x1b[31m': this is a bug; run again with --debug"),
        (ValueError(), 70, "error: ValueError: this is a bug; run again with --debug"),
        (RuntimeError("a\nb  c"), 70, "error: RuntimeError: a b c: this is a bug; run again with --debug"),
        (RecursionError("deep"), 70, "error: RecursionError: deep: this is a bug; run again with --debug"),
        (MemoryError(), 1, "error: out of memory: MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory."), 1, "error: out of memory: CUDA out of memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "error: out of memory: Default"),
        (OSError(errno.ENOSPC, "No space left on device", "a[/b]"), 1, "error: a[/b]: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "x\r"), 2, r"error: x\r: Permission denied"),
        (OSError("no number"), 70, "error: OSError: no number: this is a bug; run again with --debug"),
        (KeyboardInterrupt(), 130, "interrupted; everything finished so far is kept"),
        (LifeError("bot\x1b[2J\nerror: x[/y]"), 2, r"error: bot\x1b[2J\nerror: x[/y]"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_whatever_goes_wrong_is_one_line(
    lifealign: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(_path: Path) -> None:
        raise error

    monkeypatch.setattr(Life, "open", fail)
    result = lifealign("status", "bot")
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1 and result.err.startswith(line), result.err


def test_the_message_of_a_foreign_error_is_cut(lifealign: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Life, "open", lambda _path: {}["x" * 10_000])
    assert len(lifealign("status", "bot").err) < 500


def test_a_wrong_option_is_one_line_and_names_the_help(lifealign: Command) -> None:
    for arguments, message in [
        (["status"], "Missing argument 'LIFE'. See `lifealign status --help`."),
        (["no[/x]\x1b"], r"No such command 'no[/x]\x1b'. See `lifealign --help`."),
        (["status", "a", "e\x1b[2Jvil"], r"(e\x1b[2Jvil)"),
        (["demo", "--seed", "-1"], "--seed"),
    ]:
        result = lifealign(*arguments)
        assert (result.code, result.out) == (2, "") and message in one_line(result.err)
    alone = lifealign()
    assert alone.code == 2 and "Usage: lifealign [OPTIONS] COMMAND" in alone.out and alone.err == ""


def test_debug_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch, lifealign: Command, tmp_path: Path) -> None:
    hook = sys.excepthook
    for arguments in (["--debug", "status", "gone"], ["status", "--debug", "gone"], ["status", "gone", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["lifealign", *arguments])
        with pytest.raises(LifeError):
            cli.main()
    monkeypatch.setattr(sys, "excepthook", hook)
    assert "--debug: found no such file" in one_line(lifealign("check", "--", "--debug").err)


@pytest.mark.parametrize(
    ("module", "verb"), [("rich.console", "status"), ("torch.nn", "init"), ("lifealign.life.life", "status")]
)
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, verb: str, tmp_path: Path) -> None:
    code = f"""
import importlib.abc, os, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background has it ignored
sys.meta_path.insert(0, Interrupting())
from lifealign.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code, verb, "bot"], capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_in_a_terminal_that_knows_ascii_only_and_of_files_that_are_not_utf_8(tmp_path: Path) -> None:
    for name in (b"\xc3\xa4.jsonl", b"\xe4.jsonl"):
        (tmp_path / os.fsdecode(name)).write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"chosen": "ä"}))
    plain_c = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    for file, settings, shown in [
        (b"\xc3\xa4.jsonl", plain_c, rb"\udcc3\udca4.jsonl"),
        (b"\xc3\xa4.jsonl", {"PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii"}, rb"\xe4.jsonl"),
        (b"\xe4.jsonl", {}, rb"\udce4.jsonl"),
    ]:
        command = [sys.executable.encode(), b"-m", b"lifealign", b"check", file]
        environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])} | settings
        ended = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout.startswith(shown + b": 2 usable pairs of 2 rows") and ended.stdout.isascii()


def test_nobody_reads_on_is_no_error(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [GOOD])
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    command = [sys.executable, "-m", "lifealign", "check", str(rows)]
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
