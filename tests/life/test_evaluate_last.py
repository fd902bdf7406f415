"""A life that scores only its latest tasks: nothing it has not measured looks as if it had."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Lived, MakeLife
from tests.tiny import letter_task
from tests.writers import write_jsonl

from lifealign.cli.options import console, show_life
from lifealign.data.answer_check import AnswerCheck
from lifealign.evaluation.evaluator import Evaluator
from lifealign.evaluation.scores import HeldOut, Scores
from lifealign.experiments.cells import cells_of, finished
from lifealign.experiments.compare import run_comparison
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.settings import ExperimentConfig
from lifealign.experiments.summary import compare_results
from lifealign.life.disk import names
from lifealign.life.evaluate import settings_for
from lifealign.life.life import Life
from lifealign.life.measure import measure
from lifealign.report.page.life_page import life_page
from lifealign.report.tables import tables
from lifealign.settings.section import build_config
from lifealign.storage.files import read_json, verify_file

TASKS = [letter_task(name, good, bad, test=2) for name, good, bad in ("oab", "pcd", "qef", "rgh")]
CHECKED = [replace(task, check=AnswerCheck(max_words=40 - number)) for number, task in enumerate(TASKS)]
LAST: dict[str, Any] = {"metrics": ("preference_accuracy", "margin"), "general_text": None, "evaluate_last": 1}


WHOLE = LAST | {"evaluate_last": None}


@pytest.fixture
def copied(lived: Lived, tmp_path: Path) -> Callable[..., Life]:
    """A life of the four tasks, to be changed."""

    def copy(**sections: Any) -> Life:
        return Life.open(shutil.copytree(lived(TASKS, **sections).directory.path, tmp_path / "life"))

    return copy


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The tasks on which a model that has learnt something was scored, call by call."""
    calls: list[list[str]] = []
    real = Evaluator.score

    def spied(self: Evaluator, tasks: Any, policy: str | None, scores: Scores | None = None) -> Scores:
        if policy is not None:
            calls.append([task.name for task in tasks])
        return real(self, tasks, policy, scores)

    monkeypatch.setattr(Evaluator, "score", spied)
    yield calls


def test_a_step_scores_its_own_task_and_the_latest_before_it(make_life: MakeLife, scored: list[list[str]]) -> None:
    life = make_life(evaluation=LAST)
    for task in TASKS:
        life.learn(task)
    assert scored == [["o"], ["o", "p"], ["p", "q"], ["q", "r"]]
    margin = life.scores["margin"]
    assert [list(row) for row in margin.rows] == scored and list(margin.base) == ["o", "p", "q", "r"]
    assert (margin.holes, margin.last, margin.backward_transfer) == ([], None, None)
    assert margin.learned is not None
    part = margin.part()
    assert part is not None and (part.tasks, part.of) == (2, 4)


def test_what_it_scores_are_the_numbers_of_a_life_that_scores_all(lived: Lived) -> None:
    in_part, whole = lived(TASKS, evaluation=LAST).scores["margin"], lived(TASKS, evaluation=WHOLE)
    rows = whole.scores["margin"].rows
    assert [dict(row) for row in in_part.rows] == [
        {task: rows[step][task] for task in row} for step, row in enumerate(in_part.rows)
    ]


