"""A preference pair: a prompt, the chosen answer and the rejected one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash


class Message(NamedTuple):
    """One turn of a conversation; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: for this prompt, the chosen answer is better than the rejected one.

    Attributes:
        prompt: The conversation so far; at least one message, the last of them from the user.
        chosen: Preferred answer of the assistant, plain text.
        rejected: The other answer, plain text.
        source: Where the pair came from, ``file:line``; not part of its identity.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """Content hash (xxh3, 128 bits, hexadecimal) of prompt, chosen and rejected; stable across runs."""
        parts = [part for message in self.prompt for part in message] + [self.chosen, self.rejected]
        digest = xxhash.xxh3_128()
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()

    def as_row(self) -> dict[str, Any]:
        """The pair as a JSON row in conversational form, with its source and content hash."""
        return {
            "prompt": [message._asdict() for message in self.prompt],
            "chosen": self.chosen,
            "rejected": self.rejected,
            "source": self.source,
            "key": self.key,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Pair:
        """Rebuilds a pair from what :meth:`as_row` returned."""
        prompt = tuple(Message(message["role"], message["content"]) for message in row["prompt"])
        return cls(prompt, row["chosen"], row["rejected"], row["source"])
