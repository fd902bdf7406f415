"""Prompts that are set aside and never trained on: which ones, and how they are divided."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import xxhash

from lifealign.data.pair import Message, Pair

Prompt = tuple[Message, ...]
Divided = tuple[tuple[Pair, ...], tuple[Pair, ...]]


def set_aside(pairs: Sequence[Pair], share: float, seed: int) -> Divided:
    """Divides pairs into those that stay and those of a share of the prompts, which are set aside.

    The choice is a function of each prompt and the seed: tasks with the same prompts have the same ones set aside, so
    that what one task sets aside is not what another is trained on. All pairs of a prompt go the same way.

    Args:
        pairs: The pairs.
        share: Share of the distinct prompts to set aside, in [0, 1]; their number is rounded.
        seed: Seed of the choice.

    Returns:
        The pairs that stay and those that are set aside, each in the order given.

    Example:
        >>> pairs = [Pair((Message("user", str(number)),), "good", "bad") for number in range(10)]
        >>> stay, aside = set_aside(pairs, 0.2, seed=0)
        >>> len(stay), len(aside), set_aside(pairs[::-1], 0.2, seed=0)[1] == aside[::-1]
        (8, 2, True)
    """
    prompts = sorted({pair.prompt for pair in pairs}, key=lambda prompt: (_place(prompt, seed), prompt))
    chosen = set(prompts[: round(share * len(prompts))])
    return without(pairs, chosen), tuple(pair for pair in pairs if pair.prompt in chosen)


def without(pairs: Sequence[Pair], prompts: Collection[Prompt]) -> tuple[Pair, ...]:
    """The pairs whose prompt is none of these."""
    return tuple(pair for pair in pairs if pair.prompt not in prompts)


def _place(prompt: Prompt, seed: int) -> int:
    digest = xxhash.xxh3_64(seed=seed)
    for text in (part for message in prompt for part in message):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.intdigest()
