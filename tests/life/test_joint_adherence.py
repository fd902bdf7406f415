"""Rules kept together: exact shares wherever scores are made, and rules that a later task replaces."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.tiny import letter_task

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError
from lifealign.life.disk import names
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.measure import measure
from lifealign.model import answer_cache
from lifealign.report.page.life_page import life_page
from lifealign.storage.files import write_sealed_json

MakeLife = Callable[..., Life]
A = replace(letter_task("a", "a", "b", test=3), check=AnswerCheck(max_words=2))
B = replace(letter_task("b", "c", "d", test=3), check=AnswerCheck(lacks=("x",)))
C = replace(letter_task("c", "e", "f", test=3), check=AnswerCheck(min_words=3))
FREE = letter_task("free", "g", "h", test=3)
REPLACES = replace(C, supersedes=("a",))
SAID = {
    "a 8": "hi",  # keeps a and b
    "a 9": "hi x",  # keeps a
    "a 10": "one two three",  # keeps b and c
    "b 8": "x",  # keeps a
    "b 9": "ok",  # keeps a and b
    "b 10": "one two x",  # keeps c
    "c 8": "one two three",  # keeps b and c
    "c 9": "ok",  # keeps a and b
    "c 10": "one two x",  # keeps c
}
JOINT = "joint_adherence"
WITH: dict[str, Any] = {"metrics": ("adherence", JOINT), "general_text": None}
WITHOUT: dict[str, Any] = {"metrics": ("adherence",), "general_text": None}
THIRD = pytest.approx(1 / 3)
TWO_THIRDS = pytest.approx(2 / 3)


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base and every version answer as in ``SAID``."""

    def scripted(_runtime: Any, prompts: Sequence[Any], **_: Any) -> list[str]:
        return [SAID.get(prompt[0].content, "fine") for prompt in prompts]

    monkeypatch.setattr(answer_cache, "generate_answers", scripted)


@pytest.fixture
def make(make_life: MakeLife) -> Callable[..., Life]:
    def learnt(tasks: Sequence[Task], evaluation: dict[str, Any], **sections: Any) -> Life:
        life = make_life(evaluation=evaluation, **sections)
        run_stream(life.workspace, tasks)
        return Life.open(life.directory.path)

    return learnt


def test_an_answer_counts_if_it_keeps_the_rules_of_all_tasks_so_far(make: Callable[..., Life]) -> None:
    life = make([A, B], WITH)
    assert life.scores["adherence"].rows == [{"a": TWO_THIRDS}, {"a": TWO_THIRDS, "b": THIRD}]
    joint = life.scores[JOINT]
    assert joint.rows == [{"a": TWO_THIRDS}, {"a": THIRD, "b": THIRD}]
    assert joint.base == {"a": TWO_THIRDS, "b": THIRD}  # the rules up to the step in which the task was learnt
    assert joint.last == THIRD and joint.backward_transfer == pytest.approx(-1 / 3)
    assert [record.outcomes[JOINT] for record in life.records] == [
        {"a": [1.0, 1.0, 0.0]},
        {"a": [1.0, 0.0, 0.0], "b": [0.0, 1.0, 0.0]},
    ]
    card = (life.directory.path / "versions/02-b/README.md").read_text()
    assert "rules kept together" in card and "rules kept together" in life_page(life)


def test_it_is_measured_only_where_it_is_asked_for(make: Callable[..., Life]) -> None:
    assert set(make([A, B], {"general_text": None, "metrics": WITHOUT["metrics"]}).scores) == {"adherence"}


def test_measured_later_each_version_is_asked_for_its_own_rules(make: Callable[..., Life]) -> None:
    at_once, later, backwards = make([A, B, C], WITH), make([A, B, C], WITHOUT), make([A, B, C], WITHOUT)
    expected = at_once.scores[JOINT].as_dict()
    assert at_once.scores[JOINT].rows[2] == {"a": 0.0, "b": 0.0, "c": 0.0}  # no answer keeps a and c
    measure(later.workspace, [JOINT])
    assert later.scores[JOINT].as_dict() == expected
    for version in ("03-c", "01-a", "02-b"):  # the base is asked for a's and b's own rules by the last one
        measure(backwards.workspace, [JOINT], as_of=version)
    assert backwards.scores[JOINT].as_dict() == expected
    heard: list[str] = []
    measure(later.workspace, [JOINT], say=heard.append)
    assert heard == ["nothing to do: everything is already measured"]


