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
from lifealign.storage.files import read_sealed_json
from lifealign.storage.kept_rows import KeptRows
from lifealign.storage.lock import exclusive_lock

logger = logging.getLogger(__name__)

LOST = "its answers are generated again"
SAVE_EVERY = 20.0
"""Seconds after which answers are on disk although others are still being generated."""


class AnswerCache:
    """Generated answers by content hash of policy, prompt, length limit and sampling; the file is safe to delete.

    The file grows by what is generated. A row that does not match its checksum is ignored with a warning. A file of the
    same name that ends in ``.json``, which earlier versions wrote, is read as well.

    Args:
        path: File of the cache, or None to keep it in memory.
        base: Fingerprint of the frozen base.
        shared: File that all lives on this base share, for the base's answers only; None for none.
    """

    def __init__(self, path: Path | None = None, *, base: str | None = None, shared: Path | None = None) -> None:
        self.path, self.base, self.shared = path, base, shared
        self._own, self._of_base = _open(path), _open(None)

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
        known, shared = self._own.values, self.shared if policy == self.base else None
        missing = [prompt for prompt, key in keys.items() if key not in known]
        if missing and shared is not None:
            self._look_at_shared()
            found = self._of_base.values
            self._keep({keys[prompt]: found[keys[prompt]] for prompt in missing if keys[prompt] in found})
            missing = [prompt for prompt in missing if keys[prompt] not in known]
        if missing:
            new: dict[str, str] = {}
            unsaved: dict[str, str] = {}
            saved = time.monotonic()
            for batch in answer_batches(runtime, missing, batch_size):  # in order: what is left has the same batches
                generated = generate_answers(
                    runtime, batch, max_new_tokens=max_new_tokens, batch_size=batch_size, sampling=sampling
                )
                unsaved |= {keys[prompt]: answer for prompt, answer in zip(batch, generated, strict=True)}
                if time.monotonic() - saved >= SAVE_EVERY:
                    self._keep(unsaved)
                    new, unsaved, saved = new | unsaved, {}, time.monotonic()
            self._keep(unsaved)
            if shared is not None:
                with suppress(LifeError), exclusive_lock(shared.parent):  # left out if it cannot be written now
                    self._look_at_shared()
                    self._of_base.add(new | unsaved)
        return {prompt: known[key] for prompt, key in keys.items()}

    def update(self, other: AnswerCache) -> None:
        """Adds the entries of another cache, in memory and on disk."""
        self._keep(other._own.values)

    def _keep(self, new: Mapping[str, str]) -> None:
        """Adds answers; that they cannot be written is only a warning, because the cache only saves time."""
        try:
            self._own.add(new)
        except LifeError as error:
            logger.warning("%s; these answers are generated again when they are needed later", error)

    def _look_at_shared(self) -> None:
        """Reads what the shared file has, or has got since the last time."""
        if self._of_base.path is None:
            self._of_base = _open(self.shared)
        else:
            self._of_base.refresh()


def _open(path: Path | None) -> KeptRows[str]:
    """The answers of a file, by key; those of a file in the form of earlier versions as well."""
    kept = KeptRows(path, _accepted, LOST)
    if path is not None and (older := path.with_suffix(".json")) != path and older.exists():
        kept.values = _read_older(older) | kept.values
    return kept


def _accepted(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("found something else, expected a text")
    return value


def _read_older(path: Path) -> dict[str, str]:
    """The answers of a file in the form of earlier versions; none if it is damaged, which is logged."""
    try:
        answers = read_sealed_json(path).get("answers")
        if not isinstance(answers, dict):
            raise TypeError("found something else, expected answers by key")
        return {key: _accepted(answer) for key, answer in answers.items()}
    except (LifeError, TypeError) as error:
        logger.warning("%s: damaged, so it is ignored, and %s (%s)", path, LOST, error)
        return {}


def _key(runtime: Runtime, prompt: Prompt, policy: str, max_new_tokens: int, sampling: Sampling | None) -> str:
    ids = prompt_ids(runtime.tokenizer, prompt, runtime.reasoning)
    # What decides how the answer is cut from the output; and answers from before it was by logits alone do not count.
    read = f"{stop_token_ids(runtime)} {runtime.reasoning} by logits alone"
    drawn = "" if sampling is None else f" {astuple(sampling)}"
    return xxhash.xxh3_128(f"{policy} {max_new_tokens} {ids} {read}{drawn}".encode()).hexdigest()
