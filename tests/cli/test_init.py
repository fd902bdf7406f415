"""`lifealign init --revision`: which commit of a hub model a life is made on, and that it stays that one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Command
from tests.hub import Hub
from tests.tiny import save_tiny

from lifealign.errors import ModelError
from lifealign.life.life import Life
from lifealign.model.base_model import load_base
from lifealign.model.settings import EMBEDDED, ModelConfig
from lifealign.storage.files import read_sealed_json, write_sealed_json

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two commits of a model, with different weights."""
    folder = tmp_path_factory.mktemp("commits")
    return {commit: save_tiny(folder / commit, seed) for seed, commit in enumerate((OLD, NEW))}


@pytest.fixture
def hub(commits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The model as ``org/tiny``, whose tag ``v1`` is the old commit, and whose branch ``main`` the new one."""
    hub = Hub(tmp_path / "hub", commits, monkeypatch)
    hub.point("v1", OLD)
    hub.point("main", NEW)
    return hub


def recorded(life: str) -> tuple[Any, Any, Any]:
    """The revision that was asked for, the commit of the base, and the one in the adapter, which PEFT loads it at."""
    manifest = json.loads(Path(life, "life.json").read_text())
    adapter = json.loads(Path(life, "versions", "00-base", "adapter_config.json").read_text())
    return manifest["config"]["model"]["revision"], manifest["base"]["revision"], adapter["revision"]


@pytest.mark.parametrize(
    ("options", "asked", "commit"),
    [
        (["--revision", "v1"], "v1", OLD),
        (["--revision", OLD], OLD, OLD),  # forty digits, and a text all the same
        (["--set", "model.revision=v1"], "v1", OLD),
        ([], None, NEW),
    ],
    ids=["a tag", "a commit", "as a setting", "none"],
)
def test_a_life_is_made_on_the_revision_and_records_its_commit(
    lifealign: Command, hub: Hub, commits: dict[str, Path], options: list[str], asked: str | None, commit: str
) -> None:
    made = lifealign("init", "bot", "--model", hub.name, "--set", "model.dtype=float32", *options)
    assert (made.code, made.err) == (0, "")
    assert recorded("bot") == (asked, commit, commit)
    weights = load_base(ModelConfig(model_name_or_path=str(commits[commit]), dtype="float32")).identity.fingerprint
    assert Life.open("bot").directory.manifest.base.fingerprint == weights


@pytest.mark.parametrize("options", [["--revision", "v1"], []], ids=["a tag", "the default branch"])
def test_a_life_stays_on_its_commit_wherever_the_name_goes(lifealign: Command, hub: Hub, options: list[str]) -> None:
    """What a life has learnt is a difference from one base; on another commit's weights it would mean nothing."""
    lifealign("init", "bot", "--model", hub.name, "--set", "model.dtype=float32", *options)
    made_with = Life.open("bot").directory.manifest.base
    hub.point("v1", NEW)
    hub.point("main", OLD)
    again = Life.open("bot").workspace.base.identity
    assert (again.fingerprint, again.revision) == (made_with.fingerprint, made_with.revision)
    (hub.folder / "snapshots" / str(made_with.revision)).unlink()  # the hub has it no longer
    with pytest.raises(ModelError, match=r"model 'org/tiny': could not be loaded"):
        Life.open("bot").load()


def test_a_life_from_before_commits_were_recorded_is_known_by_its_weights(lifealign: Command, hub: Hub) -> None:
    lifealign("init", "bot", "--model", hub.name, "--set", "model.dtype=float32")
    manifest = read_sealed_json("bot/life.json")
    manifest["base"]["revision"] = None
    write_sealed_json("bot/life.json", manifest)
    Life.open("bot").load()
    hub.point("main", OLD)
    with pytest.raises(ModelError, match=r"found base model org/tiny with fingerprint \w+, expected the one this"):
        Life.open("bot").load()


def test_a_commit_that_the_hub_does_not_have_is_refused(lifealign: Command, hub: Hub) -> None:
    refused = lifealign("init", "bot", "--model", hub.name, "--revision", "v2")
    assert refused.code == 2 and refused.err.startswith("error: model 'org/tiny': could not be loaded")
    assert not Path("bot").exists()


@pytest.mark.parametrize("what", ["a folder", "a .gguf file", "the embedded model"])
def test_what_has_no_revisions_is_refused_with_one(
    lifealign: Command, tiny_folder: Path, tmp_path: Path, what: str
) -> None:
    """It would change nothing, and the life and its adapters would record a commit that does not exist."""
    gguf = tmp_path / "model.gguf"
    gguf.touch()
    model = {"a folder": str(tiny_folder), "a .gguf file": str(gguf), "the embedded model": EMBEDDED}[what]
    refused = lifealign("init", "bot", "--model", model, "--revision", "v1")
    assert refused.code == 2
    why = "found revision 'v1', expected none; only a model of the hub has revisions"
    assert refused.err == f"error: model {model!r}: {why}\n"
    assert not Path("bot").exists()
