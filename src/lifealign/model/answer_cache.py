"""Generated answers kept by content hash, so that none is generated twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import xxhash

from lifealign.errors import LifeError
from lifealign.model.generate import Prompt, answer_batches, generate_answers, stop_token_ids
from lifealign.model.runtime import Runtime
from lifealign.model.sampling import Sampling
from lifealign.model.tokens import prompt_ids
from lifealign.storage.files import read_sealed_json, write_sealed_json
from lifealign.storage.lock import exclusive_lock

logger = logging.getLogger(__name__)

SAVE_EVERY = 20.0
"""Seconds after which answers are on disk although others are still being generated."""


class AnswerCache:
    """Generated answers by content hash of policy, prompt, length limit and sampling; the file is safe to delete.

    The file contains its own checksum. A damaged file is ignored with a warning and rewritten.

    Args:
        path: File of the cache, or None to keep it in memory.
        base: Fingerprint of the frozen base.
        shared: File that all lives on this base share, for the base's answers only; None for none.
    """

    def __init__(self, path: Path | None = None, *, base: str | None = None, shared: Path | None = None) -> None:
        self.path, self.base, self.shared = path, base, shared
        self._answers: dict[str, str] = {} if path is None else _read(path)

    def answers(
        self,
        runtime: Runtime,
        prompts: Sequence[Prompt],
        policy: str,
        *,
        max_new_tokens: int,
        batch_size: int,
        sampling: Sampling | None = None,
    ) -> Mapping[Prompt, str]:
        """Answers of the model **as it is now**, each distinct prompt generated once.

        Args:
            runtime: Model and device.
            prompts: Conversations that end with the user; may repeat.
            policy: Fingerprint of the model as it is now.
            max_new_tokens: Maximum length of an answer in tokens.
            batch_size: Prompts answered at a time.
            sampling: How tokens are drawn; None for greedy answers.
        """
        keys = {prompt: _key(runtime, prompt, policy, max_new_tokens, sampling) for prompt in prompts}
        shared = self.shared if policy == self.base else None
        missing = [prompt for prompt, key in keys.items() if key not in self._answers]
        if missing and shared is not None:
            known = _read(shared)
            self._answers |= {keys[prompt]: known[keys[prompt]] for prompt in missing if keys[prompt] in known}
            missing = [prompt for prompt in missing if keys[prompt] not in known]
            self.save()
        if missing:
            new: dict[str, str] = {}
            saved = time.monotonic()
            for batch in answer_batches(runtime, missing, batch_size):  # in order: what is left has the same batches
                found = generate_answers(
                    runtime, batch, max_new_tokens=max_new_tokens, batch_size=batch_size, sampling=sampling
                )
                new |= {keys[prompt]: answer for prompt, answer in zip(batch, found, strict=True)}
                self._answers |= new
                if time.monotonic() - saved >= SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
            self.save()
            if shared is not None:
                with suppress(LifeError), exclusive_lock(shared.parent):  # left out if it cannot be written now
                    write_sealed_json(shared, {"answers": _read(shared) | new}, private=True)
        return {prompt: self._answers[key] for prompt, key in keys.items()}

    def update(self, other: AnswerCache) -> None:
        """Adds the entries of another cache."""
        self._answers |= other._answers

    def save(self) -> None:
        """Writes the file, if the cache has one; a failure is only a warning, because the cache only saves time."""
        if self.path is None:
            return
        try:
            write_sealed_json(self.path, {"answers": self._answers}, private=True)
        except LifeError as error:
            logger.warning("%s; these answers are generated again when they are needed later", error)


def _read(path: Path) -> dict[str, str]:
    """The answers of a cache file; none if there is no such file, or it is damaged, which is logged."""
    if not path.exists():
        return {}
    try:
        return _checked(read_sealed_json(path).get("answers"))
    except (LifeError, TypeError) as error:
        logger.warning("%s: damaged, so it is ignored and its answers are generated again (%s)", path, error)
        return {}


def _checked(answers: Any) -> dict[str, str]:
    """The answers of a cache file, once checked to be texts by key."""
    if not isinstance(answers, dict) or not all(isinstance(text, str) for text in answers.values()):
        raise TypeError("found something else, expected answers by key")
    return answers


def _key(runtime: Runtime, prompt: Prompt, policy: str, max_new_tokens: int, sampling: Sampling | None) -> str:
    ids = prompt_ids(runtime.tokenizer, prompt, runtime.reasoning)
    # What decides how the answer is cut from the output; and answers from before it was by logits alone do not count.
    read = f"{stop_token_ids(runtime)} {runtime.reasoning} by logits alone"
    drawn = "" if sampling is None else f" {astuple(sampling)}"
    return xxhash.xxh3_128(f"{policy} {max_new_tokens} {ids} {read}{drawn}".encode()).hexdigest()
