"""Several sampled answers to a prompt: a prompt counts the mean over them, and one draw is what there was before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.tiny import pair

from lifealign.data.answer_check import AnswerCheck
from lifealign.errors import ConfigError
from lifealign.evaluation.evaluator import Evaluator, draw_seed
from lifealign.evaluation.scores import HeldOut
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.evaluation.text import bleu, rouge_l
from lifealign.life.disk.measurements import comparable, later_scores_of
from lifealign.life.disk.step_files import as_json
from lifealign.model import answer_cache
from lifealign.model.answer_cache import AnswerCache
from lifealign.model.reference import ReferenceCache
from lifealign.model.runtime import Runtime
from lifealign.settings.section import build_config

SHORT, NO_X = AnswerCheck(max_words=2), AnswerCheck(lacks=("x",))
PAIRS = tuple(pair(f"q{number}", "fine answer", "bad") for number in range(3))
TASK = HeldOut("short", PAIRS, SHORT, rules=(SHORT, NO_X))
SAID = {  # by prompt, the two answers
    "q0": ("fine answer", "fine x"),  # short: both; without x: the first
    "q1": ("one two three", "fine"),  # short: the second; without x: both
    "q2": ("x", "one two x"),  # short: the first; without x: neither
}
METRICS = ("adherence", "joint_adherence", "rouge_l", "bleu")
Generated = list[tuple[str, int | None]]


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Generated:
    """Answers are those of ``SAID``; every prompt that is answered, and the seed it is answered with."""
    asked: Generated = []

    def scripted(_runtime: Any, prompts: Any, *, sampling: Any, **_: Any) -> list[str]:
        seed = None if sampling is None else sampling.seed
        asked.extend((prompt[0].content, seed) for prompt in prompts)
        return [SAID[prompt[0].content][0 if seed in (None, 7) else 1] for prompt in prompts]

    monkeypatch.setattr(answer_cache, "generate_answers", scripted)
    return asked


@pytest.fixture
def evaluator(make_runtime: Callable[..., Runtime], generated: Generated) -> Callable[..., Evaluator]:
    runtime = make_runtime()

    def make(**settings: Any) -> Evaluator:
        config = EvaluationConfig(metrics=METRICS, **settings)
        return Evaluator(runtime, ReferenceCache(), AnswerCache(), config, 0.5, 256, "base", seed=7)

    return make


def test_a_prompt_counts_the_mean_over_its_draws(evaluator: Callable[..., Evaluator]) -> None:
    scores = evaluator(do_sample=True, draws=2).score([TASK], "policy")
    assert scores.outcomes["adherence"] == {"short": [1.0, 0.5, 0.5]}
    assert scores.outcomes["joint_adherence"] == {"short": [0.5, 0.5, 0.0]}
    assert scores.values["adherence"] == {"short": pytest.approx(2 / 3)}
    assert scores.values["joint_adherence"] == {"short": pytest.approx(1 / 3)}
    each = [[rouge_l(answer, "fine answer") for answer in SAID[f"q{number}"]] for number in range(3)]
    assert scores.outcomes["rouge_l"] == {"short": [pytest.approx(sum(two) / 2) for two in each]}
    corpus = [answer for number in range(3) for answer in SAID[f"q{number}"]]
    assert scores.values["bleu"] == {"short": bleu(corpus, ["fine answer"] * 6)}
    assert {metric: count["short"] for metric, count in scores.counts.items()} == dict.fromkeys(METRICS, 3)


def test_every_answer_has_a_row_and_several_have_numbers(evaluator: Callable[..., Evaluator]) -> None:
    two = evaluator(do_sample=True, draws=2).score([TASK], "policy").answers
    assert [(row["prompt"][0]["content"], row["draw"], row["answer"], row["holds"]["short"]) for row in two] == [
        ("q0", 0, "fine answer", True),
        ("q0", 1, "fine x", True),
        ("q1", 0, "one two three", False),
        ("q1", 1, "fine", True),
        ("q2", 0, "x", True),
        ("q2", 1, "one two x", False),
    ]
    one = evaluator(do_sample=True).score([TASK], "policy").answers
    assert one == [{key: row[key] for key in row if key != "draw"} for row in two if row["draw"] == 0]


def test_the_first_draw_has_the_seed_there_was_before_and_the_others_one_of_their_own(
    evaluator: Callable[..., Evaluator], generated: Generated
) -> None:
    one = evaluator(do_sample=True)
    one.score([TASK], "policy")
    assert generated == [(f"q{number}", 7) for number in range(3)]
    generated.clear()
    more = replace(one, settings=one.settings.model_copy(update={"draws": 3}))
    more.score([TASK], "policy")  # the first draw is in the cache
    assert generated == [(f"q{number}", draw_seed(7, draw)) for draw in (1, 2) for number in range(3)]
    assert len({7, draw_seed(7, 1), draw_seed(7, 2), draw_seed(8, 1)}) == 4


def test_a_judge_sees_the_first_draw_only(evaluator: Callable[..., Evaluator], generated: Generated) -> None:
    seen: list[str] = []

    def judge(_task: HeldOut, _pairs: Any, answers: Any) -> list[float]:
        seen.extend(answers)
        return [50.0] * len(answers)

    two = replace(evaluator(do_sample=True, draws=2), judge=judge)
    alone = replace(two, settings=two.settings.model_copy(update={"metrics": ()}))
    scores = alone.score([TASK], "policy")
    assert seen == ["fine answer", "one two three", "x"] and {seed for _, seed in generated} == {7}
    scores = two.score([TASK], "policy")
    stored = {name: as_json(later_scores_of(name, {}, scores, scores)) for name in ("judge", "adherence")}
    assert [row["draw"] for row in stored["judge"]["answers"]] == [0, 0, 0]
    assert [row["draw"] for row in stored["adherence"]["answers"]] == [0, 1] * 3


def test_numbers_of_other_draws_do_not_compare_and_one_draw_is_stored_as_before() -> None:
    one, two = EvaluationConfig(do_sample=True), EvaluationConfig(do_sample=True, draws=2)
    assert "draws" not in comparable("adherence", one) and "draws" not in comparable("adherence", EvaluationConfig())
    for metric in ("adherence", "joint_adherence", "rouge_l", "bleu"):
        assert comparable(metric, two) == comparable(metric, one) | {"draws": 2}
    assert comparable("margin", two) == comparable("margin", one)
    assert comparable("judge", two) == comparable("judge", one)  # it sees the same answers


def test_greedy_answers_are_all_the_same_so_more_than_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="draws: needs sampled answers; add do_sample: true"):
        build_config(EvaluationConfig, {"draws": 2})
    with pytest.raises(ConfigError, match="draws"):
        build_config(EvaluationConfig, {"draws": 0, "do_sample": True})
