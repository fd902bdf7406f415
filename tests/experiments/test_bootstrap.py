"""The paired bootstrap: differences a person can derive, what pairing removes, and how often the truth is inside."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.experiments.bootstrap import STATISTICS, Difference, cell_statistic, paired_bootstrap
from lifealign.experiments.result import Base, Cost, LearntTask, Matrix, RunResult, StepResult

Outcomes = Sequence[Mapping[str, Sequence[float]]]
"""Rows of one metric: after each step, the outcomes of each task's held-out examples."""


def result(
    label: str = "ER",
    seed: int = 1,
    order: str = "given",
    one_model: bool = True,
    higher_is_better: bool = True,
    base: float = 0.25,
    **outcomes: Outcomes,
) -> RunResult:
    """A cell of a comparison, made of the outcomes of each metric."""
    scores = {}
    for metric, rows in outcomes.items():
        learnt_at = {task: step for step, row in reversed(list(enumerate(rows))) for task in row}
        means = [{task: fmean(examples) for task, examples in row.items()} for row in rows]
        tasks = list(dict.fromkeys(task for row in rows for task in row))
        matrix = ScoreMatrix(metric, higher_is_better, tasks, learnt_at, means, dict.fromkeys(tasks, base))
        scores[metric] = Matrix(**matrix.as_dict())
    steps = max(map(len, outcomes.values()))
    learnt = LearntTask(name="of no matter", train_pairs=8, test_pairs=4, data_hash="d00d")
    return RunResult(
        label=label,
        order=order,
        method="er",
        settings={"seed": seed},
        environment={},
        base=Base(
            model_name_or_path="tiny", fingerprint="f00d", tokenizer=None, chat_template=None, revision=None, exact={}
        ),
        one_model=one_model,
        scores=scores,
        outcomes={
            metric: [{task: list(one) for task, one in row.items()} for row in outcomes[metric]] for metric in outcomes
        },
        general_text=[None] * steps,
        general_text_holes={},
        cost=Cost(
            seconds=90.0,
            seconds_with_scoring=99.0,
            state_bytes=2_500_000,
            adapter_bytes=10_000_000,
            peak_memory_bytes=None,
        ),
        steps=[
            StepResult(
                name=f"{step + 1:02d}",
                tasks=[learnt],
                replayed_pairs=0,
                left_out=0,
                stages={},
                losses={},
                method_state={},
                consolidation={},
                consolidation_by_factor={},
                seconds=1.0,
            )
            for step in range(steps)
        ],
    )


def stream(examples: Mapping[str, Any]) -> Outcomes:
    """Of an array (steps, examples) per task, the rows of a stream that learns one task a step, in their order."""
    tasks = list(examples)
    return [{task: list(examples[task][step]) for task in tasks[: step + 1]} for step in range(len(tasks))]


def random_stream(rng: np.random.Generator, tasks: str = "abc", size: int = 8) -> dict[str, Any]:
    return {task: rng.normal(size=(len(tasks), size)) for task in tasks}


def width(found: Difference | None) -> float:
    assert found is not None
    return found.high - found.low


def test_two_tasks_by_hand() -> None:
    # ours      a          b                  theirs    a          b
    # after a  1 1 (1.0)                              1 0 (0.5)
    # after b  1 0 (0.5)  1 1 (1.0)                   0 0 (0.0)  1 0 (0.5)
    ours = [result(margin=[{"a": [1, 1]}, {"a": [1, 0], "b": [1, 1]}])]
    theirs = [result(margin=[{"a": [1, 0]}, {"a": [0, 0], "b": [1, 0]}])]
    found = {name: paired_bootstrap(ours, theirs, "margin", name) for name in STATISTICS}
    # last: a + b gains (1, 0) and (0, 1), halved: each task adds 0, 0.25 or 0.5, with chances 1/4, 1/2, 1/4
    assert found["last"] == Difference(0.5, 0.0, 1.0, 1)
    # average: (1 + 0.75) / 2 - (0.5 + 0.25) / 2
    assert found["average"] is not None and found["average"].difference == 0.5
    # learned: a gains (0, 1), b gains (0, 1)
    assert found["learned"] == Difference(0.5, 0.0, 1.0, 1)
    # backward transfer: a fell by (0, 1) and by (1, 0), so ours - theirs is (+1, -1)
    assert found["backward_transfer"] == Difference(0.0, -1.0, 1.0, 1)


