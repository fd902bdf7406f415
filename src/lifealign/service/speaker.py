"""One model in memory that answers as any version of its life, one answer at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from lifealign.data.pair import Message
from lifealign.errors import LifeError, ModelError
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.recall import Patterns, Recall, patterns_of, recall_prompt
from lifealign.life.workspace import Workspace
from lifealign.memory.update import Adapter
from lifealign.model.adapter import install_adapter
from lifealign.model.base_model import most_positions
from lifealign.model.sampling import Sampling
from lifealign.model.stream import Streamed, stream_answer
from lifealign.model.tokens import prompt_ids
from lifealign.service.versions import UnknownModel, Versions, Voice

LONGEST = 512
"""Tokens of the longest answer where nobody asks for another length."""
KEPT = 16
"""Adapters kept in memory; others are read again."""


class TooLong(ModelError):
    """A prompt and an answer that are longer than the model can read."""


class Speaker:
    """A life's model, made to answer as one version after another by swapping its adapter in place.

    Not for several threads at a time.

    Args:
        work: The life, opened for work.
    """

    def __init__(self, work: Workspace) -> None:
        self._work = work
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self._installed = ""
        self._looked = work.directory
        self._patterns: Patterns | None = None

    def load(self) -> None:
        """Loads the model; the first answer would do it otherwise.

        Raises:
            ModelError: If the base cannot be loaded, or is not the one that the life was made with.
        """
        assert self._work.runtime

    def prompt_tokens(self, prompt: Sequence[Message]) -> int:
        """Tokens of a conversation, the chat template's included.

        Raises:
            TemplateFault: If the chat template refuses it.
        """
        runtime = self._work.runtime
        return len(prompt_ids(runtime.tokenizer, prompt, runtime.reasoning))

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and answer together; None if the model states no limit."""
        return most_positions(self._work.runtime.model.get_base_model())

    def answer(
        self,
        voice: Voice,
        prompt: Sequence[Message],
        show: Callable[[str], None] = lambda piece: None,
        *,
        max_new_tokens: int | None = None,
        longest: int = LONGEST,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Streamed:
        """Answers a conversation as a version; see also :func:`~lifealign.model.stream.stream_answer`.

        Args:
            voice: The version.
            prompt: A conversation that ends with the user.
            show: Called with each new piece of the answer.
            max_new_tokens: Maximum length of the answer in tokens; None takes ``longest``, or what the model can read
                beside the prompt.
            longest: Maximum length of the answer where none is asked for.
            sampling: How tokens are drawn; None takes the most likely token each time.
            stop: Texts at which the answer ends.
            cancelled: Asked before every token whether to give up.

        Raises:
            TooLong: If prompt and answer are longer than the model can read.
            TemplateFault: If the chat template refuses the prompt.
            UnknownModel: If the version was rolled back meanwhile.
        """
        context = self.context
        room = longest if context is None else context - self.prompt_tokens(prompt)
        asked = min(longest, room) if max_new_tokens is None else max_new_tokens
        if context is not None and not 0 < asked <= room:
            raise TooLong(
                f"prompt: found {context - room} tokens and {max_new_tokens or 1} for the answer, expected at most "
                f"{context} together; shorten the conversation or ask for a shorter answer"
            )
        self._become(voice)
        return stream_answer(
            self._work.runtime,
            prompt,
            show,
            max_new_tokens=asked,
            sampling=sampling,
            stop=stop,
            cancelled=cancelled,
        )

    def recall(self, versions: Versions, prompt: Sequence[Message]) -> Recall:
        """What the life, as it is on disk now, recalls for a prompt; see :meth:`lifealign.Life.recall`.

        Raises:
            ConfigError: If the prompt is empty.
            LifeError: If nothing was learnt, or nothing is kept of the prompts of a task.
            ModelError: If the prompt is too long.
        """
        directory = versions.directory
        if directory is not self._looked:
            self._work, self._looked, self._patterns = self._work.at(directory), directory, None
        if self._patterns is None:
            self._patterns = patterns_of(self._work)
        return recall_prompt(self._work, self._patterns, prompt)

    def voice(self, versions: Versions, model: str, prompt: Sequence[Message]) -> tuple[Voice, str]:
        """The version that answers a prompt, and why that one where it was recalled.

        Args:
            versions: What the life can answer as.
            model: Name of a model, that of recall included.
            prompt: The conversation.

        Raises:
            UnknownModel: If there is no such model.
            LifeAlignError: For the reasons given in :meth:`recall`.
        """
        if not versions.recalls(model):
            return versions.find(model), ""
        found = self.recall(versions, prompt)
        return versions.find(f"{versions.name}@{found.version}"), found.why

    def _become(self, voice: Voice) -> None:
        wanted = voice.content
        if wanted == self._installed:
            return
        adapter = self._adapters.pop(wanted, None)
        if adapter is None:
            try:
                adapter = read_adapter_of(voice.directory, voice.version.name)
            except LifeError as error:
                if not voice.is_there:
                    raise UnknownModel(f"model {voice.model!r}: was rolled back meanwhile") from error
                raise
        self._adapters[wanted] = adapter
        if len(self._adapters) > KEPT:
            self._adapters.popitem(last=False)
        self._installed = ""  # until it is whole
        install_adapter(self._work.runtime.model, adapter)
        self._installed = wanted
