"""Why a request brought no reply, sorted by what helps: asking again, giving up the question, stopping everything."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from openai import APIStatusError

BACKOFF, LONGEST_BACKOFF = 1.0, 30.0  # seconds; doubles from retry to retry
LONGEST_WAIT = 300.0  # seconds; a server that asks for more has a quota that waiting does not help
HOPELESS = {401, 402, 403, 404, 405}  # no other question would fare better
REPEATABLE = {408, 409, 425, 429}  # and 5xx


@dataclass(frozen=True)
class Trouble:
    """A request without a reply.

    Attributes:
        then: ``stop`` everything, ``reject`` (give up) this question, or ``repeat`` the request.
        words: What happened, on one line and without the key.
        wait: Seconds that the server wants to be left alone for.
    """

    then: Literal["stop", "reject", "repeat"]
    words: str
    wait: float = 0.0


def trouble_of_status(error: APIStatusError, one_line: Callable[[str], str]) -> Trouble:
    """Sorts a response with an error's status.

    Args:
        error: The client's exception. Nothing of it is kept: it holds the request, and that holds the key.
        one_line: Makes a server's words fit for a message.
    """
    body: Any = error.body
    said = body.get("message") or body.get("detail") if isinstance(body, dict) else None
    status = error.status_code
    words = one_line(f"status {status}: {said or error.response.text or error.response.reason_phrase}")
    if status in HOPELESS or error.code == "insufficient_quota":  # OpenAI says that one with 429
        return Trouble("stop", words)
    if status not in REPEATABLE and status < 500:
        return Trouble("reject", words)
    wait = asked_to_wait(error.response.headers.get("retry-after", ""))
    if wait > LONGEST_WAIT:
        return Trouble("stop", f"{words}; it asks to wait {wait:.0f} s")
    return Trouble("repeat", words, wait)


def asked_to_wait(retry_after: str) -> float:
    """Seconds that a ``Retry-After`` header asks for; 0 where it makes no sense.

    Example:
        >>> [asked_to_wait(text) for text in ("20", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "nan")]
        [20.0, 0.0, 0.0, 0.0]
    """
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def pause(attempt: int, wait: float) -> float:
    """Seconds until the next attempt: never less than asked for, and not the same for all that wait together.

    Args:
        attempt: Number of the attempt that failed, from 0.
        wait: Seconds that the server asked for.
    """
    own = min(LONGEST_BACKOFF, BACKOFF * 2.0**attempt) * random.uniform(0.5, 1.0)
    return max(own, wait * random.uniform(1.0, 1.1))
