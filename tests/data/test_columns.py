"""Columns beside prompt and answers: what becomes of each that means something, or who refuses it and how."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.refusals import refusal

from lifealign.data.formats import UnclearTranscript, parse_row

ROW = {"prompt": "Hi", "chosen": "yes", "rejected": "no"}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def talk(*begin: dict[str, str]) -> dict[str, Any]:
    """Two whole conversations that begin alike."""
    return {name: [*begin, turn("assistant", answer)] for name, answer in (("chosen", "yes"), ("rejected", "no"))}


USER, SYSTEM = turn("user", "Hi"), turn("system", "Be kind.")
SAID = [turn("user", "I am Ann"), turn("assistant", "Hi Ann")]
NOTHING = (None, "", " \n", [], {}, "[]", "{}", float("nan"))


def read(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The prompt that a row says, after a look at its answers."""
    pair, _ = parse_row(row, "f", 7)
    assert (pair.chosen, pair.rejected) == ("yes", "no")
    return [tuple(message) for message in pair.prompt]


def refused(row: dict[str, Any]) -> tuple[str | None, str, str]:
    """Field, what was found there and what was expected."""
    path, line, *fault = refusal(lambda: parse_row(row, "f", 7))
    assert (path, line) == ("f", 7)
    field, found, expected = fault
    return field, found, expected


HI, KIND = ("user", "Hi"), ("system", "Be kind.")
TRANSCRIPT = {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " yes", "rejected": " no"}
SHAPES = [
    ROW,
    {"instruction": "Hi", "chosen": "yes", "rejected": "no"},
    {"prompt": [USER], "chosen": "yes", "rejected": "no"},
    {"prompt": "Hi", "chosen": [turn("assistant", "yes")], "rejected": [turn("assistant", "no")]},
    talk(USER),
    TRANSCRIPT,
    {"chosen": "Human: Hi\n\nAssistant: yes", "rejected": "Human: Hi\n\nAssistant: no"},
]


@pytest.mark.parametrize("row", SHAPES)
@pytest.mark.parametrize("column", ["system", "system_prompt", "system_message"])
def test_system_is_the_system_message_of_any_shape(row: dict[str, Any], column: str) -> None:
    assert read(row | {column: "Be kind."}) == [KIND, HI]
    assert all(read(row | {column: nothing}) == [HI] for nothing in NOTHING)


RUDE = (
    "system",
    "a system message (the string 'Be rude.') that differs from the one in the conversation",
    "one system message; drop the other",
)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"prompt": [SYSTEM, USER], "chosen": "yes", "rejected": "no"}, RUDE),
        (talk(SYSTEM, USER), RUDE),
        (TRANSCRIPT | {"prompt": "System: Be kind.\n\nHuman: Hi\n\nAssistant:"}, RUDE),
        (
            ROW | {"system_prompt": "Be kind."},
            (
                "system_prompt",
                "a different system message from the one in system",
                "one system message; drop the other",
            ),
        ),
    ],
)
def test_a_second_system_message_has_to_be_the_same(row: dict[str, Any], fault: tuple[str, str, str]) -> None:
    assert read(row | {"system": "Be kind. "})[-1] == HI and len(read(row | {"system": "Be kind. "})) == 2
    assert refused(row | {"system": "Be rude."}) == fault


@pytest.mark.parametrize("row", SHAPES)
@pytest.mark.parametrize(
    "history",
    [
        [["I am Ann", "Hi Ann"]],
        SAID,
        "[['I am Ann', 'Hi Ann']]",
        "[('I am Ann', 'Hi Ann')]",
        json.dumps(SAID),
        [("I am Ann", "Hi Ann")],
    ],
)
def test_history_is_the_turns_before(row: dict[str, Any], history: Any) -> None:
    said = [("user", "I am Ann"), ("assistant", "Hi Ann")]
    assert read(row | {"history": history}) == [*said, HI]
    assert read(row | {"history": history, "system": "Be kind."}) == [KIND, *said, HI]
    assert all(read(row | {"history": nothing}) == [HI] for nothing in NOTHING)


def test_a_conversation_that_holds_its_history_does_not_repeat_it() -> None:
    for row in (talk(*SAID, USER), {"prompt": [*SAID, USER], "chosen": "yes", "rejected": "no"}):
        assert len(read(row | {"history": [["I am Ann", "Hi Ann"]]})) == 3
        assert len(read(row | {"history": [["I am Bob", "Hi Bob"]]})) == 5
    assert read(ROW | {"history": [SYSTEM, *SAID]})[0] == KIND
    assert read(talk(SYSTEM, USER) | {"history": [SYSTEM, *SAID]})[::3] == [KIND, HI]
    assert refused(talk(turn("system", "Rhyme."), USER) | {"history": [SYSTEM, *SAID]}) == (
        "history[0]",
        "a system message (the string 'Be kind.') that differs from the one in the conversation",
        "one system message; drop the other",
    )


