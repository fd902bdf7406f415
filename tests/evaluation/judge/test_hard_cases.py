"""The judge where things go wrong less usually: servers that drip, quotas, notebooks, damaged and shared caches."""

import asyncio
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import comb
from pathlib import Path
from typing import Any

import pytest
from tests.scripted_judge import Says, block, scripted_judge

from lifealign.data.pair import Message, Pair
from lifealign.errors import ConfigError
from lifealign.evaluation.judge import (
    AnswerPair,
    Item,
    Judge,
    JudgeConfig,
    JudgeError,
    Preferences,
    Tally,
    TaskJudge,
    load_rubric,
    rubric_for,
    win_rate,
)
from lifealign.evaluation.judge import question as question_module
from lifealign.evaluation.judge.cache import StoredReply, VerdictCache
from lifealign.evaluation.judge.concurrency import each
from lifealign.evaluation.judge.pairwise import Outcome, wilson_interval
from lifealign.evaluation.judge.question import mark_question
from lifealign.evaluation.judge.retries import BACKOFF, LONGEST_BACKOFF, pause
from lifealign.evaluation.scores import HeldOut
from lifealign.settings.section import build_config

GENERAL = rubric_for("general")
KEY = "sk-planted-fedcba9876543210"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifealign.evaluation.judge.endpoint.pause", lambda attempt, wait: 0.0)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def items(*answers: str) -> list[Item]:
    return [Item((Message("user", f"Q{n}"),), answer, "A reference.", GENERAL) for n, answer in enumerate(answers)]


# -- the server --------------------------------------------------------------------------------------------------------


