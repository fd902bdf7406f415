"""The metrics: what each one is called, its direction, what it is measured on, and how its numbers are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

MINUS = "\u2212"
"""The sign of a number on a page, where the terminal has a hyphen."""


@dataclass(frozen=True)
class Unit:
    """How numbers of a kind are written.

    Attributes:
        word: What they are, beside an axis of a page; empty where the metric's name says it all.
        in_title: What they are, in the title of a table.
        on_axis: What they are, beside an axis of a figure.
        of_change: What the difference of two of them is.
        decimals: In the terminal, in a model card and in a cell of a page.
        exact_decimals: Where there is room.
        table_decimals: In the tables of a comparison.
        factor: What a number is multiplied with before it is written.
        sign: What follows a number.
        whole: The least and the greatest that there can be, if scales show all of it and not what there is.
    """

    word: str
    in_title: str
    on_axis: str
    of_change: str
    decimals: int
    exact_decimals: int
    table_decimals: int
    factor: int = 1
    sign: str = ""
    whole: tuple[float, float] | None = None


SHARE = Unit("per cent", "per cent", "%", "percentage points", 0, 2, 1, factor=100, sign=" %", whole=(0.0, 1.0))
"""In [0, 1], shown in per cent."""
NATS = Unit("nats", "nats", "nats", "nats", 2, 4, 2)
POINTS = Unit("points", "points of 100", "points", "points", 1, 3, 1)
"""In [0, 100]."""
BARE = Unit("", "", "", "", 2, 2, 2)
"""A number whose name says what it is."""
RELATIVE = replace(SHARE, decimals=1, exact_decimals=1, whole=None)
"""A change by so much of what it was, shown in per cent; any number above -1."""


@dataclass(frozen=True)
class Metric:
    """What is measured, and how its numbers are shown: whoever shows one asks here.

    Attributes:
        label: What it is, for the title of a table.
        short: What it is, in a few words: the label of a curve or a tab.
        unit: What its numbers are.
        higher_is_better: Its direction.
        measured_on: ``pairs``: held-out pairs, no word is generated. ``check``: generated answers to the held-out
            prompts of tasks that have an exact check. ``rules``: the same answers, by the checks of all tasks so far.
            ``answers``: generated answers, compared with the chosen ones. ``judge``: generated answers, judged by
            another model. ``general text``: text that no task is about.
    """

    label: str
    short: str
    unit: Unit
    higher_is_better: bool
    measured_on: Literal["pairs", "check", "rules", "answers", "judge", "general text"]

    @property
    def label_without_unit(self) -> str:
        """The label for a title that names the unit itself.

        Example:
            >>> METRICS["margin"].label, METRICS["margin"].label_without_unit
            ('mean margin on held-out pairs (nats)', 'mean margin on held-out pairs')
        """
        return self.label.removesuffix(f" ({self.unit.word})")

    @property
    def direction(self) -> str:
        """Which direction is better, in words."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    def text(self, value: float | None, *, signed: bool = False, unit: bool = True) -> str:
        """A number as the terminal and model cards show it, never ``-0``; ``-`` where there is none.

        Args:
            value: The number.
            signed: Whether it has a sign above zero too, as a change has.
            unit: Whether a sign of the unit follows it.

        Example:
            >>> METRICS["adherence"].text(0.8333), METRICS["margin"].text(1.5), METRICS["bleu"].text(27.25)
            ('83 %', '1.50', '27.2')
            >>> METRICS["adherence"].text(-0.1, signed=True), METRICS["adherence"].text(None)
            ('-10 %', '-')
            >>> METRICS["adherence"].text(-0.001), METRICS["adherence"].text(-0.001, signed=True)
            ('0 %', '+0 %')
        """
        if value is None:
            return "-"
        written = format(self.scaled(value), f"{_plus(signed)}z.{self.unit.decimals}f")
        return f"{written}{self.unit.sign}" if unit else written

    def typeset(self, value: float | None, *, signed: bool = False, unit: bool = True) -> str:
        """A number as a page shows it: a minus for a sign, none before zero, a dash where there is no number.

        Args:
            value: The number.
            signed: Whether it has a sign above zero too, as a change has.
            unit: Whether a sign of the unit follows it.

        Example:
            >>> METRICS["adherence"].typeset(-0.3125, signed=True), METRICS["adherence"].typeset(-0.001, signed=True)
            ('\u221231 %', '0 %')
            >>> METRICS["bleu"].typeset(None)
            '\u2013'
        """
        if value is None:
            return "\u2013"
        is_zero = not round(self.scaled(value), self.unit.decimals)
        return self.text(0.0 if is_zero else value, signed=signed and not is_zero, unit=unit).replace("-", MINUS)

    def exact(self, value: float, *, signed: bool = False) -> str:
        """A number as a page shows it, with the digits that a cell has no room for.

        Example:
            >>> METRICS["adherence"].exact(0.8333), METRICS["margin"].exact(-1.23456, signed=True)
            ('83.33 %', '\u22121.2346')
            >>> METRICS["bleu"].exact(27.25), PERPLEXITY_CHANGE.exact(-0.0001, signed=True)
            ('27.250', '+0.0 %')
        """
        written = format(self.scaled(value), f"{_plus(signed)}z.{self.unit.exact_decimals}f")
        return f"{written}{self.unit.sign}".replace("-", MINUS)

    def tabled(self, value: float, *, signed: bool = False) -> str:
        """A number in a table whose title names the unit; never ``-0.0``.

        Example:
            >>> METRICS["adherence"].tabled(0.8333), METRICS["margin"].tabled(-0.001, signed=True)
            ('83.3', '+0.00')
        """
        return format(self.scaled(value), f"{_plus(signed)}z.{self.unit.table_decimals}f")

    def scaled(self, value: float) -> float:
        """A number as an axis has it.

        Example:
            >>> METRICS["adherence"].scaled(0.25), METRICS["margin"].scaled(0.25)
            (25.0, 0.25)
        """
        return self.unit.factor * value

    @property
    def axis_limits(self) -> tuple[float, float] | None:
        """Ends of an axis; None where they are those of what is shown.

        Example:
            >>> METRICS["adherence"].axis_limits, METRICS["margin"].axis_limits
            ((0.0, 100.0), None)
        """
        whole = self.unit.whole
        return None if whole is None else (self.scaled(whole[0]), self.scaled(whole[1]))

    def ends(self, values: Sequence[float]) -> tuple[float, float]:
        """Ends of a scale of colours: all that there can be, or the least and the greatest of what there is.

        Example:
            >>> METRICS["adherence"].ends([0.25, 0.5]), METRICS["margin"].ends([0.25, -1.5])
            ((0.0, 1.0), (-1.5, 0.25))
        """
        if self.unit.whole is not None or not values:
            return self.unit.whole or (0.0, 1.0)
        return min(values), max(values)


