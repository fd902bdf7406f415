"""A conversation with a life on the terminal: any version answers, and two can be compared on the same prompt."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Message
from lifealign.errors import ConfigError, LifeAlignError
from lifealign.evaluation.rules import counting
from lifealign.model.sampling import Sampling
from lifealign.model.stream import Streamed
from lifealign.report.printing import plain, say, show, write_on
from lifealign.report.terminal import side_by_side
from lifealign.service.log import AnswerLog
from lifealign.service.speaker import Speaker
from lifealign.service.versions import RECALL, Versions, Voice

COMMANDS = {
    "/as-of VERSION": "go on with another version; `base` is the untrained one, `last` the newest, `recall` the best "
    "for each prompt",
    "/compare VERSION": "how that version answers the last prompt, beside the answer above",
    "/rules": "which exact checks the last answer keeps",
    "/better TEXT": "what the last answer should have been; /save writes it down for `lifealign collect`",
    "/save FILE": "add what was said to a log that `lifealign collect` reads",
    "/new": "begin a new conversation",
    "/help": "this list",
    "/quit": "end, as Ctrl-D does",
}


@dataclass(frozen=True)
class Exchange:
    """A prompt and its answer.

    Attributes:
        prompt: The conversation, which ends with the user.
        voice: The version that answered.
        given: The answer.
        better: What the answer should have been, if somebody said so.
    """

    prompt: tuple[Message, ...]
    voice: Voice
    given: Streamed
    better: str | None = None


@dataclass
class Chat:
    """A conversation.

    Attributes:
        speaker: The model.
        versions: What it can answer as.
        console: Where answers are shown.
        model: Name of the model that answers.
        max_new_tokens: Maximum length of an answer in tokens.
        sampling: How tokens are drawn; None takes the most likely one each time.
    """

    speaker: Speaker
    versions: Versions
    console: Console
    model: str
    max_new_tokens: int
    sampling: Sampling | None
    messages: list[Message] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    saved: int = 0

    def take(self, line: str) -> bool:
        """Does what a line says: a command, or a message for the model.

        Returns:
            Whether the conversation goes on.
        """
        text = line.strip()
        try:
            if text.startswith("/"):
                return self._command(*text.partition(" ")[::2])
            if text:
                self.answer(text)
        except LifeAlignError as error:
            say(self.console, Text.assemble(plain("error:", "bold red"), plain(f" {error}")))
        return True

    def answer(self, text: str) -> None:
        """Answers a message, and shows the answer while it is written; Ctrl-C cuts it short."""
        prompt = (*self.messages, Message("user", text))
        voice, why = self.speaker.voice(self.versions, self.model, prompt)
        say(self.console, Text.assemble(plain(voice.model, "bold"), plain(f"  {why}" if why else "", "dim")))
        given = self.speaker.answer(
            voice, prompt, self._piece, max_new_tokens=self.max_new_tokens, sampling=self.sampling
        )
        say(self.console, "")
        if given.finish_reason == "length":
            say(self.console, f"(cut at {self.max_new_tokens} tokens)", style="dim")
        self.exchanges.append(Exchange(prompt, voice, given))
        self.messages = [*prompt, Message("assistant", given.text)]

    def _piece(self, piece: str) -> None:
        write_on(self.console, piece)

    def _command(self, name: str, argument: str) -> bool:
        argument = argument.strip()
        match name:
            case "/as-of":
                self.model = self._named(argument)
                say(self.console, f"{self.model} answers from now on")
            case "/compare":
                self._compare(self._named(argument))
            case "/rules":
                self._rules()
            case "/better":
                self._better(argument)
            case "/save":
                self._save(argument)
            case "/new":
                self.messages = []
                say(self.console, "a new conversation")
            case "/quit" | "/exit":
                return False
            case "/help":
                width = max(map(len, COMMANDS))
                say(self.console, *(f"  {command:<{width}}  {what}" for command, what in COMMANDS.items()))
            case _:
                raise ConfigError(f"{name}: no such command; /help lists them")
        return True

    def _named(self, version: str) -> str:
        """The model that a version is, in any of the ways to say it."""
        return model_named(self.versions, version)

    def _last(self) -> Exchange:
        if not self.exchanges:
            raise ConfigError("nothing was answered yet; say something first")
        return self.exchanges[-1]

    def _compare(self, model: str) -> None:
        last = self._last()
        voice = self.versions.find(model)
        other = self.speaker.answer(voice, last.prompt, max_new_tokens=self.max_new_tokens, sampling=self.sampling)
        show(self.console, side_by_side({last.voice.model: last.given.text, voice.model: other.text}))

    def _rules(self) -> None:
        kept = rules_kept(self.versions, self._last().given.text)
        if not kept:
            say(self.console, "no task of this life has an exact check")
        for rule, holds in kept.items():
            say(
                self.console,
                Text.assemble(plain("yes " if holds else "no  ", "green" if holds else "red"), plain(rule)),
            )

    def _better(self, text: str) -> None:
        last = self._last()
        if not text or text == last.given.text:
            raise ConfigError("/better needs a text that differs from the answer")
        if len(self.exchanges) <= self.saved:
            raise ConfigError("the last answer is already saved; say what is better before /save")
        self.exchanges[-1] = Exchange(last.prompt, last.voice, last.given, text)
        self.messages = [*last.prompt, Message("assistant", text)]
        say(self.console, "noted; the conversation goes on from there")

    def _save(self, file: str) -> None:
        if not file:
            raise ConfigError("/save needs a file, such as /save chat.jsonl")
        log = AnswerLog(Path(file))
        fresh = self.exchanges[self.saved :]
        for exchange in fresh:
            answer = f"chat-{secrets.token_hex(16)}"
            log.answered(answer, exchange.voice, exchange.prompt, exchange.given)
            if exchange.better is not None:
                log.said(answer, {"edited": exchange.better})
        self.saved = len(self.exchanges)
        say(self.console, f"{file}: {len(fresh)} {'answer' if len(fresh) == 1 else 'answers'} added")


def model_named(versions: Versions, version: str | None) -> str:
    """The model that a version is: its name, ``last`` or None for the newest, ``base``, ``recall``.

    Raises:
        UnknownModel: If there is none.
    """
    if version in (None, "", "last"):
        return versions.name
    model = f"{versions.name}@{version}"
    if version != RECALL or not versions.recalls(model):
        versions.find(model)
    return model


def rules_kept(versions: Versions, answer: str) -> Mapping[str, bool]:
    """Whether an answer keeps each rule that counts now: those of all tasks with an exact check, none superseded."""
    tasks = [task for version in versions.directory.steps for task in version.tasks]
    return {task.name: AnswerCheck(**task.check).holds(answer) for task in counting(tasks) if task.check}


def answer_lines(chat: Chat, lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Answers prompts that are piped in, one a line and each on its own.

    Yields:
        For each line that is not blank an object with ``prompt``, ``answer``, ``model`` and ``finish_reason``; where a
        prompt cannot be answered, with ``prompt`` and ``error``.
    """
    for line in lines:
        if not (text := line.strip()):
            continue
        prompt = (Message("user", text),)
        try:
            voice, _ = chat.speaker.voice(chat.versions, chat.model, prompt)
            given = chat.speaker.answer(voice, prompt, max_new_tokens=chat.max_new_tokens, sampling=chat.sampling)
        except LifeAlignError as error:
            yield {"prompt": text, "error": str(error)}
            continue
        yield {"prompt": text, "answer": given.text, "model": voice.model, "finish_reason": given.finish_reason}


def as_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON, in characters that every terminal and every encoding has."""
    return json.dumps(row).replace("\x7f", "\\u007f")
