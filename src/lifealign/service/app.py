"""The endpoint: OpenAI's chat completions over the versions of a life, answered one at a time."""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lifealign.errors import ConfigError, LifeAlignError, LifeError, ModelError
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.model.sampling import Sampling
from lifealign.model.stream import Streamed
from lifealign.service import replies
from lifealign.service.asked import BadRequest, ChatRequest
from lifealign.service.log import AnswerLog, UnknownAnswer
from lifealign.service.said import parse_feedback
from lifealign.service.speaker import LONGEST, Speaker, TooLong
from lifealign.service.versions import UnknownModel, Versions, Voice
from lifealign.storage.strict_json import parse_json

logger = logging.getLogger(__name__)

LOOK_AGAIN = 0.5
"""Seconds after which it is looked whether a client that waits for a whole answer is still there."""


@dataclass(frozen=True)
class Limits:
    """What is served at most.

    Attributes:
        body: Bytes of a request.
        tokens: Tokens of an answer; a request for more is refused.
        waiting: Requests that wait for their turn; one more is told to come back later.
    """

    body: int = 2**20
    tokens: int = LONGEST
    waiting: int = 256


class Service:
    """What the routes share: the speaker and its thread, the versions, the log.

    Args:
        speaker: The model.
        versions: What it can answer as.
        scored: How the life's answers are scored, which is how it answers clients who do not say.
        log: Where answers are written down, or None.
        limits: What is served at most.
    """

    def __init__(
        self, speaker: Speaker, versions: Versions, scored: EvaluationConfig, log: AnswerLog | None, limits: Limits
    ) -> None:
        self.speaker, self.versions, self.log, self.limits = speaker, versions, log, limits
        self._scored = scored
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="speaker")
        self.waiting = 0
        self.ending = threading.Event()

    def close(self) -> None:
        """Gives up what is being answered, and what waits for its turn."""
        self.ending.set()
        self.thread.shutdown(cancel_futures=True)

    def sampling(self, asked: ChatRequest) -> Sampling | None:
        """How tokens are drawn for a request; None takes the most likely one each time."""
        seed = random.SystemRandom().getrandbits(63) if asked.seed is None else asked.seed
        if asked.temperature is None and asked.top_p is None:
            own = self._scored
            return Sampling(own.temperature, own.top_p, own.top_k, seed) if own.do_sample else None
        if asked.temperature == 0:
            return None
        return Sampling(1.0 if asked.temperature is None else asked.temperature, asked.top_p or 1.0, 0, seed)

    def voice(self, asked: ChatRequest) -> Voice:
        """The version that answers a request; on the speaker's thread, because recall asks the model."""
        if not self.versions.recalls(asked.model):
            return self.versions.find(asked.model)
        recalled = self.speaker.recall(self.versions, asked.conversation_so_far)
        return self.versions.find(f"{self.versions.name}@{recalled.version}")

    def answer(
        self,
        answer: str,
        asked: ChatRequest,
        begun: Callable[[Voice], None],
        show: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> tuple[Voice, Streamed]:
        """Answers a request and writes it down; on the speaker's thread."""
        voice = self.voice(asked)
        begun(voice)
        given = self.speaker.answer(
            voice,
            asked.conversation_so_far,
            show,
            max_new_tokens=asked.max_tokens,
            longest=self.limits.tokens,
            sampling=self.sampling(asked),
            stop=asked.stop,
            cancelled=cancelled,
        )
        if self.log is not None:
            self.log.answered(answer, voice, asked.conversation_so_far, given, asked.conversation)
        return voice, given


def build_app(service: Service, *, hosts: Sequence[str] = ("*",), key: str = "") -> FastAPI:
    """The routes: ``/v1/chat/completions``, ``/v1/models``, ``/v1/feedback`` and ``/health``.

    Args:
        service: What answers.
        hosts: Names under which the server may be called (``*`` is any), so that a page in a browser cannot reach it
            under a name of its own.
        key: What clients have to send as their API key; empty asks for none.
    """
    app = FastAPI(title="lifealign", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    def require_key(request: Request) -> None:
        sent = request.headers.get("authorization", "").encode()
        if key and not hmac.compare_digest(sent, f"Bearer {key}".encode()):
            raise WrongKey("the API key is missing or wrong")

    routes = APIRouter(dependencies=[Depends(require_key)])

    @app.exception_handler(LifeAlignError)
    async def explain(request: Request, error: LifeAlignError) -> Response:
        return _refusal(error)

    @app.exception_handler(HTTPException)
    async def explain_route(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path}"
        there_are = "/v1/chat/completions, /v1/models, /v1/feedback and /health"
        return JSONResponse(replies.error(f"{where}: {error.detail}; there are {there_are}"), error.status_code)

    @app.exception_handler(Exception)
    async def explain_bug(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse(replies.error(f"{type(error).__name__}: this is a bug", kind="server_error"), 500)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "waiting": service.waiting}

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in service.versions.models]}

    @routes.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        if not service.versions.recalls(name):
            service.versions.find(name)
        return _model(name)

    @routes.post("/v1/feedback")
    async def feedback(request: Request) -> dict[str, Any]:
        if service.log is None:
            raise BadRequest("feedback: needs a log of the answers; start the server with --log FILE")
        answer, said = parse_feedback(await _body(request, service.limits.body))
        service.log.said(answer, said)
        return {"status": "ok", "id": answer}

    @routes.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        asked = ChatRequest.parse(await _body(request, service.limits.body))
        if asked.max_tokens is not None and asked.max_tokens > service.limits.tokens:
            raise BadRequest(
                f"max_tokens: found {asked.max_tokens}, expected at most {service.limits.tokens}", "max_tokens"
            )
        if not service.versions.recalls(asked.model):
            service.versions.find(asked.model)  # before it waits for its turn
        if service.waiting >= service.limits.waiting:
            busy = replies.error("too many requests are waiting; try again later", kind="server_error", code="busy")
            return JSONResponse(busy, 503, headers={"Retry-After": "5"})
        return await _answered(service, request, asked)

    app.include_router(routes)
    return app


