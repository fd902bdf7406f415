"""Masking: what is taken for an address, a card or a telephone number, what is not, and what it does to pairs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.collect.logs import collected, counts, said, texts
from tests.data.collect.logs import given as answered

from lifealign.data.collect.masking import KINDS, has_check_digit, masked, parse_kinds
from lifealign.errors import ConfigError

ALL = tuple(KINDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ann.b+shop@mail.example.co.uk.", "Write to [email]."),
        ("<mailto:jürgen@bücher.example>,x@y.de;z@y.de", "<mailto:[email]>,[email];[email]"),
        ("0151234567@provider.example", "[email]"),  # not a telephone number before an address
        ("a@b, @ann, ann@localhost, 5 @ 3.50", "a@b, @ann, ann@localhost, 5 @ 3.50"),
    ],
)
def test_addresses(text: str, expected: str) -> None:
    assert masked(text, ALL)[0] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111111111111111", "[card]"),
        ("Card 4111 1111 1111 1111, please", "Card [card], please"),
        ("4111-1111-1111-1111", "[card]"),
        ("4111\u00a01111\u00a01111\u00a01111", "[card]"),
        ("3782 822463 10005", "[card]"),  # 15 digits
        ("5 4111 1111 1111 1111 12 27", "5 [card] 12 27"),  # between other numbers
        ("5555555555554444 4111111111111111", "[card] [card]"),
        (" ".join("0" * 20), "[card] 0"),  # numbers that overlap: the first and longest, then what is left
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),  # a wrong check digit
        ("411111111111", "411111111111"),  # 12 digits
        ("41111111111111111111111", "41111111111111111111111"),  # more than 19 in one group
        ("4111  1111  1111  1111", "4111  1111  1111  1111"),  # two spaces: not one number
    ],
)
def test_cards(text: str, expected: str) -> None:
    assert masked(text, ("card",))[0] == expected


@pytest.mark.parametrize(
    "number",
    [
        "+49 30 1234567",
        "+49 (0)30 123 45 67",
        "+4915123456789",
        "0049 30 1234567",
        "+1-415-555-2671",
        "030 1234567",
        "(030) 123 456 78",
        "030/1234567",
        "0151-23456789",
        "01 23 45 67 89",
        "01.23.45.67.89",
        "07700 900123",
        "415-555-2671",
        "(415) 555-2671",
        "1 415 555 2671",
        "415.555.2671",
    ],
)
def test_telephone_numbers(number: str) -> None:
    for text in ("{}", "Call {}.", "tel:{}, or write", "({})", "{}\nThanks"):
        if not (number.startswith("(") and text == "({})"):
            assert masked(text.format(number), ("phone",)) == (text.format("[phone]"), {"phone": 1})


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-27T12:00:00Z",
        "27.11.2026, 01.02.2026 18.00 h, 01/02/2026",
        "Order 4155552671 of 2026-11-27",
        "0.123456789 and 3.14159265358979 and 1.0123456789",
        "10:30 - 11:45, 08:00-09:00",
        "192.168.0.1, 127.0.0.1:8000",
        "version 0.12.4, room 007, 00-base",
        "a1b2c3d4-0123456789ab",
        "1 000 000 000 and 12345 and 0000000000",
        "555-1234",
    ],
)
def test_what_is_no_telephone_number_stays(text: str) -> None:
    assert masked(text, ("phone",))[0] == text


def test_only_the_kinds_that_are_named_are_masked_and_each_is_counted() -> None:
    text = "a@b.example, c@d.example, 4111 1111 1111 1111, +49 30 1234567"
    assert masked(text, ALL) == ("[email], [email], [card], [phone]", {"email": 2, "card": 1, "phone": 1})
    assert masked(text, ("card",)) == (text.replace("4111 1111 1111 1111", "[card]"), {"card": 1})
    assert masked(text, ()) == (text, {})


@given(st.text(alphabet="0149 +-()./@ab.\n", max_size=60))
def test_masking_twice_changes_nothing_more_and_counts_what_it_writes(text: str) -> None:
    once, found = masked(text, ALL)
    assert masked(once, ALL) == (once, {})
    assert sum(found.values()) == once.count("[")


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a@" * 100_000, "0 " * 50_000, "+1" * 100_000, "1.1/" * 50_000, "(0" * 90_000]
)
def test_long_texts_take_no_time(text: str) -> None:
    start = time.process_time()
    masked(text, ALL)
    assert time.process_time() - start < 10  # a second or two; whatever grows with the square takes hours


@pytest.mark.parametrize("digits", ["79927398713", "0", "18", "4012888888881881", "6011111111111117"])
def test_check_digits(digits: str) -> None:
    assert has_check_digit(digits)
    assert not any(has_check_digit(digits[:-1] + other) for other in "0123456789" if other != digits[-1])


def test_kinds_are_named_with_commas_and_others_are_refused() -> None:
    assert parse_kinds("phone, email") == ("email", "phone")
    assert parse_kinds("card,card") == ("card",)
    for wrong, named in (("email,adress", "'adress'"), ("email;card", "'email;card'"), ("email,", "''")):
        with pytest.raises(ConfigError) as caught:
            parse_kinds(wrong)
        assert str(caught.value) == (
            f"--mask: found {named}, expected some of email, card, phone, with commas between them"
        )


# -- in a collection ---------------------------------------------------------------------------------------------------


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Shop of s@shop.example."}, {"role": "user", "content": text}]


def test_prompt_and_both_answers_are_masked_and_counted(tmp_path: Path) -> None:
    rows = [
        answered("a", "Call 030 1234567.", messages=asked("I am ann@x.example, where is it?")),
        said("a", edited="Ann (ann@x.example), it is on its way."),
    ]
    (pair,) = collected(tmp_path, rows, kinds=("email", "phone")).pairs
    assert [message.content for message in pair.prompt] == ["Shop of [email].", "I am [email], where is it?"]
    assert (pair.chosen, pair.rejected) == ("Ann ([email]), it is on its way.", "Call [phone].")
    assert pair.masked == {"email": 3, "phone": 1}


def test_a_choice_is_between_answers_to_what_was_really_asked(tmp_path: Path) -> None:
    rows = [
        answered("a", "Yes.", messages=asked("I am ann@x.example")),
        answered("b", "No.", messages=asked("I am ben@x.example")),
        said("a", preferred_over="b"),
    ]
    found = collected(tmp_path, rows, kinds=("email",))
    assert counts(found) == {"choices between answers to different prompts": 1}


def test_pairs_that_masking_makes_equal_are_one_and_answers_that_it_makes_equal_are_none(tmp_path: Path) -> None:
    rows = [
        answered("a", "No.", messages=asked("I am ann@x.example")),
        answered("b", "No.", messages=asked("I am ben@x.example")),
        answered("c", "Write to c@shop.example", messages=asked("Whom do I ask?")),
        said("a", edited="Yes."),
        said("b", edited="Yes."),
        said("c", edited="Write to d@shop.example"),
    ]
    found = collected(tmp_path, rows, kinds=("email",))
    assert texts(found) == [("edited", "Yes.", "No.")]
    assert counts(found) == {"pairs that are there already": 1, "pairs of two equal answers": 1}
    assert len(collected(tmp_path, rows).pairs) == 3
