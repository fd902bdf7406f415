"""Many questions to one judge: known replies from the cache, the rest asked in parallel, and what it all cost."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lifealign.evaluation.judge.api_key import quiet_about, redacted
from lifealign.evaluation.judge.cache import StoredReply, VerdictCache, request_key
from lifealign.evaluation.judge.concurrency import each, run_in_thread
from lifealign.evaluation.judge.endpoint import Budget, Endpoint, Unanswered
from lifealign.evaluation.judge.question import ATTEMPTS, Question
from lifealign.evaluation.judge.settings import JudgeConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What a judge chose.

    Attributes:
        choice: One of the question's choices; None if there is no verdict.
        reason: Why there is no verdict; empty if there is one. It begins with a kind: ``format:`` (no reply had the
            required form), ``budget:`` (not asked), ``rejected:`` (the server refuses this text) or ``endpoint:``
            (all retries failed).
    """

    choice: str | None
    reason: str = ""


@dataclass
class Tally:
    """What the verdicts cost.

    Attributes:
        asked: Distinct questions for which at least one request was made.
        cached: Distinct questions answered from the cache alone.
        requests: HTTP requests, retries and reminders included.
        prompt_tokens: Tokens of all requests, as counted by the server; None if it does not count them.
        completion_tokens: Tokens of all replies, likewise.
    """

    asked: int = 0
    cached: int = 0
    requests: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def add_tokens(self, prompt: int | None, completion: int | None) -> None:
        """Adds the tokens that a server counted for one reply."""
        if prompt is not None:
            self.prompt_tokens = (self.prompt_tokens or 0) + prompt
        if completion is not None:
            self.completion_tokens = (self.completion_tokens or 0) + completion


@dataclass
class JudgeSession:
    """Asks a judge many questions, equal ones only once.

    Attributes:
        config: The judge.
        cache: Its replies so far.
        budget: Requests that may still be made.
        tally: What the session cost so far.
    """

    config: JudgeConfig
    cache: VerdictCache
    budget: Budget
    tally: Tally = field(default_factory=Tally)

    def verdicts_on(self, questions: Iterable[Question]) -> dict[Question, Verdict]:
        """Verdicts by question.

        If the cache holds every reply, neither the client package nor a key is needed.

        Raises:
            JudgeError: If the judge cannot go on.
            ConfigError: If the client is not installed, or the key is missing.
            KeyboardInterrupt: At once; the replies received by then are in the cache.
        """
        found: dict[Question, Verdict] = {}
        open_questions = []
        for question in dict.fromkeys(questions):
            known = self._known(question)
            if known is None:
                open_questions.append(question)
            else:
                found[question] = known
        self.tally.cached += len(found)
        if open_questions:
            spent = self.budget.spent
            try:
                run_in_thread(self._ask_all(open_questions, found))
            finally:
                self.tally.requests += self.budget.spent - spent
        if left := sum(verdict.reason.startswith("budget") for verdict in found.values()):
            logger.warning(
                "judge: the %d requests of max_requests are used up; %d of %d questions have no verdict",
                self.budget.most,
                left,
                len(found),
            )
        return found

    async def _ask_all(self, questions: Sequence[Question], found: dict[Question, Verdict]) -> None:
        async with Endpoint(self.config, self.budget) as endpoint:

            async def ask(question: Question) -> None:
                found[question] = await self._ask(question, endpoint)

            with quiet_about(endpoint.key):
                # The first question goes alone, so that a wrong key or address costs one request, not max_parallel.
                await ask(questions[0])
                await each(ask, questions[1:], self.config.max_parallel)

    async def _ask(self, question: Question, endpoint: Endpoint) -> Verdict:
        last_reply, requests = "", 0
        try:
            for attempt in range(ATTEMPTS):
                messages = question.messages(attempt)
                key = request_key(self.config, messages)
                stored = self._stored(key, question)  # another process may have asked since
                if stored is None:
                    reply = await endpoint.reply(messages)
                    requests += 1
                    self.tally.add_tokens(reply.prompt_tokens, reply.completion_tokens)
                    stored = StoredReply(question.read(reply.text), redacted(reply.text, endpoint.key))
                    self.cache.put(key, self.config.model, stored)
                if stored.choice is not None:
                    return Verdict(stored.choice)
                last_reply = stored.reply
        except Unanswered as error:
            requests += error.requests
            return Verdict(None, str(error))
        finally:
            self.tally.asked += requests > 0
        return _unreadable(last_reply)

    def _known(self, question: Question) -> Verdict | None:
        """The verdict from the cache alone, through the same attempts as asking; None if a reply is missing."""
        last_reply = ""
        for attempt in range(ATTEMPTS):
            stored = self._stored(request_key(self.config, question.messages(attempt)), question)
            if stored is None:
                return None
            if stored.choice is not None:
                return Verdict(stored.choice)
            last_reply = stored.reply
        return _unreadable(last_reply)

    def _stored(self, key: str, question: Question) -> StoredReply | None:
        """The cached reply, or None. A cached reply that no longer parses to its stored choice is discarded.

        Such a row was edited, or a bit of the file flipped; SQLite's own check does not notice changes in a value.
        """
        stored = self.cache.get(key)
        if stored is not None and stored.choice != question.read(stored.reply):
            self.cache.forget(key)
            return None
        return stored


def _unreadable(last_reply: str) -> Verdict:
    return Verdict(None, f"format: {ATTEMPTS} replies could not be read, the last was {last_reply[:60]!r}")
