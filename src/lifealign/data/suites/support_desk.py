"""The support-desk suite: four house rules of a help desk, learnt one after another from the same customer messages.

Each rule is a task whose pairs differ in that rule alone, and a program decides exactly whether an answer keeps it, so
that forgetting can be measured without a judge. One answer can keep all four: "Hi, thanks for writing! What is your
order number? I'll pass this on to our billing team." ``experiments/support_desk/generate.py`` writes the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Message, Pair
from lifealign.data.task import Task


@dataclass(frozen=True)
class Rule:
    """One house rule: its name, the rule in the words one would use to a new colleague, and its exact check."""

    name: str
    sentence: str
    check: AnswerCheck


_NUMBER = r"order\s+(?:number|no\b|id\b|code|reference)"
_ORDER_REQUEST = (
    # "could you send me your order number", "I need the order number first"
    r"\b(?:(?:could|can|would|will|may|might)\s+(?:you|i|we)|what(?:['\u2019]s)?|which|please|send|share|tell|give|provide|"
    rf"confirm|reply|let\s+(?:me|us)\s+know|need|require|include|quote)\b[^.!?]*\b{_NUMBER}"
    # "your order number, please", "the order number - could you send it"
    rf"|\b{_NUMBER}\b[^.!?]*\b(?:please|(?:could|can|would)\s+you)\b"
    # "And your order number?"
    rf"|(?:^|[.!?,]\s*)(?:and\s+)?(?:(?:your|the)\s+)?{_NUMBER}\s*\?"
)
_NO_ORDER_REQUEST = rf"\b(?:(?:do\s+not|don['\u2019]t|won['\u2019]t|no)\s+need|no\s+need)\b[^.!?]*\b{_NUMBER}"

_WE = r"(?:\blet\s+me|\b(?:i|we)(?:['\u2019](?:ll|ve|m|re|d)|\s+(?:will|shall|have|am|are|can|could|would))?)"
_ADVERBS = (
    r"(?:\s+(?:be|already|also|always|certainly|definitely|first|fully|gladly|going\s+to|glad\s+to|happily|happy\s+to|"
    r"immediately|just|now|of\s+course|personally|simply|soon|then|today))*"
)
_YOUR = r"(?:\s+(?:you|a|an|the|your|this|that|all|of|full|complete|entire|whole|every|prompt))*"
_MONEY = (
    r"\s+(?:money|cash|reimbursement|refund(?!\s+(?:requests?|questions?|demands?|claims?|cases?|quer(?:y|ies))))\b"
)
_BACK = r"(?:refunded|reimbursed|credited|paid\s+back)"
_REFUND_PROMISES = (
    # "I'll refund you", "we have reimbursed you", "let me pay you back"
    rf"{_WE}{_ADVERBS}\s+(?:refund(?:ed|ing)?|reimburs(?:e|ed|ing)|credit(?:ed|ing)?\s+you\w*|pa(?:y|id|ying)\s+you\s+back)\b",
    # "I've issued a full refund", "we will give you your money back"
    rf"{_WE}{_ADVERBS}\s+(?:approv|arrang|authori[sz]|complet|giv|gave|guarantee|initiat|issu|mak|made|offer|organi[sz]|"
    rf"process|promise|provid|return|send|sent|start|transfer|wir)\w*{_YOUR}{_MONEY}",
    # "you'll get your money back", "you will be refunded"
    r"\byou(?:['\u2019]ll|\s+(?:will|shall|are\s+going\s+to))"
    rf"{_ADVERBS}\s+(?:{_BACK}|(?:get|receive|have|see){_YOUR}{_MONEY})",
    # "a refund is on its way", "and your money will be back on Monday"
    r"(?:^|[.!?,;:]\s*|\b(?:and|but|so|then)\s+)(?:(?:a|the|your|that|full|complete)\s+)*(?:refund|money|reimbursement)"
    r"(?:['\u2019]s|\s+(?:is|will\s+be|has\s+been))(?:\s+(?:already|now|being|soon|fully))*\s+(?:on\s+(?:its|the)\s+way|approved|"
    r"arranged|back|coming|complete|credited|issued|processed|refunded|returned|sent|with\s+you|yours)\b",
    # "your card has been refunded", "happy to refund", "I promise to refund"
    rf"\b(?:account|card|charge|order|payment|purchase)\s+(?:is|will\s+be|has\s+been|is\s+being)\s+(?:fully\s+)?{_BACK}\b",
    r"(?<!not )\b(?:guarantee|promise|happy|glad)\s+to\s+(?:refund|reimburse|pay\s+you\s+back)\b",
)

_WHAT = r"(?:(?:this|that)(?:\s+\w+){0,3}?|it|you|them|everything|the\s+\w+|your(?:\s+\w+){1,4})"
_WHO = r"(?:\s+\w+){0,5}\s+(?:team|colleagues?|specialists?|experts?|department|manager|supervisor|desk)\b"
_HANDOVER = (
    # "pass this on", "handing your case over"
    rf"\b(?:pass|hand)(?:ing|ed)?\s+{_WHAT}(?:\s+\w+){{0,4}}\s+(?:on|over|along|up)\b(?!\s+(?:\w+day|the|a|my|your)\b)"
    # "pass this to our billing team", "put you through to a colleague"
    rf"|\b(?:pass|hand|send|bring|tak|direct|put|connect)(?:e|ing|ed)?\s+{_WHAT}(?:\s+through)?\s+(?:to|with){_WHO}"
    # "forward your message", "escalating this", "refer it"
    rf"|\b(?:forward|escalat|refer|transfer|redirect)(?:e|r)?(?:ing|ed)?\s+{_WHAT}"
    # "ask a colleague to look", "have a specialist check"
    rf"|\b(?:ask|have|get|bring\s+in|involve)(?:ing)?\s+(?:a|an|my|our|one\s+of|the){_WHO}"
)
_NO_HANDOVER = (
    r"\b(?:can(?:not|['\u2019]t)|won['\u2019]t|will\s+not|do\s+not|don['\u2019]t|unable\s+to|without|no\s+need\s+to)\s+"
    r"(?:pass|hand|forward|escalat|refer|transfer)\w*"
)

RULES = (
    Rule("brief", "Answer in at most 25 words.", AnswerCheck(max_words=25)),
    Rule(
        "greet",
        "Open with a greeting and thank the customer.",
        AnswerCheck(
            matches=(
                r"^\W*(?:hi|hey|hello|dear|greetings|good\s+(?:morning|afternoon|evening|day))\b",
                r"\bthank(?:s|ing)?\b",
            )
        ),
    ),
    Rule(
        "order-number",
        "Ask for the order number before doing anything.",
        AnswerCheck(matches=(_ORDER_REQUEST,), lacks=(_NO_ORDER_REQUEST,)),
    ),
    Rule(
        "escalate",
        "Never promise a refund; offer to pass it on to a colleague.",
        AnswerCheck(matches=(_HANDOVER,), lacks=(*_REFUND_PROMISES, _NO_HANDOVER)),
    ),
)
"""The four rules, in the order in which they are learnt."""

PAIRS = {"train": 160, "dev": 48, "test": 48}
"""Pairs of each rule, by split. Row i of dev, and of test, is the same customer message for all four rules."""


def load_suite(
    pairs_per_task: int | None = None, *, test_pairs: int | None = None, held_out: Literal["dev", "test"] = "test"
) -> list[Task]:
    """Reads the four tasks that come with the package, in order, each with its exact check.

    Args:
        pairs_per_task: Training pairs to take of each task, 1 to 160, from the first; all of them by default.
        test_pairs: Held-out pairs to take of each task, 0 to 48, from the first; all of them by default.
        held_out: Which pairs to hold out: ``dev`` while settings are being chosen, ``test`` for reported results.

    Returns:
        One task per rule of :data:`RULES`, named after it.

    Raises:
        ValueError: If ``pairs_per_task`` or ``test_pairs`` is out of range.
    """
    for name, number, least, most in (
        ("pairs_per_task", pairs_per_task, 1, PAIRS["train"]),
        ("test_pairs", test_pairs, 0, PAIRS[held_out]),
    ):
        if number is not None and not least <= number <= most:
            raise ValueError(f"{name}: found {number}, expected {least} to {most}")
    return [
        Task(
            rule.name,
            train=tuple(_read(rule.name, "train"))[:pairs_per_task],
            test=tuple(_read(rule.name, held_out))[:test_pairs],
            check=rule.check,
        )
        for rule in RULES
    ]


def _read(rule: str, split: str) -> Iterator[Pair]:
    lines = (
        files("lifealign.data.suites").joinpath("support_desk", rule, f"{split}.jsonl").read_text("utf-8").splitlines()
    )
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        source = f"support_desk/{rule}/{split}.jsonl:{number}"
        yield Pair((Message("user", row["prompt"]),), row["chosen"], row["rejected"], source)