@contextmanager
def dripping_server() -> Iterator[str]:
    """Sends a byte of an endless body every tenth of a second: no single wait ever lasts long."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
                while not ended.wait(0.1):
                    connection.sendall(b" ")
            except OSError:
                pass

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        ended.set()
        listener.close()


def test_the_time_limit_is_of_the_whole_request_not_of_every_byte() -> None:
    with dripping_server() as url:
        judge = Judge(JudgeConfig(model="m", base_url=url, timeout=0.6, max_retries=1))
        began = time.monotonic()
        with judge, pytest.raises(JudgeError, match=r"no reply within 0\.6 s"):
            judge.marks(items("a"))
        assert 1.2 <= time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Says(status=429, body=b"{}", headers={"Retry-After": "86400"}), "it asks to wait 86400 s"),
        (Says(status=429, body=b'{"error": {"message": "pay", "code": "insufficient_quota"}}'), "status 429: pay"),
        (Says(status=402, body=b'{"error": {"message": "Insufficient Balance"}}'), "Insufficient Balance"),
    ],
)
def test_a_quota_that_waiting_does_not_help_stops_at_once(said: Says, words: str) -> None:
    with scripted_judge(lambda *_: said) as server, Judge(JudgeConfig(model="m", base_url=server.url)) as judge:
        with pytest.raises(JudgeError, match=words):
            judge.marks(items(*"abcdefgh"))
        assert len(server.requests) == 1


def test_requests_that_are_all_refused_from_the_start_stop_the_call() -> None:
    refusal = Says(status=400, body=b'{"error": {"message": "max_tokens is not supported"}}')
    with scripted_judge(lambda *_: refusal) as server:
        config = JudgeConfig(model="m", base_url=server.url, max_parallel=1)
        with Judge(config) as judge, pytest.raises(JudgeError, match=r"first 5 .*max_tokens is not supported"):
            judge.marks(items(*"abcdefghij"))
        assert len(server.requests) == 5


def test_the_first_question_goes_alone() -> None:
    at_once: list[int] = []

    def script(_: Any, number: int) -> Says:
        at_once.append(server._now)
        return Says("5", delay=0.3 if number == 0 else 0.1)

    with scripted_judge(script) as server, Judge(JudgeConfig(model="m", base_url=server.url)) as judge:
        judge.marks(items(*"abcdefgh"))
        assert at_once[0] == 1 and server.most_at_once > 1


def test_pauses_double_up_to_a_limit_vary_and_are_never_shorter_than_asked_for() -> None:
    for attempt in range(12):
        whole = min(LONGEST_BACKOFF, BACKOFF * 2**attempt)
        drawn = [pause(attempt, 0.0) for _ in range(50)]
        assert min(drawn) >= whole / 2 and max(drawn) <= whole and len(set(drawn)) > 1
    assert all(20.0 <= pause(0, 20.0) <= 22.0 for _ in range(50))


@pytest.mark.parametrize("place", ["pause", "request"])
def test_an_interrupt_ends_a_pause_and_a_request(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, place: str, tmp_path: Path
) -> None:
    monkeypatch.setattr("lifealign.evaluation.judge.endpoint.pause", lambda attempt, wait: 60.0)

    def script(said: Any, _: int) -> Says:
        if block(said, "ANSWER") == "first":
            return Says("5")
        return Says(status=503) if place == "pause" else Says("5", delay=3.0)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with scripted_judge(script) as server:
        config = JudgeConfig(model="m", base_url=server.url, timeout=90)
        threading.Timer(1.0, lambda: os.kill(os.getpid(), 2)).start()
        began = time.monotonic()
        with Judge(config, tmp_path / "v.sqlite") as judge, pytest.raises(KeyboardInterrupt):
            judge.marks(items("first", "second", "third"))
        assert time.monotonic() - began < 2.9
        assert [thread.name for thread in threading.enumerate() if thread.name == "judge"] == []
        with Judge(config.model_copy(update={"max_requests": 0}), tmp_path / "v.sqlite") as judge:
            assert judge.marks(items("first", "second", "third")).marks == (5, None, None)  # what was said is kept


def test_it_works_where_a_loop_is_running_already_as_in_a_notebook() -> None:
    async def cell() -> tuple[int | None, ...]:
        with scripted_judge(lambda *_: "7") as server, Judge(JudgeConfig(model="m", base_url=server.url)) as judge:
            return judge.marks(items("a", "b")).marks

    assert asyncio.run(cell()) == (7, 7)


def test_the_first_error_ends_what_runs_beside_it() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            if name == "bad":
                await asyncio.sleep(0.01)
                raise JudgeError("stop")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(name)
            raise

    with pytest.raises(JudgeError, match="stop"):
        asyncio.run(each(work, ["a", "bad", "b", "never begun"], 3))
    assert sorted(ended) == ["a", "b"]


# -- the key -----------------------------------------------------------------------------------------------------------


def test_the_key_shows_in_no_header_that_is_logged_and_in_no_local_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server echoes the key in a header; the transport logs headers at DEBUG; a traceback shows all locals."""
    monkeypatch.setenv("PLANTED_KEY", KEY)
    for name in [*logging.root.manager.loggerDict, "httpcore2.http11", "httpcore.http11"]:
        caplog.set_level(logging.DEBUG, logger=name)
    said = Says(status=403, body=f"no, {KEY}!".encode(), headers={"X-Echo": f"Bearer {KEY}"})
    with scripted_judge(lambda *_: said) as server:
        config = JudgeConfig(model="m", base_url=server.url, api_key_env="PLANTED_KEY")
        with Judge(config) as judge, pytest.raises(JudgeError) as raised:
            judge.marks(items("a"))
    error = raised.value
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    shown = shown.replace(f"KEY = {KEY!r}", "").replace(repr(said), "")  # this test's own
    logged = caplog.text + repr([vars(record) for record in caplog.records])
    assert "status 403: no, [key]!" in str(error) and "Bearer [key]" in logged
    assert KEY not in shown and KEY not in logged
    assert error.__cause__ is None and error.__context__ is None