def test_what_is_missing_or_no_mean_over_examples_has_no_interval() -> None:
    whole: Outcomes = [{"a": [1.0, 0.0]}, {"a": [0.0, 0.0], "b": [1.0, 1.0]}]
    ours, theirs = result(margin=whole), result(margin=whole)
    assert paired_bootstrap([ours], [theirs], "margin", "last") is not None
    of_a_corpus = theirs.model_copy(update={"outcomes": {}})  # its score is no mean of theirs
    one_mark_missing = theirs.model_copy(update={"outcomes": {"margin": [{"a": [1.0, None]}, *whole[1:]]}})
    for other in (of_a_corpus, one_mark_missing):
        assert paired_bootstrap([ours], [other], "margin", "last") is None
        assert paired_bootstrap([other], [ours], "margin", "last") is None
    hole = result(margin=[whole[0], {"b": [1.0, 1.0]}])
    assert paired_bootstrap([ours], [hole], "margin", "last") is None


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_difference_is_that_of_the_score_matrix(statistic: str, higher_is_better: bool) -> None:
    rng = np.random.default_rng(0)
    # Two tasks come in one step: weights are not those of a plain triangle.
    rows = [{"a": 8}, {"a": 8, "b": 5, "c": 8}, {"a": 8, "b": 5, "c": 8}, {"a": 8, "b": 5, "c": 8, "d": 3}]

    def results() -> list[RunResult]:
        drawn = [[{task: list(rng.normal(size=n)) for task, n in row.items()} for row in rows] for _ in range(3)]
        return [result(seed=n, higher_is_better=higher_is_better, margin=one) for n, one in enumerate(drawn)]

    ours, theirs = results(), results()
    gaps = [
        getattr(one.scores["margin"].summary, statistic) - getattr(other.scores["margin"].summary, statistic)
        for one, other in zip(ours, theirs, strict=True)
    ]
    found = paired_bootstrap(ours, theirs, "margin", statistic, resamples=200)
    assert found is not None and found.cells == 3
    assert found.difference == pytest.approx(fmean(gaps), abs=1e-12)
    assert found.low < found.difference < found.high


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_method_does_not_differ_from_itself(statistic: str) -> None:
    rng = np.random.default_rng(1)
    cells = [result(seed=seed, margin=stream(random_stream(rng))) for seed in range(3)]
    found = paired_bootstrap(cells, cells, "margin", statistic)
    assert found == Difference(0.0, 0.0, 0.0, 3) and not found.excludes_zero


def test_a_constant_shift_is_found_exactly_and_without_doubt() -> None:
    rng = np.random.default_rng(2)
    plain = [{task: np.round(rows * 64) / 64 for task, rows in random_stream(rng, "abcd").items()} for _ in range(3)]
    theirs = [result(seed=seed, margin=stream(one)) for seed, one in enumerate(plain)]
    shifted = [{task: rows + 0.25 for task, rows in one.items()} for one in plain]
    ours = [result(seed=seed, margin=stream(one)) for seed, one in enumerate(shifted)]
    found = paired_bootstrap(ours, theirs, "margin", "last")
    assert found == Difference(0.25, 0.25, 0.25, 3) and found.excludes_zero
    # Every score rose alike, those right after learning too: nothing was forgotten more or less.
    backward = paired_bootstrap(ours, theirs, "margin", "backward_transfer")
    assert backward is not None and (backward.low, backward.high) == pytest.approx((0, 0), abs=1e-12)
    assert not backward.excludes_zero


def test_examples_are_paired_so_that_hard_ones_cancel() -> None:
    rng = np.random.default_rng(3)
    hardness = rng.normal(scale=5, size=40)
    ours = result(margin=[{"a": list(hardness + 0.2 + rng.normal(scale=0.1, size=40))}])
    theirs = result(margin=[{"a": list(hardness)}])
    paired = paired_bootstrap([ours], [theirs], "margin", "last")
    # Against the same examples in another order, which is what resampling each method by itself amounts to.
    unpaired = paired_bootstrap([ours], [result(margin=[{"a": list(rng.permutation(hardness))}])], "margin", "last")
    assert paired is not None and unpaired is not None
    assert paired.difference == pytest.approx(unpaired.difference)
    assert paired.excludes_zero and width(paired) < 0.1
    assert not unpaired.excludes_zero and width(unpaired) > 2


