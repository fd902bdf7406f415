"""The numbers that continual learning reads from a score matrix, each derived by hand."""

from typing import Any

import pytest

from lifealign.evaluation.matrix import ScoreMatrix, matrices, part_text
from lifealign.life.disk.measurements import Record

# Three tasks, one a step. Rows are time:
#            a     b     c
# after a   0.9
# after b   0.7   0.8
# after c   0.8   0.4   0.6
ROWS = [{"a": 0.9}, {"a": 0.7, "b": 0.8}, {"a": 0.8, "b": 0.4, "c": 0.6}]
LEARNT_AT = {"a": 0, "b": 1, "c": 2}


def matrix(rows: list[dict[str, float]], learnt_at: dict[str, int], higher: bool = True) -> ScoreMatrix:
    return ScoreMatrix("margin", higher, list(learnt_at), learnt_at, rows, {"a": 0.5, "b": 0.1, "c": 0.3})


def test_three_tasks_give_the_numbers_of_the_definitions() -> None:
    scores = matrix(ROWS, LEARNT_AT)
    assert scores.last == pytest.approx((0.8 + 0.4 + 0.6) / 3)
    assert scores.average == pytest.approx((0.9 + (0.7 + 0.8) / 2 + (0.8 + 0.4 + 0.6) / 3) / 3)
    assert scores.learned == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert scores.backward_transfer == pytest.approx(((0.8 - 0.9) + (0.4 - 0.8)) / 2)  # the last task has no past
    assert scores.forgetting == pytest.approx(((0.9 - 0.8) + (0.8 - 0.4)) / 2)
    assert scores[2, 1] == 0.4 and scores[0, 2] is None
    assert scores.summary()["base"] == pytest.approx(0.3)


def test_forgetting_counts_from_the_best_and_backward_transfer_from_the_first() -> None:
    # a was 0.5 when learnt, rose to 0.9, ended at 0.7: gained 0.2 since it was learnt, lost 0.2 since its best.
    scores = matrix([{"a": 0.5}, {"a": 0.9, "b": 1.0}, {"a": 0.7, "b": 1.0, "c": 1.0}], LEARNT_AT)
    assert scores.backward_transfer == pytest.approx((0.2 + 0.0) / 2)
    assert scores.forgetting == pytest.approx((0.2 + 0.0) / 2)


def test_a_task_that_only_got_better_has_forgotten_nothing() -> None:
    scores = matrix([{"a": 0.5}, {"a": 0.9, "b": 1.0}], {"a": 0, "b": 1})
    assert (scores.backward_transfer, scores.forgetting) == (pytest.approx(0.4), 0.0)


def test_where_lower_is_better_negative_still_means_forgetting() -> None:
    # Loss of a: 1.0 when learnt, best 0.5, now 2.0.
    rows = [{"a": 1.0}, {"a": 0.5, "b": 1.0}, {"a": 2.0, "b": 1.0, "c": 1.0}]
    scores = matrix(rows, LEARNT_AT, higher=False)
    assert scores.backward_transfer == pytest.approx((-(2.0 - 1.0) + 0.0) / 2)
    assert scores.forgetting == pytest.approx((2.0 - 0.5) / 2)
    assert scores.last == pytest.approx(4 / 3)


def test_a_single_task_has_no_past_to_lose() -> None:
    scores = matrix([{"a": 0.9}], {"a": 0})
    assert (scores.last, scores.average, scores.learned) == (0.9, 0.9, 0.9)
    assert scores.backward_transfer is None and scores.forgetting is None


def test_tasks_learnt_together_in_one_step_have_no_past_to_lose() -> None:
    scores = matrix([{"a": 0.9, "b": 0.7}], {"a": 0, "b": 0})
    assert scores.last == scores.average == scores.learned == pytest.approx(0.8)
    assert scores.backward_transfer is None and scores.forgetting is None
    later = matrix([{"a": 0.9, "b": 0.7}, {"a": 0.8, "b": 0.4, "c": 1.0}], {"a": 0, "b": 0, "c": 1})
    assert later.backward_transfer == pytest.approx((-0.1 - 0.3) / 2)