def test_a_hole_is_filled_with_the_rules_of_its_version(
    make: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make([A, B, C], WITH).scores[JOINT].as_dict()
    answered = answer_cache.generate_answers

    def broken(runtime: Any, prompts: Sequence[Any], **options: Any) -> list[str]:
        if any(prompt[0].content.startswith("b") for prompt in prompts):
            raise RuntimeError("out of memory")
        return answered(runtime, prompts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(answer_cache, "generate_answers", broken)
        life = make([A, B, C], WITH)
    assert life.scores[JOINT].holes == [(1, "b"), (2, "b")] and life.scores[JOINT].rows[1] == {"a": THIRD}
    measure(life.workspace)
    assert life.scores[JOINT].as_dict() == expected


def test_a_rule_that_a_later_task_replaces_no_longer_counts(make: Callable[..., Life]) -> None:
    at_once, later = make([A, B, REPLACES], WITH), make([A, B, REPLACES], WITHOUT)
    measure(later.workspace, [JOINT])
    for life in (at_once, later):
        assert life.scores[JOINT].rows == [
            {"a": TWO_THIRDS},
            {"a": THIRD, "b": THIRD},  # a's rule counts until then
            {"a": THIRD, "b": 0.0, "c": THIRD},
        ]
        assert life.scores[JOINT].base == {"a": TWO_THIRDS, "b": THIRD, "c": THIRD}
        assert life.scores["adherence"].rows[2]["a"] == TWO_THIRDS  # its own score stays what it is


def test_a_task_without_a_check_has_no_such_score_and_ends_the_rule_that_it_replaces(make: Callable[..., Life]) -> None:
    life = make([A, FREE, replace(letter_task("new", "i", "j", test=3), supersedes=("a",))], WITH)
    assert life.scores[JOINT].rows == [{"a": TWO_THIRDS}, {"a": TWO_THIRDS}, {}]
    heard: list[str] = []
    measure(life.workspace, say=heard.append)
    assert heard == ["nothing to do: everything is already measured"]  # no rule is left that could be kept


def test_all_tasks_at_once_are_asked_for_all_rules(make: Callable[..., Life]) -> None:
    life = make([A, B], WITH, method="mtl")
    assert life.scores[JOINT].rows == [{"a": THIRD, "b": THIRD}] and life.scores[JOINT].base == {"a": THIRD, "b": THIRD}


def test_with_a_model_per_task_it_is_left_out_and_that_is_said(
    make: Callable[..., Life], caplog: pytest.LogCaptureFixture
) -> None:
    told = "joint_adherence: left out, because STL has one model per task"
    life = make([A, B], WITH, method="stl")
    assert set(life.scores) == {"adherence"} and sum(told in message for message in caplog.messages) == 1
    heard: list[str] = []
    measure(life.workspace, [JOINT], say=heard.append)
    assert heard[0].startswith(told) and set(Life.open(life.directory.path).scores) == {"adherence"}


def test_numbers_of_other_draws_are_refused(make: Callable[..., Life]) -> None:
    life = make([A], WITH | {"do_sample": True, "draws": 2})
    rows = life.directory.rows(names.answers("01-a"))
    assert [(row["prompt"][0]["content"], row["draw"]) for row in rows] == [
        (f"a {number}", draw) for number in (8, 9, 10) for draw in (0, 1)
    ]
    assert len(life.records[0].answers) == 6 and "hi x" in life_page(life)
    with pytest.raises(ConfigError, match=r"joint_adherence of 01-a .*draws: 2 there, None here"):
        measure(life.workspace, [JOINT], overrides=["draws=1"])
    measure(life.workspace, [JOINT], overrides=["draws=1"], replace=True)
    assert life.scores[JOINT].rows == [{"a": TWO_THIRDS}]


# -- what a task supersedes ------------------------------------------------------------------------------------------


def test_what_a_task_supersedes_is_stored_with_it_and_nothing_where_there_is_nothing(make: Callable[..., Life]) -> None:
    life = make([A, REPLACES], WITHOUT)
    one, two = json.loads((life.directory.path / "life.json").read_text())["versions"][1:]
    assert "supersedes" not in one["tasks"][0] and two["tasks"][0]["supersedes"] == ["a"]
    assert [version.tasks[0].supersedes for version in life.steps] == [[], ["a"]]


def test_a_life_from_before_there_were_draws_and_superseded_tasks_learns_on(
    make: Callable[..., Life],
) -> None:
    life = make([A], WITH)
    path = life.directory.path / "life.json"
    content = json.loads(path.read_text())
    del content["sha256"], content["config"]["evaluation"]["draws"]
    write_sealed_json(path, content)
    heard: list[str] = []
    again = Life.open(life.directory.path)
    measure(again.workspace, [JOINT], say=heard.append)
    assert heard == ["nothing to do: everything is already measured"]
    again.learn(B)
    assert again.scores[JOINT].rows == [{"a": TWO_THIRDS}, {"a": THIRD, "b": THIRD}]


def test_a_record_whose_superseded_name_is_no_name_is_refused(make: Callable[..., Life]) -> None:
    life = make([A, REPLACES], WITHOUT)
    path = life.directory.path / "life.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content["versions"][2]["tasks"][0]["supersedes"] = ["../a"]
    write_sealed_json(path, content)
    with pytest.raises(LifeError, match="supersedes"):
        Life.open(life.directory.path)


def test_the_data_hash_is_that_of_before_where_nothing_is_superseded() -> None:
    assert letter_task("one", "a", "b").data_hash == "d009a1f722015069116aa6e8660b8f89"
    assert A.data_hash == "97eca0c338aad221920a90d7ffc331fb"
    assert C.data_hash != REPLACES.data_hash
    both = [replace(C, supersedes=order).data_hash for order in (("a", "b"), ("b", "a"))]
    assert both[0] == both[1] != REPLACES.data_hash


def test_only_an_earlier_task_can_be_superseded(make_life: MakeLife) -> None:
    life = make_life(evaluation=WITHOUT)
    later = replace(A, supersedes=("b",))
    with pytest.raises(ConfigError, match=r"task 'a': supersedes: found 'b', expected a task that is learnt before it"):
        run_stream(life.workspace, [later, B])
    with pytest.raises(ConfigError, match="but there is none"):
        life.learn(later)
    with pytest.raises(ConfigError, match="found 'a', expected"):
        life.learn(replace(A, supersedes=("a",)))
    assert not life.steps
    life.learn(A)
    with pytest.raises(ConfigError, match=r"found 'aa', expected .* before it: a; did you mean a\?"):
        life.learn(replace(C, supersedes=("aa",)))
    with pytest.raises(ConfigError, match="found 'a' twice"):
        replace(C, supersedes=("a", "a"))
    life.learn(REPLACES)
    with pytest.raises(LifeError, match=r"learnt from other data .* the same pairs, check and superseded tasks"):
        life.learn(C)
