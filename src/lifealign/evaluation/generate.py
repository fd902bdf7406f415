"""Generated answers: greedy, batched, and kept by content hash so that none is generated twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from lifealign import storage
from lifealign.data.task import Message
from lifealign.errors import LifeError
from lifealign.prompt_pool import active_pool
from lifealign.training.batches import prompt_ids
from lifealign.training.runtime import Runtime

Prompt = tuple[Message, ...]


def generate_answers(runtime: Runtime, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int) -> list[str]:
    """Answers prompts with the model as it is now, greedily.

    Args:
        runtime: Model and device.
        prompts: Conversations that end with the user.
        max_new_tokens: Longest answer, in tokens; a longer one is cut.
        batch_size: Prompts answered at a time, similar lengths together, padded on the left.

    Returns:
        Answers as plain text, in the order of ``prompts``.
    """
    tokenizer = runtime.tokenizer
    ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    answers = [""] * len(prompts)
    by_length = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    runtime.model.eval()
    for start in range(0, len(by_length), batch_size):
        indices = by_length[start : start + batch_size]
        length = max(len(ids[index]) for index in indices)
        padding = [length - len(ids[index]) for index in indices]
        rows = [[tokenizer.pad_token_id] * pad + ids[index] for pad, index in zip(padding, indices, strict=True)]
        mask = [[0] * pad + [1] * (length - pad) for pad in padding]
        device = runtime.accelerator.device
        with torch.no_grad():
            given = _read_by(
                runtime,
                torch.tensor(rows, device=device),
                torch.tensor(mask, device=device),
                [tuple(ids[index]) for index in indices],
            )
            output = runtime.model.generate(
                **given, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        skipped = length if "input_ids" in given else 0  # of embeddings, only what is new comes back
        for index, row in zip(indices, output, strict=True):
            answers[index] = str(tokenizer.decode(row[skipped:], skip_special_tokens=True)).strip()
    return answers


def _read_by(runtime: Runtime, ids: Tensor, mask: Tensor, prompts: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
    """What the model reads before it answers: tokens, or their embeddings after the virtual tokens of a prompt pool."""
    pool = active_pool(runtime.model)
    if pool is None:
        return {"input_ids": ids, "attention_mask": mask}
    causal: Any = runtime.model.get_base_model()
    embedded = causal.get_input_embeddings()(ids)
    virtual = pool(pool.queries(causal, prompts)).to(embedded.dtype)
    # Between padding and chat: positions are counted over what the mask shows.
    parts = [
        torch.cat((row[row_mask == 0], prefix, row[row_mask == 1]))
        for row, row_mask, prefix in zip(embedded, mask, virtual, strict=True)
    ]
    seen = [
        torch.cat((row_mask[row_mask == 0], row_mask.new_ones(pool.tokens), row_mask[row_mask == 1]))
        for row_mask in mask
    ]
    return {"inputs_embeds": torch.stack(parts), "attention_mask": torch.stack(seen)}


class AnswerCache:
    """Generated answers by content hash of policy, prompt tokens and length limit; the file is safe to delete.

    Args:
        path: File of the cache, or None to keep it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._answers: dict[str, str] = {}
        if path is not None and path.exists():
            try:
                self._answers = {str(key): str(text) for key, text in storage.read_json(path).items()}
            except (LifeError, AttributeError):
                self._answers = {}  # it only saves time: what is missing is generated again

    def answers(
        self, runtime: Runtime, prompts: Sequence[Prompt], policy: str, *, max_new_tokens: int, batch_size: int
    ) -> Mapping[Prompt, str]:
        """Answers of the model **as it is now**, each distinct prompt generated once.

        Args:
            runtime: Model and device.
            prompts: Conversations that end with the user; may repeat.
            policy: Fingerprint of the model as it is now.
            max_new_tokens: Longest answer, in tokens.
            batch_size: Prompts answered at a time.
        """
        keys = {prompt: _key(runtime, prompt, policy, max_new_tokens) for prompt in prompts}
        missing = [prompt for prompt, key in keys.items() if key not in self._answers]
        if missing:
            found = generate_answers(runtime, missing, max_new_tokens=max_new_tokens, batch_size=batch_size)
            self._answers |= {keys[prompt]: answer for prompt, answer in zip(missing, found, strict=True)}
            self.save()
        return {prompt: self._answers[key] for prompt, key in keys.items()}

    def update(self, other: AnswerCache) -> None:
        """Takes over what another cache holds."""
        self._answers |= other._answers

    def save(self) -> None:
        """Writes the file, if the cache has one."""
        if self.path is not None:
            storage.write_json(self.path, self._answers)


def _key(runtime: Runtime, prompt: Prompt, policy: str, max_new_tokens: int) -> str:
    ids = prompt_ids(runtime.tokenizer, prompt)
    return xxhash.xxh3_128(f"{policy} {max_new_tokens} {ids}".encode()).hexdigest()
