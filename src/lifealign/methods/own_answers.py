"""Answers that the model gives itself to the prompts of pairs, as pairs to learn from."""

from __future__ import annotations

import random
from collections.abc import Sequence

import xxhash

from lifealign.data.pair import Pair
from lifealign.model.chat_template import TemplateFault
from lifealign.model.generate import generate_answers
from lifealign.model.runtime import Runtime
from lifealign.model.sampling import Sampling
from lifealign.model.tokens import TokenizedPair, tokenize_pair


def sample_own_answers(
    runtime: Runtime,
    pairs: Sequence[Pair],
    given: Sequence[TokenizedPair],
    *,
    draws: int,
    temperature: float,
    batch_size: int,
    seed: int,
) -> list[list[TokenizedPair]]:
    """Answers the prompts of pairs by the model as it is now, several times each.

    An answer may be as long as the longest chosen one; what is not finished by then is left out, and so are answers
    that are empty, that the chat template refuses, or that are the rejected one word for word.

    Args:
        runtime: Model and device.
        pairs: The pairs whose prompts are answered.
        given: The same pairs, tokenised.
        draws: Answers to each prompt.
        temperature: Divides the logits.
        batch_size: Prompts answered at a time.
        seed: Together with the prompt it decides the answers.

    Returns:
        For each pair, its prompt with each own answer as the chosen one and the pair's rejected answer.
    """
    room = max(len(pair.chosen) for pair in given)
    longest = max(len(pair.prompt) for pair in given) + room + 1  # an answer that was cut ends one token later
    own: list[list[TokenizedPair]] = [[] for _ in pairs]
    for number in range(draws):
        drawn = Sampling(temperature, 1.0, 0, xxhash.xxh64(f"{seed} own answer {number}".encode()).intdigest() >> 1)
        prompts = [pair.prompt for pair in pairs]
        answers = generate_answers(runtime, prompts, max_new_tokens=room, batch_size=batch_size, sampling=drawn)
        for found, pair, answer in zip(own, pairs, answers, strict=True):
            candidate = Pair(pair.prompt, answer, pair.rejected, f"own answer to {pair.source}")
            tokenized = _tokenized(runtime, candidate, longest) if answer.strip() else None
            if tokenized is not None and len(tokenized.chosen) <= room:
                found.append(tokenized)
    return own


def _tokenized(runtime: Runtime, pair: Pair, max_length: int) -> TokenizedPair | None:
    """A pair with an own answer, or None if it cannot be used; the prompt could, so this is never an error."""
    try:
        return tokenize_pair(runtime.tokenizer, pair, max_length, runtime.reasoning)
    except TemplateFault:  # what the model wrote: reasoning where none is allowed, a tag of the template
        return None


def some_pairs(pairs: Sequence[Pair], number: int, seed: int, *, skip: int = 0) -> list[Pair]:
    """A random choice of pairs, at most one for each prompt.

    Args:
        pairs: The pairs.
        number: Most pairs to choose.
        seed: Decides the order in which prompts are gone through, from the beginning again after the last.
        skip: Prompts of that order to leave out at its beginning.
    """
    by_prompt = {pair.prompt: pair for pair in pairs}
    order = random.Random(seed).sample(list(by_prompt.values()), len(by_prompt))
    return [order[(skip + place) % len(order)] for place in range(min(number, len(order)))]