def test_seeds_are_paired_so_that_lucky_ones_cancel() -> None:
    luck = {1: 0.0, 2: 3.0, 3: -4.0}
    theirs = [result(seed=seed, margin=[{"a": [level] * 4}]) for seed, level in luck.items()]
    ours = [result(seed=seed, margin=[{"a": [level + 0.5] * 4}]) for seed, level in luck.items()]
    assert paired_bootstrap(ours[::-1], theirs, "margin", "last") == Difference(0.5, 0.5, 0.5, 3)


def test_only_orders_and_seeds_that_both_have_are_compared() -> None:
    def at(order: str, seed: int, level: float) -> RunResult:
        return result(order=order, seed=seed, margin=[{"a": [level] * 2}])

    ours = [at("one", 1, 1.0), at("one", 2, 100.0), at("two", 1, 3.0)]
    theirs = [at("two", 1, 1.0), at("one", 1, 0.0), at("two", 2, -100.0)]
    # (1 - 0) and (3 - 1); an interval from the one to the other
    assert paired_bootstrap(ours, theirs, "margin", "last") == Difference(1.5, 1.0, 2.0, 2)
    assert paired_bootstrap(ours[1:2], theirs, "margin", "last") is None


def test_three_seeds_without_doubt_about_examples_reach_from_the_least_to_the_greatest() -> None:
    # All three draws are the least seed in 1 of 27 resamples, which is more than the 2.5 per cent cut off.
    ours = [result(seed=seed, margin=[{"a": [float(seed)] * 5}]) for seed in (1, 2, 6)]
    theirs = [result(seed=seed, margin=[{"a": [0.0] * 5}]) for seed in (1, 2, 6)]
    assert paired_bootstrap(ours, theirs, "margin", "last") == Difference(3.0, 1.0, 6.0, 3)
    # With 9 in 10 inside, more than 1 of 27 is cut off: one of the three is then another seed, (1 + 1 + 2) / 3
    found = paired_bootstrap(ours, theirs, "margin", "last", confidence=0.9)
    assert found is not None and found.low == pytest.approx(4 / 3)


def test_all_steps_use_the_same_drawn_examples() -> None:
    # Each example of a gains exactly 0.5 after it was learnt, wherever it began.
    start = np.array([9.0, -7.0, 2.0, 0.0])
    ours = result(margin=[{"a": list(start)}, {"a": list(start + 0.5), "b": [0.0]}])
    theirs = result(margin=[{"a": [0.0] * 4}, {"a": [0.0] * 4, "b": [0.0]}])
    assert paired_bootstrap([ours], [theirs], "margin", "backward_transfer") == Difference(0.5, 0.5, 0.5, 1)


def test_all_cells_use_the_same_drawn_examples() -> None:
    # Two seeds whose examples are opposite: when both are drawn (every second time) the sum is 0 for any examples,
    # if they are the same for both. The middle 40 per cent of the resamples are then exactly 0.
    opposite = np.array([8.0, -3.0, 1.0, -6.0, 4.0, -4.0])
    ours = [result(seed=seed, margin=[{"a": list(sign * opposite)}]) for seed, sign in ((1, 1), (2, -1))]
    theirs = [result(seed=seed, margin=[{"a": [0.0] * 6}]) for seed in (1, 2)]
    assert width(paired_bootstrap(ours, theirs, "margin", "last", confidence=0.4)) == pytest.approx(0, abs=1e-12)
    assert width(paired_bootstrap(ours, theirs, "margin", "last")) > 1


def test_tasks_draw_their_own_examples() -> None:
    opposite = np.array([8.0, -3.0, 1.0, -6.0])
    ours = result(margin=[{"a": list(opposite), "b": list(-opposite)}])
    theirs = result(margin=[{"a": [0.0] * 4, "b": [0.0] * 4}])
    assert width(paired_bootstrap([ours], [theirs], "margin", "last")) > 1


