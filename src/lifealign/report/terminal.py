"""Tables for the terminal: a life's matrix, several methods side by side, answers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from lifealign.evaluation.matrix import ScoreMatrix, part_text
from lifealign.evaluation.metrics import CHANGES, examples_text, metric_of
from lifealign.life.disk.gate_files import Loss
from lifealign.report.printing import one_line, plain

if TYPE_CHECKING:  # it imports torch, which looking at a life does not need
    from lifealign.life.recall import Expressed, Recall

SUMMARY = {
    "last": "last",
    "average": "average",
    "learned": "learned",
    "backward_transfer": "backward transfer",
    "forgetting": "forgetting",
}

COMPARED = {"last": "last", "learned": "learned", "backward_transfer": "backward"}
"""Statistics by which methods are compared, with labels narrow enough for a terminal of 80 columns."""
MOST_TASKS = 16
"""Most tasks and steps in the table of a life, the latest ones: a life may have hundreds."""
NEEDS_ALL = "last, average, backward transfer and forgetting need all of them"
MOST_HOLES = 6
"""Maximum number of missing scores that a line names."""
LEGEND = "last: mean of the row; learned: mean right after each task was learnt; backward: mean change since then"


def matrix_table(matrix: ScoreMatrix, steps: Sequence[str]) -> Table:
    """A score matrix: one row per step, one column per task, the base model first; ``-`` where there is no score.

    Of a long life the latest tasks and steps; a mean is over all tasks all the same, or says over how many it is.

    Args:
        matrix: The matrix.
        steps: Names of the steps, one per row.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("after")
    tasks, rows = matrix.latest(MOST_TASKS)
    for task in tasks:
        table.add_column(plain(task), justify="right")
    table.add_column("mean", justify="right", style="bold")
    metric = metric_of(matrix)
    base = [metric.text(matrix.base.get(task)) for task in tasks]
    table.add_row("base model", *base, metric.text(matrix.summary()["base"]))
    for step in rows:
        cells = []
        for task in tasks:
            text = metric.text(matrix.rows[step].get(task)) if step >= matrix.learnt_at[task] else ""
            cells.append(plain(text, "bold" if step == matrix.learnt_at[task] else ""))
        table.add_row(plain(steps[step]), *cells, _mean_of_row(matrix, step))
    return table


def _mean_of_row(matrix: ScoreMatrix, step: int) -> str:
    """The mean of a row; of a row that was not to be whole, over how many tasks."""
    metric, part = metric_of(matrix), matrix.part(step)
    if part is None:
        return metric.text(matrix.row_mean(step))
    return f"{metric.text(part.mean)} ({part.tasks} of {part.of})"


def shown_text(matrix: ScoreMatrix) -> str:
    """How much of a matrix its table shows; empty if all of it."""
    if max(len(matrix.tasks), len(matrix.rows)) <= MOST_TASKS:
        return ""
    return f"the latest {MOST_TASKS} of {len(matrix.tasks)} tasks and {len(matrix.rows)} steps; scores.json has all"


def not_scored_text(matrix: ScoreMatrix, steps: Sequence[str]) -> str:
    """What is known where the last step was not to score all tasks, and how to score them; empty if it was."""
    text = part_text(matrix)
    return f"{text}; {NEEDS_ALL}: `lifealign evaluate LIFE --as-of {steps[-1]}` scores them" if text else ""


def summary_line(matrix: ScoreMatrix) -> str:
    """``last 84 %, ...`` in one line, with the number of held-out examples if it is known."""
    metric, values = metric_of(matrix), matrix.summary()
    numbers = "   ".join(
        f"{label} {metric.text(values[name], signed=name in CHANGES)}" for name, label in SUMMARY.items()
    )
    examples = examples_text(matrix.examples)
    return f"{numbers}   {examples}" if examples else numbers


def holes_text(matrix: ScoreMatrix, steps: Sequence[str]) -> str:
    """Which scores of a matrix are missing, with the reason if it is known; empty if none is missing."""
    found = [
        f"{task} after {steps[step]}" + (f" ({why})" if (why := matrix.reasons.get((step, task))) else "")
        for step, task in matrix.holes
    ]
    found += [f"{task}, base model ({why})" for task, why in matrix.base_reasons.items()]
    return ", ".join(found[:MOST_HOLES]) + (f", and {len(found) - MOST_HOLES} more" if len(found) > MOST_HOLES else "")


