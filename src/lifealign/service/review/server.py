"""Serves a review to browsers on this machine, and to nobody who does not know its token.

::

    GET  /                          the page
    GET  /row[?number=N|?skipped]   a candidate: the first open one, a certain one, or the first that was skipped
    POST /decide                    {"key", "version", "choice": "a", "b" or "skip", "edited": a text or null}
    POST /undo                      {"version"}
    POST /finish                    {}

Answers are JSON: a :data:`~lifealign.service.review.review.View`, or ``{"error": ...}``; 409 if something was decided
meanwhile, with the view that shows it. A request needs the token, in a cookie that the page sets or as
``Authorization: Bearer``, and this machine's own name as its host: a page of another site has neither.
"""

from __future__ import annotations

import errno
import json
import logging
import secrets
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from lifealign.errors import ConfigError, DataError, LifeAlignError, LifeError
from lifealign.life.disk.typed_json import Record, validated
from lifealign.service.review.decisions import Decision
from lifealign.service.review.page import Page
from lifealign.service.review.review import Review, Stale, View
from lifealign.storage.strict_json import parse_json

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
LARGEST_BODY = 2**20
"""Bytes of a request: nobody edits an answer longer than that by hand."""
PATIENCE = 30
"""Seconds that a connection may say nothing."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""Policy of everything but the page."""
STRANGER = "open the address that `lifealign review` has printed; it holds the token of this run"


class _Undoing(Record):
    version: int


class _Deciding(Decision):
    version: int


class _Finishing(Record):
    pass


Kind = TypeVar("Kind", bound=Record)


class ReviewServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from the moment it is made; answers, about one review, from :meth:`serve` on.

    Args:
        port: The port; 0 for any that is free.

    Raises:
        ConfigError: If the port is taken, or not for everybody to take.
    """

    daemon_threads = True  # closing the review waits for what is being decided, so nothing has to wait for connections
    review: Review
    page: Page

    def __init__(self, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((LOOPBACK, port), Handler)
        except OSError as error:
            what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise ConfigError(f"port {port} {what}; give another --port, or leave it out to get a free one") from error

    def server_bind(self) -> None:
        """Takes the port, without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    @property
    def address(self) -> str:
        """Where the page is, with the token."""
        return f"http://{LOOPBACK}:{self.server_port}/?token={self.token}"

    def serve(self, review: Review, page: Page) -> None:
        """Answers until somebody finishes the review on the page, or another thread calls ``shutdown``."""
        self.review, self.page = review, page
        self.serve_forever(poll_interval=0.1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs a bug of ours; that a browser hangs up is none."""
        if not isinstance(error := sys.exception(), ConnectionError | TimeoutError):
            log.error("a request failed", exc_info=error)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: ReviewServer
    timeout = PATIENCE
    _is_last = False

    def do_GET(self) -> None:
        """The page, or a candidate."""
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        token = query.get("token", [""])[0] if url.path == "/" else ""
        if not self._is_admitted(token):
            return
        if url.path == "/":
            cookie = f"{self._cookie_name}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            content, policy = self.server.page
            headers = {"Content-Security-Policy": policy, "Set-Cookie": cookie}
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", content, headers)
        elif url.path == "/row":
            self._answer(lambda: self.server.review.view(_number(query), skipped="skipped" in query))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """A decision, its undoing, or the end."""
        body = self._body()
        if body is None or not self._is_admitted():
            return
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
            return
        work = {"/decide": self._decide, "/undo": self._undo, "/finish": self._finish}.get(urlsplit(self.path).path)
        if work is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
            return
        try:
            self._answer(lambda: work(body))
        finally:  # not before the answer: the process may end at once
            if self._is_last:
                threading.Thread(target=self.server.shutdown).start()  # it waits for the loop that this came from

    def _decide(self, body: bytes) -> View:
        taken = _read(body, _Deciding)
        return self.server.review.decide(taken.version, Decision(**taken.model_dump(exclude={"version"})))

    def _undo(self, body: bytes) -> View:
        return self.server.review.undo(_read(body, _Undoing).version)

    def _finish(self, body: bytes) -> View:
        _read(body, _Finishing)
        view = self.server.review.view()
        self._is_last = True
        return view

    def _answer(self, work: Callable[[], View]) -> None:
        try:
            self._send_json(HTTPStatus.OK, work())
        except Stale as error:
            self._send_json(HTTPStatus.CONFLICT, {"error": str(error), "view": error.view})
        except (ConfigError, DataError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except LifeAlignError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    @property
    def _cookie_name(self) -> str:
        """Cookies are shared by all ports of a machine, so two reviews need two names."""
        return f"lifealign-review-{self.server.server_port}"

    def _is_admitted(self, token: str = "") -> bool:
        """Whether a request may be answered; refuses it if not."""
        port, host = self.server.server_port, self.headers.get("Host", "")
        if host not in [name if port == 80 else f"{name}:{port}" for name in (LOOPBACK, "localhost")]:
            # A site may have its own name point to 127.0.0.1, and its scripts would then be at home here.
            self._refuse(HTTPStatus.FORBIDDEN, f"found another host, expected {LOOPBACK}:{port}")
            return False
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            self._refuse(HTTPStatus.FORBIDDEN, "found a request from another site")
            return False
        cookies = [part.strip().partition("=") for part in self.headers.get("Cookie", "").split(";")]
        given = [token, self.headers.get("Authorization", "").removeprefix("Bearer ")]
        given += [value for name, _, value in cookies if name == self._cookie_name]
        if any(secrets.compare_digest(one.encode(), self.server.token.encode()) for one in given):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, STRANGER)
        return False

    def _body(self) -> bytes | None:
        """The body of a request; None if it was refused. It is read first of all, or the refusal would not arrive."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected a body with its length")
            return None
        size = int(length[:20])
        body = self.rfile.read(min(size, LARGEST_BODY))
        if size <= LARGEST_BODY:
            return body
        self.rfile.read(min(size, 8 * LARGEST_BODY) - LARGEST_BODY)
        self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {LARGEST_BODY} bytes")
        return None

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send_json(status, {"error": message})

    def _send_json(self, status: HTTPStatus, content: Any) -> None:
        self._send(status, "application/json", json.dumps(content).encode(), {"Content-Security-Policy": NOTHING})

    def _send(self, status: HTTPStatus, kind: str, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses what is no request, or none that we answer, in our own form."""
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def version_string(self) -> str:
        """Says nothing about the Python it runs on."""
        return "lifealign"

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: an address holds the token."""


def _read(body: bytes, kind: type[Kind]) -> Kind:
    try:
        return validated("request", parse_json(body), kind)
    except (ValueError, LifeError) as error:
        raise ConfigError(str(error)) from error


def _number(query: Mapping[str, list[str]]) -> int | None:
    given = query.get("number", [""])[0]
    if given and not (given.isascii() and given.isdigit() and len(given) < 10):
        raise ConfigError(f"number: found {given[:40]!r}, expected a whole number")
    return int(given) if given else None
