"""The speaker: each version answers as the life loaded at that version does, whatever answered before."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifealign.data.pair import Message
from lifealign.life.life import Life
from lifealign.model.generate import generate_answers
from lifealign.service.speaker import Speaker, TooLong
from lifealign.service.versions import UnknownModel, Versions

PROMPT = (Message("user", "tone 9"),)


def answers_of(life: Path) -> dict[str, str]:
    """What each version answers, by the ordinary way."""
    opened = Life.open(life)
    found = {}
    for version in opened.versions:
        opened.load(version.name)
        found[version.name] = generate_answers(opened.workspace.runtime, [PROMPT], max_new_tokens=8, batch_size=1)[0]
    return found


def test_each_version_answers_as_the_life_at_that_version_does(taught: Path) -> None:
    expected = answers_of(taught)
    assert len(set(expected.values())) == 3
    speaker, versions = Speaker(Life.open(taught).workspace), Versions(taught)
    for version in ("02-refunds", "00-base", "01-tone", "02-refunds", "01-tone", "01-tone"):
        given = speaker.answer(versions.find(f"my-bot@{version}"), PROMPT, max_new_tokens=8)
        assert given.text == expected[version]


def test_a_name_that_was_given_again_is_the_new_version(bot: Path) -> None:
    from tests.tiny import letter_task

    speaker, versions = Speaker(Life.open(bot).workspace), Versions(bot)
    old = versions.find("my-bot")
    before = speaker.answer(old, PROMPT, max_new_tokens=8)
    other = Life.open(bot)
    other.rollback("01-tone")
    other.learn(letter_task("refunds", "x", "y"))
    after = speaker.answer(versions.find("my-bot"), PROMPT, max_new_tokens=8)
    assert after.text == answers_of(bot)["02-refunds"] != before.text


def test_a_version_that_was_rolled_back_meanwhile(bot: Path) -> None:
    speaker, versions = Speaker(Life.open(bot).workspace), Versions(bot)
    speaker.load()
    voice = versions.find("my-bot")
    Life.open(bot).rollback("01-tone")
    with pytest.raises(UnknownModel, match="rolled back meanwhile"):
        speaker.answer(voice, PROMPT, max_new_tokens=8)
    assert speaker.answer(versions.find("my-bot"), PROMPT, max_new_tokens=8).text == answers_of(bot)["01-tone"]


def test_what_the_model_cannot_read_is_refused(taught: Path) -> None:
    speaker, voice = Speaker(Life.open(taught).workspace), Versions(taught).find("my-bot")
    long = (Message("user", "x" * 1000),)
    length = speaker.prompt_tokens(long)
    assert speaker.context == 1024 and length == 1019
    with pytest.raises(TooLong, match="found 1019 tokens and 6 for the answer, expected at most 1024 together"):
        speaker.answer(voice, long, max_new_tokens=6)
    assert speaker.answer(voice, long, max_new_tokens=5).completion_tokens <= 5
    assert speaker.answer(voice, long).completion_tokens <= 5  # as much as there is room for
    with pytest.raises(TooLong):
        speaker.answer(voice, (Message("user", "x" * 1005),))


def test_recall_follows_the_life(bot: Path) -> None:
    speaker, versions = Speaker(Life.open(bot).workspace), Versions(bot)
    assert {one.task for one in speaker.recall(versions, PROMPT).tasks} == {"tone", "refunds"}
    Life.open(bot).rollback("01-tone")
    assert {one.task for one in speaker.recall(versions, PROMPT).tasks} == {"tone"}
