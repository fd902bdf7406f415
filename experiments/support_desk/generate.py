"""Writes the support-desk suite from its hand-written pieces.

::

    python -m experiments.support_desk.generate OUT_DIR

Deterministic: the same pieces and seed give the same bytes. An answer is an opening that takes up the problem, one way
of handling it, and around them what its traits ask for. The trait a task is about holds in the chosen answer and fails
in the rejected one; the other three, and the length, are dealt out to both sides alike and independently, so that the
rule alone tells the two apart. Every answer is verified with the exact checks.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from random import Random
from typing import NamedTuple

from experiments.support_desk import pieces
from experiments.support_desk.pieces import TOPICS, Topic

from lifealign.data.suites.support_desk import PAIRS, RULES

SEED = 20
TRAIN_MESSAGES = 200  # the pool; every task trains on its own PAIRS["train"] of them
TRAIT_SHARE = {"brief": 0.4, "greet": 0.4, "order-number": 0.4, "escalate": 0.4}  # where the task is another one
BRIEF_WORDS = range(19, 26)
LONG_WORDS = range(35, 61)
OPENER_SHARE = 0.3
CLOSER_SHARE = 0.45
MONEY_CLOSER_SHARE = 0.5  # among closers, where a refund is thinkable
REFUND_SHARE_ASKED = 0.85  # among answers that do not escalate, where the customer asks for money; the others act alone
REFUND_SHARE = 0.45  # the same where the customer complains without asking for money
LOOKUP_SHARE = 0.5  # among answers that do not ask for the order number
ATTEMPTS = 5000

_MONEY_BACK = re.compile(
    r"refund|reimburs|repay|money|cash|cent\b|penny|pay (?:me|up)|payment returned|(?:what|which) i paid"
    r"|price (?:back|returned)|reverse|difference|gap paid|rest back|value back|it back"
    r"|return (?:my \d|what|the second)|so pay|cover it",
    re.IGNORECASE,
)


class Customer(NamedTuple):
    """A message, what it is about, and the item in it."""

    topic: Topic
    item: str
    message: str


def words(text: str) -> int:
    """Number of words, as the checks count them."""
    return len(text.split())


def asks_money(message: str) -> bool:
    """Says whether a customer asks for money back, in one way or another."""
    return bool(_MONEY_BACK.search(message))


def train_customers(random: Random) -> list[Customer]:
    """The pool of training messages: every template with different items, some with an opener or a closer."""
    customers = []
    for topic in TOPICS:
        for template in topic.train:
            for item in random.sample(topic.items, 3):
                text = _article(template.format(item=item))
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


def compose(customer: Customer, traits: dict[str, bool], length: int, random: Random) -> str:
    """Puts one answer together.

    Args:
        customer: Whom to answer.
        traits: Which rules the answer keeps.
        length: Words to aim at; asides and fillers are added while there is room.
        random: Source of all choices.

    Returns:
        An answer of about ``length`` words, or a shorter or longer one; the caller decides whether it will do.
    """
    topic = customer.topic
    before, after = [random.choice(topic.openings)], []
    asks = traits["order-number"]
    if asks:
        after.append(random.choice(pieces.ORDER_REQUESTS))
    elif random.random() < LOOKUP_SHARE:
        after.append(random.choice(pieces.LOOKUPS))
    after.append(random.choice(_handling(customer, escalates=traits["escalate"], asks=asks, random=random)))
    greeting = [random.choice(pieces.GREETINGS)] if traits["greet"] else []

    asides = pieces.ASIDES + (pieces.COMPLAINT_ASIDES if topic.complaint else ())
    fillers = pieces.FILLERS + topic.details * 3 + (pieces.COMPLAINT_FILLERS if topic.complaint else ())
    room = length - words(" ".join([*greeting, *before, *after]).format(item=customer.item, team=topic.team))
    extras = [(random.choice(asides), before)]
    if traits["brief"]:
        extras.append((random.choice(asides), before))
    else:
        extras += [(filler, before) for filler in random.sample(fillers, random.randint(1, 3))]
        extras += [(ending, after) for ending in random.sample(pieces.ENDINGS, random.randint(1, 2))]
        random.shuffle(extras)
    for extra, place in extras:
        if words(extra) <= room and extra not in place:
            place.append(extra)
            room -= words(extra)
    answer = " ".join([*greeting, *before, *after])
    return _article(answer.format(item=customer.item, team=topic.team))


def _handling(customer: Customer, *, escalates: bool, asks: bool, random: Random) -> tuple[str, ...]:
    topic, asked = customer.topic, asks_money(customer.message)
    thinkable = topic.refundable and (asked or topic.complaint)
    if escalates:
        return pieces.HANDOVERS + (pieces.MONEY_HANDOVERS if thinkable else ())
    if thinkable and random.random() < (REFUND_SHARE_ASKED if asked else REFUND_SHARE):
        return pieces.REFUNDS_TO_COME + (() if asks else pieces.REFUNDS_DONE)
    return topic.will + pieces.ALONE + (() if asks else topic.did)  # who still asks cannot have acted yet


def _article(text: str) -> str:
    """``a umbrella`` becomes ``an umbrella``."""
    out = text.split(" ")
    for i in range(len(out) - 1):
        if out[i] in ("a", "A") and out[i + 1][0] in "aeiouAEIO" and not out[i + 1].startswith(("one", "uku", "eu")):
            out[i] += "n"
    return " ".join(out)


def _deal(values: list[int], number: int, random: Random) -> list[int]:
    """``number`` values in random order, each as often as any other."""
    dealt = [values[i * len(values) // number] for i in range(number)]
    random.shuffle(dealt)
    return dealt


def side(rule: str, chosen: bool, customers: list[Customer], used: set[str], random: Random) -> list[str]:
    """All chosen or all rejected answers of one split of one task.

    Args:
        rule: The task.
        chosen: Whether the answers keep the rule.
        customers: Whom to answer, in order.
        used: Answers that exist already; the new ones are added to it.
        random: Source of all choices.

    Returns:
        One verified answer for each customer.

    Raises:
        RuntimeError: If no composition of the pieces fits some customer; then pieces are too long or too few.
    """
    number = len(customers)
    kept: dict[str, list[bool]] = {}
    for name, share in TRAIT_SHARE.items():
        on = round(share * number)
        kept[name] = [chosen] * number if name == rule else [True] * on + [False] * (number - on)
        random.shuffle(kept[name])
    lengths = {
        True: _deal(list(BRIEF_WORDS), sum(kept["brief"]), random),
        False: _deal(list(LONG_WORDS), number - sum(kept["brief"]), random),
    }
    answers = []
    for index, customer in enumerate(customers):
        traits = {name: kept[name][index] for name in TRAIT_SHARE}
        length = lengths[traits["brief"]].pop()
        for _ in range(ATTEMPTS):
            answer = compose(customer, traits, length, random)
            if abs(words(answer) - length) <= 1 and answer not in used and _verified(answer, traits):
                break
        else:
            raise RuntimeError(f"{rule}: found no answer of {length} words with {traits} to {customer.message!r}")
        used.add(answer)
        answers.append(answer)
    return answers


def _verified(answer: str, traits: dict[str, bool]) -> bool:
    return all(rule.check.holds(answer) == traits[rule.name] for rule in RULES)


def generate(seed: int = SEED) -> dict[str, str]:
    """Writes the whole suite into memory.

    Args:
        seed: Seed of every choice.

    Returns:
        Text of each file by its relative path, ``brief/train.jsonl`` and so on.
    """
    pool = train_customers(Random(f"{seed} train"))
    held_out = {split: held_out_customers(split, Random(f"{seed} {split}")) for split in ("dev", "test")}
    used: set[str] = set()
    out = {}
    for rule in RULES:
        for split, number in PAIRS.items():
            random = Random(f"{seed} {rule.name} {split}")
            customers = held_out[split] if split in held_out else random.sample(pool, number)
            chosen = side(rule.name, True, customers, used, random)
            rejected = side(rule.name, False, customers, used, random)
            rows = (
                {"prompt": customer.message, "chosen": good, "rejected": bad}
                for customer, good, bad in zip(customers, chosen, rejected, strict=True)
            )
            out[f"{rule.name}/{split}.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return out


def main(arguments: list[str]) -> int:
    """Writes the suite below a folder; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m experiments.support_desk.generate OUT_DIR", file=sys.stderr)
        return 2
    for name, text in generate().items():
        path = Path(arguments[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
