"""Result files: what was written is read again exactly; what is broken or altered is one line that says where."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import letter_task
from tests.writers import write_general_text

from lifealign.cli import main as cli
from lifealign.errors import LifeAlignError, LifeError
from lifealign.experiments.cells import Cell, cells_of, finished
from lifealign.experiments.compare import run_comparison
from lifealign.experiments.result import RunResult
from lifealign.experiments.result_file import HASH, content_hash, load_result, write_result
from lifealign.experiments.result_of_life import load_run, result_of
from lifealign.experiments.settings import ExperimentConfig
from lifealign.experiments.summary import compare_results
from lifealign.life.life import Life
from lifealign.report.page.runs_page import runs_page
from lifealign.report.tables import tables
from lifealign.settings.section import build_config, dump_config

COMMITTED = Path(__file__).parents[2] / "results"
RESULTS = sorted(path for path in COMMITTED.glob("*/*.json") if path.parent.name != "benchmarks")  # those are timings
STAGE = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-2,
}
Place = tuple[str | int, ...]
GONE = object()
OTHERS: dict[str, Any] = {
    "null": None, "a number": 7, "a text": "other", "a list": [], "an object": {}, "nothing": GONE,
}  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> ExperimentConfig:
    """One method on two tasks, one of which has a check."""
    folder = tmp_path_factory.mktemp("stream")
    tasks = []
    for task in (letter_task("one", "a", "b", test=2), letter_task("two", "c", "d", test=2)):
        for split, pairs in (("train", task.train), ("test", task.test)):
            rows = [{"prompt": p.prompt[0].content, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
            (folder / f"{task.name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks.append(
            {"name": task.name, **{split: str(folder / f"{task.name}-{split}.jsonl") for split in ("train", "test")}}
        )
    tasks[1]["check"] = {"max_words": 1}
    return build_config(
        ExperimentConfig,
        {
            "output_dir": str(folder / "out"),
            "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
            "lora": {"lora_r": 4, "lora_alpha": 8},
            "sft": STAGE,
            "preference": STAGE,
            "evaluation": {"max_new_tokens": 4, "general_text": write_general_text(folder)},
            "tasks": tasks,
            "compare": {"methods": ["cppo"], "against": "cppo"},
        },
    )


@pytest.fixture(scope="module")
def cells(experiment: ExperimentConfig) -> list[Cell]:
    """Its cell, finished; tests only read it."""
    made = cells_of(experiment)
    assert run_comparison(made, say=lambda _: None) == []
    return made


@pytest.fixture(scope="module")
def written(cells: list[Cell]) -> dict[str, Any]:
    """The first result file's content."""
    content: dict[str, Any] = json.loads(cells[0].result.read_text())
    return content


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Every key of an object, and the last item of every list, however deep."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[-1:] if isinstance(value, list) else ()
    for key, below in items:
        yield (*above, key)
        yield from places(below, (*above, key))


def changed(content: Any, place: Place, other: Any) -> Any:
    """The content with something else in one place."""
    key, *below = place
    copied = content.copy()
    if below:
        copied[key] = changed(content[key], tuple(below), other)
    elif other is GONE:
        del copied[key]
    else:
        copied[key] = other
    return copied


