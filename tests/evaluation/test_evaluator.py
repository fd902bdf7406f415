"""One row of the score matrix: which tasks are scored on what, and what is left out."""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch
from tests.tiny import letter_task, pair

from lifealign.data.answer_check import AnswerCheck
from lifealign.evaluation.evaluator import Evaluator
from lifealign.evaluation.preference import held_out_margins, preference_outcomes
from lifealign.evaluation.scores import HeldOut, Scores
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.model.answer_cache import AnswerCache
from lifealign.model.generate import generate_answers
from lifealign.model.reference import ReferenceCache
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import tokenize_pairs

ONE = HeldOut("one", letter_task("one", "a", "b").test)
CHECK = AnswerCheck(max_words=3)
CHECKED = HeldOut("checked", letter_task("checked", "c", "d").test, CHECK)


@pytest.fixture
def evaluator(make_runtime: Callable[..., Runtime]) -> Evaluator:
    settings = EvaluationConfig(max_new_tokens=4, per_device_eval_batch_size=3)
    return Evaluator(make_runtime(), ReferenceCache(), AnswerCache(), settings, beta=0.5, max_length=256, base="base")


def test_a_task_is_scored_against_the_base_whatever_it_was_trained_against(evaluator: Evaluator) -> None:
    runtime = evaluator.runtime
    pairs, _ = tokenize_pairs(runtime.tokenizer, ONE.pairs, 256)
    with runtime.model.disable_adapter():
        frozen = dict(zip([pair.key for pair in pairs], runtime.score(pairs, 1), strict=True))
    expected = preference_outcomes(held_out_margins(runtime, pairs, frozen, beta=0.5, batch_size=1))
    found = evaluator.score([ONE], "policy")
    assert found.values == {metric: {"one": pytest.approx(fmean(each), abs=1e-4)} for metric, each in expected.items()}
    assert found.outcomes == {metric: {"one": pytest.approx(each, abs=1e-4)} for metric, each in expected.items()}
    assert abs(found.values["margin"]["one"]) > 1e-3  # the adapter is there, and it is not the reference


def test_the_base_is_scored_without_the_adapter_and_has_no_preference_of_its_own(evaluator: Evaluator) -> None:
    scores = evaluator.score([CHECKED], None)
    prompts = [pair.prompt for pair in CHECKED.pairs]
    with evaluator.runtime.model.disable_adapter():
        expected = generate_answers(evaluator.runtime, prompts, max_new_tokens=4, batch_size=4)
    assert [row["answer"] for row in scores.answers] == expected
    assert scores.values["preference_accuracy"] == {"checked": 0.5} and scores.values["margin"] == {"checked": 0.0}
    assert scores.outcomes["preference_accuracy"] == {"checked": [0.5] * 4}
    assert evaluator.reference.computed == 0  # nothing to compute: the base is its own reference
    adapted = [row["answer"] for row in evaluator.score([CHECKED], "policy").answers]
    assert adapted != expected


def test_what_a_task_cannot_be_scored_on_is_a_hole_and_not_a_zero(evaluator: Evaluator) -> None:
    without_pairs = HeldOut("without-pairs", (), CHECK)
    for policy in (None, "policy"):
        values = evaluator.score([ONE, CHECKED, without_pairs], policy).values
        assert set(values["preference_accuracy"]) == set(values["margin"]) == {"one", "checked"}
        assert set(values["adherence"]) == {"checked"}
    nothing = evaluator.score([without_pairs], "policy")
    assert nothing.values == nothing.outcomes == {} and nothing.answers == []
    assert evaluator.score([], None).values == {}


def test_pairs_too_long_to_score_are_left_out_of_the_share(evaluator: Evaluator) -> None:
    short = replace(evaluator, max_length=60)
    mixed = HeldOut("mixed", (*ONE.pairs, pair("x" * 100, "a", "b")))
    assert short.score([mixed], "policy").values["margin"] == {
        "mixed": pytest.approx(evaluator.score([ONE], "policy").values["margin"]["one"], abs=1e-5)
    }
    assert short.score([HeldOut("long", (pair("x" * 100, "a", "b"),))], "policy").values == {}


