"""Which rules an answer is asked to keep together, and what the base is asked for."""

from lifealign.data.answer_check import AnswerCheck
from lifealign.evaluation.rules import counting, kept_together, kept_when_learnt
from lifealign.evaluation.scores import HeldOut

A, B, C = AnswerCheck(max_words=2), AnswerCheck(lacks=("x",)), AnswerCheck(min_words=3)
FIRST, SECOND, FREE = HeldOut("a", (), A), HeldOut("b", (), B), HeldOut("free", ())
REPLACES = HeldOut("c", (), C, supersedes=("a",))


def test_rules_of_all_tasks_count_except_those_that_a_later_task_supersedes() -> None:
    steps = [[FIRST], [SECOND, FREE], [REPLACES]]
    assert [task.rules for task in kept_together(steps[:1])] == [(A,)]
    assert [task.rules for task in kept_together(steps[:2])] == [(A, B)] * 3
    assert [task.rules for task in kept_together(steps)] == [(B, C)] * 4
    assert [task.name for task in kept_together(steps)] == ["a", "b", "free", "c"]


def test_a_task_without_a_check_adds_no_rule_and_can_end_one() -> None:
    assert counting([FREE]) == [] and kept_together([[FREE]]) == [FREE]
    assert counting([FIRST, HeldOut("free", (), supersedes=("a",))]) == []


def test_the_base_is_asked_for_the_rules_up_to_the_step_of_the_task() -> None:
    found = kept_when_learnt([[FIRST], [], [SECOND, FREE], [REPLACES]])
    assert [(task.name, task.rules) for task in found] == [("a", (A,)), ("b", (A, B)), ("free", (A, B)), ("c", (B, C))]