PAIRS_OR_MESSAGES = "a list of [user, assistant] pairs, or of messages that end with one from the assistant"


@pytest.mark.parametrize(
    ("history", "fault"),
    [
        ("I am Ann", ("history", "the string 'I am Ann'", PAIRS_OR_MESSAGES)),
        ([["a", "b", "c"]], ("history[0]", "a list of 3", "a pair [user, assistant]")),
        ([["a", None]], ("history[0][1]", "null", "a string")),
        ([["a", "nan"]], ("history[0][1]", "the string 'nan'", "a text; leave the field empty if there is none")),
        ([USER], ("history", "roles user", "user and assistant taking turns, the assistant last")),
        ([SYSTEM], ("history", "roles system", "user and assistant taking turns, the assistant last")),
        ([["a", "b"], USER], ("history[1]", "an object with 'role', 'content'", "a pair [user, assistant]")),
        (
            "[['a', 'b'",
            (
                "history",
                "a list written as text that is cut short, followed by other text, or not a flat list: \"[['a', 'b'\"",
                "a list in JSON or Python notation; if a plain text is meant, put it into a message's content",
            ),
        ),
        (7, ("history", "a number (7)", PAIRS_OR_MESSAGES)),
    ],
)
def test_a_bad_history_is_refused_with_its_field(history: Any, fault: tuple[str, str, str]) -> None:
    assert refused(ROW | {"history": history}) == fault


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("Sum up.", "A ship sank.\n", "Sum up.\n\nA ship sank.\n"),
        ("Sum up.\nA ship sank.", "A ship sank.", "Sum up.\nA ship sank."),  # joined already
        ("A ship sank.", "A ship sank.", "A ship sank."),
        ("Which letter ends abc", "c", "Which letter ends abc\n\nc"),  # only at a line of its own
        ("", "A ship sank.", "A ship sank."),
    ],
)
def test_input_is_the_end_of_an_alpaca_prompt(prompt: str, text: str, expected: str) -> None:
    for column in ("prompt", "query", "instruction"):
        row = {column: prompt, "chosen": "yes", "rejected": "no"}
        assert read(row | {"input": text}) == [("user", expected)]
        assert all(read(row | {"input": nothing}) == [("user", prompt)] for nothing in NOTHING)


@pytest.mark.parametrize("row", [talk(USER), TRANSCRIPT, {"prompt": [USER], "chosen": "yes", "rejected": "no"}])
def test_input_beside_messages_has_to_be_in_them(row: dict[str, Any]) -> None:
    assert read(row | {"input": "Hi"}) == [HI]
    assert refused(row | {"input": "A ship."}) == (
        "input",
        "the string 'A ship.'",
        "a text that the conversation contains; input can only be appended to a prompt of plain text",
    )


def test_words_for_nothing_are_not_joined_to_a_prompt() -> None:
    for column in ("input", "system"):
        assert refused(ROW | {column: "nan"}) == (
            column,
            "the string 'nan'",
            "a text; leave the field empty if there is none",
        )
    assert refused(ROW | {"system": 7}) == ("system", "a number (7)", "a string")


@pytest.mark.parametrize(
    "column",
    [
        *("tools", "functions", "documents", "context", "chat_template_kwargs"),
        *("image", "images", "video", "videos", "audio", "audios"),
    ],
)
def test_columns_that_are_no_text_are_refused_by_name_unless_they_are_empty(column: str) -> None:
    assert all(read(ROW | {column: nothing}) == [HI] for nothing in NOTHING)
    expected = "no such column: only text is learnt; write what matters into the prompt, or drop the column"
    assert refused(ROW | {column: ["x"]}) == (column, "a list of 1", expected)
    assert refused(talk(USER) | {column: "x"}) == (column, "the string 'x'", expected)


def test_two_prompts_have_to_agree() -> None:
    assert read(ROW | {"query": "Hi\n", "instruction": None}) == [HI]
    assert read(ROW | {"prompt": "", "query": "Hi"}) == [HI]
    assert refused(ROW | {"query": "Who are you?"}) == (
        "query",
        "a different prompt from the one in prompt",
        "one prompt; rename prompt to 'system' if it is the system message, or drop one of the two",
    )


# ------------------------------------------------------------------------------------ a prompt beside conversations


