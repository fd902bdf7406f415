"""Measuring a life again: the numbers are those that measuring at once gives, and none is measured twice."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import NoTraining
from tests.tiny import letter_task
from tests.writers import write_general_text

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Pair
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError
from lifealign.evaluation.evaluator import Evaluator
from lifealign.evaluation.scores import HeldOut
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.life.disk import names
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.measurements import read_records
from lifealign.life.evaluate import Evaluation, evaluate_life
from lifealign.life.life import Life
from lifealign.model.adapter import read_adapter

MakeLife = Callable[..., Life]
ONE = letter_task("one", "a", "b")
TWO = replace(letter_task("two", "c", "d"), check=AnswerCheck(max_words=3))
THREE = Task("three", letter_task("three", "e", "f").train)  # without held-out pairs
ALL = ("adherence", "preference_accuracy", "margin", "bleu", "rouge_l", "paper_bleu", "paper_rouge_l", "perplexity")
LITTLE: dict[str, Any] = {"metrics": ("margin",), "general_text": None}


@pytest.fixture
def general_text(tmp_path: Path) -> str:
    """Two passages of general text."""
    return write_general_text(tmp_path)


@pytest.fixture
def life(make_life: MakeLife) -> Life:
    """Two tasks learnt, of which only the margin was measured."""
    made = make_life(evaluation=LITTLE)
    made.learn(ONE)
    made.learn(TWO)
    return made


def measured(life: Life, metrics: Sequence[str], **more: Any) -> list[str]:
    """Measures metrics under the life's own settings, or with some of them changed."""
    settings = life.config.evaluation.model_copy(update=more.pop("settings", {}))
    judge, again = more.pop("judge", None), more.pop("replace", False)
    return evaluate_life(life.workspace, Evaluation(tuple(metrics), settings, judge, again), **more)


class FirstWord:
    """A judge that marks by position, and has no mark where it is told so."""

    def __init__(self, missing: set[int] = frozenset(), max_missing: float = 0.3, name: str = "first") -> None:  # type: ignore[assignment]
        self.missing, self.max_missing, self.name = missing, max_missing, name
        self.asked = 0

    def __call__(self, task: HeldOut, pairs: Sequence[Pair], answers: Sequence[str]) -> list[float | None]:
        self.asked += len(answers)
        return [None if number in self.missing else 10.0 * (number + 1) for number in range(len(answers))]

    def identity(self) -> dict[str, Any]:
        return {"judge": self.name}


def test_what_is_measured_later_is_what_would_have_been_measured_at_once(
    make_life: MakeLife, life: Life, general_text: str
) -> None:
    at_once = make_life(evaluation={"metrics": ALL, "general_text": general_text})
    at_once.learn(ONE)
    at_once.learn(TWO)
    assert set(life.scores) == {"margin"} and life.records[0].general is None
    assert measured(life, ALL, settings={"general_text": general_text}) == ["01-one", "02-two"]
    again = Life.open(life.directory.path)
    assert set(again.scores) == set(ALL) - {"perplexity"}
    for metric, matrix in at_once.scores.items():
        assert again.scores[metric].as_dict() == matrix.as_dict()
    for now, then in zip(again.records, at_once.records, strict=True):
        assert (now.outcomes, now.general) == (then.outcomes, then.general)
        assert {row["answer"] for row in now.answers} == {row["answer"] for row in then.answers}
        assert {row["answer"] for row in now.base_answers} == {row["answer"] for row in then.base_answers}


def test_nothing_is_measured_twice_and_a_new_task_adds_its_row_only(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(life, ["margin", "rouge_l"]) == ["01-one", "02-two"]
    assert set(life.directory.json(names.later_scores("02-two", "rouge_l"))["scores"]) == {"one", "two"}
    assert names.later_scores("02-two", "margin") not in life.versions[-1].files  # the step has it
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "score", None)
        assert measured(life, ["rouge_l", "margin"]) == []
    life.learn(letter_task("four", "g", "h"))
    assert measured(life, ["rouge_l"]) == ["03-four"]
    assert not life.scores["rouge_l"].holes and set(life.scores["rouge_l"].base) == {"one", "two", "four"}


