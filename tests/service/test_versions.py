"""Names of models: which version each is, also after another process has changed the life."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import letter_task

from lifealign.errors import LifeError
from lifealign.life.life import Life
from lifealign.service.versions import UnknownModel, Versions


def test_every_version_is_a_model(taught: Path) -> None:
    versions = Versions(taught)
    assert versions.models == [
        "my-bot",
        "my-bot@01-tone",
        "my-bot@02-refunds",
        "my-bot@base",
        "my-bot@recall",
    ]
    found = {model: versions.find(model) for model in versions.models if not versions.recalls(model)}
    assert [(model, voice.version.name, voice.model) for model, voice in found.items()] == [
        ("my-bot", "02-refunds", "my-bot@02-refunds"),
        ("my-bot@01-tone", "01-tone", "my-bot@01-tone"),
        ("my-bot@02-refunds", "02-refunds", "my-bot@02-refunds"),
        ("my-bot@base", "00-base", "my-bot@base"),
    ]
    assert versions.find("my-bot@00-base").version.name == "00-base"


@pytest.mark.parametrize(
    "model", ["other", "my-bot@03-tone", "my-bot@", "my-bot@recall", "", "@base", "my-bot@base@base"]
)
def test_a_model_that_is_not_there_is_named_with_those_that_are(taught: Path, model: str) -> None:
    with pytest.raises(UnknownModel, match=r"expected one of my-bot, my-bot@01-tone"):
        Versions(taught).find(model)


def test_a_name_of_its_own(taught: Path) -> None:
    assert Versions(taught, "desk").models[:2] == ["desk", "desk@01-tone"]


def test_what_another_process_commits_or_takes_back_is_seen(bot: Path) -> None:
    versions, other = Versions(bot), Life.open(bot)
    before = versions.find("my-bot")
    other.rollback("01-tone")
    assert versions.find("my-bot").version.name == "01-tone"
    with pytest.raises(UnknownModel):
        versions.find("my-bot@02-refunds")
    other.learn(letter_task("refunds", "x", "y"))
    after = versions.find("my-bot")
    assert after.model == before.model == "my-bot@02-refunds"
    assert after.content != before.content  # the name was given again


def test_before_anything_is_learnt_there_is_nothing_to_recall(bot: Path) -> None:
    Life.open(bot).rollback("00-base")
    versions = Versions(bot)
    assert versions.models == ["my-bot", "my-bot@base"] and not versions.recalls("my-bot@recall")
    assert versions.find("my-bot").model == "my-bot@base"
    with pytest.raises(UnknownModel):
        versions.find("my-bot@recall")


def test_no_life(tmp_path: Path) -> None:
    with pytest.raises(LifeError, match="expected a life"):
        Versions(tmp_path)
