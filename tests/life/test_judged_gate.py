"""A judge's marks decide what a gate's prompts hold, where a task has no exact check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.conftest import MakeLife
from tests.scripted_judge import Says, ScriptedJudge, scripted_judge
from tests.tiny import letter_task

from lifealign.data.answer_check import AnswerCheck
from lifealign.errors import ConfigError, Refused
from lifealign.evaluation.retention import loss_bound
from lifealign.life import gate as gates
from lifealign.life.disk import names
from lifealign.life.disk.gate_files import GateSet, read_refusal, retention_of
from lifealign.life.gate import Seen, loss_since
from lifealign.life.learn import run_stream
from lifealign.report.page.life_page import life_page

ONE, TWO = letter_task("one", "a", "b", train=20), letter_task("two", "c", "d", train=20)


@pytest.fixture
def judge() -> Iterator[ScriptedJudge]:
    with scripted_judge(lambda messages, number: "7") as server:
        yield server


def judged(judge: ScriptedJudge, **more: Any) -> dict[str, Any]:
    asked = {"model": "a-judge", "base_url": judge.url, "max_retries": 0, "max_missing": 0.5, "max_parallel": 1}
    return {"mode": "warn", "set_aside": 0.5, "judge": asked, **more}


@pytest.mark.parametrize(("mark", "value"), [("6", 5.0), ("5", -5.0), ("10", 45.0), ("1", -45.0)])
def test_an_answer_holds_from_the_least_mark_on(
    make_life: MakeLife, judge: ScriptedJudge, mark: str, value: float
) -> None:
    """Marks are ten points each; the border between 5, which does not hold, and 6, which does, is 55 points."""
    judge.script = lambda messages, number: mark
    life = make_life(retention=judged(judge))
    life.learn(ONE)
    evidence = retention_of(life.directory, life.steps[0])
    assert evidence is not None and evidence.held["one"].measure == "judge"
    empty = [not row["answer"].strip() for row in life.directory.rows(names.gate_answers("01-one"))]
    assert evidence.held["one"].values == [-45.0 if nothing else value for nothing in empty]


def test_the_least_mark_is_the_one_of_the_settings(make_life: MakeLife, judge: ScriptedJudge) -> None:
    """The 7 that the judge gives holds with 7 and not with 8: 5 points above the border, or 5 below it."""
    values = []
    for least in (7, 8):
        life = make_life(retention=judged(judge, least_mark=least))
        life.learn(ONE)
        evidence = retention_of(life.directory, life.steps[0])
        assert evidence is not None and evidence.held["one"].values is not None
        values.append({value for value in evidence.held["one"].values if value is not None and value > -40})
    assert values == [{5.0}, {-5.0}]


def test_a_mark_that_is_missing_leaves_the_others(make_life: MakeLife, judge: ScriptedJudge) -> None:
    """As many may be missing as the judge's own settings allow."""
    judge.script = lambda messages, number: "7" if "one 1" in str(messages) else "no mark"
    life = make_life(retention=judged(judge))
    life.learn(ONE)
    evidence = retention_of(life.directory, life.steps[0])
    assert evidence is not None and evidence.held["one"].values is not None and not evidence.unmeasured
    assert None in evidence.held["one"].values and len(set(evidence.held["one"].values)) > 1


def test_what_the_judge_marks_down_is_lost(make_life: MakeLife, judge: ScriptedJudge) -> None:
    life = make_life(retention=judged(judge))
    life.learn(ONE)
    held = retention_of(life.directory, life.steps[0])
    assert held is not None and held.held["one"].values is not None
    good = sum((value or 0) > 0 for value in held.held["one"].values)
    judge.script = lambda messages, number: "2"
    life.learn(TWO)
    evidence = retention_of(life.directory, life.steps[1])
    assert evidence is not None
    loss = evidence.losses["one"]
    again = sum((value or 0) > 0 for value in loss.values)  # answers that are the same were marked before
    assert len(loss.lost) == good - again > 0 and evidence.verdict == "lost"
    assert (
        "lost" in life_page(life) and "margin" not in life_page(life).split('id="retention"')[1].split("</section>")[0]
    )


def test_a_task_with_a_check_is_not_judged(make_life: MakeLife, judge: ScriptedJudge) -> None:
    life = make_life(retention=judged(judge))
    run_stream(life.workspace, [replace(ONE, check=AnswerCheck(max_words=50))])
    evidence = retention_of(life.directory, life.steps[0])
    assert evidence is not None and evidence.held["one"].measure == "adherence" and not judge.requests


def test_missing_marks_of_then_are_left_out_and_those_of_now_do_not_hold() -> None:
    gate = GateSet("one", None, 0.5, ONE.train[:5], (), (5.0, None, 5.0, -5.0, 5.0), measure="judge")
    loss = loss_since(gate, Seen({"one": [5.0, 5.0, None, 5.0, -5.0]}, [], ""), alpha=0.05)
    assert (loss.prompts, loss.lost, loss.gained) == (4, [2, 4], [3])
    assert loss.bound == loss_bound(2, 1, 4, 0.05)


def test_too_many_missing_marks_are_no_measurement(make_life: MakeLife, judge: ScriptedJudge) -> None:
    judge.script = lambda messages, number: "no mark"
    life = make_life(retention=judged(judge))
    life.learn(ONE)
    evidence = retention_of(life.directory, life.steps[0])
    assert evidence is not None and evidence.held["one"].values is None
    assert "judge of one (" in evidence.unmeasured and "marks are missing" in evidence.unmeasured


def test_a_judge_that_is_gone_costs_the_evidence_and_not_the_step(make_life: MakeLife, judge: ScriptedJudge) -> None:
    judge.script = lambda messages, number: Says(status=401)
    life = make_life(retention=judged(judge))
    life.learn(ONE)
    evidence = retention_of(life.directory, life.steps[0])
    assert evidence is not None and "JudgeError" in evidence.unmeasured and len(life.steps) == 1


def test_a_missing_key_is_found_before_training(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    life = make_life(retention={"mode": "warn", "set_aside": 0.5, "judge": {"model": "a-judge"}})
    monkeypatch.setattr(gates, "measure", None)
    with pytest.raises(ConfigError, match="the judge needs a key in the environment variable OPENAI_API_KEY"):
        life.learn(ONE)
    assert not life.steps


def test_enforce_refuses_what_the_judge_marks_down(make_life: MakeLife, judge: ScriptedJudge) -> None:
    life = make_life(retention=judged(judge, mode="enforce", max_loss=0.9))
    life.learn(ONE)
    judge.script = lambda messages, number: "1"
    with pytest.raises(Refused):
        life.learn(TWO)
    assert [version.name for version in life.steps] == ["01-one"]
    refusal = read_refusal(life.directory.path / names.refusal("02-two"))
    (flipped,) = refusal.flipped.values()
    assert all(isinstance(one.before, str) and isinstance(one.after, str) for one in flipped)
