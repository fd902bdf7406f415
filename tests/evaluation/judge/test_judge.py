"""The judge against a scripted server: strict replies, faults, limits, the cache, and a key that never shows."""

import logging
import os
import signal
import socket
import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scripted_judge import Says, Script, ScriptedJudge, block, scripted_judge

from lifealign.data.pair import Message
from lifealign.errors import ConfigError
from lifealign.evaluation.judge import (
    AnswerPair,
    Item,
    Judge,
    JudgeConfig,
    JudgeError,
    Marks,
    judge_score,
    rubric_for,
    win_rate,
)
from lifealign.settings.section import build_config

GENERAL = rubric_for("general")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Pauses between retries take no time, and are noted; no key of the machine is used."""
    waited: list[float] = []

    def pause(attempt: int, wait: float) -> float:
        waited.append(wait)
        return 0.0

    monkeypatch.setattr("lifealign.evaluation.judge.endpoint.pause", pause)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield waited


def items(*answers: str) -> list[Item]:
    return [
        Item((Message("user", f"Question {n}"),), answer, "A reference.", GENERAL) for n, answer in enumerate(answers)
    ]


def judged(
    script: Script, things: list[Item], cache: Path | None = None, **settings: Any
) -> tuple[Marks, ScriptedJudge]:
    with scripted_judge(script) as server:
        config = JudgeConfig(**{"model": "scripted", "base_url": server.url, "max_retries": 2} | settings)
        with Judge(config, cache) as judge:
            return judge.marks(things), server


def test_marks_come_back_in_the_order_of_the_answers_at_temperature_zero() -> None:
    marks, server = judged(lambda said, _: block(said, "ANSWER"), items("3", "10", "1"))
    assert marks.marks == (3, 10, 1) and marks.points == (30.0, 100.0, 10.0) and marks.reasons == ("", "", "")
    assert judge_score(marks.marks, 0.0) == pytest.approx(10 * (3 + 10 + 1) / 3)
    assert {request["temperature"] for request in server.requests} == {0}
    assert (marks.tally.asked, marks.tally.requests, marks.tally.cached) == (3, 3, 0)
    assert (marks.tally.prompt_tokens, marks.tally.completion_tokens) == (30, 3)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Score: 7",
        "7/10",
        "10/10",
        "11",
        "0",
        "-3",
        "7.5",
        "7 8",
        "seven",
        "07",
        "I cannot rate this.",
        "```7```",
        "\uff17",  # a digit, but not one of ours
    ],
)
def test_a_reply_of_any_other_form_is_asked_for_again_and_then_missing(reply: str) -> None:
    marks, server = judged(lambda *_: reply, items("an answer"))
    assert marks.marks == (None,) and marks.reasons[0].startswith("format: 3 replies could not be read")
    assert len(server.requests) == 3
    assert len({request["messages"][1]["content"] for request in server.requests}) == 3  # the same would bring the same
    assert judge_score(marks.marks, 0.5) is None


def test_a_reminder_may_help() -> None:
    marks, server = judged(lambda _, number: "Well, a 7 I think" if number == 0 else " 7\n", items("an answer"))
    assert marks.marks == (7,) and len(server.requests) == 2


def test_an_empty_answer_has_the_lowest_mark_and_nobody_is_asked() -> None:
    marks, server = judged(lambda *_: "10", items("", " \n"))
    assert marks.marks == (1, 1) and server.requests == []


def test_too_many_missing_marks_refuse_the_cell_and_fewer_do_not_count() -> None:
    def script(said: Any, _: int) -> str:
        return "no" if "bad" in block(said, "ANSWER") else "8"

    marks, _ = judged(script, items("good", "bad", "good", "good"))
    assert marks.marks == (8, None, 8, 8) and marks.missing == 1
    assert judge_score(marks.marks, 0.25) == 80.0 and judge_score(marks.marks, 0.2) is None


FAULTS: dict[str, Says] = {
    "429": Says(status=429, body=b'{"error": {"message": "slow down"}}', headers={"Retry-After": "3"}),
    "500": Says(status=500, body=b"oops"),
    "503": Says(status=503, body=b"{}"),
    "timeout": Says(delay=1.0),
    "hung up": Says(close=True),
    "truncated": Says(body=b'{"id": "x", "choi'),
    "no completion": Says(body=b'{"hello": 1}'),
    "no choices": Says(body=b'{"choices": []}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_got_over(fault: str, impatient: list[float]) -> None:
    marks, server = judged(lambda _, number: FAULTS[fault] if number < 2 else "6", items("an answer"), timeout=0.4)
    assert marks.marks == (6,)
    assert len(server.requests) == marks.tally.requests == 3
    assert impatient == ([3.0, 3.0] if fault == "429" else [0.0, 0.0])  # what the server asked for


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_fault_of_one_question_is_a_missing_mark_with_its_reason(fault: str) -> None:
    def script(said: Any, _: int) -> Says | str:
        return FAULTS[fault] if block(said, "ANSWER") == "cursed" else "6"

    marks, _ = judged(script, items("fine", "cursed", "fine too"), timeout=0.4)
    assert (
        marks.marks == (6, None, 6) and marks.reasons[1].startswith("endpoint: ") and "3 attempts" in marks.reasons[1]
    )


def test_a_text_that_the_server_refuses_is_missing_and_not_asked_again() -> None:
    def script(said: Any, _: int) -> Says | str:
        return Says(status=400, body=b'{"error": {"message": "policy"}}') if "bad" in block(said, "ANSWER") else "6"

    marks, server = judged(script, items("fine", "bad"))
    assert marks.marks == (6, None) and marks.reasons[1].startswith("rejected: status 400: policy")
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_unknown_model_stops_everything_at_once(status: int) -> None:
    with scripted_judge(lambda *_: Says(status=status, body=b'{"error": {"message": "no"}}')) as server:
        config = JudgeConfig(model="scripted", base_url=server.url)
        with Judge(config) as judge, pytest.raises(JudgeError, match=rf"status {status}: no\. Check the address"):
            judge.marks(items(*map(str, range(1, 30))))
        assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_one_clear_error_and_few_attempts() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    judge = Judge(JudgeConfig(model="scripted", base_url=url, max_retries=1))
    began = time.monotonic()
    with judge, pytest.raises(JudgeError, match="the server was not reached, 2 attempts"):
        judge.marks(items(*(f"answer {n}" for n in range(500))))
    assert time.monotonic() - began < 20


def test_a_server_that_goes_away_stops_the_call_and_what_was_judged_is_kept(tmp_path: Path) -> None:
    def script(_: Any, number: int) -> Says | str:
        return "5" if number < 4 else Says(status=502, body=b"gone")

    with scripted_judge(script) as server:
        config = JudgeConfig(model="scripted", base_url=server.url, max_retries=0, max_parallel=1)
        with Judge(config, tmp_path / "v.sqlite") as judge, pytest.raises(JudgeError, match="3 questions in a row"):
            judge.marks(items(*(f"answer {n}" for n in range(50))))
        assert len(server.requests) == 7
        server.script = lambda *_: "5"
        with Judge(config, tmp_path / "v.sqlite") as judge:
            assert judge.marks(items(*(f"answer {n}" for n in range(50)))).tally.cached == 4


@pytest.mark.parametrize("limit", [1, 3])
def test_so_many_requests_at_a_time_and_no_more(limit: int) -> None:
    many = items(*(f"answer {n}" for n in range(14)))
    marks, server = judged(lambda *_: Says("5", delay=0.05), many, max_parallel=limit)
    assert server.most_at_once == limit and marks.missing == 0


def test_the_budget_counts_every_request_and_the_rest_is_missing(tmp_path: Path) -> None:
    many = items(*(f"answer {n}" for n in range(10)))
    marks, server = judged(lambda *_: "5", many, tmp_path / "v.sqlite", max_requests=4)
    assert len(server.requests) == 4 and marks.missing == 6
    assert {reason.partition(":")[0] for reason in marks.reasons if reason} == {"budget"}
    with scripted_judge(lambda *_: "5") as other:
        # Another port is another place; the same one is the same judge.
        config = JudgeConfig(model="scripted", base_url=server.url, max_requests=0)
        with Judge(config, tmp_path / "v.sqlite") as judge:
            again = judge.marks(many)
        assert (again.tally.cached, again.missing, other.requests) == (4, 6, [])


def test_retries_count_against_the_budget() -> None:
    marks, server = judged(lambda *_: Says(status=500), items("a"), max_requests=2, max_retries=5)
    assert len(server.requests) == 2 and marks.reasons[0].startswith("budget: all 2 requests")


def test_nothing_is_paid_for_twice_and_other_words_are_asked_anew(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "v.sqlite"
    with scripted_judge(lambda said, _: "no" if "odd" in block(said, "ANSWER") else "4") as server:
        config = JudgeConfig(model="scripted", base_url=server.url)
        for expected in (4, 0):  # one request, and three for the reply that is never read
            with Judge(config, cache) as judge:
                before = len(server.requests)
                marks = judge.marks([*items("an answer"), *items("odd"), *items("an answer")])
                assert marks.marks == (4, None, 4) and len(server.requests) - before == expected
        for other in (config.model_copy(update={"model": "another"}), config.model_copy(update={"seed": 1})):
            with Judge(other, cache) as judge:
                before = len(server.requests)
                judge.marks(items("an answer"))
                assert len(server.requests) == before + 1


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\x00" + b"\xff" * 200])
def test_a_damaged_cache_is_set_aside_and_made_again(tmp_path: Path, damage: bytes) -> None:
    cache = tmp_path / "v.sqlite"
    cache.write_bytes(damage)
    marks, _ = judged(lambda *_: "4", items("an answer"), cache)
    assert marks.marks == (4,)
    if damage:
        assert (tmp_path / "v.sqlite.damaged").read_bytes() == damage
    again, server = judged(lambda *_: "4", items("an answer"), cache)
    assert again.marks == (4,) and server is not None


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.sqlite"
    with sqlite3.connect(path) as mine:
        mine.execute("CREATE TABLE recipes (name TEXT)")
    mine.close()
    with pytest.raises(JudgeError, match="found a database of something else"):
        Judge(JudgeConfig(model="m", base_url="http://127.0.0.1:1/v1"), path)


def test_an_interrupt_ends_the_call_and_not_only_after_the_server(request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with scripted_judge(lambda *_: Says("5", delay=5.0)) as server:
        judge = Judge(JudgeConfig(model="scripted", base_url=server.url, timeout=30))
        threading.Timer(0.5, lambda: os.kill(os.getpid(), 2)).start()
        began = time.monotonic()
        with judge, pytest.raises(KeyboardInterrupt):
            judge.marks(items("a", "b"))
        assert time.monotonic() - began < 4


# -- the key -----------------------------------------------------------------------------------------------------------

KEY = "sk-planted-0123456789abcdef"


def test_the_key_is_sent_and_shows_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    told = []

    def script(said: Any, number: int) -> Says | str:
        echo = f'{{"error": {{"message": "bad header Authorization: Bearer {KEY}"}}}}'.encode()
        kind = block(said, "ANSWER")
        return {"echo": f"{KEY} 7", "400": Says(status=400, body=echo), "500": Says(status=500, body=echo)}.get(
            kind, "7"
        )

    cache = tmp_path / "v.sqlite"
    with caplog.at_level(logging.DEBUG), scripted_judge(script) as server:
        for name in ("openai", "httpx", "httpcore", "httpx2", "httpcore2", "lifealign"):
            caplog.set_level(logging.DEBUG, logger=name)
        config = JudgeConfig(model="scripted", base_url=server.url, api_key_env="PLANTED_KEY", max_retries=1)
        with Judge(config, cache) as judge:
            marks = judge.marks(items("fine", "echo", "400", "500"))
        assert server.authorizations and set(server.authorizations) == {f"Bearer {KEY}"}
        server.script = lambda *_: Says(status=401, body=f"wrong key {KEY}".encode())
        with Judge(config) as judge:
            try:
                judge.marks(items("fine"))
            except JudgeError as error:
                told = traceback.format_exception(error)
                chain: BaseException | None = error
                while chain is not None:
                    told.append(repr(chain.__dict__) + repr(chain.args))
                    chain = chain.__cause__ or chain.__context__
    assert told and marks.marks == (7, None, None, None)
    shown = capfd.readouterr()
    everything = [*told, *marks.reasons, repr(config), config.model_dump_json(), caplog.text, shown.out, shown.err]
    everything += [repr(record.__dict__) for record in caplog.records]
    everything += [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]
    assert [text for text in everything if KEY in text] == []
    assert any("[key]" in text for text in everything)


@pytest.mark.parametrize("value", [KEY, "sk-abc", "gsk_ABCdef123", "AKIA1234567890ABCDEF"])
def test_a_key_in_place_of_its_variables_name_is_refused_without_a_word_of_it(value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build_config(JudgeConfig, {"model": "m", "api_key_env": value}, source="judge")
    assert value not in str(raised.value) and "expected a name such as OPENAI_API_KEY" in str(raised.value)


def test_a_key_that_is_missing_is_said_by_its_variables_name() -> None:
    with Judge(JudgeConfig(model="m", api_key_env="NOT_SET")) as judge, pytest.raises(ConfigError, match="NOT_SET"):
        judge.marks(items("a"))


def test_a_password_in_the_address_is_refused_without_a_word_of_it() -> None:
    with pytest.raises(ConfigError) as raised:
        build_config(JudgeConfig, {"model": "m", "base_url": f"https://user:{KEY}@host/v1"}, source="judge")
    assert KEY not in str(raised.value)


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifealign.evaluation.judge.endpoint.importlib.util.find_spec", lambda name: None)
    judge = Judge(JudgeConfig(model="m", base_url="http://127.0.0.1:1/v1"))
    with judge, pytest.raises(ConfigError, match=r"pip install 'lifealign\[judge\]'"):
        judge.marks(items("a"))


# -- pairwise ----------------------------------------------------------------------------------------------------------


def pairs(*both: tuple[str, str]) -> list[AnswerPair]:
    return [
        AnswerPair((Message("user", f"Q{n}"),), ours, theirs, "ref", GENERAL) for n, (ours, theirs) in enumerate(both)
    ]


def test_a_better_answer_wins_in_both_orders_and_equal_ones_are_a_tie_unasked() -> None:
    def longer(said: Any, _: int) -> str:
        first, second = block(said, "ANSWER-A"), block(said, "ANSWER-B")
        return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"

    with scripted_judge(longer) as server, Judge(JudgeConfig(model="s", base_url=server.url)) as judge:
        found = judge.preferences(
            pairs(("long answer", "short"), ("short", "long answer"), ("same", "same"), ("ab", "cd"))
        )
        assert found.outcomes == ("win", "loss", "tie", "tie")
        assert found.moved == (False, False, None, False) and len(server.requests) == 6
        rate = win_rate(found, 0.0)
        assert rate is not None and (rate.wins, rate.ties, rate.losses, rate.rate, rate.moved) == (1, 2, 1, 0.5, 0.0)


def test_a_judge_that_likes_a_place_gives_ties_and_is_found_out() -> None:
    with scripted_judge(lambda *_: "A") as server, Judge(JudgeConfig(model="s", base_url=server.url)) as judge:
        found = judge.preferences(pairs(("one", "two"), ("three", "four")))
        assert found.outcomes == ("tie", "tie") and found.moved == (True, True)
        rate = win_rate(found, 0.0)
        assert rate is not None and (rate.rate, rate.moved) == (0.5, 1.0)


def test_a_comparison_without_one_of_its_verdicts_has_no_outcome() -> None:
    def half(said: Any, _: int) -> str:
        return "A" if block(said, "ANSWER-A") == "ours" else "well..."

    with scripted_judge(half) as server, Judge(JudgeConfig(model="s", base_url=server.url)) as judge:
        found = judge.preferences(pairs(("ours", "theirs")))
        assert found.outcomes == (None,) and found.reasons[0].startswith("format:")
        assert win_rate(found, 0.5) is None
