"""Many questions to one judge: from the cache what is known, the rest side by side, and counts of what it cost."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lifealign.evaluation.judge.api_key import quiet_about, redacted
from lifealign.evaluation.judge.cache import Stored, Verdicts, request_key
from lifealign.evaluation.judge.concurrency import each, run_apart
from lifealign.evaluation.judge.endpoint import Budget, Endpoint, Unanswered
from lifealign.evaluation.judge.question import ATTEMPTS, Question
from lifealign.evaluation.judge.settings import JudgeConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What a judge chose.

    Attributes:
        choice: One of the question's choices; None if there is no verdict.
        reason: Why there is none, empty if there is one. It begins with its kind: ``format:`` (no reply had the form),
            ``budget:`` (not asked), ``rejected:`` (the server refuses this text) or ``endpoint:`` (retries failed).
    """

    choice: str | None
    reason: str = ""


@dataclass
class Tally:
    """What verdicts have cost.

    Attributes:
        asked: Distinct questions for which at least one request was made.
        cached: Distinct questions that the cache answered alone.
        requests: HTTP requests, retries and reminders included.
        prompt_tokens: Tokens of all requests as the server counted them; None if it never does.
        completion_tokens: Tokens of all replies, likewise.
    """

    asked: int = 0
    cached: int = 0
    requests: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def add_tokens(self, prompt: int | None, completion: int | None) -> None:
        """Adds what a server has counted for one reply."""
        if prompt is not None:
            self.prompt_tokens = (self.prompt_tokens or 0) + prompt
        if completion is not None:
            self.completion_tokens = (self.completion_tokens or 0) + completion


@dataclass
class Judging:
    """Puts questions; equal ones once.

    Attributes:
        config: The judge.
        verdicts: Its cache.
        budget: Requests that may still be made.
        tally: Grows with every question.
    """

    config: JudgeConfig
    verdicts: Verdicts
    budget: Budget
    tally: Tally = field(default_factory=Tally)

    def verdicts_on(self, questions: Iterable[Question]) -> dict[Question, Verdict]:
        """Verdicts by question.

        Neither package nor key is needed where the cache knows everything.

        Raises:
            JudgeError: If the judge cannot go on.
            ConfigError: If the client is not installed, or the key is missing.
            KeyboardInterrupt: At once; what has been said by then is in the cache.
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
                run_apart(self._put(open_questions, found))
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

    async def _put(self, questions: Sequence[Question], found: dict[Question, Verdict]) -> None:
        async with Endpoint(self.config, self.budget) as endpoint:

            async def put(question: Question) -> None:
                found[question] = await self._ask(question, endpoint)

            with quiet_about(endpoint.key):
                # The first one alone: a wrong key or address is then one failed request, not as many as are allowed at
                # a time.
                await put(questions[0])
                await each(put, questions[1:], self.config.max_parallel)

    async def _ask(self, question: Question, endpoint: Endpoint) -> Verdict:
        said, requests = "", 0
        try:
            for attempt in range(ATTEMPTS):
                messages = question.messages(attempt)
                key = request_key(self.config, messages)
                stored = self._stored(key, question)  # another process may have asked since
                if stored is None:
                    reply = await endpoint.reply(messages)
                    requests += 1
                    self.tally.add_tokens(reply.prompt_tokens, reply.completion_tokens)
                    stored = Stored(question.read(reply.text), redacted(reply.text, endpoint.key))
                    self.verdicts.put(key, self.config.model, stored)
                if stored.choice is not None:
                    return Verdict(stored.choice)
                said = stored.reply
        except Unanswered as error:
            requests += error.requests
            return Verdict(None, str(error))
        finally:
            self.tally.asked += requests > 0
        return _unread(said)

    def _known(self, question: Question) -> Verdict | None:
        """The verdict that the cache alone leads to, by the way that asking would go."""
        said = ""
        for attempt in range(ATTEMPTS):
            stored = self._stored(request_key(self.config, question.messages(attempt)), question)
            if stored is None:
                return None
            if stored.choice is not None:
                return Verdict(stored.choice)
            said = stored.reply
        return _unread(said)

    def _stored(self, key: str, question: Question) -> Stored | None:
        """A reply of the cache; none if it does not say what it was read as, which is then forgotten.

        Such a row has been edited, or a bit of the file has changed, which no check of a database notices in a value.
        """
        stored = self.verdicts.get(key)
        if stored is not None and stored.choice != question.read(stored.reply):
            self.verdicts.forget(key)
            return None
        return stored


def _unread(said: str) -> Verdict:
    return Verdict(None, f"format: {ATTEMPTS} replies could not be read, the last was {said[:60]!r}")
