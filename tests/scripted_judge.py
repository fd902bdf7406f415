"""An OpenAI-compatible server on loopback that says what a test tells it to, well or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Says:
    """One response: by default a well-formed one with ``text`` as the reply.

    ``delay`` is in seconds; ``body`` replaces the whole of the response, ``close`` hangs up without one.
    """

    text: str = "7"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    close: bool = False


Script = Callable[[list[dict[str, str]], int], Says | str]
"""Messages and the number of the request, from 0, to the response."""


class ScriptedJudge:
    """What the server was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.most_at_once = 0
        self.url = ""
        self._now = 0
        self._lock = threading.Lock()

    def answer(self, request: dict[str, Any], authorization: str) -> Says:
        """Notes a request and what is said to it."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.authorizations.append(authorization)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        said = self.script(request["messages"], number)
        said = Says(said) if isinstance(said, str) else said
        time.sleep(said.delay)
        with self._lock:
            self._now -= 1
        return said


@contextmanager
def scripted_judge(script: Script) -> Iterator[ScriptedJudge]:
    """Serves a script on a free port of loopback for as long as the context lasts."""
    judge = ScriptedJudge(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = judge.answer(request, self.headers.get("Authorization", ""))
            if said.close:
                self.close_connection = True
                self.connection.close()
                return
            message = {"role": "assistant", "content": said.text}
            completion = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
            }
            body = json.dumps(completion).encode() if said.body is None else said.body
            self.send_response(said.status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **said.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that give up are part of the tests
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def block(messages: list[dict[str, str]], name: str) -> str:
    """What stands in a block of the material, by the markers as the system message announces them."""
    code = messages[0]["content"].split("<<<NAME ", 1)[1].split(">>>", 1)[0]
    user = messages[1]["content"]
    begin, end = f"<<<{name} {code}>>>\n", f"\n<<<END {name} {code}>>>"
    assert user.count(begin) == 1 and user.count(end) == 1, "a block does not begin and end once"
    return user.split(begin, 1)[1].split(end, 1)[0]
