"""Further house rules for longer streams, each with its exact check; the suite of the package has the first four only.

Any of them goes with any other, in any order, with two limits:

- The rules of :data:`LENGTHENING` add a phrase to an answer. 25 words leave room for a sign-off, and for none of the
  others where an answer keeps ``greet``, ``order-number`` or ``email``, and ``escalate``; 15 words leave room for none.
- ``briefer`` and ``email`` are updates: each takes the place of the earlier rule in :data:`UPDATES`, and follows it
  where a stream has both.

Eleven can all hold in one answer: ``greet``, ``order-number``, ``escalate`` and the first eight of :data:`MORE_RULES`.
"""

from __future__ import annotations

from collections.abc import Sequence

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.suites.support_desk import RULES, Rule

_FORMULA = (
    r"(?:(?:with\s+|our\s+)?(?:(?:kind|kindest|best|warm|warmest|friendly)\s+)?(?:regards|wishes|greetings)|(?:all\s+the\s+)?best"
    r"|yours(?:\s+(?:truly|sincerely|faithfully))?|sincerely(?:\s+yours)?|warmly|cordially|take\s+care|cheers|(?:many\s+)?thanks"
    r"|thank\s+you|(?:until|talk|speak|see\s+you)\s+soon|have\s+a\s+(?:good|great|nice|lovely|pleasant)\s+\w+)"
)
_NAME = (  # "Dana", "Dana Reed", "Dana from the delivery team"; not "Your Support Team"
    r"(?-i:(?!(?:The|Your|Our|Customer|Support|Team|Service|Dear|And|We|I|You)\b)[A-Z][a-z]+(?:\s+[A-Z][a-z]*\.?)?)"
    r"(?:,?\s*(?:(?:from|at|of)\s+)?(?:(?:the|your|our)\s+)?(?:[\w-]+\s+){0,3}(?:team|desk|support|service|shop))?"
)
_NAMED_SIGN_OFF = rf"(?:^|[.!?:;)]|\n)\s*{_FORMULA}\W{{1,4}}{_NAME}[.!]?$"
_LAST_QUESTION = rf"\?[\s\"'\u201d)]*(?:{_FORMULA}(?:\W{{1,4}}{_NAME})?[.!,]?)?$"

_EMAIL = r"e-?mail\s+address"
_ASK = (
    r"(?:could|can|would|will|may|might)\s+(?:you|i|we)|what|which|please|(?:i|we)(?:['\u2019]ll)?\s+(?:will\s+|do\s+)?need"
    r"|reply\s+with|let\s+(?:me|us)\s+know|tell\s+(?:me|us)|send\s+(?:me|us)"
)
_EMAIL_REQUEST = (
    # "could you send me your e-mail address", "I need your e-mail address first"
    rf"\b(?:{_ASK})\b[^.!?]*\b{_EMAIL}\b"
    # "what's your email?"
    r"|\bwhat(?:['\u2019]s|\s+is)\s+your\s+e-?mail\s*\?"
    # "your e-mail address, please", "and your e-mail address?"
    rf"|\b{_EMAIL}\b[^.!?]*\bplease\b|(?:^|[.!?,]\s*)(?:and\s+)?(?:your|the)\s+{_EMAIL}\s*\?"
)
_NO_EMAIL_REQUEST = rf"\b(?:do\s+not|don['\u2019]t|won['\u2019]t|no)\s+need\b[^.!?]*\b{_EMAIL}\b"

_ORDER_NUMBER = next(rule.check for rule in RULES if rule.name == "order-number")

MORE_RULES = (
    Rule("sign-off", "End with a sign-off that has a name.", AnswerCheck(matches=(_NAMED_SIGN_OFF,))),
    Rule("no-sorry", "Never say sorry.", AnswerCheck(lacks=(r"\bsorry\b", r"\bapolog", r"\bregret"))),
    Rule(
        "two-days",
        "Say that the customer hears from us within two working days.",
        AnswerCheck(matches=(r"\bwithin\s+(?:two|2)\s+working\s+days\b",)),
    ),
    Rule("we", "Say we, never I.", AnswerCheck(matches=(r"\bwe\b",), lacks=(r"\b(?:i|me|my|mine|myself)\b",))),
    Rule(
        "question", "Let the last sentence before any sign-off be a question.", AnswerCheck(matches=(_LAST_QUESTION,))
    ),
    Rule(
        "case-reference", "Give the customer a case reference such as C-20431.", AnswerCheck(matches=(r"\bC-\d{5}\b",))
    ),
    Rule(
        "help-page",
        "Name the help page.",
        AnswerCheck(matches=(r"\bhelp[\s-]+pages?\b",), lacks=(r"\bno\s+help\W+page",)),
    ),
    Rule("no-exclamation", "Use no exclamation mark.", AnswerCheck(lacks=("!",))),
    Rule("briefer", "Answer in at most 15 words.", AnswerCheck(max_words=15)),
    Rule(
        "email",
        "Ask for the e-mail address, and not for the order number, before doing anything.",
        AnswerCheck(matches=(_EMAIL_REQUEST,), lacks=(_NO_EMAIL_REQUEST, *_ORDER_NUMBER.matches)),
    ),
)
"""Eight rules that go with ``greet``, ``order-number`` and ``escalate``, and then the two updates."""

ALL_RULES = {rule.name: rule for rule in (*RULES, *MORE_RULES)}
"""Every rule of a stream by its name."""

UPDATES = {"briefer": "brief", "email": "order-number"}
"""Rules that take the place of an earlier one."""

LENGTHENING = ("sign-off", "two-days", "question", "case-reference", "help-page")
"""Rules that add a phrase to an answer."""


def check_stream(names: Sequence[str]) -> None:
    """Refuses a stream that no answers can be written for.

    Raises:
        ValueError: If a rule is unknown or there twice, an update precedes its rule, or rules do not go together.
    """
    for number, name in enumerate(names):
        if name not in ALL_RULES:
            raise ValueError(f"rules: found {name!r}, expected any of {', '.join(ALL_RULES)}")
        if name in names[:number]:
            raise ValueError(f"rules: found {name!r} twice, expected each once")
        if UPDATES.get(name) in names[number:]:
            raise ValueError(
                f"rules: found {name!r} before {UPDATES[name]!r}, expected an update after what it updates"
            )
    for name, room in (("brief", ("sign-off",)), ("briefer", ())):
        long = [other for other in names if other in LENGTHENING and other not in room]
        if name in names and long:
            raise ValueError(f"rules: found {name!r} with {', '.join(long)}, expected one or the other: too many words")
