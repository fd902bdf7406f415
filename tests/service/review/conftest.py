"""Files to review, a server of a review in a thread, somebody who talks to it, and a browser."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.writers import write_jsonl

from lifealign.service.review.candidates import read_candidates
from lifealign.service.review.page import review_page
from lifealign.service.review.review import open_review
from lifealign.service.review.server import ReviewServer

Serve = Callable[..., AbstractContextManager[ReviewServer]]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Four pairs; of number 1 the chosen answer is ``good 1``."""
    pairs = ({"prompt": f"Question {n}?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(1, 5))
    return write_jsonl(tmp_path / "pairs.jsonl", pairs)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def serve(rows: Path, out: Path) -> Serve:
    @contextmanager
    def serving(file: Path = rows) -> Iterator[ReviewServer]:
        candidates = read_candidates(file)
        with ReviewServer() as server, open_review(str(file), candidates, out) as review:
            thread = threading.Thread(target=server.serve, args=(review, review_page(str(file), out)))
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()

    return serving


def ask(server: ReviewServer, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and content of an answer; the token is sent unless ``Authorization`` says otherwise."""
    sent = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{server.server_port}{path}"
    request = urllib.request.Request(url, data, {name: value for name, value in sent.items() if value})
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        content = answer.read().decode()
        kind = answer.headers.get_content_type()
        return answer.status, answer.headers, json.loads(content) if kind == "application/json" else content
