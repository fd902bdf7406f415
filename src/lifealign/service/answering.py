"""Requests answered one at a time, by one model on a thread of its own, as long as somebody waits."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from lifealign.errors import LifeAlignError
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.model.sampling import Sampling
from lifealign.model.stream import Streamed
from lifealign.service import replies
from lifealign.service.asked import ChatRequest
from lifealign.service.log import AnswerLog
from lifealign.service.speaker import LONGEST, Speaker
from lifealign.service.versions import Versions, Voice

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

    def answer(
        self,
        answer: str,
        asked: ChatRequest,
        begun: Callable[[Voice], None],
        show: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> tuple[Voice, Streamed]:
        """Answers a request and writes it down; on the speaker's thread, because recall asks the model, too.

        Args:
            answer: Id of the answer.
            asked: The request.
            begun: Called with the version that answers, before it does.
            show: Called with each new piece of the answer.
            cancelled: Asked before every token whether to give up.

        Raises:
            LifeAlignError: If there is no such version, the prompt cannot be read, or the log cannot be written.
        """
        prompt = asked.conversation_so_far
        voice, _ = self.speaker.voice(self.versions, asked.model, prompt)
        begun(voice)
        given = self.speaker.answer(
            voice,
            prompt,
            show,
            max_new_tokens=asked.max_tokens,
            longest=self.limits.tokens,
            sampling=self.sampling(asked),
            stop=asked.stop,
            cancelled=cancelled,
        )
        if self.log is not None:
            self.log.answered(answer, voice, prompt, given, asked.conversation)
        return voice, given


class NobodyWaits(LifeAlignError):
    """An answer that was given up: its client has closed the connection, or the server is ending."""


async def answered(service: Service, request: Request, asked: ChatRequest) -> Response:
    """The response to a request, whole or as it is written; it begins when it is certain that there is an answer.

    Raises:
        LifeAlignError: If there is none.
        NobodyWaits: If nobody waits for it any more; nothing further is computed then.
    """
    answer, created = f"chatcmpl-{secrets.token_hex(16)}", int(time.time())
    loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

    def tell(piece: Any) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def unwanted() -> bool:
        return gone.is_set() or service.ending.is_set()

    def work() -> None:
        outcome: Any = NobodyWaits("the server is ending; ask again when it is back")
        try:
            if not unwanted():
                given = service.answer(answer, asked, tell, tell, unwanted)
                outcome = outcome if given[1].finish_reason == "cancelled" else given
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
        NobodyWaits: If nobody waits any more.
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
        raise NobodyWaits("the client has gone")


async def _events(
    answer: str, created: int, voice: Voice, first: Any, pieces: asyncio.Queue[Any], gone: threading.Event
) -> AsyncIterator[str]:
    """The pieces of an answer as server-sent events."""
    try:
        yield replies.chunk(answer, created, voice, {"role": "assistant", "content": ""})
        piece = first
        while not isinstance(piece, tuple):
            if isinstance(piece, BaseException):
                if not isinstance(piece, NobodyWaits):
                    logger.error("%s failed after its answer had begun", answer, exc_info=piece)
                yield replies.event(replies.error(f"{type(piece).__name__}: {piece}", kind="server_error"))
                return
            yield replies.chunk(answer, created, voice, {"content": piece})
            piece = await pieces.get()
        yield replies.chunk(answer, created, voice, {}, piece[1])
        yield "data: [DONE]\n\n"
    finally:
        gone.set()
