"""Pushing to the hub, against a stand-in that speaks the hub's HTTP interface."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from typer.testing import CliRunner

from lifealign.cli.main import app
from lifealign.errors import ConfigError, LifeError
from lifealign.life.life import Life
from lifealign.service.push import HubError, push_life


class Hub:
    """A hub that keeps what it is given.

    Attributes:
        repositories: By name, whether they are private.
        commits: By name, the files of each commit.
        refuses: Status of every request that would change something, if it is to be refused.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, bool] = {}
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.messages: list[str] = []
        self.asked: list[Any] = []
        self.tokens: set[str] = set()
        self.refuses = 0

    def app(self, address: str) -> FastAPI:
        app = FastAPI()

        @app.post("/api/repos/create")
        async def create(request: Request) -> Any:
            self.tokens.add(request.headers.get("authorization", ""))
            if self.refuses:
                return JSONResponse({"error": "no"}, self.refuses)
            body = await request.json()
            self.asked.append(body.get("visibility", body.get("private")))
            name = f"{body.get('organization') or 'me'}/{body['name']}"
            taken = name in self.repositories
            self.repositories.setdefault(name, body.get("visibility") == "private" or bool(body.get("private")))
            return JSONResponse({"url": f"{address}/{name}", "name": name}, 409 if taken else 200)

        @app.get("/api/models/{owner}/{name}")
        async def about(owner: str, name: str) -> Any:
            repo = f"{owner}/{name}"
            return {"id": repo, "modelId": repo, "private": self.repositories[repo], "tags": [], "siblings": []}

        @app.post("/api/validate-yaml")
        async def validate() -> Any:
            return {"errors": [], "warnings": []}

        @app.post("/api/models/{owner}/{name}/preupload/main")
        async def before(owner: str, name: str, request: Request) -> Any:
            files = (await request.json())["files"]
            return {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}

        @app.post("/api/models/{owner}/{name}/commit/main")
        async def commit(owner: str, name: str, request: Request) -> Any:
            lines = [json.loads(line) for line in (await request.body()).splitlines()]
            self.messages += [line["value"]["summary"] for line in lines if line["key"] == "header"]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.commits.setdefault(f"{owner}/{name}", []).append(
                {one["path"]: base64.b64decode(one["content"]) for one in files}
            )
            return {"commitUrl": f"{address}/{owner}/{name}/commit/abc", "commitOid": "abc", "hookOutput": ""}

        return app


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in on this machine, which the client takes for the hub."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    hub = Hub()
    server = uvicorn.Server(uvicorn.Config(hub.app(address), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    close_session()
    yield hub
    server.should_exit = True
    thread.join(30)
    listening.close()
    close_session()


def test_an_adapter_and_its_card_in_one_commit(hub: Hub, taught: Path) -> None:
    life = Life.open(taught)
    pushed = push_life(life, "team/my-bot", private=False)
    assert hub.repositories == {"team/my-bot": False} and hub.messages == ["02-refunds (adapter)"]
    (files,) = hub.commits["team/my-bot"]
    folder = taught / "versions" / "02-refunds"
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.asked == [None]  # a new one is as its owner has it by default
    assert pushed.version == "02-refunds" and set(pushed.files) == set(files) and not pushed.private
    assert pushed.url.endswith("/team/my-bot/commit/abc") and hub.tokens == {"Bearer hf_stand_in"}
    push_life(life, "team/my-bot", private=False, as_of="01-tone")  # the repository is there already
    weights = (taught / "versions" / "01-tone" / "adapter_model.safetensors").read_bytes()
    assert hub.commits["team/my-bot"][1]["adapter_model.safetensors"] == weights


def test_the_page_goes_with_it_if_wanted(hub: Hub, taught: Path) -> None:
    pushed = push_life(Life.open(taught), "team/secret", private=True, page=True)
    assert pushed.private and hub.repositories == {"team/secret": True}
    assert b"<html" in hub.commits["team/secret"][0]["report.html"]


def test_a_public_repository_does_not_get_what_is_private(hub: Hub, taught: Path) -> None:
    hub.repositories["team/open"] = False
    with pytest.raises(ConfigError, match="found a public repository, expected a private one"):
        push_life(Life.open(taught), "team/open", private=True, page=True)
    assert not hub.commits


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses(hub: Hub, taught: Path, status: int) -> None:
    hub.refuses = status
    with pytest.raises(HubError, match="team/my-bot: the hub refuses: "):
        push_life(Life.open(taught), "team/my-bot", private=False)
    assert not hub.commits


def test_a_name_that_is_none(hub: Hub, taught: Path) -> None:
    with pytest.raises(ConfigError, match="expected owner/name"):
        push_life(Life.open(taught), "a/b/c", private=False)


def test_nothing_learnt_and_no_such_version(hub: Hub, bot: Path) -> None:
    with pytest.raises(LifeError, match="found no version '09-x'"):
        push_life(Life.open(bot), "team/my-bot", private=False, as_of="09-x")
    Life.open(bot).rollback("00-base")
    with pytest.raises(LifeError, match="nothing learnt yet"):
        push_life(Life.open(bot), "team/my-bot", private=False)
    assert not hub.repositories


def test_offline_and_unreachable(hub: Hub, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(HubError, match="could not be reached"):
            push_life(Life.open(taught), "team/my-bot", private=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push_life(Life.open(taught), "team/my-bot", private=False)


def test_the_command_leaves_the_page_out_of_what_is_public_and_says_so(hub: Hub, taught: Path) -> None:
    def push(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["push", str(taught), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    said = push("team/open")
    assert "02-refunds, public; README.md, adapter_config.json" in said and "--report adds it" in said
    assert "report.html" not in hub.commits["team/open"][0]
    assert "02-refunds, private; " in push("team/own", "--private") and "report.html" in hub.commits["team/own"][0]
    push("team/own", "--private", "--no-report")
    assert "report.html" not in hub.commits["team/own"][1]
    push("team/open", "--report", "--gguf")
    assert {"adapter.gguf", "report.html"} <= set(hub.commits["team/open"][1])
    both = CliRunner().invoke(app, ["push", str(taught), "team/open", "--gguf", "--merged"])
    assert isinstance(both.exception, ConfigError)
