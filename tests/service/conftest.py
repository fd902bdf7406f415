"""A copy of a life with two tasks, and a server on it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from openai import OpenAI
from tests.tiny import letter_task

from lifealign.life.life import Life
from lifealign.service.answering import Limits, Service
from lifealign.service.app import build_app
from lifealign.service.log import AnswerLog
from lifealign.service.server import serve
from lifealign.service.speaker import Speaker
from lifealign.service.versions import Versions

FIRST = letter_task("tone", "a", "b")

Serving = Callable[..., "Server"]


@pytest.fixture
def bot(taught: Path, tmp_path: Path) -> Path:
    """A copy of that life, to be changed."""
    return Path(shutil.copytree(taught, tmp_path / "my-bot"))


@dataclass
class Server:
    """A running server.

    Attributes:
        address: Its address, with ``/v1``.
        service: What answers.
    """

    address: str
    service: Service

    def client(self, key: str = "none", **options: Any) -> OpenAI:
        return OpenAI(base_url=self.address, api_key=key, max_retries=0, timeout=60, **options)


@contextmanager
def running(path: Path, log: Path | None = None, key: str = "", **limits: int) -> Iterator[Server]:
    """A server on a life, in a thread, on a free port."""
    life = Life.open(path)
    speaker = Speaker(life.workspace)
    speaker.load()
    kept = AnswerLog(log) if log is not None else None
    service = Service(speaker, Versions(path), life.config.evaluation, kept, Limits(**limits))
    app = build_app(service, hosts=["127.0.0.1", "localhost"], key=key)
    addresses: list[str] = []
    ready = threading.Event()
    servers: list[uvicorn.Server] = []
    started = uvicorn.Server.run

    def remember(server: uvicorn.Server, *args: Any, **options: Any) -> None:
        servers.append(server)
        started(server, *args, **options)

    def tell(address: str) -> None:
        addresses.append(address)
        ready.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "run", remember)
        thread = threading.Thread(target=serve, args=(app, "127.0.0.1", 0, tell), daemon=True)
        thread.start()
        assert ready.wait(30)
        try:
            yield Server(addresses[0], service)
        finally:
            servers[0].should_exit = True
            thread.join(30)
            service.close()
            assert not thread.is_alive()


@pytest.fixture
def serving(bot: Path) -> Iterator[Serving]:
    """Starts servers on the copy: ``serving(log=..., key=..., tokens=8)``."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(bot, **options))
