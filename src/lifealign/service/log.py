"""What was asked, answered and said about answers, as a file that ``lifealign collect`` reads."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lifealign.data.pair import Message
from lifealign.errors import LifeAlignError
from lifealign.model.stream import Streamed
from lifealign.service.versions import Voice
from lifealign.storage.files import append_row, read_rows


class UnknownAnswer(LifeAlignError):
    """Feedback about an answer that was not logged."""


class AnswerLog:
    """A JSONL file that grows by a line for each answer and for each thing said about one.

    It holds conversations as they were, whatever people wrote in them; only its owner can read it.

    Args:
        path: The file; it is made with the first line.

    Raises:
        LifeError: If it exists and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()
        known = read_rows(path) if path.exists() else []
        self._answers = {row["id"] for row in known if isinstance(row, dict) and row.get("kind") == "answer"}

    def __contains__(self, answer: str) -> bool:
        """Whether an answer of this id was logged."""
        return answer in self._answers

    def answered(
        self, answer: str, voice: Voice, messages: Sequence[Message], given: Streamed, conversation: str | None = None
    ) -> None:
        """Writes down an answer.

        Args:
            answer: Its id.
            voice: The version that gave it.
            messages: The conversation it answers.
            given: The answer.
            conversation: What the client calls the conversation.

        Raises:
            LifeError: If the file cannot be written.
        """
        row: dict[str, Any] = {
            "kind": "answer",
            "id": answer,
            "model": voice.model,
            "life": voice.model.partition("@")[0],
            "version": voice.version.name,
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            "answer": given.text,
            "finish_reason": given.finish_reason,
        }
        self._write(row if conversation is None else row | {"conversation": conversation})
        self._answers.add(answer)

    def said(self, answer: str, feedback: Mapping[str, str]) -> None:
        """Writes down what somebody said about an answer.

        Args:
            answer: Its id.
            feedback: One of ``thumb`` (``up`` or ``down``), ``edited`` (a better answer) and ``preferred_over`` (the id
                of another answer to the same messages), and perhaps a ``comment``.

        Raises:
            LifeError: If the file cannot be written.
            UnknownAnswer: If no such answer was logged.
        """
        for one in (answer, feedback.get("preferred_over", answer)):
            if one not in self:
                raise UnknownAnswer(f"feedback: found the id {one!r}, expected that of an answer that was logged")
        self._write({"kind": "feedback", "id": answer} | dict(feedback))

    def _write(self, row: dict[str, Any]) -> None:
        with self._writing:
            append_row(self.path, row | {"time": datetime.now(UTC).isoformat(timespec="milliseconds")})
