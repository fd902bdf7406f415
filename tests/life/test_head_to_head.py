"""Two versions compared by a judge: whose answers are whose, what is kept, and what is refused."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.tiny import letter_task

from lifealign.errors import LifeError
from lifealign.evaluation.judge import AnswerPair, JudgeConfig, Preferences, Tally
from lifealign.evaluation.judge.pairwise import Outcome, wilson_interval
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.head_to_head import compare_versions
from lifealign.life.life import Life

MakeLife = Callable[..., Life]


class Scripted:
    """A judge that likes an answer for what is in it, and notes what it was shown."""

    def __init__(self, likes: Callable[[AnswerPair], Outcome | None]) -> None:
        self.likes = likes
        self.config = JudgeConfig(model="scripted", base_url="http://127.0.0.1:1/v1", max_missing=0.5)
        self.shown: list[AnswerPair] = []

    def preferences(self, pairs: Sequence[AnswerPair]) -> Preferences:
        self.shown += pairs
        outcomes = tuple(self.likes(pair) for pair in pairs)
        return Preferences(outcomes, ("",) * len(pairs), (False,) * len(pairs), Tally(0, 0, 0, 0, 0))


@pytest.fixture
def life(make_life: MakeLife) -> Life:
    made = make_life(evaluation={"metrics": ("rouge_l",), "general_text": None})
    made.learn(letter_task("one", "a", "b"))
    made.learn(letter_task("two", "c", "d", test=3))
    return made


def compared(life: Life, judge: Any, **more: Any) -> dict[str, Any]:
    return compare_versions(life.workspace, judge, life.config.evaluation, **more)


def test_each_side_gives_its_own_answers_to_every_prompt_learnt_by_then(life: Life) -> None:
    judge = Scripted(lambda _: "win")
    compared(life, judge, against="00-base")
    first, second = life.records
    answers = {row["prompt"][0]["content"]: row["answer"] for row in second.answers}
    base = {row["prompt"][0]["content"]: row["answer"] for one in (first, second) for row in one.base_answers}
    assert [(pair.ours, pair.theirs) for pair in judge.shown] == [
        (answers[pair.prompt[0].content], base[pair.prompt[0].content]) for pair in judge.shown
    ]
    assert len(judge.shown) == 7 and {pair.rubric.name for pair in judge.shown} == {"general"}
    earlier = Scripted(lambda _: "tie")
    compared(life, earlier, version="01-one", against="02-two")
    assert len(earlier.shown) == 4  # 01-one has not learnt the second task
    assert [pair.theirs for pair in earlier.shown] == [pair.ours for pair in judge.shown[:4]]


def test_what_is_preferred_is_kept_per_task_and_over_all(life: Life) -> None:
    compared(life, Scripted(lambda pair: "win" if "one" in pair.prompt[0].content else "loss"), against="00-base")
    kept = Life.open(life.directory.path).records[-1].against["00-base"]
    assert kept["outcomes"] == {"one": ["win"] * 4, "two": ["loss"] * 3}
    together = kept["tasks"]["all"]
    assert (together["wins"], together["losses"], together["missing"]) == (4, 3, 0)
    assert together["rate"] == pytest.approx(4 / 7)
    assert (together["low"], together["high"]) == pytest.approx(wilson_interval(4 / 7, 7))
    assert kept["tasks"]["one"]["rate"] == 1.0 and kept["tasks"]["two"]["rate"] == 0.0
    compared(life, Scripted(lambda _: "tie"), against="00-base")  # another judge's word takes its place
    assert life.records[-1].against["00-base"]["tasks"]["all"]["ties"] == 7


def test_a_judge_without_an_answer_leaves_a_hole_and_no_rate(life: Life) -> None:
    found = compared(life, Scripted(lambda pair: None if "two" in pair.prompt[0].content else "win"), against="00-base")
    assert found["tasks"]["two"] is None and found["tasks"]["one"]["rate"] == 1.0
    assert found["tasks"]["all"]["missing"] == 3 and found["tasks"]["all"]["rate"] == 1.0


def test_the_model_is_the_last_version_again(life: Life) -> None:
    last = read_adapter_of(life.directory)
    compared(life, Scripted(lambda _: "win"), version="01-one", against="00-base")
    held = life.workspace.runtime.model.state_dict()
    names = [name for name in held if "lora_A.default" in name]
    assert names and all((held[name].cpu() == last[name.replace(".default", "")]).all() for name in names)


def test_what_cannot_be_compared_is_said(life: Life, make_life: MakeLife) -> None:
    judge = Scripted(lambda _: "win")
    with pytest.raises(LifeError, match="found no task learnt"):
        compared(make_life(), judge, against="00-base")
    with pytest.raises(LifeError, match="found no version '09-x'"):
        compared(life, judge, against="09-x")
    with pytest.raises(LifeError, match="02-two compared with 02-two"):
        compared(life, judge, against="02-two")
    with pytest.raises(LifeError, match="00-base compared with 01-one"):
        compared(life, judge, version="00-base", against="01-one")
    untested = make_life()
    untested.learn(letter_task("one", "a", "b", test=0))
    with pytest.raises(LifeError, match="found no held-out pairs"):
        compared(untested, judge, against="00-base")
    assert judge.shown == []