def test_an_empty_matrix_has_no_numbers() -> None:
    assert set(ScoreMatrix("margin", True, [], {}, []).summary().values()) == {None}


def test_a_task_that_was_not_scored_is_a_hole_and_not_a_zero() -> None:
    # The second step scored nothing with this metric, the third only b.
    scores = matrix([{"a": 0.9}, {}, {"b": 0.4}], {"a": 0, "b": 2})
    assert scores[1, 0] is None and scores[2, 0] is None
    assert scores.holes == [(1, "a"), (2, "a")]
    assert scores.learned == pytest.approx((0.9 + 0.4) / 2)  # both are there
    assert scores.last is None and scores.average is None  # a mean over b alone would not be that of the life
    assert scores.backward_transfer is None and scores.forgetting is None  # a has no last score
    assert scores.change("a") is None and scores.change("b") == 0.0


def test_a_life_scored_in_its_last_step_only_knows_how_it_is_but_not_how_it_came_there() -> None:
    scores = matrix([{}, {"a": 0.5, "b": 0.7}], {"a": 0, "b": 1})
    assert scores.last == pytest.approx(0.6) and scores.holes == [(0, "a")]
    assert scores.average is None and scores.learned is None
    assert scores.backward_transfer is None and scores.forgetting is None


def test_a_hole_in_the_middle_hides_the_best_a_task_ever_was() -> None:
    scores = matrix([{"a": 0.9}, {"b": 0.5}, {"a": 0.7, "b": 0.5, "c": 0.5}], LEARNT_AT)
    assert scores.backward_transfer == pytest.approx((-0.2 + 0.0) / 2)
    assert scores.fall("a") is None and scores.forgetting is None and scores.average is None


def test_matrices_are_built_of_what_each_step_recorded() -> None:
    steps = [
        Record({"margin": {"a": 1.0}}, {"margin": {"a": 0.0}}),
        Record(
            {"margin": {"a": 0.5, "b": 2.0}, "adherence": {"b": 0.75}}, {"margin": {"b": 0.1}, "adherence": {"b": 0.25}}
        ),
        Record({"margin": {"a": 0.5, "b": 2.0}, "adherence": {"b": 0.5}}, {}),
    ]
    built = matrices(steps, {"a": 0, "b": 1, "c": 2})  # c has no held-out pairs
    assert list(built) == ["adherence", "margin"]
    margin, adherence = built["margin"], built["adherence"]
    assert (list(margin.tasks), margin.base) == (["a", "b"], {"a": 0.0, "b": 0.1})
    assert (list(adherence.tasks), adherence.learnt_at, adherence.base) == (["b"], {"b": 1}, {"b": 0.25})
    assert [dict(row) for row in adherence.rows] == [{}, {"b": 0.75}, {"b": 0.5}]
    assert adherence.backward_transfer == pytest.approx(-0.25)
    assert margin.higher_is_better and adherence.higher_is_better
    assert margin.as_dict() == {
        "higher_is_better": True,
        "tasks": ["a", "b"],
        "learnt_at": {"a": 0, "b": 1},
        "base": {"a": 0.0, "b": 0.1},
        "rows": [{"a": 1.0}, {"a": 0.5, "b": 2.0}, {"a": 0.5, "b": 2.0}],
        "counts": [{}, {}, {}],
        "holes": [],
        "summary": margin.summary(),
    }


def test_a_stream_that_scored_nothing_has_no_matrices() -> None:
    assert matrices([], {}) == {}
    assert matrices([Record()], {"a": 0}) == {}


# Four tasks, one a step, and after each step its own and the latest one before it were to be scored:
#            a     b     c     d
# after a   0.9
# after b   0.7   0.8
# after c    .    0.4   0.6
# after d    .     .    0.5   1.0
IN_PART = [{"a": 0.9}, {"a": 0.7, "b": 0.8}, {"b": 0.4, "c": 0.6}, {"c": 0.5, "d": 1.0}]
FROM = [0, 0, 1, 2]


