"""The endpoint, as a user of the openai client meets it, and as one who means no good."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, APIStatusError, AuthenticationError, BadRequestError, InternalServerError, NotFoundError
from tests.service.conftest import Server, Serving
from tests.service.test_speaker import PROMPT, answers_of
from tests.tiny import letter_task

from lifealign.life.life import Life
from lifealign.model.generate import generate_answers
from lifealign.model.sampling import Sampling
from lifealign.storage.files import read_rows

ASKED: Any = [{"role": "user", "content": PROMPT[0].content}]


def ask(server: Server, model: str = "my-bot", **options: Any) -> Any:
    asked = {"model": model, "messages": ASKED, "max_tokens": 8} | options
    return server.client().chat.completions.create(**asked)


def post(server: Server, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Any]:
    """What the server says to a request that no client would send."""
    connection = http.client.HTTPConnection(server.address.split("/")[2], timeout=30)
    connection.request("POST", path, body, {"Content-Type": "application/json"} | headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content) if content.startswith(b"{") else content.decode()


def test_chat_stream_and_list_of_models(serving: Serving, bot: Path) -> None:
    server, expected = serving(), answers_of(bot)
    given = ask(server)
    assert given.choices[0].message.content == expected["02-refunds"]
    assert given.model == "my-bot@02-refunds" and given.id.startswith("chatcmpl-")
    assert given.choices[0].finish_reason in ("stop", "length")
    usage = given.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.completion_tokens <= 8

    chunks = list(ask(server, "my-bot@01-tone", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected["01-tone"]
    assert {chunk.model for chunk in chunks} == {"my-bot@01-tone"} and len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens <= 8

    client = server.client()
    assert [model.id for model in client.models.list()] == server.service.versions.models
    assert client.models.retrieve("my-bot@base").id == "my-bot@base"


def test_a_conversation_is_continued_with_what_the_client_got(serving: Serving, bot: Path) -> None:
    """The client sends its own object back, with all its empty fields."""
    server = serving()
    given = ask(server).choices[0].message
    system: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind"}]}
    ]
    ask(server, messages=[*system, *ASKED, given.model_dump(), *ASKED])


def test_two_versions_at_once(serving: Serving, bot: Path) -> None:
    server, expected = serving(), answers_of(bot)
    models = ["my-bot@base", "my-bot@01-tone", "my-bot@02-refunds"] * 4
    with ThreadPoolExecutor(len(models)) as pool:
        answers = list(pool.map(lambda model: ask(server, model).choices[0].message.content, models))
    assert answers == [expected[name] for name in ["00-base", "01-tone", "02-refunds"] * 4]


def test_fifty_parallel_requests(serving: Serving, bot: Path) -> None:
    server, expected = serving(), answers_of(bot)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(server).choices[0].message.content, range(50)))
    assert answers == [expected["02-refunds"]] * 50 and server.service.waiting == 0


def test_a_version_committed_meanwhile_is_served_and_one_rolled_back_is_gone(serving: Serving, bot: Path) -> None:
    server = serving()
    other = Life.open(bot)
    other.learn(letter_task("greet", "x", "y"))
    assert "my-bot@03-greet" in [model.id for model in server.client().models.list()]
    expected = answers_of(bot)
    assert ask(server).model == "my-bot@03-greet"
    assert ask(server, "my-bot@03-greet").choices[0].message.content == expected["03-greet"]
    other.rollback("02-refunds")
    with pytest.raises(NotFoundError, match="found no such model, expected one of my-bot, my-bot@01-tone"):
        ask(server, "my-bot@03-greet")
    assert ask(server).choices[0].message.content == expected["02-refunds"]


def test_rollback_under_load(serving: Serving, bot: Path) -> None:
    """Every answer is that of the version it names; a request for a version that is gone gets a clear no."""
    server, expected = serving(), answers_of(bot)
    versions = {f"my-bot@{version}".replace("00-base", "base"): answer for version, answer in expected.items()}
    found: list[Any] = []

    def load(number: int) -> None:
        try:
            found.append(ask(server, ["my-bot", "my-bot@02-refunds"][number % 2]))
        except APIStatusError as error:
            found.append(error)

    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(load, number) for number in range(60)]
        time.sleep(0.05)
        Life.open(bot).rollback("01-tone")
        for one in waiting:
            one.result()
    refused = [one for one in found if isinstance(one, APIStatusError)]
    answered = [one for one in found if not isinstance(one, APIStatusError)]
    assert len(found) == 60 and answered
    assert all(isinstance(one, NotFoundError) for one in refused)
    assert all(one.choices[0].message.content == versions[one.model] for one in answered)
    assert ask(server).model == "my-bot@01-tone"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_is_not_answered_further(serving: Serving, bot: Path, stream: bool) -> None:
    server = serving(tokens=900)
    speaker = server.service.speaker
    written: list[str] = []
    real = speaker.answer

    def answer(voice: Any, prompt: Any, show: Any, **options: Any) -> Any:
        def show_slowly(piece: str) -> None:
            written.append(piece)
            show(piece)
            time.sleep(0.02)

        given = real(voice, prompt, show_slowly, **options)
        ended.append(given)
        return given

    ended: list[Any] = []
    speaker.answer = answer  # type: ignore[method-assign]
    body = json.dumps({"model": "my-bot@base", "messages": ASKED, "max_tokens": 900, "stream": stream})
    connection = http.client.HTTPConnection(server.address.split("/")[2], timeout=30)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    while len(written) < 3:
        time.sleep(0.01)
    if stream:
        connection.getresponse().read(10)
    assert connection.sock is not None
    connection.sock.close()
    connection.close()
    for _ in range(200):
        if ended:
            break
        time.sleep(0.05)
    assert ended and ended[0].finish_reason == "cancelled" and ended[0].completion_tokens < 900
    assert ask(server).choices[0].message.content == answers_of(bot)["02-refunds"]  # the next one is not kept waiting


def test_sampling_is_what_was_asked_for(serving: Serving, bot: Path) -> None:
    server, life = serving(), Life.open(bot)
    one, same, other = (ask(server, temperature=1.4, seed=seed).choices[0].message.content for seed in (5, 5, 6))
    assert one == same != other
    life.load()
    drawn = Sampling(1.4, 1.0, 0, 5)
    runtime = life.workspace.runtime
    assert [one] == generate_answers(runtime, [PROMPT], max_new_tokens=8, batch_size=1, sampling=drawn)
    greedy = ask(server).choices[0].message.content
    assert ask(server, temperature=0).choices[0].message.content == greedy
    assert ask(server, temperature=0.0, top_p=0.5).choices[0].message.content == greedy
    unseeded = {ask(server, temperature=2.0).choices[0].message.content for _ in range(5)}
    assert len(unseeded) > 1


def test_a_stop_text_is_not_in_the_answer(serving: Serving, bot: Path) -> None:
    server, whole = serving(), answers_of(bot)["00-base"]
    stop = whole[3:5]
    for stream in (False, True):
        given = ask(server, "my-bot@base", stop=stop, stream=stream)
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in given)
            if stream
            else given.choices[0].message.content
        )
        assert text == whole[: whole.index(stop)].rstrip()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("presence_penalty", 0.5),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("temperature", 3),
        ("temperature", -1),
        ("top_p", 0),
        ("max_tokens", 0),
        ("max_tokens", 513),
        ("max_tokens", "8"),
        ("stop", ["a"] * 5),
        ("stop", ""),
        ("seed", "x"),
        ("messages", []),
        ("messages", [{"role": "assistant", "content": "Hi"}]),
        ("messages", [{"role": "user", "content": "  "}]),
        ("messages", [{"role": "tool", "content": "Hi"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ("messages", "Hi"),
        ("conversation", "a"),
        ("chat_template", "x"),
        ("messages", [{"role": "user", "content": "Hi", "name": "Ann"}]),
    ],
)
def test_what_cannot_be_answered_as_it_is_meant_is_refused(serving: Serving, field: str, value: Any) -> None:
    server = serving()
    body = {"model": "my-bot", "messages": ASKED, field: value}
    status, said = post(server, json.dumps(body).encode())
    assert status == 400 and field in said["error"]["message"] and said["error"]["type"] == "invalid_request_error"


def test_what_does_not_change_an_answer_is_accepted(serving: Serving) -> None:
    server = serving()
    given = ask(
        server,
        n=1,
        user="me",
        metadata={"a": "b"},
        store=False,
        logprobs=False,
        presence_penalty=0,
        tools=[],
        stop=None,
    )
    assert given.choices[0].message.content


def test_requests_that_no_client_would_send(serving: Serving) -> None:
    server = serving(body=2048)
    good = json.dumps({"model": "my-bot", "messages": ASKED}).encode()
    assert post(server, b"{")[0] == post(server, b"[]")[0] == post(server, b'{"model": NaN}')[0] == 400
    assert post(server, b'{"a": 1, "a": 2}')[0] == 400
    status, said = post(server, b" " * 3000 + good)
    assert status == 400 and "more than 2048 bytes" in said["error"]["message"]
    status, said = post(server, good, **{"Content-Type": "text/plain"})
    assert status == 400 and "application/json" in said["error"]["message"]
    assert post(server, good, Host="evil.example")[0] == 400  # a page under a name of its own cannot reach it
    status, said = post(server, good, path="/v1/responses")
    assert status == 404 and "/v1/chat/completions" in said["error"]["message"]
    long = json.dumps({"model": "my-bot", "messages": [{"role": "user", "content": "x" * 1100}]}).encode()
    status, said = post(server, long)
    assert status == 400 and said["error"]["code"] == "context_length_exceeded"
    assert post(server, good)[0] == 200


def test_a_key_is_asked_for(serving: Serving) -> None:
    server = serving(key="sesame-open")
    client = server.client("sesame-open")
    assert client.models.list() and client.chat.completions.create(model="my-bot", messages=ASKED, max_tokens=2)
    for wrong in ("sesame-ope", "sesame-open2", "x"):
        with pytest.raises(AuthenticationError):
            server.client(wrong).models.list()
    with pytest.raises(AuthenticationError):
        server.client("none").chat.completions.create(model="my-bot", messages=ASKED)
    assert post(server, b"{}", path="/v1/feedback")[0] == 401


def test_a_queue_that_is_full_says_so(serving: Serving) -> None:
    server = serving(waiting=1)
    go = threading.Event()
    server.service.thread.submit(go.wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, server)
        while server.service.waiting < 1:
            time.sleep(0.01)
        with pytest.raises(InternalServerError, match="too many requests"):
            ask(server)
        go.set()
        assert first.result().choices


def test_recall_answers_with_the_version_that_it_recalls(serving: Serving, bot: Path) -> None:
    server = serving()
    recalled = Life.open(bot).recall(PROMPT[0].content)
    given = ask(server, "my-bot@recall")
    assert given.model == f"my-bot@{recalled.version}"


def test_what_was_said_is_written_down(serving: Serving, tmp_path: Path) -> None:
    log = tmp_path / "served" / "log.jsonl"
    server = serving(log=log)
    client = server.client()
    given = ask(server, metadata={"conversation": "c-1"})
    chunks = list(ask(server, "my-bot@01-tone", stream=True))
    for body in (
        {"id": given.id, "thumb": "down", "comment": "too short"},
        {"id": given.id, "edited": "Hello"},
        {"id": given.id, "preferred_over": chunks[0].id},
    ):
        assert client.post("/feedback", body=body, cast_to=dict[str, Any])["status"] == "ok"
    rows = read_rows(log)
    assert [row["kind"] for row in rows] == ["answer", "answer", "feedback", "feedback", "feedback"]
    assert rows[0] | {"time": ""} == {
        "kind": "answer",
        "id": given.id,
        "time": "",
        "model": "my-bot@02-refunds",
        "life": "my-bot",
        "version": "02-refunds",
        "messages": ASKED,
        "answer": given.choices[0].message.content,
        "finish_reason": given.choices[0].finish_reason,
        "conversation": "c-1",
    }
    assert rows[1]["id"] == chunks[0].id and rows[1]["version"] == "01-tone" and "conversation" not in rows[1]
    assert rows[3] | {"time": ""} == {"kind": "feedback", "id": given.id, "edited": "Hello", "time": ""}
    assert oct(log.stat().st_mode & 0o777) == "0o600"
    for body in (
        {"id": "chatcmpl-unknown", "thumb": "up"},
        {"id": given.id},
        {"id": given.id, "thumb": "up", "edited": "x"},
        {"id": given.id, "thumb": "sideways"},
        {"id": given.id, "preferred_over": given.id},
        {"id": given.id, "preferred_over": "chatcmpl-unknown"},
        {"thumb": "up"},
    ):
        with pytest.raises(BadRequestError):
            client.post("/feedback", body=body, cast_to=dict[str, Any])
    assert len(read_rows(log)) == 5


def test_a_log_is_gone_on_with(serving: Serving, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    given = ask(serving(log=log))
    again = serving(log=log).client()
    assert again.post("/feedback", body={"id": given.id, "thumb": "up"}, cast_to=dict[str, Any])["id"] == given.id


def test_without_a_log_feedback_says_what_it_needs(serving: Serving) -> None:
    with pytest.raises(BadRequestError, match="--log FILE"):
        serving().client().post("/feedback", body={"id": "x", "thumb": "up"}, cast_to=dict[str, Any])


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_the_end_of_the_server_cuts_off_is_not_sold_as_whole(serving: Serving, stream: bool) -> None:
    server = serving(tokens=900)
    real = server.service.speaker.answer

    def slow(voice: Any, prompt: Any, show: Any, **options: Any) -> Any:
        def show_and_end(piece: str) -> None:
            show(piece)
            server.service.ending.set()

        return real(voice, prompt, show_and_end, **options)

    server.service.speaker.answer = slow  # type: ignore[method-assign]
    with pytest.raises(APIError, match="the server is ending"):
        given = ask(server, "my-bot@base", max_tokens=900, stream=stream)
        assert [chunk.choices for chunk in given]  # an error inside a stream is raised while it is read
