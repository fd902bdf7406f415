"""Writes the support-desk suite, or a longer stream of house rules, from hand-written pieces.

::

    python -m experiments.support_desk.generate OUT_DIR
    python -m experiments.support_desk.generate OUT_DIR --rules greet we sign-off question --balanced --share 0.2
    python -m experiments.support_desk.generate OUT_DIR --rules brief greet order-number escalate --chosen-share 1

Without options it writes the suite of the package. Deterministic: the same pieces, options and seed give the same
bytes. The trait a task is about holds in the chosen answer and fails in the rejected one; those of the other rules, and
the length, are dealt out to both sides alike and independently, so that the rule alone tells the two apart. Every
answer is verified with the exact checks. ``rules.py`` says which rules there are and which go together, ``deal.py`` how
traits are dealt, and ``compose.py`` what an answer is made of.

With ``--chosen-share 1`` every chosen answer keeps all rules. Nothing has to be remembered then, and what a method
reaches there bounds what any can reach on the stream.

With ``--rules``, ``OUT_DIR/stream.yaml`` is the section ``tasks`` of an experiment file with the test splits, and
``OUT_DIR/stream-dev.yaml`` the same with the dev splits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import yaml
from experiments.support_desk import pieces
from experiments.support_desk.compose import Customer, article, asks_money, compose, words
from experiments.support_desk.deal import SHARE, deal, lengths, shares, shuffled
from experiments.support_desk.held_out_pieces import HELD_OUT
from experiments.support_desk.more_pieces import TRAINED, Wordings
from experiments.support_desk.pieces import TOPICS
from experiments.support_desk.rules import ALL_RULES, UPDATES, check_stream

from lifealign.data.suites.support_desk import PAIRS, RULES

SEED = 20
TRAIN_MESSAGES = 200  # the pool; every task trains on its own PAIRS["train"] of them
OPENER_SHARE = 0.3
CLOSER_SHARE = 0.45
MONEY_CLOSER_SHARE = 0.5  # among closers, where a refund is thinkable
PATIENCE = 1000  # attempts after which an answer may have a word more
ATTEMPTS = 10 * PATIENCE


@dataclass(frozen=True)
class Options:
    """What a stream is made of.

    Attributes:
        rules: Names of the rules, in the order in which they are learnt.
        share: Share of the other rules' traits in chosen and in rejected answers, from 0 to less than 1.
        chosen_share: The same of chosen answers alone, from 0 to 1; None for ``share``.
        pairs: Training pairs of each rule, at most ``TRAIN_MESSAGES``.
        seed: Seed of every choice.
        balanced: Whether every prefix of the rows has the shares too, so that a few first rows are not confounded.
        phrasing: ``held-out`` writes the training pairs with a second set of phrases for the rules; dev and test keep
            the first, which training then never shows. What keeps or breaks a rule without a phrase of its own, such
            as openings and refunds, is the same in both.

    Raises:
        ValueError: If a value is out of range, or the rules make no stream.
    """

    rules: tuple[str, ...] = tuple(rule.name for rule in RULES)
    share: float = SHARE
    chosen_share: float | None = None
    pairs: int = PAIRS["train"]
    seed: int = SEED
    balanced: bool = False
    phrasing: Literal["trained", "held-out"] = "trained"

    def __post_init__(self) -> None:
        check_stream(self.rules)
        if not 0 <= self.share < 1:
            raise ValueError(f"share: found {self.share}, expected at least 0 and less than 1")
        if self.chosen_share is not None and not 0 <= self.chosen_share <= 1:
            raise ValueError(f"chosen_share: found {self.chosen_share}, expected 0 to 1")
        if not 1 <= self.pairs <= TRAIN_MESSAGES:
            raise ValueError(f"pairs: found {self.pairs}, expected 1 to {TRAIN_MESSAGES}")

    @property
    def share_of(self) -> dict[bool, float]:
        """Share of the other rules' traits in rejected (False) and in chosen (True) answers."""
        return {False: self.share, True: self.share if self.chosen_share is None else self.chosen_share}


def train_customers(random: Random) -> list[Customer]:
    """The pool of training messages: every template with different items, some with an opener or a closer."""
    customers = []
    for topic in TOPICS:
        for template in topic.train:
            for item in random.sample(topic.items, 3):
                text = article(template.format(item=item))
                if random.random() < OPENER_SHARE:
                    text = f"{random.choice(pieces.MESSAGE_OPENERS)} {text}"
                if random.random() < CLOSER_SHARE:
                    money = topic.refundable and random.random() < MONEY_CLOSER_SHARE and not asks_money(text)
                    text = f"{text} {random.choice(pieces.MONEY_CLOSERS if money else pieces.MESSAGE_CLOSERS)}"
                customers.append(Customer(topic, item, text))
    return random.sample(customers, TRAIN_MESSAGES)


def held_out_customers(split: str, random: Random) -> list[Customer]:
    """The messages of dev or test, in one order for all tasks."""
    customers = [Customer(topic, *row) for topic in TOPICS for row in (topic.dev if split == "dev" else topic.test)]
    random.shuffle(customers)
    return customers


