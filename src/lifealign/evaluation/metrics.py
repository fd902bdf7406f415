"""The metrics: what each one is called, its unit, its direction, and what it is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["share", "nats", "points"]


@dataclass(frozen=True)
class Metric:
    """A number that every task of a life can have.

    Attributes:
        label: What it is, for the title of a table.
        short: What it is, in a few words: the label of a curve or a tab.
        unit: ``share`` in [0, 1], shown in per cent; ``nats``; ``points`` in [0, 100].
        higher_is_better: Its direction.
        measured_on: ``pairs``: held-out pairs, no word is generated. ``check``: generated answers to the held-out
            prompts of tasks that have an exact check. ``answers``: generated answers, compared with the chosen ones.
            ``judge``: generated answers, judged by another model.
    """

    label: str
    short: str
    unit: Unit
    higher_is_better: bool
    measured_on: Literal["pairs", "check", "answers", "judge"]


METRICS = {
    "adherence": Metric(
        "adherence (share of generated answers that keep the rule)", "adherence", "share", True, "check"
    ),
    "preference_accuracy": Metric(
        "preference accuracy (share of held-out pairs ranked right)", "preference accuracy", "share", True, "pairs"
    ),
    "margin": Metric("mean margin on held-out pairs (nats)", "margin", "nats", True, "pairs"),
    "bleu": Metric("BLEU-4 of generated against chosen answers (sacrebleu)", "BLEU-4", "points", True, "answers"),
    "rouge_l": Metric("ROUGE-L of generated against chosen answers", "ROUGE-L", "points", True, "answers"),
    "paper_bleu": Metric("BLEU-4 on characters, as in the paper", "BLEU-4 (paper's)", "points", True, "answers"),
    "paper_rouge_l": Metric(
        "ROUGE-L on the paper's tokens, as in the paper", "ROUGE-L (paper's)", "points", True, "answers"
    ),
    "judge": Metric("LLM judge (10 x mean mark, from 10 to 100)", "LLM judge", "points", True, "judge"),
}
"""Every metric of a task, in the order in which tables show them."""

PERPLEXITY = "perplexity"
"""The one that belongs to no task: perplexity on general text, where lower is better."""

DEFAULT_METRICS = ("adherence", "preference_accuracy", "margin", PERPLEXITY)
"""What a life measures after each step unless it is told otherwise: nothing that costs a long generation or money."""


def number_text(metric: str, value: float | None, *, signed: bool = False) -> str:
    """A score as text: shares in per cent, margins in nats, others in points of 100; ``-`` where there is none.

    Example:
        >>> number_text("adherence", 0.8333), number_text("margin", 1.5), number_text("bleu", 27.25)
        ('83 %', '1.50', '27.2')
        >>> number_text("adherence", -0.1, signed=True), number_text("adherence", None)
        ('-10 %', '-')
    """
    if value is None:
        return "-"
    sign = "+" if signed else ""
    match METRICS[metric].unit:
        case "share":
            return format(100 * value, f"{sign}.0f") + " %"
        case "nats":
            return format(value, f"{sign}.2f")
        case "points":
            return format(value, f"{sign}.1f")


def general_line(record: Mapping[str, Any]) -> str:
    """Perplexity on general text now and of the base model, in one line.

    Example:
        >>> general_line({"perplexity": 11.0, "base": {"perplexity": 10.0}})
        'perplexity on general text 11.00, of the base model 10.00 (+10.0 %; lower is better)'
    """
    now, base = record["perplexity"], record["base"]["perplexity"]
    return (
        f"perplexity on general text {now:.2f}, of the base model {base:.2f} ({now / base - 1:+.1%}; lower is better)"
    ).replace("%;", " %;")


def examples_text(examples: Mapping[str, tuple[int, int]]) -> str:
    """On how many held-out examples tasks were scored; empty where it is not known.

    Args:
        examples: By task, the fewest and the most: they differ where some marks of a judge are missing.

    Example:
        >>> examples_text({"a": (24, 24), "b": (24, 24)}), examples_text({"a": (24, 24), "b": (22, 24)})
        ('n = 24 per task', 'n = 24 (a), 22 to 24 (b)')
    """
    numbers = {task: f"{few}" if few == most else f"{few} to {most}" for task, (few, most) in examples.items()}
    if len(set(numbers.values())) == 1:
        return f"n = {next(iter(numbers.values()))} per task"
    return "n = " + ", ".join(f"{number} ({task})" for task, number in numbers.items()) if numbers else ""