def test_a_seed_gives_the_same_interval_and_another_seed_another() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = ([result(margin=stream(random_stream(rng, size=30)))] for _ in range(2))
    one, same, other = (paired_bootstrap(ours, theirs, "margin", "last", seed=seed) for seed in (5, 5, 6))
    assert one == same != other
    assert one is not None and other is not None
    assert one.difference == other.difference and one.low == pytest.approx(other.low, abs=0.02)


def test_the_interval_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    ours, theirs = ([result(margin=[{"a": list(rng.normal(size=30))}])] for _ in range(2))
    whole = paired_bootstrap(ours, theirs, "margin", "last", resamples=1000)
    monkeypatch.setattr("lifealign.experiments.bootstrap.DRAWN_AT_ONCE", 30 * 7)  # 142 parts of 7 and one of 6
    parts = paired_bootstrap(ours, theirs, "margin", "last", resamples=1000)
    assert whole is not None and parts is not None
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_more_confidence_is_a_wider_interval() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = ([result(margin=[{"a": list(rng.normal(size=30))}])] for _ in range(2))
    widths = [width(paired_bootstrap(ours, theirs, "margin", "last", confidence=share)) for share in (0.5, 0.9, 0.99)]
    assert widths == sorted(widths)
    # standard error of the mean of differences of variance 2, times 1.645 on either side
    assert widths[1] == pytest.approx(2 * 1.645 * (2 / 30) ** 0.5, rel=0.35)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(300):
        # The truth: 0.3 on a, 0.1 on b, so 0.2 on both.
        ours = result(margin=[{"a": list(rng.normal(0.3, 1, 40)), "b": list(rng.normal(0.1, 1, 40))}])
        theirs = result(margin=[{"a": [0.0] * 40, "b": [0.0] * 40}])
        found = paired_bootstrap([ours], [theirs], "margin", "last", resamples=400)
        assert found is not None
        inside += found.low <= 0.2 <= found.high
    assert 0.91 <= inside / 300 <= 0.98


def test_an_end_that_is_zero_but_for_rounding_does_not_exclude_zero() -> None:
    found = Difference(0.1, 1e-17, 0.2, 3)
    assert not found.excludes_zero
    assert not replace(found, low=-0.2, high=-1e-17).excludes_zero
    assert replace(found, low=0.001).excludes_zero
    assert replace(found, low=-0.2, high=-0.001).excludes_zero


def test_a_single_step_has_no_average_and_no_past() -> None:
    jointly = result(margin=[{"a": [0.5], "b": [1.0]}])
    values = {name: cell_statistic(jointly, "margin", name) for name in STATISTICS}
    assert values == {"last": 0.75, "average": None, "learned": 0.75, "backward_transfer": None}


def test_models_of_single_tasks_are_no_stream() -> None:
    rows = [{"a": [0.5]}, {"a": [0.5], "b": [1.0]}]
    apart = result(one_model=False, margin=rows)
    values = {name: cell_statistic(apart, "margin", name) for name in STATISTICS}
    assert values == {"last": 0.75, "average": None, "learned": 0.75, "backward_transfer": None}
    together = result(margin=rows)
    for ours, theirs in ((apart, together), (together, apart)):
        found = {name: paired_bootstrap([ours], [theirs], "margin", name) for name in STATISTICS}
        assert {name for name, one in found.items() if one is None} == {"average", "backward_transfer"}


ONE = result(margin=[{"a": [0.0, 1.0]}])


@pytest.mark.parametrize(
    ("ours", "options", "message"),
    [
        ([ONE], {"statistic": "lst"}, "statistic: found 'lst', expected one of last, average"),
        ([ONE], {"confidence": 95}, "confidence: found 95, expected a share between 0 and 1"),
        ([ONE], {"resamples": 0}, "resamples: found 0, expected at least 1"),
        ([ONE, ONE], {}, "found order 'given' and seed 1 twice"),
        ([result(margin=[{"a": [0.0]}])], {}, r"found held-out examples \{'a': 2\}, expected \{'a': 1\}"),
        ([result(margin=[{"b": [0.0, 1.0]}])], {}, r"found held-out examples \{'a': 2\}, expected \{'b': 2\}"),
        (
            [result(margin=[{"a": [0.0, 1.0]}, {"a": [0.0]}])],
            {},
            "task 'a': found 1 held-out examples after step 1, expected 2 as before",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(ours: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(ours, [ONE], "margin", **{"statistic": "last", **options})