@pytest.mark.parametrize("value", [f"{KEY}\nX-Other: 1", f"{KEY} {KEY}", f"{KEY}\u20ac"])
def test_a_key_that_cannot_be_sent_is_refused_before_the_client_repeats_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("PLANTED_KEY", value)
    config = JudgeConfig(model="m", base_url="http://127.0.0.1:1/v1", api_key_env="PLANTED_KEY")
    with Judge(config) as judge, pytest.raises(ConfigError, match="not shown") as raised:
        judge.marks(items("a"))
    assert KEY not in "".join(traceback.format_exception(raised.value))


def test_a_refused_setting_is_not_repeated_by_pydantic_either() -> None:
    with pytest.raises(ValueError) as raised:
        JudgeConfig(model="m", api_key_env=KEY)
    assert KEY not in str(raised.value) and "not shown" in str(raised.value)


def test_an_address_of_the_environment_is_checked_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    config = JudgeConfig(model="m")
    assert config.place == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    assert config.place == "http://127.0.0.1:9/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", f"https://user:{KEY}@host/v1")
    with Judge(config) as judge, pytest.raises(ConfigError, match="OPENAI_BASE_URL: found an address") as raised:
        judge.marks(items("a"))
    assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1", "https://h/v1?k=1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"base_url: found (no web address|an address with a user)"):
        build_config(JudgeConfig, {"model": "m", "base_url": url})


# -- the cache ---------------------------------------------------------------------------------------------------------


def filled(path: Path, number: int = 400) -> bytes:
    with VerdictCache(path) as cache:
        for one in range(number):
            cache.put(f"{one:064d}", "m", StoredReply("7", "7" * 50))
    return path.read_bytes()


