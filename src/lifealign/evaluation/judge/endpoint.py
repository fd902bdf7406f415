"""A judge's server: a request with its retries and limits, and what to do when it fails."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from lifealign.errors import ConfigError, JudgeError
from lifealign.evaluation.judge.api_key import read_key, redacted
from lifealign.evaluation.judge.retries import FailedRequest, failed_request, pause
from lifealign.evaluation.judge.settings import JudgeConfig

logger = logging.getLogger(__name__)

REJECTED_FROM_THE_START = 5  # refusals without a single reply: something is wrong with the requests, not the texts
OWN_MACHINE = {"localhost", "127.0.0.1", "::1"}
FAILED_IN_A_ROW = 3  # questions without a reply after all their retries: the server is gone


class Unanswered(Exception):
    """A question that got no reply.

    Args:
        reason: A kind, a colon, and what happened.
        requests: How many requests were made for it.
    """

    def __init__(self, reason: str, requests: int) -> None:
        super().__init__(reason)
        self.requests = requests


class Budget:
    """HTTP requests that may still be made.

    Args:
        most: Maximum number of requests in total; None for no limit.
    """

    def __init__(self, most: int | None) -> None:
        self.most, self.spent = most, 0

    def spend(self) -> bool:
        """Takes one request; False if none is left."""
        if self.most is not None and self.spent >= self.most:
            return False
        self.spent += 1
        return True


@dataclass(frozen=True)
class Reply:
    """A judge's reply, and the tokens that its server counted; None if it does not count them."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


def usable_key(config: JudgeConfig) -> SecretStr:
    """The key to a judge that can be asked from here; an empty one where none is needed.

    Raises:
        ConfigError: If the package ``openai`` is not installed, or the key is missing or cannot be sent.
    """
    if importlib.util.find_spec("openai") is None:
        raise ConfigError("the judge needs the package openai; pip install 'lifealign[judge]'")
    return read_key(config.api_key_env, needed=config.base_url is None)


class Endpoint:
    """A connection to the server, as a context manager. The client's retries are off: ours are counted.

    Args:
        config: Model, address, limits.
        budget: Requests that may still be made.

    Raises:
        ConfigError: If the package ``openai`` is not installed, or the key is missing or cannot be sent.
    """

    def __init__(self, config: JudgeConfig, budget: Budget) -> None:
        self.key = usable_key(config)
        from openai import AsyncOpenAI

        self.config, self.budget = config, budget
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
        """Sends a request, and repeats it where that may help, with growing, randomly shortened pauses.

        Raises:
            Unanswered: If this question gets no reply: the budget is used up, the server refuses its text (reason
                ``rejected``), or all retries have failed (reason ``endpoint``).
            JudgeError: If no question would get one.
        """
        reason = ""
        for attempt in range(self.config.max_retries + 1):
            if not self.budget.spend():
                raise Unanswered(f"budget: all {self.budget.most} requests are used up", attempt)
            outcome = await self._attempt(messages)
            if isinstance(outcome, Reply):
                self._reached = self._replied = True
                self._failed_in_a_row = 0
                return outcome
            reason = outcome.reason
            if outcome.action == "stop":
                raise self._error(reason)
            if outcome.action == "reject":
                self._count_rejected(reason)
                raise Unanswered(f"rejected: {reason}", attempt + 1)
            if attempt < self.config.max_retries:
                seconds = pause(attempt, outcome.wait)
                logger.info("judge: %s; asking again in %.1f s", reason, seconds)
                await asyncio.sleep(seconds)
        self._count_failed(reason)
        attempts = self.config.max_retries + 1
        raise Unanswered(f"endpoint: {reason} ({attempts} attempts)", attempts)

    async def _attempt(self, messages: Sequence[dict[str, str]]) -> Reply | FailedRequest:
        """One request. The client's exceptions stay here: they hold the request, and the request holds the key."""
        import openai

        sent: Any = list(messages)
        more: dict[str, Any] = {} if self.config.seed is None else {"seed": self.config.seed}
        limit = f"no reply within {self.config.timeout:g} s"
        try:
            async with asyncio.timeout(self.config.timeout):  # the client's own timeout restarts with every byte
                completion = await self._client.chat.completions.create(
                    model=self.config.model,
                    messages=sent,
                    temperature=0,
                    max_tokens=self.config.max_tokens,
                    **more,
                )
        except (TimeoutError, openai.APITimeoutError):
            return FailedRequest("repeat", limit)
        except openai.APIConnectionError as error:
            return FailedRequest("repeat", self._one_line(f"no connection ({error.__cause__ or error})"))
        except openai.APIStatusError as error:
            self._reached = True
            return failed_request(error, self._one_line)
        except (openai.OpenAIError, ValueError) as error:  # ValueError: the body is not JSON
            self._reached = True
            return FailedRequest("repeat", f"the body of the response is not readable ({type(error).__name__})")
        except Exception as error:
            return FailedRequest("stop", f"the client failed ({type(error).__name__})")
        self._reached = True
        return _reply_of(completion) or FailedRequest("repeat", "the response is no chat completion")

    def _one_line(self, text: str) -> str:
        """A server's text on one line. The key is removed before the line is cut, or half of it might stay."""
        return " ".join(redacted(text, self.key).split())[:200]

    def _count_rejected(self, reason: str) -> None:
        self._rejected += 1
        if not self._replied and self._rejected >= REJECTED_FROM_THE_START:
            raise self._error(f"the first {self._rejected} requests were all refused; {reason}")

    def _count_failed(self, reason: str) -> None:
        self._failed_in_a_row += 1
        attempts = self.config.max_retries + 1
        if not self._reached:
            raise self._error(f"the server was not reached, {attempts} attempts: {reason}")
        if self._failed_in_a_row >= FAILED_IN_A_ROW:
            raise self._error(
                f"{self._failed_in_a_row} questions in a row got no reply, {attempts} attempts each; {reason}"
            )

    def _error(self, reason: str) -> JudgeError:
        key = f"the key in {self.config.api_key_env}"
        if not self.key.get_secret_value():
            key += " (which is not set)"
        return JudgeError(
            f"judge {self.config.model!r} at {self.config.place}: {reason}. Check the address (it usually ends in "
            f"/v1), the model's name and {key}; what has been judged is kept, and the same call goes on from there"
        )

    def _warn_of_plain_http(self) -> None:
        parts = urlsplit(self.config.place)
        if self.key.get_secret_value() and parts.scheme == "http" and parts.hostname not in OWN_MACHINE:
            logger.warning("%s: the key in %s is sent unencrypted", self.config.place, self.config.api_key_env)


def _reply_of(completion: Any) -> Reply | None:
    """The reply in a response, or None: servers send all sorts of things, and the client checks nothing."""
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