def side(
    task: str,
    customers: list[Customer],
    rows: list[dict[str, bool]],
    sizes: list[int],
    used: set[str],
    random: Random,
    wordings: Wordings = TRAINED,
) -> list[str]:
    """All chosen or all rejected answers of one split of one task.

    Args:
        task: The rule that the pairs are about; for the message if it fails.
        customers: Whom to answer, in order.
        rows: Which rules each answer keeps.
        sizes: Words of each answer, give or take one; more where what an answer has to say does not fit.
        used: Answers that exist already; the new ones are added to it.
        random: Source of all choices.
        wordings: The phrases of the rules.

    Returns:
        One verified answer for each customer.

    Raises:
        RuntimeError: If no composition of the pieces fits some customer; then pieces are too long or too few.
    """
    answers = []
    for customer, traits, size in zip(customers, rows, sizes, strict=True):
        for attempt in range(ATTEMPTS):
            aim = min(size + attempt // PATIENCE, _most_words(traits))
            answer = compose(customer, traits, aim, random, wordings)
            if abs(words(answer) - aim) <= 1 and answer not in used and _verified(answer, traits):
                break
        else:
            raise RuntimeError(f"{task}: found no answer of {size} words with {traits} to {customer.message!r}")
        used.add(answer)
        answers.append(answer)
    return answers


def _most_words(traits: dict[str, bool]) -> int:
    limits = (ALL_RULES[name].check.max_words for name, kept in traits.items() if kept)
    return min((limit for limit in limits if limit is not None), default=sys.maxsize)


def _verified(answer: str, traits: dict[str, bool]) -> bool:
    return all(ALL_RULES[name].check.holds(answer) == kept for name, kept in traits.items())


def write_pairs(
    task: str, split: str, customers: list[Customer], options: Options, used: set[str], wordings: Wordings = TRAINED
) -> str:
    """One file of pairs: the customers' messages, each with a chosen and a rejected answer.

    Args:
        task: The rule that the pairs are about.
        split: ``train``, ``dev`` or ``test``.
        customers: All customers of dev or test, or the pool of train, of which ``options.pairs`` are drawn.
        options: What the stream is made of.
        used: Answers that exist already; the new ones are added to it.
        wordings: The phrases of the rules.
    """
    random = Random(f"{options.seed} {task} {split}")
    if split == "train":
        customers = random.sample(customers, options.pairs)
    number = len(customers)
    dealt = deal(task, options.rules, options.share_of, number, random) if options.balanced else {}
    answers = {}
    for chosen in (True, False):
        share = options.share_of[chosen]
        rows = dealt.get(chosen) or shuffled(shares(task, options.rules, share, chosen=chosen), number, random)
        sizes = lengths(rows, options.rules, random, even=options.balanced)
        answers[chosen] = side(task, customers, rows, sizes, used, random, wordings)
    lines = (
        {"prompt": customer.message, "chosen": good, "rejected": bad}
        for customer, good, bad in zip(customers, answers[True], answers[False], strict=True)
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def generate(options: Options | None = None) -> dict[str, str]:
    """Writes a whole stream into memory.

    Args:
        options: What it is made of; by default the suite of the package.

    Returns:
        Text of each file by its relative path, ``brief/train.jsonl`` and so on.
    """
    options = options or Options()
    pool = train_customers(Random(f"{options.seed} train"))
    held_out = {split: held_out_customers(split, Random(f"{options.seed} {split}")) for split in ("dev", "test")}
    used: set[str] = set()
    out = {}
    for task in options.rules:
        for split in PAIRS:
            out[f"{task}/{split}.jsonl"] = write_pairs(task, split, held_out.get(split, pool), options, used)
    if options.phrasing == "held-out":  # after all others, so that dev and test stay what they are
        for task in options.rules:
            out[f"{task}/train.jsonl"] = write_pairs(task, "train", pool, options, used, HELD_OUT)
    return out


def stream(rules: Sequence[str], split: Literal["dev", "test"]) -> str:
    """The section ``tasks`` of an experiment file, with files relative to it."""
    tasks = []
    for number, name in enumerate(rules):
        task: dict[str, Any] = {"name": name, "train": f"{name}/train.jsonl", "test": f"{name}/{split}.jsonl"}
        task["check"] = ALL_RULES[name].check.model_dump(mode="json", exclude_defaults=True)
        if UPDATES.get(name) in rules[:number]:
            task["supersedes"] = [UPDATES[name]]
        tasks.append(task)
    return yaml.safe_dump({"tasks": tasks}, sort_keys=False, allow_unicode=True, width=120)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.support_desk.generate", allow_abbrev=False)
    parser.add_argument("out", metavar="OUT_DIR", type=Path)
    parser.add_argument("--rules", nargs="+", metavar="NAME", help=f"the stream, in order: {', '.join(ALL_RULES)}")
    parser.add_argument("--share", type=float, default=SHARE, help="of the other rules' traits, 0 to below 1")
    parser.add_argument("--chosen-share", type=float, help="the same of chosen answers alone, 0 to 1")
    parser.add_argument("--pairs", type=int, default=PAIRS["train"], help=f"for training, at most {TRAIN_MESSAGES}")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--balanced", action="store_true", help="every prefix of the rows has the shares too")
    parser.add_argument("--phrasing", choices=("trained", "held-out"), default="trained", help="phrases of train")
    return parser


def main(arguments: list[str]) -> int:
    """Writes a stream below a folder; returns the exit code."""
    given = vars(_parser().parse_args(arguments))
    out, rules = given.pop("out"), given.pop("rules")
    try:
        options = Options(**given) if rules is None else Options(tuple(rules), **given)
        written = generate(options)
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    if rules is not None:
        written |= {"stream.yaml": stream(rules, "test"), "stream-dev.yaml": stream(rules, "dev")}
    for name, text in written.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
