"""The key of a judge's server: read from the environment when needed, and kept out of everything else."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from lifealign.errors import ConfigError

HIDDEN = "[key]"
SHORTEST = 8  # shorter ones ("none", "EMPTY") are for servers that need no key; hiding "1" would garble marks
_LOUD = ("openai", "httpx", "httpcore", "h11", "h2", "hpack", "anyio", "asyncio")  # prefixes: httpx2 and httpcore2 too


def read_key(variable: str, *, needed: bool) -> SecretStr:
    """Reads the key.

    Args:
        variable: Name of the environment variable.
        needed: Whether there has to be a key; if not, an unset variable gives an empty one.

    Raises:
        ConfigError: If a needed key is not set, or the key cannot be sent in a header.
    """
    key = os.environ.get(variable, "").strip()
    if needed and not key:
        raise ConfigError(
            f"api_key_env: the judge needs a key in the environment variable {variable}; export {variable}=..., or "
            "name your own server, which may need none, with base_url"
        )
    if any(not "!" <= character <= "~" for character in key):
        # The client's own message about such a header would contain the whole key.
        raise ConfigError(
            f"api_key_env: found a blank or a character that is not ASCII in the value of {variable} (not shown), "
            "expected a key exactly as it was issued"
        )
    return SecretStr(key)


def redacted(text: str, key: SecretStr) -> str:
    """Text without the key, in case a server sent it back.

    Example:
        >>> redacted("401: Bearer sk-1234567 is not valid", SecretStr("sk-1234567"))
        '401: Bearer [key] is not valid'
    """
    secret = key.get_secret_value()
    return text.replace(secret, HIDDEN) if len(secret) >= SHORTEST else text


@contextmanager
def quiet_about(key: SecretStr) -> Iterator[None]:
    """While the context lasts, keeps the key out of what the client and its transport log, at any level.

    Every logger gets the filter, not only the topmost one: a filter does not apply to records of child loggers.
    """
    hiding = _Hiding(key)
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith(_LOUD)]
    for logger in loggers:
        logger.addFilter(hiding)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(hiding)


class _Hiding(logging.Filter):
    """Removes the key from records, and from the text of their exceptions."""

    def __init__(self, key: SecretStr) -> None:
        super().__init__()
        self._key = key

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage(), self._key), None
        if record.exc_info:
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info), self._key)
            record.exc_info = None
        return True
