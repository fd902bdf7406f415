"""Puts one answer together from the pieces: an opening that takes up the problem, one way of handling it, and around
them what the traits of the answer ask for."""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

from experiments.support_desk import pieces
from experiments.support_desk.more_pieces import TRAINED, Wordings
from experiments.support_desk.pieces import Topic
from experiments.support_desk.rules import ALL_RULES

REFUND_SHARE_ASKED = 0.85  # among answers that do not escalate, where the customer asks for money; the others act alone
REFUND_SHARE = 0.45  # the same where the customer complains without asking for money
LOOKUP_SHARE = 0.5  # among answers that do not ask for the order number

_MONEY_BACK = re.compile(
    r"refund|reimburs|repay|money|cash|cent\b|penny|pay (?:me|up)|payment returned|(?:what|which) i paid"
    r"|price (?:back|returned)|reverse|difference|gap paid|rest back|value back|it back"
    r"|return (?:my \d|what|the second)|so pay|cover it",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"(^|[.!?]\s+)?\b(I am|I'm|I was|I|my|My|me|mine|myself)\b")
_WE = {"my": "our", "My": "Our", "me": "us", "mine": "ours", "myself": "ourselves"}
_WE |= {"I": "we", "I am": "we are", "I'm": "we're", "I was": "we were"}


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


def article(text: str) -> str:
    """``a umbrella`` becomes ``an umbrella``."""
    out = text.split(" ")
    for i in range(len(out) - 1):
        if out[i] in ("a", "A") and out[i + 1][0] in "aeiouAEIO" and not out[i + 1].startswith(("one", "uku", "eu")):
            out[i] += "n"
    return " ".join(out)


def say_we(text: str) -> str:
    """``I'll see to it myself.`` becomes ``We'll see to it ourselves.``"""

    def reworded(match: re.Match[str]) -> str:
        start, word = match.group(1), match.group(2)
        new = _WE[word]
        return new if start is None else start + new[0].upper() + new[1:]

    return _FIRST_PERSON.sub(reworded, text)


def compose(
    customer: Customer, traits: dict[str, bool], length: int, random: Random, wordings: Wordings = TRAINED
) -> str:
    """Puts one answer together.

    Args:
        customer: Whom to answer.
        traits: Which rules the answer keeps and which it breaks; about any other rule it is free.
        length: Words to aim at; asides and fillers are added while there is room.
        random: Source of all choices.
        wordings: The phrases of the rules.

    Returns:
        An answer of about ``length`` words, or a shorter or longer one; the caller decides whether it will do.
    """
    topic = customer.topic
    fills = {"item": customer.item, "team": topic.team}
    before, after = [random.choice(_openings(topic, traits))], []
    asks = traits.get("order-number", False) or traits.get("email", False)
    if asks:
        after.append(random.choice(wordings.order_requests if traits.get("order-number") else wordings.email_requests))
    elif random.random() < LOOKUP_SHARE:
        after.append(random.choice(pieces.LOOKUPS))
    escalates = traits.get("escalate", False)
    if escalates and traits.get("briefer"):
        after.append(random.choice(wordings.short_handovers))
    else:
        after.append(random.choice(_handling(customer, wordings, escalates=escalates, asks=asks, random=random)))
    greetings = wordings.short_greetings if traits.get("briefer") else wordings.greetings
    greeting = [random.choice(greetings)] if traits.get("greet") else []
    after += _further(traits, wordings, random)
    ending = _ending(traits, wordings, fills, random)
    if traits.get("briefer") and words(" ".join([*greeting, *before, *after]).format(**fills)) > length:
        before.clear()
    for phrase in _amends(" ".join([*greeting, *before, *after, *ending]), traits, wordings, random):
        random.choice((before, after)).append(phrase)

    room = length - words(" ".join([*greeting, *before, *after, *ending]).format(**fills))
    for extra, is_ending in _extras(topic, traits, wordings, random):
        place = after if is_ending else before
        if words(extra) <= room and extra not in place:
            place.append(extra)
            room -= words(extra)
    answer = article(" ".join([*greeting, *before, *after, *ending]).format(**fills))
    if traits.get("no-exclamation"):
        answer = answer.replace("!", ".")
    return say_we(answer) if traits.get("we") else answer


def _openings(topic: Topic, traits: dict[str, bool]) -> tuple[str, ...]:
    if not traits.get("no-sorry"):
        return topic.openings
    return tuple(opening for opening in topic.openings if ALL_RULES["no-sorry"].check.holds(opening))


def _handling(
    customer: Customer, wordings: Wordings, *, escalates: bool, asks: bool, random: Random
) -> tuple[str, ...]:
    topic, asked = customer.topic, asks_money(customer.message)
    thinkable = topic.refundable and (asked or topic.complaint)
    if escalates:
        return wordings.handovers + (wordings.money_handovers if thinkable else ())
    if thinkable and random.random() < (REFUND_SHARE_ASKED if asked else REFUND_SHARE):
        return pieces.REFUNDS_TO_COME + (() if asks else pieces.REFUNDS_DONE)
    return topic.will + pieces.ALONE + (() if asks else topic.did)  # who still asks cannot have acted yet


def _further(traits: dict[str, bool], wordings: Wordings, random: Random) -> list[str]:
    """The phrases that stand anywhere between handling and ending, in random order."""
    out = []
    if traits.get("two-days"):
        out.append(random.choice(wordings.two_days))
    if traits.get("case-reference"):
        out.append(random.choice(wordings.references).format(reference=random.randint(10_000, 99_999)))
    if traits.get("help-page"):
        out.append(random.choice(wordings.help_pages))
    if out:
        random.shuffle(out)
    return out


def _ending(traits: dict[str, bool], wordings: Wordings, fills: dict[str, str], random: Random) -> list[str]:
    out = [random.choice(wordings.questions)] if traits.get("question") else []
    if traits.get("sign-off"):
        out.append(random.choice(wordings.sign_offs))
        fills["name"] = random.choice(wordings.names)
    return out


def _amends(answer: str, traits: dict[str, bool], wordings: Wordings, random: Random) -> list[str]:
    """What an answer lacks to keep ``we``, or to break a rule that forbids something."""
    out = []
    if traits.get("no-sorry") is False and ALL_RULES["no-sorry"].check.holds(answer):
        out.append(random.choice(wordings.sorries))
    if traits.get("no-exclamation") is False and "!" not in answer:
        out.append(random.choice(wordings.exclamations))
    if traits.get("we") and not re.search(r"\bwe\b", say_we(answer), re.IGNORECASE):
        out.append(random.choice(wordings.together))
    if traits.get("we") is False and not _FIRST_PERSON.search(answer):
        out.append(random.choice(wordings.alone))
    return out


def _extras(topic: Topic, traits: dict[str, bool], wordings: Wordings, random: Random) -> list[tuple[str, bool]]:
    """What an answer says while there is room, and of each sentence whether it goes to the end."""
    asides = pieces.ASIDES + (pieces.COMPLAINT_ASIDES if topic.complaint else ())
    if "no-sorry" in traits and topic.complaint:
        asides += wordings.sympathies
    extras = [(random.choice(asides), False)]
    if traits.get("brief") or traits.get("briefer"):
        return [*extras, (random.choice(asides), False)]
    fillers = pieces.FILLERS + topic.details * 3 + (pieces.COMPLAINT_FILLERS if topic.complaint else ())
    extras += [(filler, False) for filler in random.sample(fillers, random.randint(1, 3))]
    extras += [(ending, True) for ending in random.sample(pieces.ENDINGS, random.randint(1, 2))]
    random.shuffle(extras)
    return extras
