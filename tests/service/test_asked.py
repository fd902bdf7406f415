"""What a client may ask, read without a server."""

from __future__ import annotations

from typing import Any

import pytest

from lifealign.data.pair import Message
from lifealign.service.asked import HARMLESS, NEUTRAL, BadRequest, ChatRequest

USER = {"role": "user", "content": "Hi"}


def parse(**fields: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "m", "messages": [USER]} | fields)


def test_both_names_of_the_length_are_one() -> None:
    assert parse(max_tokens=3).max_tokens == parse(max_completion_tokens=3).max_tokens == 3
    assert parse(max_tokens=3, max_completion_tokens=4).max_tokens == 4  # the newer name
    assert parse().max_tokens is None


def test_stop_is_one_text_or_several_or_none() -> None:
    assert (parse(stop="a").stop, parse(stop=["a", "b"]).stop, parse(stop=None).stop, parse().stop) == (
        ["a"],
        ["a", "b"],
        [],
        [],
    )


def test_messages_become_the_pair_s_own() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = parse(messages=[{"role": "developer", "content": parts}, USER, {"role": "assistant", "content": "x"}, USER])
    assert asked.conversation_so_far == [
        Message("system", "a\nb"),
        Message("user", "Hi"),
        Message("assistant", "x"),
        Message("user", "Hi"),
    ]


def test_every_neutral_value_is_accepted_and_any_other_refused() -> None:
    for field, values in NEUTRAL.items():
        for value in (None, *values):
            parse(**{field: value})
        with pytest.raises(BadRequest, match=rf"^{field}: found 'other', which is not supported") as caught:
            parse(**{field: "other"})
        assert caught.value.param == field
    for field in HARMLESS:
        parse(**{field: {"a": "b"}})


def test_true_is_not_one() -> None:
    """Python's ``True == 1``: a field that must be 1 is not satisfied by a truth value of another type by accident."""
    with pytest.raises(BadRequest, match="seed"):
        parse(seed=True)
    with pytest.raises(BadRequest, match="max_tokens"):
        parse(max_tokens=True)


def test_the_conversation_is_named_in_the_metadata_only() -> None:
    assert parse(metadata={"conversation": "c"}).conversation == "c"
    assert parse(metadata={"conversation": 3}).conversation is None
    with pytest.raises(BadRequest, match="conversation: is not supported"):
        parse(conversation="c")
