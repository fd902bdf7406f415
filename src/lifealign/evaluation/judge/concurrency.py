"""Requests in parallel, up to a limit, on an event loop of their own that an interrupt ends at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")
Thing = TypeVar("Thing")

LOOK_EVERY = 0.2  # seconds; on Windows, a wait without a timeout would not notice an interrupt
FAREWELL = 2.0  # seconds for interrupted requests to close their connections


def run_in_thread(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine to its end on a thread of its own; returns its result or raises its exception.

    The caller's own thread may have a running event loop already, as in a notebook. On an interrupt (Ctrl-C), the
    coroutine is cancelled without waiting for a server that does not answer.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    outcome: Future[Result] = Future()

    def finish() -> None:
        try:
            outcome.set_result(loop.run_until_complete(task))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=finish, name="judge", daemon=True)
    thread.start()
    try:
        while not outcome.done():
            wait([outcome], timeout=LOOK_EVERY)
        thread.join()
    except BaseException:
        with suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(task.cancel)
        thread.join(FAREWELL)
        raise
    return outcome.result()


async def each(work: Callable[[Thing], Awaitable[None]], things: Iterable[Thing], limit: int) -> None:
    """Awaits ``work`` for each thing, at most ``limit`` at a time; the first exception cancels the others."""
    waiting = iter(things)

    async def take() -> None:
        for thing in waiting:
            await work(thing)

    tasks = [asyncio.create_task(take()) for _ in range(limit)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
