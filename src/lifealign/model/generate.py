"""Generated answers: greedy or sampled, batched, and cached by content hash so that none is generated twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lifealign.data.pair import Message
from lifealign.errors import LifeError
from lifealign.model.chat_codec import chat_codec_of
from lifealign.model.head import contiguous_for_head
from lifealign.model.prompt_pool import active_pool
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import prompt_ids
from lifealign.storage.files import read_sealed_json, write_sealed_json
from lifealign.storage.lock import exclusive_lock

logger = logging.getLogger(__name__)

Prompt = tuple[Message, ...]


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled when they are not greedy; names and order of the filters are those of transformers.

    Attributes:
        temperature: Divides the logits; 1 leaves them as they are.
        top_p: Tokens are drawn from the smallest set of most likely tokens whose total probability reaches this; 1 is
            no limit.
        top_k: Tokens are drawn from at most this many of the most likely tokens; 0 is no limit.
        seed: Determines the answer together with the prompt, whatever else is in the batch.
    """

    temperature: float
    top_p: float
    top_k: int
    seed: int


def generate_answers(
    runtime: Runtime,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    sampling: Sampling | None = None,
) -> list[str]:
    """Answers prompts with the model as it is now.

    Args:
        runtime: Model and device.
        prompts: Conversations that end with the user.
        max_new_tokens: Maximum length of an answer in tokens; a longer one is cut.
        batch_size: Prompts answered at a time: similar lengths together, padded on the left, or only equal lengths
            together if padding is not proven to change nothing.
        sampling: How tokens are drawn; None takes the most likely token each time.

    Returns:
        Answers as plain text, in the order of ``prompts``.
    """
    tokenizer = runtime.tokenizer
    ids = [prompt_ids(tokenizer, prompt, runtime.reasoning) for prompt in prompts]
    stops = stop_token_ids(runtime)
    answers = [""] * len(prompts)
    runtime.model.eval()
    for indices in _batches([len(one) for one in ids], batch_size, mixed=runtime.proof.padded):
        length = max(len(ids[index]) for index in indices)
        padding = [length - len(ids[index]) for index in indices]
        rows = [[tokenizer.pad_token_id] * pad + ids[index] for pad, index in zip(padding, indices, strict=True)]
        mask = [[0] * pad + [1] * (length - pad) for pad in padding]
        device = runtime.device
        with torch.no_grad(), contiguous_for_head(runtime.model.get_base_model()):
            given = _read_by(
                runtime,
                torch.tensor(rows, device=device),
                torch.tensor(mask, device=device),
                [tuple(ids[index]) for index in indices],
            )
            # Greedy either way: sampling adds noise to the logits, and the largest is then taken.
            output = runtime.model.generate(
                **given,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=list(stops),
                **({} if sampling is None else _drawn(sampling, [ids[index] for index in indices])),
            )
        skipped = length if "input_ids" in given else 0  # given embeddings, only the new tokens come back
        for index, row in zip(indices, output, strict=True):
            answers[index] = _text(runtime, row[skipped:].tolist(), stops)
    return answers


def _batches(lengths: Sequence[int], batch_size: int, *, mixed: bool) -> list[list[int]]:
    """Groups prompts by index, the shortest first; unless ``mixed``, the prompts of a batch have the same length."""
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        last = batches[-1] if batches else []
        if last and len(last) < batch_size and (mixed or lengths[last[0]] == lengths[number]):
            last.append(number)
        else:
            batches.append([number])
    return batches


def stop_token_ids(runtime: Runtime) -> tuple[int, ...]:
    """Tokens at which an answer ends: the template's end of turn, the tokenizer's end of text, the generation config's.

    The generation config may have one or many, and some are named nowhere else (``<|eot_id|>`` beside
    ``<|end_of_text|>``).
    """
    configured = getattr(runtime.model.get_base_model().generation_config, "eos_token_id", None)
    more = configured if isinstance(configured, list | tuple) else [configured]
    stops = [*chat_codec_of(runtime.tokenizer).stop_token_ids, *more]
    return tuple(dict.fromkeys(stop for stop in stops if isinstance(stop, int)))


