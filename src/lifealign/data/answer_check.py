"""Exact adherence: whether a generated answer keeps a rule that a program can decide."""

from __future__ import annotations

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lifealign.settings.faults import needs, wrong

MAX_CHARACTERS = 20_000
"""Maximum characters of an answer that are checked; the rest is ignored."""


class AnswerCheck(BaseModel):
    r"""Conditions that an answer must all meet to count as keeping a rule.

    Words are separated by whitespace. Patterns are Python regular expressions, searched anywhere in the answer and
    ignoring case; outer whitespace is stripped first, so ``^`` matches at the answer's first visible character.

    Attributes:
        max_words: Maximum words in the answer, or None for no limit.
        min_words: Minimum words in the answer. At least 1: an empty answer keeps no rule.
        matches: Patterns that must all be found.
        lacks: Patterns none of which may be found.

    Raises:
        pydantic.ValidationError: If a field is unknown or out of range, a pattern does not compile, or there is no
            condition at all. It is a ``ValueError``.

    Example:
        >>> check = AnswerCheck(max_words=5, matches=(r"^(hi|hello)\b",), lacks=("refund",))
        >>> check.holds("Hello, how can I help?"), check.holds("Hello, a refund is coming.")
        (True, False)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_words: int | None = Field(default=None, ge=1)
    min_words: int = Field(default=1, ge=1)
    matches: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    @field_validator("matches", "lacks")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern:
                raise ValueError(wrong("an empty pattern", "a regular expression; an empty one matches any answer"))
            try:
                re.compile(pattern, re.IGNORECASE)
            except re.error as error:
                raise ValueError(wrong(f"the pattern {pattern!r}", f"a regular expression: {error}")) from error
        return patterns

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.max_words is None and self.min_words == 1 and not self.matches and not self.lacks:
            raise ValueError(needs("a condition", "add at least one of max_words, min_words, matches, lacks"))
        if self.max_words is not None and self.min_words > self.max_words:
            found = f"min_words {self.min_words} above max_words {self.max_words}"
            raise ValueError(wrong(found, f"min_words of at most {self.max_words}"))
        return self

    def holds(self, answer: str) -> bool:
        """Whether an answer meets every condition.

        Args:
            answer: One generated answer; only its first ``MAX_CHARACTERS`` characters are checked.

        Returns:
            True if all conditions are met; always False for an empty or blank answer.
        """
        text = answer.strip()[:MAX_CHARACTERS]
        words = len(text.split())
        if words < self.min_words or (self.max_words is not None and words > self.max_words):
            return False
        return all(re.search(pattern, text, re.IGNORECASE) for pattern in self.matches) and not any(
            re.search(pattern, text, re.IGNORECASE) for pattern in self.lacks
        )
