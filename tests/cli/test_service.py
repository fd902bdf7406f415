"""`lifealign chat` and `lifealign serve` as a person starts them, and what they refuse."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Command, Result
from tests.service.test_speaker import answers_of

from lifealign.service.access import KEY


@pytest.fixture
def bot(taught: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taught, tmp_path / "my-bot"))


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def error_of(result: Result) -> str:
    """The one line of an error."""
    assert result.code == 2
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result
    return lines[0]


def test_prompts_that_are_piped_in(lifealign: Command, bot: Path) -> None:
    expected = answers_of(bot)
    result = lifealign("chat", bot, "--max-new-tokens", 8, given="tone 9\n\ntone 9\n")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and [row["answer"] for row in rows] == [expected["02-refunds"]] * 2
    assert rows[0]["model"] == "my-bot@02-refunds"
    result = lifealign("chat", bot, "--as-of", "01-tone", "--max-new-tokens", 8, given="tone 9")
    assert json.loads(result.out)["answer"] == expected["01-tone"]
    result = lifealign("chat", bot, given=f"tone 9\n{'x' * 1100}\n")
    assert "1 prompt could not be answered; each line says why" in error_of(result)
    assert [sorted(json.loads(line)) for line in result.out.splitlines()][1] == ["error", "prompt"]


def test_sampled_answers_are_the_same_with_a_seed(lifealign: Command, bot: Path) -> None:
    asked = ("chat", bot, "--temperature", "1.3", "--max-new-tokens", 8)
    one, same, other = (lifealign(*asked, "--seed", seed, given="tone 9").out for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--as-of", "09-x"), "found no such model, expected one of my-bot, my-bot@01-tone"),
        (("--as-of", "base", "--recall"), "--recall chooses a version for each prompt; leave out --as-of"),
        (("--top-p", "0.5"), "--top-p and --seed need sampled answers; add --temperature"),
        (("--seed", "1"), "--top-p and --seed need sampled answers; add --temperature"),
        (("--temperature", "1", "--top-p", "0"), "--top-p: found 0.0, expected"),
    ],
)
def test_chat_refuses(lifealign: Command, bot: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in error_of(lifealign("chat", bot, *arguments, given="Hi"))


def test_no_life(lifealign: Command, tmp_path: Path) -> None:
    for verb in ("chat", "serve"):
        assert "found no such directory, expected a life" in error_of(lifealign(verb, tmp_path / "none"))


def test_serve_refuses(lifealign: Command, bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--engine: found 'tgi', expected transformers or vllm" in error_of(
        lifealign("serve", bot, "--engine", "tgi")
    )
    assert "--host 0.0.0.0 needs a key" in error_of(lifealign("serve", bot, "--host", "0.0.0.0"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: could not be used on 127.0.0.1: Address already in use; --port 0 takes a free one" in (
            error_of(lifealign("serve", bot, "--port", port))
        )
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for module in ("lifealign.service.answering", "lifealign.service.app", "lifealign.service.server"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert "serve needs fastapi, which is not installed; install it with `pip install 'lifealign[serve]'`" in (
        error_of(lifealign("serve", bot))
    )


def test_vllm_s_command_is_printed(lifealign: Command, bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = lifealign("serve", bot, "--engine", "vllm", "--print", "--port", 8123)
    assert result.code == 0 and "vllm serve" in result.out and "--max-lora-rank 8" in result.out
    assert f"VLLM_LORA_RESOLVER_CACHE_DIR={bot / 'versions'}" in result.out and "--port 8123" in result.out
    monkeypatch.setenv("PATH", "")
    assert "needs vLLM, which is not installed; `pip install vllm`, or run elsewhere: VLLM_" in (
        error_of(lifealign("serve", bot, "--engine", "vllm"))
    )
    assert "--log needs --engine transformers" in error_of(
        lifealign("serve", bot, "--engine", "vllm", "--log", "log.jsonl")
    )


@pytest.mark.slow
def test_a_server_as_it_is_started_and_ended(bot: Path, tmp_path: Path) -> None:
    """A process of its own: it says where it is, answers, writes down, and ends at SIGINT with nothing left over."""
    from openai import OpenAI

    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "lifealign", "serve", str(bot), "--port", "0", "--log", str(log)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/v1)  \(Ctrl-C ends\)", line)
        assert found, line
        client = OpenAI(base_url=found[1], api_key="none", max_retries=0)
        asked: Any = [{"role": "user", "content": "tone 9"}]
        given = client.chat.completions.create(model="my-bot@01-tone", messages=asked, max_tokens=8)
        assert given.choices[0].message.content == answers_of(bot)["01-tone"]
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        # Not by communicate(), which does not see what readline() has read beyond its line.
        out, err = process.stdout.read(), process.stderr.read()
        process.wait(timeout=30)
    finally:
        process.kill()
    assert process.returncode in (0, 130) and "Traceback" not in err
    assert "my-bot@recall" in out and "every conversation" in out
    assert json.loads(log.read_text())["id"] == given.id