def in_part(rows: list[dict[str, float]] = IN_PART, **more: Any) -> ScoreMatrix:
    return ScoreMatrix(
        "margin", True, list("abcd"), dict(zip("abcd", range(4), strict=True)), rows, asked_from=FROM, **more
    )


def test_what_was_never_asked_for_is_no_hole_and_no_mean_is_taken_without_it() -> None:
    scores = in_part()
    assert scores.holes == []
    assert (scores.last, scores.average, scores.backward_transfer, scores.forgetting) == (None, None, None, None)
    assert scores.learned == pytest.approx((0.9 + 0.8 + 0.6 + 1.0) / 4)  # every task was scored when it was learnt
    assert scores.row_mean(1) == pytest.approx(0.75) and scores.row_mean(2) is None


def test_a_row_in_part_says_over_how_many_tasks_its_mean_is() -> None:
    scores = in_part()
    last = scores.part()
    assert last is not None and (last.tasks, last.of) == (2, 4)
    assert last.mean == pytest.approx((0.5 + 1.0) / 2)
    assert last.change == pytest.approx(0.5 - 0.6)  # of c, the only earlier task in it
    assert scores.part(1) is None  # a and b were all there were
    after_c = scores.part(2)
    assert after_c is not None and (after_c.tasks, after_c.of, after_c.change) == (2, 3, pytest.approx(-0.4))
    assert part_text(scores) == (
        "2 of 4 tasks were scored after the last step: mean 0.75, change since each was learnt -0.10"
    )


def test_a_row_that_was_scored_later_is_whole_again() -> None:
    scores = in_part([*IN_PART[:3], {"a": 0.5, "b": 0.5, "c": 0.5, "d": 1.0}])
    assert scores.part() is None and part_text(scores) == ""
    assert scores.last == pytest.approx(2.5 / 4)
    assert scores.backward_transfer == pytest.approx((-0.4 - 0.3 - 0.1) / 3)
    assert scores.average is None and scores.forgetting is None  # the row before it is still in part


def test_what_was_asked_for_and_failed_is_a_hole_also_in_part() -> None:
    failed = {(3, "c"): "out of memory", (3, "a"): "asked later, and failed"}
    scores = in_part([*IN_PART[:3], {"d": 1.0}], reasons=failed)
    assert scores.holes == [(3, "a"), (3, "c")]
    last = scores.part()
    assert last is not None and (last.tasks, last.of, last.mean, last.change) == (1, 4, None, None)
    assert [hole["reason"] for hole in scores.as_dict()["holes"]] == ["asked later, and failed", "out of memory"]


def test_a_matrix_in_part_is_written_down_as_one_and_a_whole_one_as_ever() -> None:
    written = in_part().as_dict()
    assert (written["asked_from"], written["part"]["tasks"], written["part"]["of"]) == (FROM, 2, 4)
    assert {"asked_from", "part"}.isdisjoint(matrix(ROWS, LEARNT_AT).as_dict())


def test_the_columns_of_a_metric_count_from_its_own_tasks() -> None:
    """Only b and d have the metric; after d, tasks from c on were asked, so b was not."""
    steps = [Record({}, {}), Record({"adherence": {"b": 1.0}}, {}), Record({"adherence": {"b": 0.5}}, {})]
    steps.append(Record({"adherence": {"d": 1.0}}, {}))
    found = matrices(steps, {"a": 0, "b": 1, "c": 2, "d": 3}, [0, 0, 1, 2])["adherence"]
    assert list(found.tasks) == ["b", "d"] and list(found.asked_from) == [0, 0, 0, 1]
    assert found.holes == [] and found.part() is not None


def test_the_latest_tasks_and_steps_are_those_learnt_last() -> None:
    tasks, rows = in_part().latest(3)
    assert (tasks, list(rows)) == (["b", "c", "d"], [1, 2, 3])
    assert in_part().latest(9) == (list("abcd"), range(4))
