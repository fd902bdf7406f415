"""Is this data any good? A report on a file of preference rows, before anything is trained on it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from lifealign.data.clean import SCORES, SYSTEM_PROMPT, WORDS, CleanPairs, clean_rows, count_text, line_of, verdict
from lifealign.data.pair import Pair
from lifealign.errors import ConfigError

# Control strings of common chat templates; in a text they are either left over from another template or an injection.
SPECIAL = re.compile(
    r"<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
)
MOST_NAMED = 30  # ignored columns to list; a file with more of them uses data as column names
LENGTH_TELLS = 0.75  # hh and safe-rlhf are near 0.6, TruthfulQA with joined wrong answers above 0.95


# Doubtful rows that are kept: the finding for one row, the finding for several, and what to do.
DOUBTS = {
    SCORES: (
        "row scores its chosen answer no higher than the rejected one",
        "rows score the chosen answer no higher than the rejected one",
        "Swap the answers or delete the rows where that is wrong.",
    ),
    WORDS: (
        "row has a text that is only a word like nan or None",
        "rows have a text that is only a word like nan or None",
        "Delete the rows where a text is missing.",
    ),
    SYSTEM_PROMPT: (
        "row has a prompt that is not a turn of the conversation beside it",
        "rows have a prompt that is not a turn of the conversation beside it",
        "It becomes the system message; rename or drop the column if it is not one.",
    ),
}


class TokenCounter(Protocol):
    """The part of a model's tokenizer that inspecting data needs."""

    def prompts(self, pairs: Sequence[Pair]) -> list[str]:
        """Renders the prompts as the model will read them, up to where the answer starts.

        Raises:
            DataError: If the chat template refuses a prompt.
        """

    def count(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens in each text."""


class Spread(NamedTuple):
    """Minimum, median, 95th percentile and maximum of some counts; each is one of the counts (nearest rank)."""

    min: int
    median: int
    p95: int
    max: int

    @classmethod
    def of(cls, counts: Iterable[int]) -> Spread:
        """Summarises at least one count.

        Example:
            >>> Spread.of(range(1, 101))
            Spread(min=1, median=50, p95=95, max=100)
        """
        ordered = sorted(counts)
        rank = len(ordered) - 1
        return cls(ordered[0], ordered[rank // 2], ordered[-(-95 * len(ordered) // 100) - 1], ordered[-1])


@dataclass(frozen=True)
class DataReport:
    """What :func:`inspect` found in a file: the fields hold the numbers, ``render`` formats them.

    Attributes:
        path: The file.
        clean: Usable pairs, rows, shapes, dropped rows and their places, conflicts.
        turns: Messages per prompt.
        words: Words (separated by whitespace) in ``prompt`` (all its messages), ``chosen`` and ``rejected``.
        tokens: The same in tokens, with the chat template around prompts; empty without a tokenizer.
        prompts: Number of distinct prompts.
        repeated: Number of usable pairs whose prompt has occurred in an earlier one.
        most_repeated: How often the most common prompt occurs.
        longer_chosen: Share of pairs whose chosen answer has more characters; equal lengths count one half.
        special: Control strings of chat templates found in the texts, and how often each occurs.
        too_long: Places of pairs whose prompt alone takes ``max_length`` tokens or more, leaving none for an answer.
        max_length: Maximum tokens of prompt and answer together, or None.
    """

    path: str
    clean: CleanPairs
    turns: Spread
    words: dict[str, Spread]
    tokens: dict[str, Spread]
    prompts: int
    repeated: int
    most_repeated: int
    longer_chosen: float
    special: dict[str, int]
    too_long: tuple[str, ...]
    max_length: int | None

    @property
    def length_only_accuracy(self) -> float:
        """Preference accuracy of the better of two rules that ignore content: prefer the longer, prefer the shorter."""
        return max(self.longer_chosen, 1 - self.longer_chosen)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems to fix before training: for each, the finding and then advice."""
        found = []
        lost = self.clean.rows - len(self.clean.pairs)
        if lost > 0.05 * self.clean.rows:
            found.append(f"{lost / self.clean.rows:.1%} of the rows are dropped. Look at the lines named above.")
        if self.length_only_accuracy >= LENGTH_TELLS:
            kept, rare = ("longer", "shorter") if self.longer_chosen > 0.5 else ("shorter", "longer")
            found.append(
                f"Length alone predicts {self.length_only_accuracy:.1%} of the labels, so a model may learn to write "
                f"{kept} answers and nothing else. Add pairs whose chosen answer is the {rare} one."
            )
        if self.clean.conflicts:
            first, second = map(line_of, self.clean.conflicts[0])
            found.append(
                f"{count_text(len(self.clean.conflicts), 'pair contradicts', 'pairs contradict')} an earlier one "
                f"(first: lines {first} and {second}). Both are kept; delete the wrong one."
            )
        for doubt, places in self.clean.suspicious.items():
            one, many, advice = DOUBTS[doubt]
            found.append(f"{count_text(len(places), one, many)} ({_lines(places)}), kept. {advice}")
        if self.special:
            examples = ", ".join(list(self.special)[:3])
            found.append(
                f"{count_text(sum(self.special.values()), 'control string', 'control strings')} of chat templates in "
                f"the texts ({examples}). "
                "Remove them; the chat template adds what the model needs."
            )
        if self.too_long:
            found.append(
                f"{count_text(len(self.too_long), 'prompt takes', 'prompts take')} up all of max_length "
                f"{self.max_length} (first: line {line_of(self.too_long[0])}), leaving no room for an answer. Raise "
                "max_length, or shorten the prompts."
            )
        return tuple(found)

    def render(self) -> str:
        """Formats the report as plain text: first how many rows are usable, then the details, last the warnings."""
        clean = self.clean
        rule = "longer" if self.longer_chosen > 0.5 else "shorter"
        facts = [("shapes", ", ".join(f"{name} {count_text(number)}" for name, number in clean.shapes.items()))]
        for reason, places in clean.dropped.items():
            facts.append(("dropped", f"{count_text(len(places))} {reason} ({_lines(places)})"))
        for fact, columns in (("added", clean.added), ("ignored", clean.ignored)):
            if columns:
                facts.append((fact, _columns(columns, clean.rows)))
        repeated = f", {count_text(self.repeated, 'repetition', 'repetitions')}"
        repeated += f"; the most common one occurs {self.most_repeated} times"
        facts += [
            ("prompts", f"{count_text(self.prompts)} different" + (repeated if self.repeated else "")),
            ("turns", f"{self.turns.min} to {self.turns.max} in a prompt, median {self.turns.median}"),
            ("length", f"alone predicts {self.length_only_accuracy:.1%} of the labels ({rule} is chosen)"),
        ]
        text = [f"{self.path}: {verdict(len(clean.pairs), clean.rows)}", ""]
        text += [f"  {name:<9} {fact}" for name, fact in facts]
        for unit, spreads in (("words", self.words), ("tokens", self.tokens)):
            if spreads:
                text += ["", f"  {unit:<9}" + "".join(f"{name:>9}" for name in Spread._fields)]
                text += [
                    f"  {part:<9}" + "".join(f"{count_text(n):>9}" for n in spread) for part, spread in spreads.items()
                ]
        return "\n".join(text + ([""] if self.warnings else []) + [f"  ! {warning}" for warning in self.warnings])


def _lines(places: Sequence[str]) -> str:
    """The line numbers of the first five places, as ``lines 1, 2``."""
    return f"line{'s' * (len(places) > 1)} " + ", ".join(map(line_of, places[:5])) + ", ..." * (len(places) > 5)


def _columns(counts: dict[str, int], rows: int) -> str:
    """Lists columns, each with its number of rows unless that is all of them; unusual names are quoted."""
    names = {column: column if re.fullmatch(r"[\w.\[\]-]{1,60}", column) else repr(column[:60]) for column in counts}
    parts = [
        names[column] + (f" (in {count_text(count)} of {count_text(rows, 'row', 'rows')})" if count < rows else "")
        for column, count in counts.items()
    ]
    return ", ".join(parts[:MOST_NAMED]) + (f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else "")


def inspect(path: str | Path, tokenizer: TokenCounter | None = None, max_length: int | None = None) -> DataReport:
    """Inspects a file before anything is trained on it; changes nothing.

    Args:
        path: A file of any accepted kind and shape, or ``hub:owner/name[:split]``.
        tokenizer: Counts tokens, such as :class:`lifealign.model.token_counter.ModelTokens`; None counts words only.
        max_length: Maximum tokens of prompt and answer together; needs ``tokenizer``.

    Raises:
        DataError: If the file cannot be read, has no usable pair, or has a prompt that the chat template refuses.
        ConfigError: If ``max_length`` is below 1 or has no tokenizer to count with.
    """
    if max_length is not None and tokenizer is None:
        raise ConfigError("max_length needs a tokenizer to count with; add one")
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length: found {max_length}, expected at least 1 token")
    clean = clean_rows(path)
    texts = {
        "prompt": ["\n".join(message.content for message in pair.prompt) for pair in clean.pairs],
        "chosen": [pair.chosen for pair in clean.pairs],
        "rejected": [pair.rejected for pair in clean.pairs],
    }
    tokens: dict[str, list[int]] = {}
    if tokenizer is not None:
        templated = {**texts, "prompt": tokenizer.prompts(clean.pairs)}
        tokens = {part: tokenizer.count(batch) for part, batch in templated.items()}
    prompts = Counter(pair.prompt for pair in clean.pairs)
    signs = [(len(pair.chosen) > len(pair.rejected)) - (len(pair.chosen) < len(pair.rejected)) for pair in clean.pairs]
    fills = zip(clean.pairs, tokens["prompt"], strict=True) if max_length is not None else ()
    return DataReport(
        path=str(path),
        clean=clean,
        turns=Spread.of(len(pair.prompt) for pair in clean.pairs),
        words={part: Spread.of(len(text.split()) for text in batch) for part, batch in texts.items()},
        tokens={part: Spread.of(counts) for part, counts in tokens.items()},
        prompts=len(prompts),
        repeated=len(clean.pairs) - len(prompts),
        most_repeated=max(prompts.values()),
        longer_chosen=(1 + sum(signs) / len(signs)) / 2,
        special=dict(Counter(found for batch in texts.values() for text in batch for found in SPECIAL.findall(text))),
        too_long=tuple(pair.source for pair, used in fills if max_length is not None and used >= max_length),
        max_length=max_length,
    )