def _text(runtime: Runtime, ids: list[int], stops: Sequence[int]) -> str:
    """The text of an answer: everything before the first stop token, under ``strip`` without its reasoning.

    A reasoning block that was cut off before its end is removed whole: the answer itself was never written.
    """
    tokenizer, template = runtime.tokenizer, chat_codec_of(runtime.tokenizer).template
    end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    if runtime.reasoning != "strip":
        return str(tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()
    # Decoding would drop tags that are special tokens like all others, and reasoning would look like an answer.
    special = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    tags = {tag for pair in template.tags for tag in pair}
    parts: list[list[int] | str] = [[]]
    for token in ids[:end]:
        if special.get(token) in tags:
            parts += [special[token], []]
        else:
            last = parts[-1]
            assert isinstance(last, list)
            last.append(token)
    texts = [part if isinstance(part, str) else str(tokenizer.decode(part, skip_special_tokens=True)) for part in parts]
    return template.without_reasoning("".join(texts).strip()).strip()


def _drawn(sampling: Sampling, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Options of ``generate`` that sample a token per row and step, with the filters of transformers.

    A filter without effect is left out: each of the last two would sort the whole vocabulary at every token.
    """
    filters: list[LogitsProcessor] = []
    if sampling.temperature != 1:
        filters.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        filters.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        filters.append(TopPLogitsWarper(sampling.top_p))
    return {"logits_processor": LogitsProcessorList([*filters, _GumbelNoise(sampling.seed, prompts)])}


class _GumbelNoise(LogitsProcessor):
    """Adds noise so that the largest logit is a draw from the softmax (Gumbel-max); each row has its own generator.

    ``torch.multinomial`` draws for a whole batch at once, so an answer would depend on its neighbours.
    """

    def __init__(self, seed: int, prompts: Sequence[Sequence[int]]) -> None:
        seeds = [xxhash.xxh64(f"{seed} {list(prompt)}".encode()).intdigest() >> 1 for prompt in prompts]
        self._generators = [torch.Generator().manual_seed(one) for one in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.empty(scores.shape)
        for row, generator in zip(noise, self._generators, strict=True):
            row.uniform_(generator=generator)
        tiny = torch.finfo(noise.dtype).tiny
        noise.clamp_min_(tiny).log_().neg_().clamp_min_(tiny).log_()  # in place: a batch has millions of them
        return scores - noise.to(scores)


def _read_by(runtime: Runtime, ids: Tensor, mask: Tensor, prompts: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
    """What the model reads before it answers: token ids, or embeddings with a prompt pool's virtual tokens in front."""
    pool = active_pool(runtime.model)
    if pool is None:
        return {"input_ids": ids, "attention_mask": mask}
    causal: Any = runtime.model.get_base_model()
    embedded = causal.get_input_embeddings()(ids)
    virtual = pool(pool.queries(causal, prompts)).to(embedded.dtype)
    # The virtual tokens go between padding and prompt: positions are counted over unmasked tokens only.
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
            found = generate_answers(
                runtime, missing, max_new_tokens=max_new_tokens, batch_size=batch_size, sampling=sampling
            )
            new = {keys[prompt]: answer for prompt, answer in zip(missing, found, strict=True)}
            self._answers |= new
            self.save()
            if shared is not None:
                with suppress(LifeError), exclusive_lock(shared.parent):  # left out if it cannot be written now
                    write_sealed_json(shared, {"answers": _read(shared) | new})
        return {prompt: self._answers[key] for prompt, key in keys.items()}

    def update(self, other: AnswerCache) -> None:
        """Adds the entries of another cache."""
        self._answers |= other._answers

    def save(self) -> None:
        """Writes the file, if the cache has one; a failure is only a warning, because the cache only saves time."""
        if self.path is None:
            return
        try:
            write_sealed_json(self.path, {"answers": self._answers})
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
    read = f"{stop_token_ids(runtime)} {runtime.reasoning}"  # what decides how the answer is cut from the output
    drawn = "" if sampling is None else f" {astuple(sampling)}"
    return xxhash.xxh3_128(f"{policy} {max_new_tokens} {ids} {read}{drawn}".encode()).hexdigest()