def test_one_version_alone_leaves_marked_holes_and_no_means_over_them(life: Life) -> None:
    assert measured(life, ["rouge_l"], as_of="02-two") == ["02-two"]
    matrix = life.scores["rouge_l"]
    assert matrix.holes == [(0, "one")] and matrix.last is not None and matrix.learned is None
    assert set(matrix.base) == {"one", "two"}  # nobody else has scored the base on them
    assert measured(life, ["rouge_l"]) == ["01-one"]
    assert not life.scores["rouge_l"].holes and life.scores["rouge_l"].learned is not None


def test_looking_back_changes_neither_the_model_nor_what_is_learnt_next(make_life: MakeLife, life: Life) -> None:
    last = read_adapter_of(life.directory)
    measured(life, ["rouge_l"], as_of="01-one")
    held = read_adapter(life.workspace.runtime.model)
    assert all((held[name] == last[name]).all() for name in last)
    twin = make_life(evaluation=LITTLE)
    for task in (ONE, TWO, THREE):
        twin.learn(task)
    life.learn(THREE)
    assert all(
        (read_adapter_of(life.directory)[name] == factor).all()
        for name, factor in read_adapter_of(twin.directory).items()
    )


def test_numbers_under_other_settings_are_refused_or_replaced_but_never_mixed(life: Life) -> None:
    measured(life, ["rouge_l"])
    with pytest.raises(ConfigError, match=r"rouge_l of 01-one .*max_new_tokens: 4 there, 6 here.*--replace"):
        measured(life, ["rouge_l"], settings={"max_new_tokens": 6})
    with pytest.raises(ConfigError, match=r"margin of 01-one .*pairs: None there, 2 here"):
        measured(life, ["margin"], settings={"pairs": 2})
    all_pairs = life.scores["margin"].as_dict()
    measured(life, ["margin"], settings={"pairs": 2}, replace=True, as_of="02-two")
    # The steps' own margins, of all pairs, are not those of two: the row of the first step is a hole now.
    assert life.scores["margin"].holes == [(0, "one")]
    measured(life, ["margin"], settings={"pairs": 2})
    matrix = Life.open(life.directory.path).scores["margin"]
    assert not matrix.holes and matrix.as_dict() != all_pairs
    assert [len((record.outcomes or {})["margin"]["one"]) for record in life.records] == [2, 2]


