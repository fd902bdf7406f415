"""Held-out rows meet the model before training: what cannot be scored fails or is counted before the first step."""

import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.conftest import TrainedStage
from tests.tiny import CHAT_TEMPLATE, letter_task, pair, save_tiny

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Message, Pair
from lifealign.data.task import Task
from lifealign.errors import ConfigError, DataError, LifeAlignError, LifeError
from lifealign.evaluation.held_out import left_out_text, scorable
from lifealign.experiments.result_of_life import result_of
from lifealign.life.disk.measurements import held_out_of
from lifealign.life.life import Life
from lifealign.model.runtime import Runtime
from lifealign.report.page.life_page import life_page
from lifealign.report.progress import Progress

MakeLife = Callable[..., Life]
ONE = letter_task("one", "a", "b")
MARKS = 19
"""Tokens of the tiny template around a user's message: <|im_start|>user\\n, <|im_end|>\\n, <|im_start|>assistant\\n."""


def of_length(tokens: int, line: int) -> Pair:
    """A held-out pair whose prompt takes so many tokens, one a byte."""
    return pair("x" * (tokens - MARKS), "aaa", "bbb", f"late.jsonl:{line}")


def task(*held_out: Pair, check: AnswerCheck | None = None) -> Task:
    return Task("one", ONE.train, held_out, check)


SHORT, LONG = of_length(40, 1), [of_length(300, line) for line in (2, 3, 4)]


# -- which rows --------------------------------------------------------------------------------------------------------