def losses_table(losses: Mapping[str, Loss]) -> Table:
    """What a step has cost the tasks before it: one row per task.

    Args:
        losses: By the name of the task.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task")
    for label in ("gate prompts", "lost", "gained", "at most lost", "allowed"):
        table.add_column(label, justify="right")
    for task, loss in losses.items():
        counts = [str(loss.prompts), str(len(loss.lost)), str(len(loss.gained))]
        bound = plain(f"{100 * max(0.0, loss.bound):.1f} %", "" if loss.kept else "bold red")
        table.add_row(plain(task), *counts, bound, f"{100 * loss.max_loss:.3g} %")
    return table


def recalled_table(found: Recall) -> Table:
    """How a prompt fits every task, and which it recalls."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task")
    table.add_column("scope")
    table.add_column("score", justify="right")
    table.add_column("p", justify="right")
    table.add_column("recalled")
    for one in found.tasks:
        kind = plain(f"{'house rule' if one.house_rule else 'domain'} ({one.scope:.2f})")
        here = plain("yes", "bold") if one in found.recalled else plain("no")
        table.add_row(plain(one.task), kind, f"{one.score:+.2f}", f"{one.p_value:.3f}", here)
    return table


def expressed_table(expressed: Sequence[Expressed]) -> Table:
    """Which steps explain some preferences, best first."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("step")
    for label in ("reward, nats", "standard error", "ratio"):
        table.add_column(label, justify="right")
    for one in expressed:
        error = "-" if one.standard_error is None else f"{one.standard_error:.3f}"
        table.add_row(plain(one.step), f"{one.mean:+.3f}", error, f"{one.ratio:+.1f}")
    return table


def comparison_table(runs: Mapping[str, ScoreMatrix]) -> Table:
    """Methods side by side on one metric: every task after the last step, and the statistics in ``COMPARED``.

    Args:
        runs: Matrices of the same stream, by the method's display name.
    """
    first = next(iter(runs.values()))
    metric = metric_of(first)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for task in first.tasks:
        table.add_column(plain(task), justify="right")
    for label in COMPARED.values():
        table.add_column(label, justify="right", style="bold" if label == "last" else "")
    base = [metric.text(first.base.get(task)) for task in first.tasks]
    table.add_row("base model", *base, metric.text(first.summary()["base"]), *[""] * 2, style="dim")
    for name, matrix in runs.items():
        row, values = matrix.rows[-1], matrix.summary()
        scores = [metric.text(row[task]) if task in row else "" for task in matrix.tasks]
        cells = [metric.text(values[key], signed=key in CHANGES) for key in COMPARED]
        table.add_row(plain(name), *scores, *cells)
    return table


def answers_table(answers: Mapping[str, tuple[str, Mapping[str, bool]]]) -> Table:
    """One prompt, answered by several models, with the rules that each answer follows.

    Args:
        answers: By the model's name, the answer, and per rule whether the answer follows it.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    table.add_column("answer", ratio=1)
    table.add_column("rules", no_wrap=True)
    for name, (answer, holds) in answers.items():
        rules = Text("\n").join(
            Text.assemble(plain("yes" if kept else "no ", "green" if kept else "red"), plain(f" {rule}"))
            for rule, kept in holds.items()
        )
        table.add_row(plain(name), plain(answer or "(empty)"), rules)
    return table


def side_by_side(answers: Mapping[str, str]) -> Table:
    """One prompt, answered by several models, a column each.

    Args:
        answers: Answers by the names of the models.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for name in answers:
        table.add_column(plain(name), ratio=1)
    table.add_row(*(plain(answer or "(empty)") for answer in answers.values()))
    return table


def preference_table(result: Mapping[str, Any]) -> Table:
    """A judge's preferences per task and overall, as :func:`~lifealign.life.head_to_head.compare_versions` returns."""
    title = plain(one_line(f"{result['version']} against {result['against']}"), "italic")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for column in ("task", "win", "tie", "loss", "missing", "win rate", "95 % interval", "order mattered"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, found in result["tasks"].items():
        if found is None:
            table.add_row(plain(task), *["-"] * 7)
            continue
        counts = [str(found[name]) for name in ("wins", "ties", "losses", "missing")]
        moved = "-" if found["moved"] is None else f"{found['moved']:.0%}"
        table.add_row(plain(task), *counts, f"{found['rate']:.0%}", f"{found['low']:.0%} to {found['high']:.0%}", moved)
    return table