def test_an_interrupted_call_keeps_the_versions_it_has_finished(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    score = Evaluator.score

    def interrupted(self: Evaluator, tasks: Sequence[HeldOut], policy: str | None) -> Any:
        if "two" in [task.name for task in tasks]:
            raise KeyboardInterrupt
        return score(self, tasks, policy)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measured(life, ["rouge_l"])
    assert life.scores["rouge_l"].holes == [(1, "one")]
    assert Life.open(life.directory.path).scores["rouge_l"].rows[0].keys() == {"one"}
    assert measured(life, ["rouge_l"]) == ["02-two"]


def test_rollback_forgets_what_was_measured_of_the_versions_that_go(life: Life) -> None:
    measured(life, ["rouge_l"])
    life.rollback("01-one")
    assert life.scores["rouge_l"].tasks == ["one"]
    folder = life.directory.path / "tasks" / "01-one" / "evaluation"
    assert [path.name for path in folder.iterdir()] == ["rouge_l.json"]
    assert not (life.directory.path / "tasks" / "02-two").exists()


def test_a_damaged_evaluation_is_found_and_named(life: Life) -> None:
    measured(life, ["rouge_l"])
    path = life.directory.path / names.later_scores("01-one", "rouge_l")
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(LifeError, match=r"rouge_l\.json: found .* expected"):
        Life.open(life.directory.path).directory.verify(life.versions)


def test_tasks_with_models_of_their_own_are_scored_with_them(make_life: MakeLife) -> None:
    single, whole = (
        make_life(method="stl", evaluation=LITTLE),
        make_life(method="stl", evaluation={"metrics": ("margin", "rouge_l"), "general_text": None}),
    )
    for made in (single, whole):
        made.learn(ONE)
        made.learn(TWO)
    assert measured(single, ["rouge_l"], as_of="02-two") == ["01-one", "02-two"]
    assert single.scores["rouge_l"].as_dict() == whole.scores["rouge_l"].as_dict()
    assert single.scores["rouge_l"].rows[1]["one"] == single.scores["rouge_l"].rows[0]["one"]


def test_a_task_without_held_out_pairs_is_a_hole_in_no_matrix(life: Life) -> None:
    life.learn(THREE)
    measured(life, ["rouge_l"])
    assert life.scores["rouge_l"].tasks == ["one", "two"] and not life.scores["rouge_l"].holes


def test_marks_that_are_missing_do_not_count_and_too_many_of_them_refuse_the_cell(life: Life) -> None:
    measured(life, ["judge"], judge=FirstWord({1}))
    matrix = life.scores["judge"]
    assert matrix.rows[0] == {"one": pytest.approx((10 + 30 + 40) / 3)}  # not a quarter of it a zero
    assert (life.records[0].outcomes or {})["judge"]["one"] == [10.0, None, 30.0, 40.0]
    measured(life, ["judge"], judge=FirstWord({0, 1}, name="second"), replace=True)
    judged = life.scores["judge"]  # tasks without a score are not tasks that do not exist: no mean leaves them out
    assert judged.rows == [{}, {}] and judged.last is None and judged.holes == [(0, "one"), (1, "one"), (1, "two")]
    assert life.records[0].holes == {"judge": {"one": "2 of 4 marks are missing"}}
    better = FirstWord(name="second")
    assert measured(life, ["judge"], judge=better) == ["01-one", "02-two"]  # a hole is tried again
    assert life.scores["judge"].rows[0] == {"one": 25.0} and life.records[0].holes == {}
    assert better.asked > 0


def test_a_base_without_marks_is_asked_again_too(life: Life) -> None:
    class Tired(FirstWord):
        """Gives no marks from its third call on: the first version is marked, and the base is not."""

        def __call__(self, task: HeldOut, pairs: Sequence[Pair], answers: Sequence[str]) -> list[float | None]:
            marks = super().__call__(task, pairs, answers)
            return marks if self.asked <= 4 else [None] * len(marks)

    measured(life, ["judge"], judge=Tired(), as_of="01-one")
    assert life.scores["judge"].rows[0] == {"one": 25.0} and life.scores["judge"].base == {}
    assert measured(life, ["judge"], judge=FirstWord(), as_of="01-one") == ["01-one"]
    assert life.scores["judge"].base == {"one": 25.0}
    assert measured(life, ["judge"], judge=FirstWord(), as_of="01-one") == []


def test_marks_of_another_judge_do_not_compare(life: Life) -> None:
    measured(life, ["judge"], judge=FirstWord())
    with pytest.raises(ConfigError, match="judge: 'first' there, 'second' here"):
        measured(life, ["judge"], judge=FirstWord(name="second"))


def test_what_cannot_be_measured_is_said_before_anything_is(life: Life, make_life: MakeLife) -> None:
    settings = EvaluationConfig()
    with pytest.raises(ConfigError, match=r"found 'rouge', expected one of .*rouge_l"):
        Evaluation(("rouge",), settings)
    with pytest.raises(ConfigError, match="the metric 'judge' needs a judge"):
        Evaluation(("judge",), settings)
    with pytest.raises(ConfigError, match="the metric 'judge' needs a judge"):
        Evaluation(("margin",), settings, FirstWord())
    with pytest.raises(ConfigError, match="generate: false"):
        Evaluation(("bleu",), settings.model_copy(update={"generate": False}))
    with pytest.raises(LifeError, match="found no task learnt"):
        measured(make_life(), ["margin"])
    with pytest.raises(LifeError, match="found no version '07-x', expected one of: 00-base, 01-one, 02-two"):
        measured(life, ["rouge_l"], as_of="07-x")
    with pytest.raises(LifeError, match="00-base: found the untrained adapter"):
        measured(life, ["rouge_l"], as_of="00-base")


def test_other_general_text_than_before_is_refused_before_anything_is_trained(
    make_life: MakeLife, general_text: str, train_nothing: NoTraining
) -> None:
    life = make_life(evaluation={"metrics": ("perplexity",), "general_text": general_text})
    life.learn(ONE)
    Path(general_text).write_text("Another text.")

    with train_nothing(), pytest.raises(ConfigError, match="found another text than at the last step"):
        life.learn(TWO)
    measured(life, ["perplexity"], replace=True)
    life.learn(TWO)
    first, second = (record.general for record in read_records(life.directory))
    assert first and second and first["text"] == second["text"] and first["base"] == second["base"]