def test_a_prompt_needs_room_for_one_token_of_an_answer(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime()
    found = scorable(runtime, "one", [of_length(299, 1), of_length(300, 2)], max_length=300, new_tokens=0)
    assert [row.source for row in found.pairs] == ["late.jsonl:1"]
    assert (found.too_long, found.without_room) == (("late.jsonl:2",), ())


def test_a_prompt_needs_positions_for_a_whole_generated_answer(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime()  # 1024 positions
    rows = [of_length(1020, 1), of_length(1021, 2), of_length(1200, 3)]
    found = scorable(runtime, "one", rows, max_length=1200, new_tokens=4)
    assert [row.source for row in found.pairs] == ["late.jsonl:1"]
    assert (found.too_long, found.without_room) == (("late.jsonl:3",), ("late.jsonl:2",))
    assert left_out_text(found, "one", max_length=1200, new_tokens=4) == (
        "one: 1 of 3 held-out pairs fit in 1200 tokens; 1 left out (late.jsonl:3); "
        "1 left out for want of positions for 4 new tokens (late.jsonl:2)"
    )
    without_answers = scorable(runtime, "one", rows, max_length=1200, new_tokens=0)
    assert [row.source for row in without_answers.pairs] == ["late.jsonl:1", "late.jsonl:2"]
    with pytest.raises(DataError, match=r"late\.jsonl:2: prompt: found no room .* 4 new ones in the model's 1024 pos"):
        scorable(runtime, "one", rows[1:2], max_length=1200, new_tokens=4)
    assert scorable(runtime, "one", [], max_length=300, new_tokens=4).pairs == ()


# -- said and counted --------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_said_before_training_and_the_number_scored_is_the_number_shown(
    make_life: MakeLife, trained: list[TrainedStage]
) -> None:
    life = make_life(data={"max_length": 300})
    heard: list[tuple[str, int]] = []

    class Heard(Progress):
        def say(self, text: str) -> None:
            heard.append((text.strip(), len(trained)))

    given = task(LONG[0], SHORT, *LONG[1:], check=AnswerCheck(max_words=3))
    life.learn(given, Heard(Console(file=StringIO())))
    assert heard[0] == (
        "one: 1 of 4 held-out pairs fit in 300 tokens; 3 left out (late.jsonl:2, late.jsonl:3, late.jsonl:4)",
        0,  # before the first stage
    )
    (version,), (record,) = life.steps, life.records
    assert (version.tasks[0].test_pairs, version.tasks[0].data_hash) == (1, given.data_hash)
    assert [row.source for row in held_out_of(life.directory, version)[0].pairs] == ["late.jsonl:1"]
    assert record.counts == {metric: {"one": 1} for metric in ("adherence", "preference_accuracy", "margin")}
    assert {metric: len(each["one"]) for metric, each in (record.outcomes or {}).items()} == dict.fromkeys(
        record.counts, 1
    )
    assert life.directory.json("tasks/01-one/training.json")["left_out_held_out"] == {
        "one": ["late.jsonl:2", "late.jsonl:3", "late.jsonl:4"]
    }
    result = result_of(life)
    assert result.steps[0].tasks[0].test_pairs == 1
    assert result.scores["margin"].counts == [{"one": 1}]
    card = (life.directory.path / "versions/01-one/README.md").read_text()
    assert "| one | 01-one | 8 | 1 |" in card and "n = 1 per task" in card
    assert "n = 1 per task" in life_page(life)
    assert life.learn(given) is life.steps[0]  # the same data is the same task, whatever of it could be scored


def test_without_a_progress_bar_it_is_said_in_the_log(make_life: MakeLife, caplog: pytest.LogCaptureFixture) -> None:
    make_life(data={"max_length": 300}).learn(task(SHORT, *LONG[:1]))
    assert "one: 1 of 2 held-out pairs fit in 300 tokens; 1 left out (late.jsonl:2)" in caplog.messages


def test_answers_and_pairs_are_of_the_same_rows_whatever_the_limits(make_life: MakeLife) -> None:
    rows = [LONG[0], pair("first", "aaa", "bbb", "late.jsonl:5"), pair("second", "aaa", "bbb", "late.jsonl:6")]
    evaluation = {"pairs": 1, "prompts": 1, "metrics": ("margin", "rouge_l"), "general_text": None}
    life = make_life(data={"max_length": 300}, evaluation=evaluation)
    life.learn(task(*rows))
    (record,) = life.records
    assert record.counts == {"margin": {"one": 1}, "rouge_l": {"one": 1}}
    assert [row["prompt"][0]["content"] for row in record.answers] == ["first"]
    assert life.steps[0].tasks[0].test_pairs == 2 and life.scores["margin"].examples == {"one": (1, 1)}


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(life: Life, trained: list[TrainedStage], given: Task, error: type[LifeAlignError], message: str) -> None:
    """Learning is refused before anything is trained, and the life is as it was."""
    before = life.directory.manifest.model_copy()
    with pytest.raises(error, match=message):
        life.learn(given)
    assert trained == [] and Life.open(life.directory.path).directory.manifest == before


def test_held_out_pairs_of_which_none_fits_are_an_error_with_a_way_out(
    make_life: MakeLife, trained: list[TrainedStage]
) -> None:
    message = (
        r"^late\.jsonl:2: prompt: found no room for an answer in max_length = 300 tokens, in all 3 held-out pairs of "
        r"task 'one', expected at least one that can be scored; .*data\.max_length, or learn without held-out pairs$"
    )
    refused(make_life(data={"max_length": 300}), trained, task(*LONG), DataError, message)


def test_a_held_out_row_that_the_template_refuses_is_found_before_training(
    make_life: MakeLife, trained: list[TrainedStage], tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "strict")
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    assert (folder / "chat_template.jinja").exists()
    (folder / "chat_template.jinja").write_text(refusing + CHAT_TEMPLATE)
    life = make_life(model={"model_name_or_path": str(folder)})
    strange = Pair((Message("system", "Be brief."), Message("user", "q")), "aaa", "bbb", "late.jsonl:7")
    message = r"^late\.jsonl:7: prompt: found a prompt that the model's chat template refuses \(no system role\)"
    refused(life, trained, task(SHORT, strange), DataError, message)


def test_damaged_held_out_pairs_of_an_earlier_task_are_found_before_training(
    make_life: MakeLife, trained: list[TrainedStage]
) -> None:
    life = make_life()
    life.learn(ONE)
    trained.clear()
    path = life.directory.path / "tasks/01-one/one.test.jsonl"
    path.write_bytes(path.read_bytes().replace(b"one 8", b"one 9", 1))
    refused(life, trained, letter_task("two", "c", "d"), LifeError, r"one\.test\.jsonl: found .* expected")


def test_a_metric_whose_package_is_missing_is_found_before_training(
    make_life: MakeLife, trained: list[TrainedStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    life = make_life(evaluation={"metrics": ("paper_rouge_l",), "general_text": None})
    chinese = pair("q", "\u4f60\u597d", "no", "late.jsonl:8")
    refused(life, trained, task(chinese), ConfigError, "needs jieba to split Chinese text")
    life.learn(task(SHORT))  # without Chinese nothing is missing
    assert life.scores["paper_rouge_l"].last is not None


def test_general_text_without_anything_to_predict_is_found_before_training(
    make_life: MakeLife, trained: list[TrainedStage], tmp_path: Path
) -> None:
    (tmp_path / "one-letter.txt").write_text("x\n")
    life = make_life(evaluation={"metrics": ("perplexity",), "general_text": str(tmp_path / "one-letter.txt")})
    refused(life, trained, ONE, DataError, r"one-letter\.txt: found 1 passages of fewer than two tokens")


def test_a_full_disk_is_found_before_training(
    make_life: MakeLife, trained: list[TrainedStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = make_life()
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    said = r"found 0 MiB free on its disk, expected at least 1 MiB.*; nothing was trained"
    refused(life, trained, ONE, LifeError, said)