def test_nothing_of_an_earlier_task_is_read_that_is_not_scored(
    copied: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = copied(evaluation=LAST)
    life.rollback("03-q")
    read: list[str] = []
    monkeypatch.setattr(
        "lifealign.life.disk.directory.verify_file",
        lambda path, record: (read.append(path.name), verify_file(path, record)),
    )
    life.learn(TASKS[3])
    assert [name for name in read if name.endswith(".test.jsonl")] == ["q.test.jsonl"]


def test_with_none_of_the_earlier_tasks_each_is_scored_once(lived: Lived) -> None:
    margin = lived(TASKS, evaluation=LAST | {"evaluate_last": 0}).scores["margin"]
    assert [list(row) for row in margin.rows] == [["o"], ["p"], ["q"], ["r"]]
    part = margin.part()
    assert part is not None and (part.tasks, part.of, part.change) == (1, 4, None)


def test_evaluating_scores_what_the_steps_did_not_and_then_nothing(
    lived: Lived, copied: Callable[..., Life], scored: list[list[str]]
) -> None:
    life, whole = copied(evaluation=LAST), lived(TASKS, evaluation=WHOLE)
    scored.clear()
    said: list[str] = []
    measure(life.workspace, as_of="04-r", say=said.append)
    assert scored == [["o", "p", "q", "r"]]
    margin = life.scores["margin"]
    assert margin.last == pytest.approx(whole.scores["margin"].last) and margin.part() is None
    assert margin.backward_transfer == pytest.approx(whole.scores["margin"].backward_transfer)
    assert margin.average is None  # the third row is still in part
    measure(life.workspace, say=said.append)
    assert life.scores["margin"].summary() == pytest.approx(whole.scores["margin"].summary())
    scored.clear()
    measure(life.workspace, say=said.append)
    assert scored == [] and said[-1] == "nothing to do: everything is already measured"


def test_evaluating_may_be_told_to_score_the_latest_alone(copied: Callable[..., Life], scored: list[list[str]]) -> None:
    life = copied(evaluation=LAST)
    assert settings_for(life.workspace, ("margin",)).evaluate_last is None
    scored.clear()
    measure(life.workspace, ("margin",), overrides=["evaluate_last=2"])
    assert scored == [["o", "p", "q"], ["p", "q", "r"]]  # what the other rows were asked for is there
    assert life.scores["margin"].part() is not None


def test_rules_are_kept_together_with_those_of_tasks_that_are_not_scored(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, tuple[AnswerCheck, ...]] = {}
    real = Evaluator.score

    def spied(self: Evaluator, tasks: list[HeldOut], policy: str | None, scores: Scores | None = None) -> Scores:
        asked.update({task.name: task.rules for task in tasks})
        return real(self, tasks, policy, scores)

    monkeypatch.setattr(Evaluator, "score", spied)
    life = make_life(evaluation=LAST | {"metrics": ("joint_adherence",)})
    for task in CHECKED[:3]:
        life.learn(task)
    assert [rule.max_words for rule in asked["q"]] == [40, 39, 38]


def test_a_life_with_a_model_for_each_task_carries_as_many_scores(copied: Callable[..., Life]) -> None:
    life = copied(method="stl", evaluation=LAST)
    margin = life.scores["margin"]
    assert [list(row) for row in margin.rows] == [["o"], ["o", "p"], ["p", "q"], ["q", "r"]]
    measure(life.workspace)
    assert [len(row) for row in life.scores["margin"].rows] == [1, 2, 3, 4]
    assert life.scores["margin"].backward_transfer == 0


def test_whoever_shows_the_scores_says_that_they_are_some(lived: Lived, capsys: pytest.CaptureFixture[str]) -> None:
    life = lived(TASKS, evaluation=LAST)
    some = "2 of 4 tasks were scored after the last step"
    with console.capture() as capture:
        show_life(life)
    shown = " ".join(capture.get().split())
    assert f"{some}: mean" in shown and "last - average - learned" in shown and "(2 of 4)" in shown
    page = life_page(life)
    assert some in page and "not scored" in page and "(2 of 4)" in page
    card = (life.directory.path / names.model_card("04-r")).read_text("utf-8")
    assert some in card and "held-out pairs of that task and of the latest 1 before it" in card and "Last -" in card
    view = read_json(life.directory.path / names.SCORES)["margin"]
    assert view["asked_from"] == [0, 0, 1, 2] and view["part"]["of"] == 4 and view["holes"] == []


def test_a_comparison_has_no_means_of_such_a_life_and_says_why(lived: Lived) -> None:
    some, all_of_them = lived(TASKS, evaluation=LAST), lived(TASKS, evaluation=WHOLE)
    results = [result_of(some, label="some", order="o"), result_of(all_of_them, label="all", order="o")]
    table = compare_results(results, "all").orders[0].metrics[0]
    statistics = {row.label: row.statistics for row in table.rows}
    assert statistics["some"]["last"] is None and statistics["all"]["last"] is not None
    assert statistics["some"]["learned"] == pytest.approx(statistics["all"]["learned"])
    assert table.holes == ("some, seed 42: 2 of 4 tasks scored after the last step (evaluation.evaluate_last)",)
    assert any("2 of 4 tasks scored" in note for one in tables(compare_results(results, None)) for note in one.notes)


def test_a_finished_cell_takes_over_what_was_scored_of_its_life_later(tmp_path: Path, tiny_folder: Path) -> None:
    for name in ("o", "p", "q"):
        rows = [{"prompt": f"{name} {number}", "chosen": "yes", "rejected": "no"} for number in range(6)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows[:4]), write_jsonl(tmp_path / f"{name}-test.jsonl", rows[4:])
    settings = {
        "output_dir": str(tmp_path / "out"),
        "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
        "sft": {"num_train_epochs": 0},
        "preference": {"num_train_epochs": 1},
        "evaluation": {"metrics": ["margin"], "evaluate_last": 0},
        "tasks": [{"name": n, "train": f"{tmp_path}/{n}.jsonl", "test": f"{tmp_path}/{n}-test.jsonl"} for n in "opq"],
        "compare": {"methods": ["seqft"], "seeds": [1]},
    }
    cells = cells_of(build_config(ExperimentConfig, settings))
    said: list[str] = []
    assert run_comparison(cells, say=said.append) == []
    assert said[-1] == "SeqFT, stream, seed 1: finished (1 of 1)"  # all that was asked for is there
    result = finished(cells[0])
    assert result is not None and result.scores["margin"].part is not None
    assert (result.scores["margin"].summary.last, result.scores["margin"].asked_from) == (None, [0, 1, 2])
    measure(Life.open(cells[0].experiment.output_dir).workspace)
    assert run_comparison(cells, say=said.append) == []
    filled = finished(cells[0])
    assert filled is not None and filled.scores["margin"].part is None
    assert filled.scores["margin"].summary.last is not None and filled.scores["margin"].summary.average is not None
