"""Personal data that have a pattern, replaced by the name of their kind: addresses, telephone and card numbers.

What has no pattern stays: names, places, what people tell of themselves. Masking is a help to whoever looks through
the rows, and no proof that nothing is left.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from lifealign.data.collect.pairs import CollectedPair
from lifealign.data.pair import Message
from lifealign.errors import ConfigError

SPACES = " \u00a0\u2009\u202f"  # also those that do not break a line
HYPHENS = "\\-\u2010\u2011\u2013"  # in a class of characters
EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}\w{2,24}")
SEPARATORS = rf"[{SPACES}{HYPHENS}./()]{{0,2}}"  # between the digits of a telephone number
GAP = rf"[{SPACES}{HYPHENS}.]"
# A number begins neither inside a word or a decimal fraction nor at a date such as 01.02.2026. It is one of a named
# country (+49, 0049: 7 to 15 digits), one with a leading 0 (9 to 14 digits), or one of North America in its groups.
PHONE = re.compile(
    rf"""(?<![\w+])(?<!\d[.,])(?!\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{4}}(?!\d))(?:
        (?:\+|00)[1-9](?:{SEPARATORS}\d){{6,14}}
        |(?:\(0[1-9]\d{{1,4}}\)(?:{SEPARATORS}\d){{6,10}}|0[1-9](?:{SEPARATORS}\d){{7,12}})
        |(?:1{GAP})?(?:\([2-9]\d\d\){GAP}?|[2-9]\d\d{GAP})\d{{3}}{GAP}\d{{4}}
    )(?!\w)""",
    re.VERBOSE,
)
DIGITS = re.compile(rf"\d(?:[{SPACES}{HYPHENS}]?\d){{12,}}")  # a card number, perhaps between other numbers
GROUP = re.compile(r"\d+")
SHORTEST_CARD, LONGEST_CARD = 13, 19  # digits, ISO/IEC 7812


def parse_kinds(text: str) -> tuple[str, ...]:
    """The kinds that an option names, such as ``email,phone``.

    Raises:
        ConfigError: If it names another one.
    """
    named = [name.strip() for name in text.split(",")]
    for name in named:
        if name not in KINDS:
            raise ConfigError(f"--mask: found {name!r}, expected some of {', '.join(KINDS)}, with commas between them")
    return tuple(kind for kind in KINDS if kind in named)


def masked(text: str, kinds: Collection[str]) -> tuple[str, Counter[str]]:
    """A text in which personal data of some kinds are replaced, each by its kind in brackets, and how many were.

    Args:
        text: The text.
        kinds: Some of :data:`KINDS`.

    Example:
        >>> masked("Write to ann@example.org or call +49 30 1234567.", ("email", "phone"))
        ('Write to [email] or call [phone].', Counter({'email': 1, 'phone': 1}))
    """
    counts: Counter[str] = Counter()
    for kind, find in KINDS.items():  # in this order: an address may begin with a number, a card looks like a phone
        while spans := [*find(text)] if kind in kinds else []:  # what is masked may have hidden its neighbour
            parts, end = [], 0
            for start, stop in spans:
                parts += [text[end:start], f"[{kind}]"]
                end = stop
            text = "".join(parts) + text[end:]
            counts[kind] += len(spans)
    return text, counts


def mask_prompt(prompt: Sequence[Message], kinds: Collection[str]) -> tuple[tuple[Message, ...], Counter[str]]:
    """The same of every message of a conversation."""
    counts: Counter[str] = Counter()
    messages = []
    for message in prompt:
        text, found = masked(message.content, kinds)
        messages.append(Message(message.role, text))
        counts += found
    return tuple(messages), counts


def mask_pair(pair: CollectedPair, kinds: Collection[str]) -> CollectedPair:
    """The same of a pair, which notes how many were replaced in it."""
    if not kinds:
        return pair
    prompt, counts = mask_prompt(pair.prompt, kinds)
    chosen, in_chosen = masked(pair.chosen, kinds)
    rejected, in_rejected = masked(pair.rejected, kinds)
    return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected, masked=counts + in_chosen + in_rejected)


def _emails(text: str) -> Iterator[tuple[int, int]]:
    return (found.span() for found in EMAIL.finditer(text))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    return (found.span() for found in PHONE.finditer(text))


def _cards(text: str) -> Iterator[tuple[int, int]]:
    """Places of card numbers: 13 to 19 digits in whole groups whose check digit is right, the longest first."""
    for run in DIGITS.finditer(text):
        groups = [group.span() for group in GROUP.finditer(text, *run.span())]
        first = 0
        while first < len(groups):
            last = _card_from(text, groups, first)
            if last is not None:
                yield groups[first][0], groups[last][1]
            first = first + 1 if last is None else last + 1


def _card_from(text: str, groups: Sequence[tuple[int, int]], first: int) -> int | None:
    """The last group of the longest card number that begins with a group, or None."""
    digits, found = "", None
    for last in range(first, len(groups)):
        digits += text[slice(*groups[last])]
        if len(digits) > LONGEST_CARD:
            break
        if len(digits) >= SHORTEST_CARD and has_check_digit(digits):
            found = last
    return found


def has_check_digit(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (Luhn: every second one from the right is doubled).

    Example:
        >>> has_check_digit("4111111111111111"), has_check_digit("4111111111111112")
        (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


KINDS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {"email": _emails, "card": _cards, "phone": _phones}
"""What can be masked: each kind, and where a text holds it, as start and end from left to right."""