METRICS = {
    "adherence": Metric("adherence (share of generated answers that keep the rule)", "adherence", SHARE, True, "check"),
    "joint_adherence": Metric(
        "rules kept together (share of generated answers that keep every rule so far)",
        "rules kept together",
        SHARE,
        True,
        "rules",
    ),
    "preference_accuracy": Metric(
        "preference accuracy (share of held-out pairs ranked right)", "preference accuracy", SHARE, True, "pairs"
    ),
    "margin": Metric("mean margin on held-out pairs (nats)", "margin", NATS, True, "pairs"),
    "bleu": Metric("BLEU-4 of generated against chosen answers (sacrebleu)", "BLEU-4", POINTS, True, "answers"),
    "rouge_l": Metric("ROUGE-L of generated against chosen answers", "ROUGE-L", POINTS, True, "answers"),
    "paper_bleu": Metric("BLEU-4 on characters, as in the paper", "BLEU-4 (paper's)", POINTS, True, "answers"),
    "paper_rouge_l": Metric(
        "ROUGE-L on the paper's tokens, as in the paper", "ROUGE-L (paper's)", POINTS, True, "answers"
    ),
    "judge": Metric("LLM judge (10 x mean mark, from 10 to 100)", "LLM judge", POINTS, True, "judge"),
}
"""Every metric of a task, in the order in which tables show them."""

PERPLEXITY = "perplexity"
"""Name of the one that belongs to no task."""
PERPLEXITY_METRIC = Metric("perplexity on general text", PERPLEXITY, BARE, False, "general text")
"""The metric of that name."""
PERPLEXITY_CHANGE = Metric(
    "change of the perplexity on general text", "change of perplexity", RELATIVE, False, "general text"
)
"""By how much it has changed, as a part of what it was: 0.1 is ten per cent more."""

DEFAULT_METRICS = ("adherence", "preference_accuracy", "margin", PERPLEXITY)
"""What a life measures after each step unless it is told otherwise: nothing that costs a long generation or money."""

CHANGES = frozenset({"backward_transfer"})
"""Numbers of a score matrix that are changes: they have a sign, the unit of a change, and are better above zero, also
of a metric where lower is better."""


MOST_NAMED = 24
"""Most tasks whose numbers of examples are told one by one."""


class Measured(Protocol):
    """Scores of a metric: a score matrix, or a table."""

    @property
    def metric(self) -> str:
        """Name of the metric."""

    @property
    def higher_is_better(self) -> bool:
        """Its direction."""


def metric_of(found: Measured) -> Metric:
    """The metric of some scores, in the direction that they were read in: result files say which."""
    return replace(METRICS[found.metric], higher_is_better=found.higher_is_better)


def general_line(record: Mapping[str, Any]) -> str:
    """Perplexity on general text now and of the base model, in one line.

    Example:
        >>> general_line({"perplexity": 11.0, "base": {"perplexity": 10.0}})
        'perplexity on general text 11.00, of the base model 10.00 (+10.0 %; lower is better)'
    """
    now, base = record["perplexity"], record["base"]["perplexity"]
    metric, change = PERPLEXITY_METRIC, PERPLEXITY_CHANGE.text(now / base - 1, signed=True)
    return f"{metric.label} {metric.text(now)}, of the base model {metric.text(base)} ({change}; {metric.direction})"


def examples_text(examples: Mapping[str, tuple[int, int]]) -> str:
    """On how many held-out examples tasks were scored; empty where it is not known.

    Args:
        examples: By task, the fewest and the most: they differ where some marks of a judge are missing.

    Example:
        >>> examples_text({"a": (24, 24), "b": (24, 24)}), examples_text({"a": (24, 24), "b": (22, 24)})
        ('n = 24 per task', 'n = 24 (a), 22 to 24 (b)')
    """
    numbers = {task: f"{few}" if few == most else f"{few} to {most}" for task, (few, most) in examples.items()}
    if len(set(numbers.values())) > 1 and len(numbers) > MOST_NAMED:
        return (
            f"n = {min(few for few, _ in examples.values())} to {max(most for _, most in examples.values())} per task"
        )
    if len(set(numbers.values())) == 1:
        return f"n = {next(iter(numbers.values()))} per task"
    return "n = " + ", ".join(f"{number} ({task})" for task, number in numbers.items()) if numbers else ""


def _plus(signed: bool) -> str:
    """What a format has before its decimals where numbers above zero have a sign, too."""
    return "+" if signed else ""
