"""Preference rows of other trainers: the pair that each says, and what is wrong with it, in its own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.refusals import refusal
from tests.writers import write_jsonl

from lifealign.data.clean import clean_rows, read_clean
from lifealign.data.columns import foreign_shape, ignored_columns
from lifealign.data.formats import SHAPES, parse_row
from lifealign.data.pair import Message, Pair


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def spoken(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


USER, YES, NO = turn("user", "Hi"), turn("assistant", "yes"), turn("assistant", "no")
OPENAI = {"input": {"messages": [USER]}, "preferred_output": [YES], "non_preferred_output": [NO]}
SWIFT = {"messages": [USER, YES], "rejected_response": "no"}
LLAMA = {"conversations": [spoken("human", "Hi")], "chosen": spoken("gpt", "yes"), "rejected": spoken("gpt", "no")}
PAIR = Pair((Message("user", "Hi"),), "yes", "no")


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (OPENAI, "openai"),
        (OPENAI | {"input": {"messages": [USER], "tools": [], "parallel_tool_calls": True}}, "openai"),
        (SWIFT, "ms-swift"),
        (SWIFT | {"rejected_response": [NO]}, "ms-swift"),
        ({"messages": [USER, YES], "rejected_messages": [USER, NO]}, "ms-swift"),
        (SWIFT | {"images": [], "tools": None, "prompt": None}, "ms-swift"),
        (SWIFT | {"prompt": "Hi"}, "ms-swift"),
        (LLAMA, "llama-factory"),
        (LLAMA | {"chosen": "yes", "rejected": "no"}, "llama-factory"),
        (LLAMA | {"conversations": [USER], "chosen": YES, "rejected": NO}, "llama-factory"),
        (LLAMA | {"system": ""}, "llama-factory"),
    ],
)
def test_rows_of_other_trainers_say_the_same_pair(row: dict[str, Any], shape: str) -> None:
    assert parse_row(row, "f", 3) == (PAIR, shape)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "yes", "rejected": "no", "messages": [USER, YES], "rejected_response": "never"},
        {"prompt": "Hi", "chosen": "yes", "rejected": "no", "preferred_output": [NO]},
        {"prompt": "Hi", "chosen": "yes", "rejected": "no", "conversations": [spoken("human", "Bye")]},
        {"chosen": [USER, YES], "rejected": [USER, NO], "conversations": [spoken("human", "Bye")]},
    ],
)
def test_our_own_columns_come_first(row: dict[str, Any]) -> None:
    assert foreign_shape(row) is None
    assert parse_row(row, "f", 3)[0] == PAIR


def test_what_comes_before_the_last_turn_is_the_prompt() -> None:
    begin = [turn("system", "Be kind."), USER, turn("assistant", "Hello"), turn("user", "Is it?")]
    expected = Pair(tuple(Message(**message) for message in begin), "yes", "no")
    said = {"system": "system", "user": "human", "assistant": "gpt"}
    rows = [
        OPENAI | {"input": {"messages": [turn("developer", "Be kind."), *begin[1:]]}},
        {"messages": [*begin, YES], "rejected_response": "no"},
        {"messages": [*begin, YES], "rejected_messages": [*begin, NO]},
        LLAMA | {"conversations": [spoken(said[one["role"]], one["content"]) for one in begin]},
        LLAMA
        | {"conversations": [spoken(said[one["role"]], one["content"]) for one in begin[1:]], "system": "Be kind."},
    ]
    assert [parse_row(row, "f", 1)[0] for row in rows] == [expected] * len(rows)


LAST = "a prompt that ends with the user's turn"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (
            {name: OPENAI[name] for name in ("preferred_output", "non_preferred_output")},
            (
                "input",
                "no such field among 'preferred_output', 'non_preferred_output'",
                "an object with messages",
            ),
        ),
        (OPENAI | {"input": "Hi"}, ("input", "the string 'Hi'", "an object with messages")),
        (OPENAI | {"input": {}}, ("input.messages", "null", "a string or a list of messages")),
        (OPENAI | {"input": {"messages": [YES]}}, ("input.messages[0].role", "'assistant'", None)),
        (OPENAI | {"input": {"messages": [USER], "tools": [{}]}}, ("input.tools", "a list of 1", None)),
        (
            OPENAI | {"preferred_output": [YES, NO]},
            ("preferred_output", "messages from assistant, assistant", "one message, from the assistant"),
        ),
        ({"input": OPENAI["input"], "preferred_output": [YES]}, ("non_preferred_output", None, "the other answer")),
        (OPENAI | {"prompt": "Bye"}, ("prompt", "a different prompt", None)),
        (SWIFT | {"messages": [USER]}, ("messages", "messages from user", "one message, from the assistant")),
        (SWIFT | {"messages": [YES]}, ("messages", "no turn from the user", LAST)),
        ({"rejected_response": "no"}, ("messages", "null", "a string or a list of messages")),
        (SWIFT | {"rejected_response": None}, ("rejected_response", "null", "a string or a list of messages")),
        (
            SWIFT | {"rejected_messages": [USER, NO]},
            ("rejected_messages", "rejected_response beside it", "one of the two"),
        ),
        (
            {"messages": [USER, YES], "rejected_messages": [turn("user", "Bye"), NO]},
            ("messages", "user, assistant after the 0 turns that chosen and rejected share", None),
        ),
        (SWIFT | {"images": ["cat.png"]}, ("images", "a list of 1", None)),
        (SWIFT | {"rejected_images": ["cat.png"]}, ("rejected_images", "a list of 1", None)),
        (SWIFT | {"objects": {"ref": ["a dog"]}}, ("objects", "an object with 'ref'", None)),
        (SWIFT | {"input": "of 7 May"}, ("input", "the string 'of 7 May'", None)),
        (LLAMA | {"tools": "[{}]"}, ("tools", None, None)),
        (LLAMA | {"conversations": {"from": "human"}}, ("conversations", "an object with 'from'", None)),
        (LLAMA | {"conversations": ["Hi"]}, ("conversations[0]", "the string 'Hi'", "a turn with from and value")),
        (
            LLAMA | {"conversations": [spoken("observation", "7 °C")]},
            ("conversations[0].from", "the string 'observation'", "'system', 'human' or 'gpt'"),
        ),
        (LLAMA | {"conversations": [{"from": "human"}]}, ("conversations[0].value", None, "a string")),
        (LLAMA | {"conversations": [spoken("gpt", "Hi")]}, ("conversations[0].role", "'assistant'", None)),
        (
            LLAMA | {"chosen": spoken("human", "yes")},
            ("chosen", "messages from user", "one message, from the assistant"),
        ),
        ({"messages": [USER, YES]}, ("chosen", "no such field among 'messages'", SHAPES)),
    ],
)
def test_a_bad_row_is_refused_in_the_words_of_its_trainer(
    row: dict[str, Any], fault: tuple[str, str | None, str | None]
) -> None:
    found = refusal(lambda: parse_row(row, "f", 3))
    assert found[:2] == ("f", 3)
    assert [one for one, wanted in zip(found[2:], fault, strict=True) if wanted is not None] == [
        wanted for wanted in fault if wanted is not None
    ]


def test_columns_that_are_read_are_not_said_to_be_ignored_and_others_are() -> None:
    weighed = [YES | {"weight": 1}]
    rows = [
        OPENAI | {"input": {"messages": [USER], "parallel_tool_calls": True}, "preferred_output": weighed, "id": 7},
        SWIFT | {"margin": 0.5, "messages": [USER, YES | {"loss": True}]},
        LLAMA | {"score": 9, "conversations": [spoken("human", "Hi") | {"weight": 0}]},
        LLAMA | {"chosen": spoken("gpt", "yes") | {"source": "gpt-4"}},
        {"prompt": "Hi", "chosen": "yes", "rejected": "no", "messages": [USER], "conversations": [USER]},
    ]
    assert [ignored_columns(row) for row in rows] == [
        ["id", "input.parallel_tool_calls", "preferred_output[].weight"],
        ["margin", "messages[].loss"],
        ["score", "conversations[].weight"],
        ["chosen[].source"],
        ["messages", "conversations"],
    ]


def test_a_file_may_mix_the_shapes(tmp_path: Path) -> None:
    clean = read_clean(write_jsonl(tmp_path / "rows.jsonl", [OPENAI, SWIFT, LLAMA, OPENAI]))
    assert clean.pairs == (PAIR,)
    assert clean.shapes == {"openai": 2, "ms-swift": 1, "llama-factory": 1}
    assert {reason: len(places) for reason, places in clean.dropped.items()} == {"duplicate": 3}
    assert clean.ignored == {}


def test_a_prompt_without_text_is_dropped_as_in_any_other_shape() -> None:
    rows = [OPENAI | {"input": {"messages": [turn("user", " ")]}}, OPENAI]
    assert clean_rows("f", enumerate(rows, 1)).dropped == {"empty prompt": ["f:1"]}
