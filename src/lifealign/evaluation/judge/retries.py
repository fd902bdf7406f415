"""Why a request failed, sorted by what to do: send it again, give up the question, or stop everything."""

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
LONGEST_WAIT = 300.0  # seconds; a server that asks for more has run out of quota, and waiting will not help
HOPELESS = {401, 402, 403, 404, 405}  # every other question would fail in the same way
REPEATABLE = {408, 409, 425, 429}  # and 5xx


@dataclass(frozen=True)
class FailedRequest:
    """A request that brought no reply.

    Attributes:
        action: What to do: ``stop`` everything, ``reject`` (give up) this question, or ``repeat`` the request.
        reason: What happened, on one line and without the key.
        wait: Seconds that the server asked to wait.
    """

    action: Literal["stop", "reject", "repeat"]
    reason: str
    wait: float = 0.0


def failed_request(error: APIStatusError, one_line: Callable[[str], str]) -> FailedRequest:
    """Decides what to do about a response whose status is an error.

    Args:
        error: The client's exception. It is not kept: it holds the request, and the request holds the key.
        one_line: Makes a server's text fit for a message.
    """
    body: Any = error.body
    message = body.get("message") or body.get("detail") if isinstance(body, dict) else None
    status = error.status_code
    reason = one_line(f"status {status}: {message or error.response.text or error.response.reason_phrase}")
    if status in HOPELESS or error.code == "insufficient_quota":  # which OpenAI sends with status 429
        return FailedRequest("stop", reason)
    if status not in REPEATABLE and status < 500:
        return FailedRequest("reject", reason)
    wait = requested_wait(error.response.headers.get("retry-after", ""))
    if wait > LONGEST_WAIT:
        return FailedRequest("stop", f"{reason}; it asks to wait {wait:.0f} s")
    return FailedRequest("repeat", reason, wait)


def requested_wait(retry_after: str) -> float:
    """Seconds that a ``Retry-After`` header asks for; 0 if it cannot be read.

    Example:
        >>> [requested_wait(text) for text in ("20", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "nan")]
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
    """Seconds until the next attempt: at least what the server asked for, and spread out at random.

    Args:
        attempt: Number of the attempt that failed, from 0.
        wait: Seconds that the server asked to wait.
    """
    own = min(LONGEST_BACKOFF, BACKOFF * 2.0**attempt) * random.uniform(0.5, 1.0)
    return max(own, wait * random.uniform(1.0, 1.1))
