"""Held-out pairs before training: which of them can be scored, and what to tell the user about the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lifealign.data.pair import Pair
from lifealign.errors import DataError
from lifealign.model.base_model import most_positions
from lifealign.model.prompt_pool import prompt_pool
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import tokenize_pairs


@dataclass(frozen=True)
class Scorable:
    """Held-out pairs of a task, sorted by whether they can be scored.

    A pair is scored on every metric or on none, so that all metrics of a task are about the same rows.

    Attributes:
        pairs: Those that can be scored; the life keeps, counts and shows only these.
        too_long: Places of pairs whose prompt leaves no room for an answer, or whose answers are equal once cut.
        without_room: Places of pairs whose prompt leaves too few of the model's positions for a generated answer.
    """

    pairs: tuple[Pair, ...]
    too_long: tuple[str, ...] = ()
    without_room: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Places of all pairs that are not scored."""
        return self.too_long + self.without_room


def scorable(runtime: Runtime, name: str, pairs: Sequence[Pair], *, max_length: int, new_tokens: int) -> Scorable:
    """Tokenises the held-out pairs of a task with the model's template, before anything is trained.

    Args:
        runtime: Model and tokenizer.
        name: Name of the task, for messages.
        pairs: Its held-out pairs; may be empty, and the task is then not scored.
        max_length: Most tokens of prompt and one answer together.
        new_tokens: Tokens of a generated answer; 0 if none will be generated.

    Raises:
        DataError: If the template refuses a prompt, or there are pairs but none can be scored; with file and line.
    """
    fitting, left_out = tokenize_pairs(runtime.tokenizer, pairs, max_length, runtime.reasoning)
    positions = _positions(runtime) if new_tokens else None
    roomy = {pair.key for pair in fitting if positions is None or len(pair.prompt) + new_tokens <= positions}
    cut = {pair.key for pair in left_out}
    kept = tuple(pair for pair in pairs if pair.key in roomy)
    too_long = tuple(pair.source for pair in left_out)
    without_room = tuple(pair.source for pair in pairs if pair.key not in roomy | cut)
    if pairs and not kept:
        room = f"max_length = {max_length} tokens"
        room += f" and {new_tokens} new ones in the model's {positions} positions" if without_room else ""
        raise DataError(
            (too_long + without_room)[0],
            field="prompt",
            found=f"no room for an answer in {room}, in all {len(pairs)} held-out pairs of task {name!r}",
            expected="at least one that can be scored; shorten the prompts, make a life with a greater "
            "data.max_length, or learn without held-out pairs",
        )
    return Scorable(kept, too_long, without_room)


def left_out_text(found: Scorable, name: str, *, max_length: int, new_tokens: int) -> str:
    """How many held-out pairs of a task are scored, in one line; empty if all are.

    Example:
        >>> left_out_text(Scorable((), ("a.jsonl:2",)), "tone", max_length=300, new_tokens=4)
        'tone: 0 of 1 held-out pairs fit in 300 tokens; 1 left out (a.jsonl:2)'
    """
    if not found.left_out:
        return ""
    parts = [f"{name}: {len(found.pairs)} of {len(found.pairs) + len(found.left_out)} held-out pairs fit in"]
    parts[0] += f" {max_length} tokens"
    if found.too_long:
        parts.append(f"{len(found.too_long)} left out ({places(found.too_long)})")
    if found.without_room:
        without = f"{len(found.without_room)} left out for want of positions for {new_tokens} new tokens"
        parts.append(f"{without} ({places(found.without_room)})")
    return "; ".join(parts)


def places(sources: Sequence[str]) -> str:
    """The first few of many places, as text.

    Example:
        >>> places(["a:1", "a:2", "a:3", "a:4"])
        'a:1, a:2, a:3, ...'
    """
    return ", ".join(sources[:3]) + (", ..." if len(sources) > 3 else "")


def _positions(runtime: Runtime) -> int | None:
    """Positions that the model has for prompt and answer; None if its configuration sets no limit."""
    most, pool = most_positions(runtime.model.get_base_model()), prompt_pool(runtime.model)
    return most if most is None or pool is None else most - pool.tokens
