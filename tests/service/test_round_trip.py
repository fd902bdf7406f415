"""The loop of ``docs/serve.md``: serve, collect, review, collect, learn, and the same server serves what was learnt."""

from __future__ import annotations

import json
import re
import shlex
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeLife
from tests.service.conftest import running
from tests.tiny import letter_task
from typer.testing import CliRunner

from lifealign.cli.main import app
from lifealign.data.clean import read_clean
from lifealign.life.life import Life
from lifealign.service.review.candidates import read_candidates
from lifealign.service.review.page import review_page
from lifealign.service.review.review import open_review
from lifealign.service.review.server import ReviewServer

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
BETTER = "yes"


def commands() -> dict[str, list[str]]:
    """The lines of the first block of the page, by what they are for."""
    block = re.search(r"```bash\n(.*?)```", PAGE.read_text(), re.S)
    assert block
    lines = [shlex.split(line)[1:] for line in block[1].splitlines()]
    assert [line[0] for line in lines] == ["serve", "collect", "review", "collect", "learn"]
    return dict(zip(["serve", "find", "review", "collect", "learn"], lines, strict=True))


def run(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def decide(open_rows: str, out: str) -> None:
    """A reviewer who edits every pair, on the page's own interface."""
    server = ReviewServer(0)
    with open_review(open_rows, read_candidates(open_rows), Path(out)) as review:
        thread = threading.Thread(target=server.serve, args=(review, review_page(open_rows, Path(out))))
        thread.start()

        def ask(path: str, body: dict[str, Any] | None = None) -> Any:
            asked = urllib.request.Request(
                f"http://127.0.0.1:{server.server_port}{path}",
                None if body is None else json.dumps(body).encode(),
                {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(asked) as answer:
                return json.load(answer)

        view = ask("/row")
        while view["row"]:
            decision = {"key": view["row"]["key"], "version": view["version"], "choice": "a", "edited": BETTER}
            view = ask("/decide", decision)
        ask("/finish", {})
        thread.join(30)
    server.server_close()


@pytest.mark.slow
def test_a_bot_learns_from_its_own_conversations(
    make_life: MakeLife, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hard = {"num_train_epochs": 8, "learning_rate": 5e-2}
    make_life("my-bot", sft=hard, retention={"mode": "warn"}).learn(letter_task("tone", "a", "b", train=20))
    line = commands()
    assert line["serve"] == ["serve", "my-bot", "--log", "served.jsonl"]
    with running(Path("my-bot"), log=Path("served.jsonl")) as server:
        client = server.client()

        def ask(text: str, **options: Any) -> Any:
            asked: Any = [{"role": "user", "content": text}]
            given = {"model": "my-bot", "messages": asked, "max_tokens": 8} | options
            return client.chat.completions.create(**given)

        def say(answer: Any, **said: str) -> None:
            client.post("/feedback", body={"id": answer.id} | said, cast_to=dict[str, object])

        for number in range(12):  # what people said
            say(ask(f"refund {number}"), edited=BETTER)
        text = ask("refund 90", model="my-bot@base").choices[0].message.content
        ends = [one for place, one in enumerate(text) if place and one not in text[:place]]
        for end in ends[:2]:  # two answers to one prompt, between which nobody decides
            assert ask("refund 90", model="my-bot@base", stop=end).choices[0].finish_reason == "stop"
        say(ask("refund 91"), thumb="down")
        before = ask("refund 3").choices[0].message.content

        found = run(line["find"])
        assert "1 prompt to decide" in found and "lone thumbs down" in found, found
        decide(line["review"][1], line["review"][3])
        assert "13 pairs" in run(line["collect"])
        pairs = read_clean("pairs.jsonl").pairs
        assert {pair.chosen for pair in pairs} == {BETTER} and len(pairs) == 13
        run(line["learn"])

        after = ask("refund 3")
        assert after.model == "my-bot@02-from-service" and after.choices[0].message.content != before
        learnt = Life.open("my-bot").recall_examples(pairs)[0]  # whose pattern is it that people prefer these answers?
        assert learnt.step == "02-from-service" and learnt.mean > 0
