"""The endpoint: OpenAI's chat completions over the versions of a life, and what is answered to a mistake."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lifealign.errors import ConfigError, LifeAlignError, LifeError, ModelError
from lifealign.service import replies
from lifealign.service.answering import NobodyWaits, Service, answered
from lifealign.service.asked import BadRequest, ChatRequest
from lifealign.service.log import UnknownAnswer
from lifealign.service.said import parse_feedback
from lifealign.service.speaker import TooLong
from lifealign.service.versions import UnknownModel
from lifealign.storage.strict_json import parse_json

logger = logging.getLogger(__name__)


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
        return await answered(service, request, asked)

    app.include_router(routes)
    return app


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
        case LifeError() | NobodyWaits():
            return JSONResponse(replies.error(message, kind="server_error"), 503)
        case _:
            return JSONResponse(replies.error(message, kind="server_error"), 500)
