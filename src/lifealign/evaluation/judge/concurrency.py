"""Requests side by side: so many at a time, on an event loop of their own that an interrupt ends at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")
Thing = TypeVar("Thing")

LOOK_EVERY = 0.2  # seconds; on Windows a wait without an end would not see an interrupt
FAREWELL = 2.0  # seconds that interrupted requests get to close their connections


def run_apart(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine to its end on a thread of its own, and returns or raises what it does.

    On a thread, because a caller's own thread may have a running loop already, as that of a notebook does. Interrupted
    (Ctrl-C), it cancels the coroutine and does not wait for a server that does not answer.
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
        with suppress(RuntimeError):  # the loop has ended by itself meanwhile
            loop.call_soon_threadsafe(task.cancel)
        thread.join(FAREWELL)
        raise
    return outcome.result()


async def each(work: Callable[[Thing], Awaitable[None]], things: Iterable[Thing], limit: int) -> None:
    """Awaits ``work`` of each thing, at most ``limit`` at a time; the first exception ends all of it and is raised."""
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