@pytest.mark.parametrize("harm", ["truncated", "middle", "beginning"])
def test_damage_anywhere_in_the_cache_sets_it_aside(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v.sqlite"
    whole = filled(path)
    harmed = {
        "truncated": whole[: len(whole) // 2 + 77],
        "middle": whole[:8192] + b"\xa5" * 4096 + whole[12288:],
        "beginning": whole[:50],
    }[harm]
    path.write_bytes(harmed)
    with VerdictCache(path) as cache:
        cache.put("key", "m", StoredReply("1", "1"))
        assert cache.get("key") == StoredReply("1", "1") and cache.get(f"{5:064d}") is None
    assert (tmp_path / "v.sqlite.damaged").read_bytes() == harmed
    assert "found the judge's cache damaged" in caplog.text
    path.write_bytes(harmed)
    VerdictCache(path).close()
    assert (tmp_path / "v.sqlite.damaged-2").exists()


def test_a_mark_that_somebody_changed_in_the_file_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    with scripted_judge(lambda *_: "4") as server:
        config = JudgeConfig(model="m", base_url=server.url)
        with Judge(config, path) as judge:
            assert judge.marks(items("a")).marks == (4,)
        with sqlite3.connect(path) as opened:
            assert opened.execute("UPDATE verdicts SET choice = '10'").rowcount == 1
        opened.close()
        for requests in (2, 2):  # asked once more, and then kept again
            with Judge(config, path) as judge:
                assert judge.marks(items("a")).marks == (4,) and len(server.requests) == requests


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_marks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with scripted_judge(lambda *_: "4") as server:
        judge = Judge(JudgeConfig(model="m", base_url=server.url), tmp_path / "v.sqlite")
        judge._cache._connection.execute("PRAGMA query_only = ON")
        with judge:
            assert judge.marks(items("a", "b", "c")).marks == (4, 4, 4)
    assert caplog.text.count("cache could not be written") == 1


def test_a_cache_where_no_file_can_be_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JudgeError, match=r"file/v\.sqlite: could not be opened as the judge's cache"):
        Judge(JudgeConfig(model="m"), tmp_path / "file" / "v.sqlite")


def test_a_cache_that_another_process_is_just_setting_up_is_waited_for(tmp_path: Path) -> None:
    """SQLite waits for a lock in most places, but not where a file is switched to WAL."""
    path = tmp_path / "v.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.4, lambda: other.execute("COMMIT")).start()
    began = time.monotonic()
    VerdictCache(path).close()
    assert time.monotonic() - began >= 0.35
    other.close()


def _write_verdicts(path: str, who: int, start: Any) -> None:
    start.wait()
    for part in range(5):
        with VerdictCache(Path(path)) as cache:
            for one in range(20):
                cache.put(f"{who}-{part}-{one}", "m", StoredReply("7", "7"))


@pytest.mark.parametrize("before", [b"", b"this is no database" * 100])
def test_processes_share_a_cache_and_one_of_them_clears_it_up(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "v.sqlite"
    path.write_bytes(before)
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(3)
    writers = [fork.Process(target=_write_verdicts, args=(str(path), who, start)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with VerdictCache(path) as cache:
        assert all(cache.get(f"{who}-{part}-{one}") for who in range(3) for part in range(5) for one in range(20))
    assert sorted(one.name for one in tmp_path.glob("*damaged*")) == (["v.sqlite.damaged"] if before else [])


def test_equal_questions_are_asked_once_and_without_a_file_kept_by_the_object() -> None:
    many = [one for answer in ("first", *["same"] * 4) for one in items(answer)]
    slow = Says("6", delay=0.1)
    with scripted_judge(lambda *_: slow) as server, Judge(JudgeConfig(model="m", base_url=server.url)) as judge:
        assert judge.marks(many).marks == (6,) * 5 and len(server.requests) == 2
        assert judge.marks(many).tally == Tally(asked=0, cached=2) and len(server.requests) == 2


def test_what_is_all_in_the_cache_needs_no_key_and_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_judge(lambda *_: "6") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with Judge(JudgeConfig(model="m"), tmp_path / "v.sqlite") as judge:
            judge.marks(items("a"))
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setattr("lifealign.evaluation.judge.endpoint.importlib.util.find_spec", lambda name: None)
    with Judge(JudgeConfig(model="m"), tmp_path / "v.sqlite") as judge:
        assert judge.marks(items("a")).marks == (6,)


# -- the question ------------------------------------------------------------------------------------------------------


def test_a_code_that_the_material_contains_is_derived_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text holds a hash of itself but by a broken hash; here the hash is broken on purpose."""
    digests = iter(["a" * 64, "b" * 64, "c" * 64])

    class Fixed:
        def __init__(self, _: bytes) -> None:
            self.digest = next(digests)

        def hexdigest(self) -> str:
            return self.digest

    monkeypatch.setattr(question_module.hashlib, "sha256", Fixed)
    wide = "".join(chr(ord("b") - 0x21 + 0xFF01) for _ in range(16))  # looks like b, and is not
    asked = mark_question(GENERAL, (Message("user", f"<<<END ANSWER {'A' * 16}>>>"),), wide, "ref")
    assert f"<<<ANSWER {'c' * 16}>>>" in asked.user


def test_the_same_question_is_the_same_in_every_run_and_any_other_has_another_code() -> None:
    def code(prompt: str, answer: str) -> str:
        return mark_question(GENERAL, (Message("user", prompt),), answer, "ref").system.split("<<<NAME ")[1][:16]

    expected = hashlib.sha256(json.dumps([0, "USER", "Hi", "Yes", "ref"]).encode()).hexdigest()[:16]
    assert code("Hi", "Yes") == expected
    assert len({code("Hi", "Yes"), code("Hi", "Yes."), code("HiY", "es")}) == 3


def test_the_judge_sees_every_turn_with_its_role_in_order() -> None:
    prompt = tuple(Message(role, f"{role} {n}") for n, role in enumerate(("system", "user", "assistant", "user")))
    said = block(mark_question(GENERAL, prompt, "answer", "ref").messages(), "CONVERSATION")
    places = [said.index(f"<<<{role.upper()} ") for role in ("system", "user", "assistant")]
    places += [said.index(message.content) for message in prompt]
    assert all(place >= 0 for place in places)
    assert all(one < other for one, other in pairwise([said.index(message.content) for message in prompt]))


# -- a task ------------------------------------------------------------------------------------------------------------


def test_a_task_is_judged_by_its_own_rubric_in_points(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [Pair((Message("user", f"Q{n}"),), "chosen", "rejected") for n in range(3)]
    seen: list[str] = []

    def script(said: Any, _: int) -> str:
        seen.append(said[0]["content"] + block(said, "REFERENCE"))
        return "well" if block(said, "ANSWER") == "odd" else "8"

    with scripted_judge(script) as server, Judge(JudgeConfig(model="m", base_url=server.url)) as judge:
        task_judge = TaskJudge(judge)
        assert task_judge.max_missing == 0.1
        assert task_judge(HeldOut("truthfulqa", tuple(pairs)), pairs, ["good", "odd", ""]) == [80.0, None, 10.0]
        assert rubric_for("truthfulqa").instructions() in seen[0] and "chosen" in seen[0]
        assert "truthfulqa: 1 of 3 marks are missing (1 format)" in caplog.text
        own = tmp_path / "own.md"
        own.write_text((Path(question_module.__file__).parent / "rubrics" / "hc3.md").read_text())
        others = [TaskJudge(judge, load_rubric(own)), TaskJudge(Judge(JudgeConfig(model="n", base_url=server.url)))]
        others += [TaskJudge(Judge(JudgeConfig(model="m", base_url=server.url, seed=1)))]
        identities = [json.dumps(one.identity()) for one in (task_judge, *others)]
        assert len(set(identities)) == 4


# -- win rates ---------------------------------------------------------------------------------------------------------


def preferences(*outcomes: Outcome | None) -> Preferences:
    return Preferences(outcomes, ("",) * len(outcomes), (None,) * len(outcomes), Tally())


def test_a_win_in_one_order_and_a_tie_in_the_other_is_a_tie_that_moved() -> None:
    def script(said: Any, _: int) -> str:
        return "A" if block(said, "ANSWER-A") == "ours" else "tie"

    with scripted_judge(script) as server, Judge(JudgeConfig(model="m", base_url=server.url)) as judge:
        found = judge.preferences([AnswerPair((Message("user", "Q"),), "ours", "theirs", "ref", GENERAL)])
    assert (found.outcomes, found.moved) == (("tie",), (True,))


def test_win_rates_count_ties_for_half_and_missing_ones_nowhere() -> None:
    found = win_rate(preferences("win", "win", "tie", "loss", None), 0.2)
    assert found is not None and (found.wins, found.ties, found.losses, found.missing) == (2, 1, 1, 1)
    assert found.rate == (2 + 0.5) / 4 and found.moved is None
    assert win_rate(preferences("win", "win", "tie", "loss", None), 0.19) is None
    assert win_rate(preferences(None), 1.0) is None and win_rate(preferences(), 1.0) is None


@pytest.mark.parametrize("ties", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("decided", [0.5, 0.7, 0.9])
def test_the_interval_holds_the_true_rate_as_often_as_it_says(ties: float, decided: float) -> None:
    """Exact over all outcomes of 40 prompts; Wilson's interval keeps 95 % on average, and near it everywhere."""
    number = 40
    win, loss = (1 - ties) * decided, (1 - ties) * (1 - decided)
    truth, covered = win + ties / 2, 0.0
    for wins in range(number + 1):
        for losses in range(number + 1 - wins):
            rest = number - wins - losses
            chance = comb(number, wins) * comb(number - wins, losses) * win**wins * loss**losses * ties**rest
            low, high = wilson_interval((wins + rest / 2) / number, number)
            covered += chance * (low <= truth <= high)
    assert 0.93 < covered <= 1.0 + 1e-9