@pytest.mark.parametrize(
    "prompt",
    [
        "Hi",
        " Hi\n",
        "I am\nAnn",  # an earlier turn of the user
        "Be kind.",
        "I am Ann\nHi Ann\nHi",  # the whole, with and without the system message
        "Be kind. I am Ann Hi Ann Hi",
        "System: Be kind.\n\nHuman: I am Ann\n\nAssistant: Hi Ann\n\nHuman: Hi\n\nAssistant:",
        "",
        [SYSTEM, *SAID, USER],
    ],
)
def test_a_prompt_that_repeats_the_conversation_adds_nothing(prompt: Any) -> None:
    pair, shape = parse_row({"prompt": prompt, **talk(SYSTEM, *SAID, USER)}, "f", 7)
    roles = [message.role for message in pair.prompt]
    assert (roles, shape) == (["system", "user", "assistant", "user"], "implicit")


def test_a_prompt_that_is_none_of_the_turns_is_the_system_message() -> None:
    pair, shape = parse_row({"prompt": "Answer in rhyme.", **talk(*SAID, USER)}, "f", 7)
    assert shape == "system prompt"
    assert [tuple(message) for message in pair.prompt] == [
        ("system", "Answer in rhyme."),
        ("user", "I am Ann"),
        ("assistant", "Hi Ann"),
        ("user", "Hi"),
    ]


@pytest.mark.parametrize(
    ("prompt", "begin"),
    [
        ("Answer in rhyme.", [SYSTEM, USER]),  # there is a system message
        ("Say Hi to her.", [USER]),  # holds the turn: instruction and question in one
        ("Write a poem abo", [turn("user", "Write a poem about ships")]),  # was cut
        ("Human: Bye", [USER]),  # another conversation
        ("Good day", [turn("user", "Yo"), turn("assistant", "Good day"), turn("user", "So")]),  # the assistant's words
    ],
)
def test_a_prompt_that_may_be_something_else_is_refused(prompt: str, begin: list[dict[str, str]]) -> None:
    assert refused({"prompt": prompt, **talk(*begin)}) == (
        "prompt",
        f"a text (the string {prompt!r}) that differs from the conversation",
        "the user's turn, or a system message where there is none; drop the column if it is neither",
    )


def test_whole_transcripts_beside_their_prompt_are_not_taken_for_answers() -> None:
    whole = {"chosen": "Human: Hi\n\nAssistant: yes", "rejected": "Human: Hi\n\nAssistant: no"}
    for prompt in ("Hi", "\n\nHuman: Hi\n\nAssistant:", "Human: Hi"):
        assert read({"prompt": prompt, **whole}) == [HI]


def test_answers_that_are_dialogues_stay_answers() -> None:
    dialogues = {"chosen": "Human: Hi\n\nAssistant: yes", "rejected": "Human: Yo\n\nAssistant: no"}
    for rejected in ("Human: Yo\n\nAssistant: no", "Human: Hi\n\nAssistant: no"):
        pair, shape = parse_row({"prompt": "Write a dialogue.", **dialogues, "rejected": rejected}, "f", 7)
        assert (pair.chosen, pair.rejected, shape) == (dialogues["chosen"], rejected, "standard")


# -------------------------------------------------------------------------------------------------------- transcripts


@pytest.mark.parametrize(
    ("prompt", "turns"),
    [
        ("System: Be kind.\n\nHuman: Hi\n\nAssistant:", [KIND, HI]),
        ("\n\nSystem: Be kind.\nNo rhymes.\n\nHuman: Hi", [("system", "Be kind.\nNo rhymes."), HI]),
        ("System:\n\nHuman: Hi\n\nAssistant:", [HI]),
        ("Human: I run\nSystem: Windows\n\nAssistant:", [("user", "I run\nSystem: Windows")]),  # text further on
        ("System: Windows 11\nIt hangs.", [("user", "System: Windows 11\nIt hangs.")]),  # no turn of Human: a text
        ("Operating System: x\nHuman: Hi", [("user", "Operating System: x\nHuman: Hi")]),
    ],
)
def test_system_begins_a_transcript(prompt: str, turns: list[tuple[str, str]]) -> None:
    assert read({"prompt": prompt, "chosen": "yes", "rejected": "no"}) == turns


def test_whole_transcripts_share_their_system_message() -> None:
    begin = "System: Be kind.\n\nHuman: Hi\n\nAssistant:"
    assert read({"chosen": f"{begin} yes", "rejected": f"{begin} no"}) == [KIND, HI]
    with pytest.raises(UnclearTranscript):
        parse_row({"chosen": f"{begin} yes", "rejected": f"{begin} no".replace("kind", "rude")}, "f", 7)


def test_a_transcript_that_the_assistant_begins_is_refused() -> None:
    assert refused(ROW | {"prompt": "System: Be kind.\n\nAssistant: Hello\n\nHuman: Hi"}) == (
        "prompt[1].role",
        "'assistant'",
        "'user': user and assistant take turns, after at most one system message",
    )