def stamped(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the hash that it should have."""
    rest = {key: value for key, value in content.items() if key != HASH}
    return rest | {HASH: content_hash(rest)}


def one_line(error: LifeError, path: Path) -> str:
    text = str(error)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 600
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_committed_result_is_what_was_written(path: Path) -> None:
    result = load_result(path)
    assert result.steps and result.scores and all(matrix.summary.last is not None for matrix in result.scores.values())


def test_what_is_written_is_read_again_exactly(cells: list[Cell], written: dict[str, Any], tmp_path: Path) -> None:
    result = load_result(cells[0].result)
    assert result == result_of(Life.open(cells[0].experiment.output_dir), label="CPPO", order="stream")
    assert result.model_dump(mode="json") == {key: value for key, value in written.items() if key != HASH}
    write_result(tmp_path / "again.json", result)
    assert (tmp_path / "again.json").read_bytes() == cells[0].result.read_bytes()


def test_keys_in_another_order_and_other_spaces_are_the_same_content(written: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(dict(reversed(written.items()))))
    assert load_result(path).model_dump(mode="json") == {key: value for key, value in written.items() if key != HASH}


def test_the_hash_can_be_computed_by_anyone() -> None:
    # printf '{"a":[1,null,0.1],"\\u00e4":"\\ud800"}' | sha256sum
    found = content_hash({"\u00e4": "\ud800", "a": [1, None, 0.1]})
    assert found == "ab34e0671ba7e561e93287d3dbf8a4c0f477a0a8409738f457be7097049d818d"


@pytest.mark.parametrize("digit", [-1, 1])
def test_an_altered_score_is_noticed(written: dict[str, Any], tmp_path: Path, digit: int) -> None:
    path = tmp_path / "result.json"
    content = deepcopy(written)
    content["scores"]["margin"]["rows"][1]["one"] += digit * 1e-12  # the last of the digits of a float
    path.write_text(json.dumps(content))
    with pytest.raises(LifeError) as error:
        load_result(path)
    assert "found content that does not match its content_hash: it was changed after it was written" in str(error.value)
    assert one_line(error.value, path)


@pytest.mark.parametrize("claimed", [GONE, None, "", "f" * 64, 7, []])
def test_a_missing_or_other_hash_is_refused(written: dict[str, Any], tmp_path: Path, claimed: Any) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed(written, (HASH,), claimed)))
    with pytest.raises(LifeError, match="content_hash") as error:
        load_result(path)
    assert one_line(error.value, path)


def test_something_else_in_any_place_is_told_with_the_place_or_is_a_result_too(
    cells: list[Cell], written: dict[str, Any], tmp_path: Path
) -> None:
    path, other = tmp_path / "result.json", load_result(cells[0].result).model_copy(update={"label": "Other"})
    content = {key: value for key, value in written.items() if key != HASH}
    refused = accepted = 0
    for place in places(content | {"settings": {"seed": 42}}):
        for name, value in OTHERS.items():
            instead = changed(content, place, value)
            if instead == content:
                continue
            path.write_text(json.dumps(stamped(instead)))
            try:
                result = load_result(path)
            except LifeError as error:
                refused += 1
                first = re.match(r"\w+", one_line(error, path))
                # Tasks, steps and metrics are named in several places, any of which may be the one that does not fit.
                assert first is not None and first[0] in {place[0], "scores", "outcomes", "general_text"}, (place, name)
                continue
            accepted += 1
            assert result.model_dump(mode="json") == instead, (place, name)
            try:
                tables(compare_results([result, other], None))
            except LifeAlignError as error:
                assert "\n" not in str(error), (place, name)
    assert refused > 500 and accepted > 50, (refused, accepted)


def test_whatever_is_changed_without_the_hash_is_told(written: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for place in places(written):
        path.write_text(json.dumps(changed(written, place, "other")))
        with pytest.raises(LifeError) as error:
            load_result(path)
        assert one_line(error.value, path), place


@pytest.mark.parametrize("name", OTHERS)
def test_settings_that_are_none_are_other_settings(
    cells: list[Cell], written: dict[str, Any], tmp_path: Path, name: str
) -> None:
    cell = replace(cells[0], result=tmp_path / "result.json")
    for place in places(written["settings"], ("settings",)):
        cell.result.write_text(json.dumps(stamped(changed(written, place, OTHERS[name]))))
        try:
            assert finished(cell) is not None  # a default that was left out, say
        except LifeAlignError as error:
            assert str(error).startswith(f"{cell.result}: ") and "\n" not in str(error), (place, name)


def test_a_file_cut_anywhere_is_told(cells: list[Cell], tmp_path: Path) -> None:
    text, path = cells[0].result.read_text(), tmp_path / "result.json"
    for cut in [0, 1, *(found.start() for found in re.finditer(r'"[^"]+":', text))]:
        path.write_text(text[:cut])
        with pytest.raises(LifeError, match="found invalid JSON"):
            load_result(path)


@pytest.mark.parametrize("key", sorted(RunResult.model_fields))
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [600, 100_000])
def test_what_is_nested_deep_is_told(
    written: dict[str, Any], tmp_path: Path, key: str, opening: str, closing: str, depth: int
) -> None:
    path = tmp_path / "result.json"
    deep = opening * depth + "1" + closing * depth
    path.write_text(json.dumps(written | {key: "HERE"}).replace('"HERE"', deep))
    with pytest.raises(LifeError) as error:
        load_result(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_number_of_thousands_of_digits_is_told(written: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for number in ("1" * 400, "1" * 5000, "1e400", "NaN", "-Infinity"):
        path.write_text(json.dumps(written | {"cost": "HERE"}).replace('"HERE"', number))
        with pytest.raises(LifeError):
            load_result(path)


# -- as a person meets it ----------------------------------------------------------------------------------------------


Change = Callable[[dict[str, Any]], Any]
BROKEN: dict[str, tuple[Change, str]] = {
    "null for a list": (
        lambda result: result["steps"][1]["losses"].update(sft=None),
        "steps[1].losses.sft: found null, expected a list of numbers",
    ),
    "a number for an object": (lambda result: result.update(scores=3), "scores: found 3, expected an object"),
    "a key cut off": (
        lambda result: result["cost"].pop("state_bytes"),
        "cost.state_bytes: found nothing, expected a whole number",
    ),
    "a key too many": (
        lambda result: result["cost"].update(secnds=1),
        "cost.secnds: found an unknown key; did you mean seconds?",
    ),
    "a score of no task": (
        lambda result: result["scores"]["margin"]["rows"][0].update(three=1.0),
        "scores.margin.rows[0].three: found a task that is not there, expected one of 'one', 'two'",
    ),
    "a step too few": (
        lambda result: result["steps"].pop(),
        "scores.adherence.rows: found a list of 2, expected one of each of the 1 steps",
    ),
    "a task learnt after the end": (
        lambda result: result["scores"]["margin"]["learnt_at"].update(two=2),
        "scores.margin.learnt_at.two: found 2, expected one of the 2 steps, from 0",
    ),
    "a metric of a later version": (
        lambda result: result["scores"].update(margn=result["scores"]["margin"]),
        "scores.margn: found a metric that does not exist; did you mean margin?",
    ),
    "examples of no task": (
        lambda result: result["outcomes"]["margin"][0].update(two=[1.0]),
        "outcomes.margin[0]: found 'one', 'two', expected 'one' as in scores.margin.rows[0]",
    ),
    "a seed that is none": (
        lambda result: result["settings"].update(seed=True),
        "settings.seed: found a boolean (true), expected a whole number",
    ),
    "an altered score": (
        lambda result: result["scores"]["margin"]["summary"].update(last=9.5),
        "found content that does not match its content_hash: it was changed after it was written",
    ),
}


@pytest.fixture
def lifealign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command line; returns its exit code and what went to stderr."""

    def command(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lifealign", *map(str, arguments)])
        monkeypatch.setattr("logging.captureWarnings", lambda _: None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return code if isinstance(code, int) else 0, capsys.readouterr().err

    return command


@pytest.mark.parametrize("broken", BROKEN)
def test_report_and_compare_end_with_one_line(
    broken: str,
    cells: list[Cell],
    written: dict[str, Any],
    experiment: ExperimentConfig,
    tmp_path: Path,
    lifealign: Callable[..., tuple[int, str]],
) -> None:
    change, message = BROKEN[broken]
    content = deepcopy(written)
    change(content)
    path = tmp_path / cells[0].result.name
    path.write_text(json.dumps(content))
    (tmp_path / "experiment.yaml").write_text(dump_config(experiment))
    for command in (
        ("report", path, "--out", tmp_path / "page.html"),
        ("compare", tmp_path / "experiment.yaml", "--results", tmp_path, "--only-tables"),
    ):
        code, said = lifealign(*command)
        assert code == 2 and said.count("\n") == 1
        assert said.startswith(f"error: {path}: {message}")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "experiment.yaml", path]


def test_runs_of_an_early_version_have_a_page_without_what_they_did_not_keep() -> None:
    runs = [load_run(path) for path in RESULTS if path.parent.name == "support_desk"]
    assert [run.cost for run in runs] == [None] * 9 and runs[0].outcomes == {}
    page = runs_page(runs, "ER")
    assert "9 runs" in re.sub(r"<[^>]*>", "", page)
