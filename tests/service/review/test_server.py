"""The server: whom it answers, what it refuses, and how it ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.service.review.conftest import Serve, ask
from tests.writers import write_jsonl

from lifealign.errors import ConfigError
from lifealign.service.review.server import LARGEST_BODY, Handler, ReviewServer


def body_for(view: dict[str, Any], choice: str, **more: Any) -> dict[str, Any]:
    return {"key": view["row"]["key"], "version": view["version"], "choice": choice, **more}


def test_pairs_are_decided_over_http_to_the_end(serve: Serve, out: Path) -> None:
    with serve() as server:
        _, _, view = ask(server, "/row")
        assert view["row"]["prompt"] == [{"role": "user", "content": "Question 1?"}]
        assert (
            view["row"]["number"] == 1
            and view["row"]["decision"] is None
            and (view["total"], view["decided"]) == (4, 0)
        )
        status, _, view = ask(server, "/decide", body_for(view, "a"))
        assert (status, view["row"]["number"], view["decided"]) == (200, 2, 1)
        status, _, view = ask(server, "/decide", body_for(view, "b", edited="quite another"))
        assert (status, view["decided"]) == (200, 2)
        status, _, view = ask(server, "/undo", {"version": view["version"]})
        assert (status, view["decided"], view["row"]["number"]) == (200, 1, 2)
        _, _, view = ask(server, "/decide", body_for(view, "skip"))
        assert (view["row"]["number"], view["skipped"]) == (3, 1)
        assert ask(server, "/row?skipped")[2]["row"]["number"] == 2
        assert ask(server, "/row?number=4")[2]["row"]["number"] == 4
        for number in (3, 4):
            _, _, view = ask(server, "/decide", body_for(ask(server, f"/row?number={number}")[2], "b"))
        assert view["row"] is None and ask(server, "/row")[2]["row"] is None
    assert len(out.read_text().splitlines()) == 3


def test_a_stale_decision_is_answered_by_how_things_stand(serve: Serve, out: Path) -> None:
    with serve() as server:
        _, _, view = ask(server, "/row")
        ask(server, "/decide", body_for(view, "a"))
        before = out.read_bytes()
        status, _, stale = ask(server, "/decide", body_for(view, "b"))
        assert status == 409 and stale["view"]["row"]["decision"]["choice"] == "a" and "elsewhere" in stale["error"]
        assert ask(server, "/undo", {"version": view["version"]})[0] == 409 and out.read_bytes() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer \xe9"},
        {"Authorization": "", "Cookie": "lifealign-review-1={token}"},
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_strangers_are_told_nothing_and_change_nothing(serve: Serve, out: Path, headers: dict[str, str]) -> None:
    with serve() as server:
        sent = {name: text.format(token=server.token, port=server.server_port) for name, text in headers.items()}
        view = ask(server, "/row")[2]
        for path, body in (
            ("/", None),
            ("/row", None),
            ("/decide", body_for(view, "a")),
            ("/undo", {"version": 0}),
            ("/finish", {}),
            ("/elsewhere", None),
        ):
            status, _, answer = ask(server, path, body, **sent)
            assert status == 403 and [*answer] == ["error"] and server.token not in str(answer), path
        assert ask(server, "/row")[2] == view and not out.exists()


def test_the_token_of_the_address_is_good_for_the_page_only_and_its_cookie_for_the_rest(serve: Serve) -> None:
    with serve() as server:
        path = server.address.partition(str(server.server_port))[2]
        status, headers, page = ask(server, path, Authorization="")
        assert status == 200 and page.startswith("<!doctype html>")
        cookie = headers["Set-Cookie"]
        assert cookie == f"lifealign-review-{server.server_port}={server.token}; HttpOnly; SameSite=Strict; Path=/"
        mine = cookie.partition(";")[0]
        sent = f'other={{"a": 1}}; {mine}; last'  # cookies of other programs on this machine come along
        assert ask(server, "/row", Authorization="", Cookie=sent)[0] == 200
        assert ask(server, "/", Authorization="", Cookie=mine)[0] == 200
        assert ask(server, f"/row?token={server.token}", Authorization="")[0] == 403
        assert ask(server, "/row", Host=f"localhost:{server.server_port}")[0] == 200
        assert ask(server, "/row", Origin=f"http://127.0.0.1:{server.server_port}")[0] == 200


def test_the_page_allows_its_own_style_and_script_and_nothing_else(serve: Serve) -> None:
    with serve() as server:
        _, headers, page = ask(server, "/")
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
        assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy and "form-action 'none'" in policy
        assert " on" + "click=" not in page and "style=" not in page and "http" not in page.partition("<style>")[0]
        for path in ("/", "/row", "/nowhere"):
            _, headers, _ = ask(server, path)
            assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
            assert headers["Referrer-Policy"] == "no-referrer" and headers["Content-Security-Policy"]
            assert headers["Server"] == "lifealign"


def test_a_file_name_is_text_on_the_page(serve: Serve, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "<img src=x onerror=alert(1)>.jsonl", [{"prompt": "p", "answers": ["x", "y"]}])
    with serve(file) as server:
        page = ask(server, "/")[2]
        assert "<img" not in page and "&lt;img src=x" in page


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/decide", b"{", {}, 400),
        ("/decide", b"[]", {}, 400),
        ("/decide", b'{"key": "x", "version": 0, "choice": "a"}', {}, 400),
        ("/decide", b'{"key": "x", "version": 0, "choice": "c"}', {}, 400),
        ("/decide", b'{"key": "x", "version": true, "choice": "a"}', {}, 400),
        ("/decide", b'{"key": "x", "version": 0, "choice": "a", "more": 1}', {}, 400),
        ("/decide", b'{"key": "x", "key": "y", "version": 0, "choice": "a"}', {}, 400),
        ("/undo", b'{"version": 0}', {}, 400),
        ("/finish", b"", {}, 400),
        ("/finish", b"{}", {"Content_Type": "text/plain"}, 415),
        ("/finish", b"{}", {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ("/decide", b" " * (LARGEST_BODY + 1), {}, 413),
        ("/decide", b" " * (3 * LARGEST_BODY), {}, 413),
        ("/row", b"{}", {}, 404),
        ("/nowhere", b"{}", {}, 404),
        ("/nowhere", None, {}, 404),
        ("/../../etc/passwd", None, {}, 404),
        ("/page.js", None, {}, 404),
        ("/row?number=0", None, {}, 400),
        ("/row?number=5", None, {}, 400),
        ("/row?number=x", None, {}, 400),
        ("/row?number=-1", None, {}, 400),
    ],
)
def test_what_is_no_request_of_the_page_is_refused(
    serve: Serve, out: Path, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    with serve() as server:
        answer = ask(server, path, body, **headers)
        assert answer[0] == status and [*answer[2]] == ["error"] and "Traceback" not in str(answer[2])
        assert ask(server, "/row")[2]["version"] == 0 and not out.exists()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
        (b"POST /finish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"411"),
        (b"POST /finish HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"rubbish <script>\r\n\r\n", b"error"),
    ],
)
def test_a_line_that_is_no_request_ends_nothing(serve: Serve, sent: bytes, status: bytes) -> None:
    with serve() as server:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as line:
            line.sendall(sent)
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert status in answer and b"<script>" not in answer.partition(b"\r\n\r\n")[0] and b"html" not in answer
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20):
            assert ask(server, "/row")[0] == 200  # beside somebody who says nothing


def test_finishing_ends_the_server_after_its_answer(serve: Serve, out: Path) -> None:
    with serve() as server:
        ask(server, "/decide", body_for(ask(server, "/row")[2], "a"))
        status, _, view = ask(server, "/finish", {})
        assert (status, view["decided"], view["total"]) == (200, 1, 4)
        ended = threading.Thread(target=server.shutdown)  # returns once the loop has ended
        ended.start()
        ended.join(20)
        assert not ended.is_alive()
    assert len(out.read_text().splitlines()) == 1


def test_nothing_ends_before_the_last_answer_is_sent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    send, shutdown = Handler._send, ReviewServer.shutdown

    def slowly(self: Handler, *arguments: Any) -> None:
        time.sleep(0.2)
        send(self, *arguments)
        order.append("answer")

    monkeypatch.setattr(Handler, "_send", slowly)
    monkeypatch.setattr(ReviewServer, "shutdown", lambda self: (order.append("end"), shutdown(self)))
    with serve() as server:
        assert ask(server, "/finish", {})[0] == 200
    assert order[0] == "answer"


def test_it_listens_on_loopback_and_not_on_a_port_that_is_taken() -> None:
    with ReviewServer() as server:
        assert server.server_address[0] == "127.0.0.1" and server.server_port > 0
        assert (
            server.address == f"http://127.0.0.1:{server.server_port}/?token={server.token}" and len(server.token) >= 32
        )
        with pytest.raises(ConfigError, match=rf"port {server.server_port} is taken; give another --port"):
            ReviewServer(server.server_port)
        with ReviewServer() as other:
            assert other.token != server.token


def test_a_view_does_not_say_what_the_row_calls_chosen(serve: Serve, rows: Path) -> None:
    """Turning every row round changes no byte of what a reviewer is shown."""
    shown = []
    for _ in range(2):
        with serve() as server:
            shown.append([ask(server, f"/row?number={number}")[2] for number in range(1, 5)])
        turned = [json.loads(line) for line in rows.read_text().splitlines()]
        write_jsonl(rows, ({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in turned))
    assert shown[0] == shown[1]
