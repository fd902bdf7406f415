"""Settings of the LLM judge: which model, where, with what limits, and how much may be missing."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator

from lifealign.errors import ConfigError
from lifealign.settings.faults import wrong
from lifealign.settings.section import Settings

CLIENT_DEFAULT = "https://api.openai.com/v1"
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class JudgeConfig(Settings):
    """The judge, always asked at temperature 0. The key itself is not a setting; the name of its variable is.

    Attributes:
        model: Name of the judge's model, as its server knows it.
        base_url: Address of an OpenAI-compatible server, usually ending in ``/v1``; None for the client's default,
            which is the environment variable ``OPENAI_BASE_URL`` or else OpenAI.
        api_key_env: Name of the environment variable that holds the key, in capitals. It may be unset where
            ``base_url`` is given: your own server may not need one.
        max_parallel: Most requests at a time.
        max_retries: How often a request is repeated after 429, 5xx, a timeout or a broken connection.
        timeout: Most seconds for one request, until the last byte of the reply.
        max_requests: Most HTTP requests of one ``Judge``, including retries and reminders; None for no limit, 0 to take
            marks from the cache only. Marks beyond it are missing.
        max_missing: Share of marks that may be missing, in [0, 1]; with more missing, a task gets no score.
        max_tokens: Most tokens of a reply. A mark needs one or two, and a truncated reply is not a mark.
        seed: Sent to the server, which may or may not heed it; None sends none. Another seed asks everything again.
    """

    # pydantic would repeat a refused value in its message, and that value may be the key, put where its name belongs.
    model_config = ConfigDict(hide_input_in_errors=True)

    model: str = Field(min_length=1)
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    max_parallel: int = Field(8, ge=1, le=256)
    max_retries: int = Field(5, ge=0, le=20)
    timeout: float = Field(60.0, gt=0)
    max_requests: int | None = Field(None, ge=0)
    max_missing: float = Field(0.1, ge=0, le=1)
    max_tokens: int = Field(16, ge=1)
    seed: int | None = Field(42, ge=0, lt=2**31)

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        """Refuses what may be the key itself, without repeating it."""
        long_word = len(name) >= 16 and "_" not in name and any(character.isdigit() for character in name)
        if not VARIABLE.fullmatch(name) or long_word:
            raise ValueError(
                wrong(
                    "what is no name of an environment variable in capitals, and may be the key itself (not shown)",
                    "a name such as OPENAI_API_KEY; put the key into that variable",
                )
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, url: str | None) -> str | None:
        return None if url is None else checked_address(url)

    @property
    def place(self) -> str:
        """The address that requests go to; marks of the same model at two addresses are kept apart.

        Raises:
            ConfigError: If it comes from the environment and is not a usable address.
        """
        if self.base_url is not None:
            return self.base_url
        try:
            return checked_address(os.environ.get("OPENAI_BASE_URL") or CLIENT_DEFAULT)
        except ValueError as error:
            raise ConfigError(f"OPENAI_BASE_URL: {error}") from None


def checked_address(url: str) -> str:
    """An address without its last slash. One with a password or a query is refused: it would be in every result file.

    Raises:
        ValueError: If it is not an address, or has more than scheme, host, port and path. It is not repeated.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(wrong("no web address", "one such as http://127.0.0.1:8000/v1"))
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            wrong(
                "an address with a user, a query or a fragment (not shown)",
                "scheme, host, port and path only; a key belongs in the environment variable named by api_key_env",
            )
        )
    return url.rstrip("/")
