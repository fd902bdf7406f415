"""What a client may say about an answer."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lifealign.service.asked import BadRequest


class _Feedback(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: str
    thumb: Literal["up", "down"] | None = None
    edited: str | None = Field(None, min_length=1)
    preferred_over: str | None = None
    comment: str | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        said = [self.thumb, self.edited, self.preferred_over]
        if len(said) - said.count(None) != 1:
            raise ValueError("expected one of thumb (up or down), edited and preferred_over")
        if self.preferred_over == self.id:
            raise ValueError("preferred_over: found the answer's own id, expected another one's")
        return self


def parse_feedback(body: Any) -> tuple[str, dict[str, str]]:
    """Reads feedback: the id of an answer, and what is said about it.

    Raises:
        BadRequest: If a field is unknown, or not exactly one thing is said.

    Example:
        >>> parse_feedback({"id": "chatcmpl-1", "thumb": "up"})
        ('chatcmpl-1', {'thumb': 'up'})
    """
    try:
        said = _Feedback.model_validate(body).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(place) for place in first["loc"])
        raise BadRequest(f"feedback: {f'{field}: ' if field else ''}{first['msg']}", field or None) from error
    return said.pop("id"), said
