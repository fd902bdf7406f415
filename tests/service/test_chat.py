"""A conversation on the terminal: who answers, what is compared, which rules are kept, what is written down."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tests.service.test_speaker import answers_of

from lifealign.life.life import Life
from lifealign.model.sampling import Sampling
from lifealign.model.stream import Streamed
from lifealign.service.chat import Chat, answer_lines, as_line
from lifealign.service.speaker import Speaker
from lifealign.service.versions import UnknownModel, Versions
from lifealign.storage.files import read_rows

Talk = Callable[..., Chat]


@pytest.fixture
def talk(bot: Path) -> Talk:
    """A conversation whose terminal is a text: ``chat.console.file.getvalue()``."""

    def begin(model: str = "my-bot", sampling: Sampling | None = None) -> Chat:
        console = Console(file=io.StringIO(), width=100, color_system=None)
        return Chat(Speaker(Life.open(bot).workspace), Versions(bot), console, model, 8, sampling)

    return begin


def shown(chat: Chat) -> str:
    """What the terminal has shown since the last look."""
    file = chat.console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    file.seek(0)
    file.truncate()
    return text


def test_a_message_is_answered_by_the_version_that_was_chosen(talk: Talk, bot: Path) -> None:
    from lifealign.report.printing import printable

    expected, chat = answers_of(bot), talk()
    assert chat.take("tone 9")
    assert shown(chat).startswith(f"my-bot@02-refunds\n{printable(expected['02-refunds'])}")
    chat.take("/new")
    chat.take("/as-of 01-tone")
    assert "my-bot@01-tone answers from now on" in shown(chat)
    chat.take("  tone 9  ")
    assert chat.exchanges[-1].given.text == expected["01-tone"]
    for name, version in (("base", "00-base"), ("last", "02-refunds"), ("", "02-refunds")):
        chat.take("/new")
        chat.take(f"/as-of {name}")
        chat.take("tone 9")
        assert chat.exchanges[-1].given.text == expected[version]


def test_the_conversation_goes_on(talk: Talk) -> None:
    chat = talk()
    chat.take("tone 9")
    first = chat.exchanges[0].given.text
    chat.take("tone 8")
    assert [message.content for message in chat.exchanges[1].prompt] == ["tone 9", first, "tone 8"]
    chat.take("/new")
    chat.take("tone 7")
    assert [message.content for message in chat.exchanges[2].prompt] == ["tone 7"]


def test_two_versions_beside_each_other(talk: Talk, bot: Path) -> None:
    expected, chat = answers_of(bot), talk()
    chat.take("/compare base")
    assert "nothing was answered yet" in shown(chat)
    chat.take("tone 9")
    shown(chat)
    chat.take("/compare 01-tone")
    table = shown(chat)
    assert "my-bot@02-refunds" in table and "my-bot@01-tone" in table
    assert expected["01-tone"][:3] in table and expected["02-refunds"][:3] in table
    assert chat.exchanges[-1].voice.model == "my-bot@02-refunds" and chat.model == "my-bot"


def test_which_rules_the_last_answer_keeps(talk: Talk, bot: Path) -> None:
    from dataclasses import replace

    from tests.tiny import letter_task

    from lifealign.data.answer_check import AnswerCheck

    short = replace(letter_task("short", "e", "f"), check=AnswerCheck(max_words=1))
    never = replace(letter_task("never", "g", "h"), check=AnswerCheck(matches=("never said",)))
    gone = replace(letter_task("gone", "i", "j"), check=AnswerCheck(min_words=50))
    instead = replace(letter_task("instead", "k", "l"), check=AnswerCheck(lacks=("never said",)), supersedes=("gone",))
    life = Life.open(bot)
    for task in (short, never, gone, instead):
        life.learn(task)
    chat = talk()
    chat.take("tone 9")
    last = chat.exchanges[-1]
    chat.exchanges[-1] = type(last)(last.prompt, last.voice, Streamed("aaa1", "stop", 3, 4))
    shown(chat)
    chat.take("/rules")
    assert shown(chat).split("\n")[:3] == ["yes short", "no  never", "yes instead"]


def test_without_a_check_there_are_no_rules_to_show(talk: Talk) -> None:
    chat = talk()
    chat.take("tone 9")
    chat.take("/rules")
    assert "no task of this life has an exact check" in shown(chat)


def test_what_was_said_is_saved_once_with_what_would_have_been_better(talk: Talk, tmp_path: Path) -> None:
    chat, file = talk(), tmp_path / "chat.jsonl"
    chat.take("tone 9")
    chat.take("/better Hello, thanks!")
    chat.take("and now")
    chat.take(f"/save {file}")
    assert "2 answers added" in shown(chat)
    chat.take("more")
    chat.take(f"/save {file}")
    rows = read_rows(file)
    assert [row["kind"] for row in rows] == ["answer", "feedback", "answer", "answer"]
    assert rows[1]["id"] == rows[0]["id"] and rows[1]["edited"] == "Hello, thanks!"
    assert [message["content"] for message in rows[2]["messages"]] == ["tone 9", "Hello, thanks!", "and now"]
    shown(chat)
    chat.take("/better too late")
    assert "already saved" in shown(chat)


def test_a_mistake_does_not_end_the_conversation(talk: Talk) -> None:
    chat = talk()
    for line, said in (
        ("/as-of 09-nothing", "found no such model"),
        ("/nonsense", "no such command"),
        ("/save", "/save needs a file"),
        ("/better x", "nothing was answered yet"),
        ("x" * 1100, "found 1119 tokens and 8 for the answer"),
    ):
        assert chat.take(line) and said in shown(chat).replace("\n", " ")
    assert chat.take("") and chat.take("/help") and "/compare VERSION" in shown(chat)
    assert not chat.take("/quit")


def test_recall_chooses_for_each_prompt_and_says_why(talk: Talk, bot: Path) -> None:
    chat = talk("my-bot@recall")
    chat.take("tone 9")
    recalled = Life.open(bot).recall("tone 9")
    assert shown(chat).startswith(f"my-bot@{recalled.version}  {recalled.why}")


def test_piped_prompts_are_answered_a_line_each(talk: Talk, bot: Path) -> None:
    expected, chat = answers_of(bot)["01-tone"], talk("my-bot@01-tone")
    rows = list(answer_lines(chat, ["tone 9\n", "\n", "x" * 1100, "tone 9"]))
    assert rows[0] == rows[2] and rows[0]["answer"] == expected and rows[0]["model"] == "my-bot@01-tone"
    assert rows[1].keys() == {"prompt", "error"}
    assert json.loads(as_line(rows[0])) == rows[0] and "\n" not in as_line(rows[0])


def test_an_unknown_version_is_refused_before_the_model_is_loaded(bot: Path) -> None:
    from lifealign.service.chat import model_named

    with pytest.raises(UnknownModel):
        model_named(Versions(bot), "09-nothing")
