"""A judge's server: one request with its retries, its limits, and its failures sorted by what helps against them."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from lifealign.errors import ConfigError, JudgeError
from lifealign.evaluation.judge.api_key import read_key, redacted
from lifealign.evaluation.judge.retries import Trouble, pause, trouble_of_status
from lifealign.evaluation.judge.settings import JudgeConfig

logger = logging.getLogger(__name__)

REJECTED_FROM_THE_START = 5  # so many refused without one reply: it is the requests, not the texts in them
OWN_MACHINE = {"localhost", "127.0.0.1", "::1"}
FAILED_IN_A_ROW = 3  # so many without a reply after all their retries: the server is gone


class Unanswered(Exception):
    """One question that got no reply.

    Args:
        reason: Its kind, a colon, and what happened.
        requests: How many requests were made for it.
    """

    def __init__(self, reason: str, requests: int) -> None:
        super().__init__(reason)
        self.requests = requests


class Budget:
    """HTTP requests that may still be made.

    Args:
        most: So many in all; None for no limit.
    """

    def __init__(self, most: int | None) -> None:
        self.most, self.spent = most, 0

    def spend(self) -> bool:
        """Takes one request, or says that there is none left."""
        if self.most is not None and self.spent >= self.most:
            return False
        self.spent += 1
        return True


@dataclass(frozen=True)
class Reply:
    """What a judge said, and the tokens its server counted; None where it does not count."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


class Endpoint:
    """The server, for as long as it is entered. The client's own retries are off: here they are counted and cancelled.

    Args:
        config: Model, address, limits.
        budget: Requests that may still be made.

    Raises:
        ConfigError: If the package ``openai`` is not installed, or the key is missing or cannot be sent.
    """

    def __init__(self, config: JudgeConfig, budget: Budget) -> None:
        if importlib.util.find_spec("openai") is None:
            raise ConfigError("judge: found no package openai, expected it: pip install 'lifealign[judge]'")
        from openai import AsyncOpenAI

        self.config, self.budget = config, budget
        self.key = read_key(config.api_key_env, needed=config.base_url is None)
        self._warn_of_plain_http()
        self._client = AsyncOpenAI(
            api_key=self.key.get_secret_value() or "none",  # the client refuses an empty one
            base_url=config.place,
            timeout=config.timeout,
            max_retries=0,
        )
        self._reached = self._replied = False
        self._rejected = self._failed_in_a_row = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """Asks once, and again where that may help, with growing and randomly shortened pauses.

        Raises:
            Unanswered: If this question gets no reply: the budget is used up, the server refuses its text (reason
                ``rejected``), or all retries have failed (reason ``endpoint``).
            JudgeError: If no question would get one.
        """
        words = ""
        for attempt in range(self.config.max_retries + 1):
            if not self.budget.spend():
                raise Unanswered(f"budget: all {self.budget.most} requests are used up", attempt)
            got = await self._attempt(messages)
            if isinstance(got, Reply):
                self._reached = self._replied = True
                self._failed_in_a_row = 0
                return got
            if got.then == "stop":
                raise self._error(got.words)
            if got.then == "reject":
                self._count_rejected(got.words)
                raise Unanswered(f"rejected: {got.words}", attempt + 1)
            words = got.words
            if attempt < self.config.max_retries:
                seconds = pause(attempt, got.wait)
                logger.info("judge: %s; asking again in %.1f s", got.words, seconds)
                await asyncio.sleep(seconds)
        self._count_failed(words)
        attempts = self.config.max_retries + 1
        raise Unanswered(f"endpoint: {words} ({attempts} attempts)", attempts)

    async def _attempt(self, messages: Sequence[dict[str, str]]) -> Reply | Trouble:
        """One request. No exception of the client leaves here: it holds the request, and that holds the key."""
        import openai

        asked: Any = list(messages)
        more: dict[str, Any] = {} if self.config.seed is None else {"seed": self.config.seed}
        limit = f"no reply within {self.config.timeout:g} s"
        try:
            async with asyncio.timeout(self.config.timeout):  # the client's limit starts anew with every byte
                completion = await self._client.chat.completions.create(
                    model=self.config.model,
                    messages=asked,
                    temperature=0,
                    max_tokens=self.config.max_tokens,
                    **more,
                )
        except (TimeoutError, openai.APITimeoutError):
            return Trouble("repeat", limit)
        except openai.APIConnectionError as error:
            return Trouble("repeat", self._words(f"no connection ({error.__cause__ or error})"))
        except openai.APIStatusError as error:
            self._reached = True
            return trouble_of_status(error, self._words)
        except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON is a ValueError of the json module
            self._reached = True
            return Trouble("repeat", f"the body of the response is not readable ({type(error).__name__})")
        except Exception as error:
            return Trouble("stop", f"the client failed ({type(error).__name__})")
        self._reached = True
        return _reply_of(completion) or Trouble("repeat", "the response is no chat completion")

    def _words(self, text: str) -> str:
        """A server's words on one line. The key goes before the line is cut, or its first half might stay."""
        return " ".join(redacted(text, self.key).split())[:200]

    def _count_rejected(self, words: str) -> None:
        self._rejected += 1
        if not self._replied and self._rejected >= REJECTED_FROM_THE_START:
            raise self._error(f"the first {self._rejected} requests were all refused; {words}")

    def _count_failed(self, words: str) -> None:
        self._failed_in_a_row += 1
        attempts = self.config.max_retries + 1
        if not self._reached:
            raise self._error(f"the server was not reached, {attempts} attempts: {words}")
        if self._failed_in_a_row >= FAILED_IN_A_ROW:
            raise self._error(
                f"{self._failed_in_a_row} questions in a row got no reply, {attempts} attempts each; {words}"
            )

    def _error(self, words: str) -> JudgeError:
        key = f"the key in {self.config.api_key_env}"
        if not self.key.get_secret_value():
            key += " (which is not set)"
        return JudgeError(
            f"judge {self.config.model!r} at {self.config.place}: {words}. Check the address (it usually ends in /v1), "
            f"the model's name and {key}; what has been judged is kept, and the same call goes on from there"
        )

    def _warn_of_plain_http(self) -> None:
        parts = urlsplit(self.config.place)
        if self.key.get_secret_value() and parts.scheme == "http" and parts.hostname not in OWN_MACHINE:
            logger.warning("%s: the key in %s is sent unencrypted", self.config.place, self.config.api_key_env)


def _reply_of(completion: Any) -> Reply | None:
    """The reply in a response; servers send all sorts of things, and the client checks none of them."""
    try:
        message = completion.choices[0].message
        text = message.content if message.content is not None else getattr(message, "refusal", None) or ""
    except (AttributeError, IndexError, TypeError):
        return None
    if not isinstance(text, str):
        return None
    usage = getattr(completion, "usage", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else None for count in counts)
    return Reply(text, prompt_tokens, completion_tokens)