def test_only_the_first_prompts_are_answered_and_all_pairs_are_ranked(evaluator: Evaluator) -> None:
    limited = replace(evaluator, settings=evaluator.settings.model_copy(update={"prompts": 2}))
    scores = limited.score([CHECKED], "policy")
    assert [row["prompt"][0]["content"] for row in scores.answers] == ["checked 8", "checked 9"]
    assert scores.values["margin"] == evaluator.score([CHECKED], "policy").values["margin"]
    silent = replace(evaluator, settings=evaluator.settings.model_copy(update={"generate": False}))
    scores = silent.score([CHECKED], "policy")
    assert scores.answers == [] and "adherence" not in scores.values and "margin" in scores.values


def test_adherence_is_the_share_of_answers_that_keep_the_rule(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"checked 8": "one two three", "checked 9": "one two three four", "checked 10": "", "checked 11": "yes"}

    def scripted(_self: Any, _runtime: Any, prompts: Any, _policy: str, **_: Any) -> Any:
        return {prompt: said[prompt[0].content] for prompt in prompts}

    monkeypatch.setattr(AnswerCache, "answers", scripted)
    lacks = HeldOut("lacks", CHECKED.pairs[:2], AnswerCheck(lacks=("four",)))
    scores = evaluator.score([CHECKED, lacks], "policy")
    assert scores.values["adherence"] == {"checked": 0.5, "lacks": 0.5}  # 3 words and 1; an empty answer keeps no rule
    assert scores.outcomes["adherence"] == {"checked": [1.0, 0.0, 0.0, 1.0], "lacks": [1.0, 0.0]}
    assert [(row["answer"], row["holds"]) for row in scores.answers] == [
        ("one two three", {"checked": True, "lacks": True}),
        ("one two three four", {"checked": False, "lacks": False}),
        ("", {"checked": False}),
        ("yes", {"checked": True}),
    ]


def test_a_score_is_the_mean_of_its_outcomes_and_a_mean_of_nothing_is_refused() -> None:
    scores = Scores()
    scores.add("margin", "one", [1.0, 2.0, 6.0])
    assert (scores.values, scores.outcomes) == ({"margin": {"one": 3.0}}, {"margin": {"one": [1.0, 2.0, 6.0]}})
    with pytest.raises(ValueError, match="at least one data point"):
        scores.add("margin", "two", [])
    assert "two" not in scores.values["margin"]


def test_scores_of_another_model_stand_before_the_own_and_never_in_their_place() -> None:
    scores = Scores()
    scores.add("margin", "two", [1.0])
    scores.add("margin", "three", [3.0])
    scores.carry(
        {
            "scores": {"margin": {"one": 5.0, "two": 6.0}, "adherence": {"one": 1.0}},
            "outcomes": {"margin": {"one": [5.0], "two": [6.0]}, "adherence": {"one": [1.0]}},
        }
    )
    assert scores.values == {"margin": {"one": 5.0, "two": 1.0, "three": 3.0}, "adherence": {"one": 1.0}}
    assert list(scores.values["margin"]) == ["one", "two", "three"]
    assert scores.outcomes == {"margin": {"one": [5.0], "two": [1.0], "three": [3.0]}, "adherence": {"one": [1.0]}}


def test_reasoning_is_neither_in_a_marked_answer_nor_in_what_it_is_compared_with(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, seen = "<think>\nlong and wrong\n</think>\n\ngood day", []
    row = pair("q", "<think>\nanother thought\n</think>\n\ngood day", "no")

    def judge(task: HeldOut, pairs: Any, answers: Any) -> list[float]:
        seen.append((pairs[0].chosen, answers[0]))
        return [1.0]

    def generate(*, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([evaluator.runtime.tokenizer.encode(said)])], dim=1)

    monkeypatch.setattr(evaluator.runtime.model, "generate", generate)
    settings = EvaluationConfig(max_new_tokens=64, metrics=("adherence", "rouge_l", "paper_rouge_l"))
    scores = replace(evaluator, settings=settings, judge=judge).score([HeldOut("one", (row,), CHECK)], "policy")
    assert seen == [("good day", "good day")]
    assert {metric: each["one"] for metric, each in scores.values.items() if metric != "judge"} == {
        "adherence": 1.0,  # at most three words
        "rouge_l": pytest.approx(100.0),
        "paper_rouge_l": pytest.approx(100.0),
    }
