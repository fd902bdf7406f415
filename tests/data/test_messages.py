"""One field: what a message may hold, and when a text is a list of messages that went through CSV or JSON."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.refusals import refusal

from lifealign.data import messages
from lifealign.data.formats import parse_row
from lifealign.data.messages import content_of
from lifealign.data.pair import Message, Pair
from lifealign.errors import DataError

fault = partial(DataError, "f", line=1)
ROW = {"prompt": "Hi", "chosen": "yes", "rejected": "no"}
ASK = (Message("user", "Hi"),)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TALK = [turn("user", "Hi"), turn("assistant", "yes")]
NUMPY = "[{'content': 'Hi', 'role': 'user'}\n {'content': 'yes', 'role': 'assistant'}]"


@pytest.mark.parametrize("write", [json.dumps, repr, partial(json.dumps, indent=2), lambda rows: f" {rows!r}\n"])
def test_a_list_that_went_through_text_says_the_same_pair(write: Any) -> None:
    whole = {"chosen": write(TALK), "rejected": write([TALK[0], turn("assistant", "no")])}
    assert parse_row(whole, "f", 1) == (Pair(ASK, "yes", "no"), "implicit")
    assert parse_row({"prompt": "Hi", **whole}, "f", 1) == (Pair(ASK, "yes", "no"), "implicit")
    single = {"prompt": write([TALK[0]]), "chosen": write([TALK[1]]), "rejected": "no"}
    assert parse_row(single, "f", 1) == (Pair(ASK, "yes", "no"), "conversational")


# As json and repr write whatever a message may hold: quotes of both kinds, brackets, line ends, other keys first.
@given(st.lists(st.tuples(st.sampled_from(messages.ROLES), st.text()), min_size=1, max_size=4), st.booleans())
def test_any_messages_come_back_from_both_spellings(turns: list[tuple[str, str]], content_first: bool) -> None:
    rows = [{"content": text, "role": role} if content_first else turn(role, text) for role, text in turns]
    for written in (json.dumps(rows), json.dumps(rows, ensure_ascii=False), repr(rows), json.dumps(json.dumps(rows))):
        try:
            found = content_of(written, "chosen", fault)
        except DataError as error:  # what no file can carry, written or not
            assert "position" in str(error)
        else:
            assert found == tuple(Message(role, text) for role, text in turns)


@pytest.mark.parametrize(
    "text",
    [
        "[sic] the role of content",
        "[1, 2, 3]",
        '[{"name": "Ann", "role": "admin"}]',  # an answer in JSON
        '[{"from": "Rome", "to": "Paris"}]',
        '{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}',
        "See [{'role': 'user', 'content': 'Hi'}]",
        "{% if role %}",
        "[]",
    ],
)
def test_a_text_that_only_looks_a_little_like_messages_stays_a_text(text: str) -> None:
    assert content_of(text, "chosen", fault) == text


def test_the_content_of_a_message_is_never_parsed() -> None:
    text = repr(TALK)
    assert content_of([turn("assistant", text)], "chosen", fault) == (Message("assistant", text),)


LIST = "a list in JSON or Python notation; if a plain text is meant, put it into a message's content"
CUT = "a list written as text that is cut short, followed by other text, or not a flat list"
BROKEN = "a list written as text that does not parse"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (repr(TALK)[:-20], CUT),
        (repr(TALK) + " is what I sent", CUT),
        (NUMPY, BROKEN),
        (f"array({NUMPY}, dtype=object)", CUT),
        ("[{'role': 'user', 'content': __import__('os').getcwd()}]", CUT),
        ("[{'role': 'user', 'content': " + "[" * 5000 + "]" * 5000 + "}]", CUT),
        ("[{'role': 'user', 'content': " + "-" * 100_000 + "1}]", CUT),
        ("[" + "{'role': 'user', 'content': 'x'}," * 40_000 + "]", CUT),
        ("[{'role': 'user'", CUT),
        ('[{"role": "user", "role": "assistant", "content": "x"}]', BROKEN),
    ],
)
def test_a_list_that_does_not_come_back_is_refused_with_line_and_field(text: str, found: str) -> None:
    shown = f"{found}: {text[:40]!r}"
    assert refusal(lambda: parse_row(ROW | {"chosen": text}, "f", 7)) == ("f", 7, "chosen", shown, LIST)


def test_one_message_as_text_is_no_list() -> None:
    text = "{'role': 'assistant', 'content': 'yes'}"
    fault = ("f", 7, "chosen", "an object with 'role', 'content'", "a string or a list of messages")
    assert refusal(lambda: parse_row(ROW | {"chosen": text}, "f", 7)) == fault


def test_a_written_list_of_other_messages_is_refused_as_such_a_list_is() -> None:
    row = ROW | {"chosen": "[{'from': 'human', 'value': 'Hi'}]"}
    fault = ("f", 7, "chosen[0].role", "no such field among 'from', 'value'", "a string")
    assert refusal(lambda: parse_row(row, "f", 7)) == fault


def test_a_written_list_has_a_longest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "LONGEST_WRITTEN", 100)
    row = ROW | {"chosen": json.dumps([turn("user", "x" * 100)])}
    fault = ("f", 7, "chosen", "a list written as text, of more than 100 characters", LIST)
    assert refusal(lambda: parse_row(row, "f", 7)) == fault


def test_content_in_parts_of_text_is_joined_as_it_is() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b", "image_url": None}]
    assert content_of([turn("user", parts)], "prompt", fault) == (Message("user", "a b"),)
    assert content_of([turn("user", [])], "prompt", fault) == (Message("user", ""),)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "a part of type 'image_url'"),
        ({"type": "image"}, "a part of type 'image'"),
        ({"type": "text", "text": 7}, "an object with 'type', 'text'"),
        ({"type": "text", "text": "a", "image": "b.png"}, "an object with 'type', 'text', 'image'"),
        ("a", "the string 'a'"),
    ],
)
def test_a_part_that_is_not_text_is_refused(part: Any, found: str) -> None:
    message = turn("user", [{"type": "text", "text": "a"}, part])
    expected = "{'type': 'text', 'text': a string} and nothing else: only text is learnt"
    place = ("f", 1, "prompt[0].content[1]")
    assert refusal(lambda: content_of([message], "prompt", fault)) == (*place, found, expected)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("tool_calls", [{"function": {"name": "w"}}], "a list of 1"),
        ("reasoning_content", "Let me see.", "the string 'Let me see.'"),
        ("name", "Ann", "the string 'Ann'"),
        ("images", ["a.png"], "a list of 1"),
    ],
)
def test_keys_of_a_message_that_say_something_are_refused_and_empty_ones_are_nothing(
    key: str, value: Any, found: str
) -> None:
    for nothing in (None, "", [], {}):
        assert content_of([turn("user", "a", **{key: nothing})], "prompt", fault) == (Message("user", "a"),)
    message = turn("assistant", None, **{key: value})
    expected = "role and content only: only text is learnt; write what matters into the content"
    place = ("f", 1, f"chosen[0].{key}")
    assert refusal(lambda: content_of([message], "chosen", fault)) == (*place, found, expected)