async def _answered(service: Service, request: Request, asked: ChatRequest) -> Response:
    """Waits for the answer's first piece, which is when it is certain that there is one, and sends what there is."""
    answer, created = f"chatcmpl-{secrets.token_hex(16)}", int(time.time())
    loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

    def tell(piece: Any) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def unwanted() -> bool:
        return gone.is_set() or service.ending.is_set()

    def work() -> None:
        outcome: Any = ClientGone("the client has gone")
        try:
            if not unwanted():
                outcome = service.answer(answer, asked, tell, tell, unwanted)
        except Exception as error:  # a client waits for it
            outcome = error
        loop.call_soon_threadsafe(finished)
        tell(outcome)

    def finished() -> None:
        service.waiting -= 1

    service.waiting += 1
    service.thread.submit(work)
    try:
        voice = await _next(pieces, request)
        if asked.stream:
            first = await _next(pieces, request)
            return StreamingResponse(
                _events(answer, created, voice, first, pieces, gone), media_type="text/event-stream"
            )
        looked = time.monotonic()
        while not isinstance(piece := await _next(pieces, request), tuple):
            if time.monotonic() - looked > LOOK_AGAIN:  # pieces may come faster than that, and nobody reads them
                looked = time.monotonic()
                await _require_there(request)
        return JSONResponse(replies.completion(answer, created, *piece), headers={"x-request-id": answer})
    except BaseException:
        gone.set()
        raise


async def _next(pieces: asyncio.Queue[Any], request: Request) -> Any:
    """What the speaker tells next.

    Raises:
        LifeAlignError: If it says that there will be no answer.
        ClientGone: If nobody waits any more.
    """
    while True:
        try:
            piece = await asyncio.wait_for(pieces.get(), LOOK_AGAIN)
        except TimeoutError:
            await _require_there(request)
            continue
        if isinstance(piece, BaseException):
            raise piece
        return piece


async def _require_there(request: Request) -> None:
    if await request.is_disconnected():
        raise ClientGone("the client has gone")


async def _events(
    answer: str, created: int, voice: Voice, first: Any, pieces: asyncio.Queue[Any], gone: threading.Event
) -> AsyncIterator[str]:
    """The pieces of an answer as server-sent events."""
    try:
        yield replies.chunk(answer, created, voice, {"role": "assistant", "content": ""})
        piece = first
        while not isinstance(piece, tuple):
            if isinstance(piece, BaseException):
                logger.error("%s failed after its answer had begun", answer, exc_info=piece)
                yield replies.event(replies.error(f"{type(piece).__name__}: {piece}", kind="server_error"))
                return
            yield replies.chunk(answer, created, voice, {"content": piece})
            piece = await pieces.get()
        yield replies.chunk(answer, created, voice, {}, piece[1])
        yield "data: [DONE]\n\n"
    finally:
        gone.set()


class ClientGone(LifeAlignError):
    """A client that has closed its connection."""


class WrongKey(LifeAlignError):
    """A request without the server's API key."""


async def _body(request: Request, most: int) -> Any:
    """The JSON of a request.

    Raises:
        BadRequest: If it is too large, or no JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest(f"content-type: found {kind or 'none'}, expected application/json")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise BadRequest(f"body: found more than {most} bytes, expected at most that")
    try:
        return parse_json(content)
    except ValueError as error:
        raise BadRequest(f"body: found invalid JSON ({error})") from error


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "lifealign"}


def _refusal(error: LifeAlignError) -> Response:
    """An error of ours as a client of OpenAI's expects it."""
    message = str(error)
    match error:
        case WrongKey():
            return JSONResponse(replies.error(message, code="invalid_api_key"), 401)
        case UnknownModel():
            return JSONResponse(replies.error(message, param="model", code="model_not_found"), 404)
        case TooLong():
            return JSONResponse(replies.error(message, param="messages", code="context_length_exceeded"), 400)
        case BadRequest():
            return JSONResponse(replies.error(message, param=error.param), 400)
        case UnknownAnswer():
            return JSONResponse(replies.error(message, param="id"), 400)
        case ModelError() | ConfigError():
            return JSONResponse(replies.error(message, param="messages"), 400)
        case LifeError():
            return JSONResponse(replies.error(message, kind="server_error"), 503)
        case _:
            return JSONResponse(replies.error(message, kind="server_error"), 500)
