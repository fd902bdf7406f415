"""Generated answers: greedy or sampled, in batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lifealign.data.pair import Message
from lifealign.model.chat_codec import chat_codec_of
from lifealign.model.decoding import by_logits_alone, continued
from lifealign.model.head import contiguous_for_head
from lifealign.model.prompt_pool import active_pool
from lifealign.model.runtime import Runtime
from lifealign.model.sampling import GumbelNoise, Sampling, filters_of
from lifealign.model.tokens import prompt_ids

logger = logging.getLogger(__name__)

Prompt = tuple[Message, ...]

LOOK_EVERY = 12
"""Tokens after which answers that have ended leave their batch."""


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
        causal = runtime.model.get_base_model()
        with torch.no_grad(), contiguous_for_head(causal), by_logits_alone(causal):
            given = read_by(
                runtime,
                torch.tensor(rows, device=device),
                torch.tensor(mask, device=device),
                [tuple(ids[index]) for index in indices],
            )
            noise = None if sampling is None else GumbelNoise(sampling.seed, [ids[index] for index in indices])
            written = _written(runtime, given, max_new_tokens, stops, sampling, noise)
        for index, row in zip(indices, written, strict=True):
            answers[index] = answer_text(runtime, row, stops)
    return answers


def answer_batches(runtime: Runtime, prompts: Sequence[Prompt], batch_size: int) -> list[list[Prompt]]:
    """The prompts that :func:`generate_answers` answers together, batch by batch."""
    lengths = [len(prompt_ids(runtime.tokenizer, prompt, runtime.reasoning)) for prompt in prompts]
    batches = _batches(lengths, batch_size, mixed=runtime.proof.padded)
    return [[prompts[index] for index in batch] for batch in batches]


def _written(
    runtime: Runtime,
    given: dict[str, Tensor],
    max_new_tokens: int,
    stops: Sequence[int],
    sampling: Sampling | None,
    noise: GumbelNoise | None,
) -> list[list[int]]:
    """Token ids of a batch's answers, without anything after their end.

    Where that is proven exact, the batch is looked at every few tokens, and answers that have ended leave it: the
    longest answer of a batch is often twice as long as the others.
    """
    in_parts = runtime.proof.rows_leave and "input_ids" in given  # given embeddings, there are no ids to continue from
    found: list[list[int]] = [[] for _ in given["attention_mask"]]
    writing = list(range(len(found)))
    room = max_new_tokens
    while writing and room:
        part = min(room, LOOK_EVERY) if in_parts else room
        # Greedy either way: sampling adds noise to the logits, and the largest is then taken.
        output: Any = runtime.model.generate(
            **given,
            max_new_tokens=part,
            do_sample=False,
            pad_token_id=runtime.tokenizer.pad_token_id,
            eos_token_id=list(stops),
            **({"return_dict_in_generate": True} if in_parts else {}),
            **({} if sampling is None or noise is None else {"logits_processor": filters_of(sampling, noise)}),
        )
        skipped = given["input_ids"].shape[1] if "input_ids" in given else 0  # only new tokens come back otherwise
        new = (output.sequences if in_parts else output)[:, skipped:].tolist()
        ended = [any(token in stops for token in row) for row in new]
        for row, tokens in zip(writing, new, strict=True):
            found[row] += tokens
        room -= part
        going = [place for place, end in enumerate(ended) if not end]
        writing = [writing[place] for place in going]
        if not (in_parts and writing and room):
            break
        given = continued(output, given["attention_mask"], going)
        if noise is not None:
            noise.keep(going)
    return found


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


def answer_text(runtime: Runtime, ids: list[int], stops: Sequence[int]) -> str:
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


def read_by(runtime: Runtime, ids: Tensor, mask: Tensor, prompts: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
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
