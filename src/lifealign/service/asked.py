"""What a client may ask: OpenAI's chat completions, as far as they can be answered as they are meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lifealign.data.pair import Message
from lifealign.errors import LifeAlignError

HARMLESS = {"user", "metadata", "store", "service_tier", "stream_options", "parallel_tool_calls", "prompt_cache_key"}
"""Fields of OpenAI's that do not change an answer; they are accepted and not used."""


class BadRequest(LifeAlignError):
    """A request that cannot be answered as it is meant.

    Args:
        message: What is wrong.
        param: The field.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, turn: Any) -> Any:
        """An answer that a client sends back has empty fields, such as ``refusal`` and ``tool_calls``."""
        return (
            {key: value for key, value in turn.items() if value not in (None, [])} if isinstance(turn, dict) else turn
        )

    def message(self) -> Message:
        text = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class ChatRequest(BaseModel):
    """A request for a chat completion.

    Attributes:
        model: Name of a model.
        messages: The conversation, which ends with the user.
        max_tokens: Maximum length of the answer in tokens; ``max_completion_tokens`` is the same.
        temperature: 0 takes the most likely token each time; None, without ``top_p``, answers as the life is scored.
        top_p: Tokens are drawn from the likeliest ones that together hold this probability.
        stop: Texts at which the answer ends.
        seed: Makes a sampled answer the same every time.
        stream: Whether the answer is sent while it is written.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    messages: Annotated[list[_Turn], Field(min_length=1)]
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: list[str] = Field(default_factory=list, max_length=4)
    seed: int | None = None
    stream: bool = False
    conversation: str | None = None

    @classmethod
    def parse(cls, body: Any) -> Self:
        """Reads a request.

        Raises:
            BadRequest: If a field is unknown or out of range, or asks for what is not supported; the message names it.
        """
        if not isinstance(body, dict):
            raise BadRequest("body: expected a JSON object")
        try:
            return cls.model_validate(_known(body))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(place) for place in first["loc"]) or "body"
            raise BadRequest(f"{field}: {first['msg']}", str(first["loc"][0]) if first["loc"] else None) from error

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else [] if stop is None else stop

    @field_validator("stop")
    @classmethod
    def _say_something(cls, stop: list[str]) -> list[str]:
        if not all(stop):
            raise ValueError("found an empty text, expected texts that can be found")
        return stop

    @field_validator("stream", mode="before")
    @classmethod
    def _null_is_no(cls, stream: Any) -> Any:
        return False if stream is None else stream

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> Self:
        if self.messages[-1].role != "user" or not self.conversation_so_far[-1].content.strip():
            raise ValueError("messages: expected a conversation that ends with a message from the user")
        return self

    @property
    def conversation_so_far(self) -> list[Message]:
        """The messages."""
        return [turn.message() for turn in self.messages]


def _known(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are used; what would change the answer and is not supported is refused, not ignored."""
    fields = {key: value for key, value in body.items() if key not in HARMLESS}
    longest = fields.pop("max_completion_tokens", None)
    if longest is not None:
        fields["max_tokens"] = longest
    for key, without_effect in NEUTRAL.items():
        value = fields.pop(key, None)
        if value is not None and value not in without_effect:
            raise BadRequest(f"{key}: found {value!r}, which is not supported; leave it out", key)
    if unknown := sorted(fields.keys() - ChatRequest.model_fields.keys() | fields.keys() & {"conversation"}):
        raise BadRequest(f"{unknown[0]}: is not supported; leave it out", unknown[0])
    metadata = body.get("metadata")
    named = metadata.get("conversation") if isinstance(metadata, dict) else None
    return fields | ({"conversation": named} if isinstance(named, str) else {})


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}
"""Fields that are not supported, with the values that ask for nothing."""
