"""Answers and errors in the shapes of OpenAI's chat completions."""

from __future__ import annotations

import json
from typing import Any

from lifealign.model.stream import Streamed
from lifealign.service.versions import Voice


def completion(answer: str, created: int, voice: Voice, given: Streamed) -> dict[str, Any]:
    """A whole answer.

    Args:
        answer: Its id.
        created: When it was asked for, in seconds since 1970.
        voice: The version that gave it.
        given: The answer.
    """
    message = {"role": "assistant", "content": given.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": given.finish_reason, "logprobs": None}
    return _about(answer, created, voice, "chat.completion") | {"choices": [choice], "usage": usage(given)}


def chunk(answer: str, created: int, voice: Voice, delta: dict[str, str], ended: Streamed | None = None) -> str:
    """A piece of an answer, as a server-sent event.

    Args:
        answer: The answer's id.
        created: When it was asked for, in seconds since 1970.
        voice: The version that gives it.
        delta: What is new.
        ended: The whole answer, with the last piece.
    """
    choice = {"index": 0, "delta": delta, "finish_reason": ended.finish_reason if ended else None, "logprobs": None}
    content = _about(answer, created, voice, "chat.completion.chunk") | {"choices": [choice]}
    return event(content | ({"usage": usage(ended)} if ended else {}))


def event(content: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content)}\n\n"


def usage(given: Streamed) -> dict[str, int]:
    """Tokens of prompt and answer."""
    return {
        "prompt_tokens": given.prompt_tokens,
        "completion_tokens": given.completion_tokens,
        "total_tokens": given.prompt_tokens + given.completion_tokens,
    }


def error(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> Any:
    """The body of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _about(answer: str, created: int, voice: Voice, what: str) -> dict[str, Any]:
    return {
        "id": answer,
        "object": what,
        "created": created,
        "model": voice.model,
        "system_fingerprint": f"lifealign-{voice.content[:12]}",
    }
