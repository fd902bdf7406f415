"""What a step is trained on: its own pairs, and the remembered pairs of earlier tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from lifealign.data.pair import Pair
from lifealign.data.replay import distinct
from lifealign.data.set_aside import Prompt, without
from lifealign.errors import DataError
from lifealign.evaluation.held_out import places
from lifealign.life.workspace import Workspace
from lifealign.methods.base import Step
from lifealign.model.tokens import TokenizedPair, count_reasoning, tokenize_pairs


@dataclass(frozen=True)
class Examples:
    """What a step is trained on.

    Attributes:
        pairs: Every pair that is trained on, replayed ones included.
        memories: Remembered pairs of each earlier task, oldest first, within the replay capacity.
        replayed: How many of ``pairs`` belong to earlier tasks.
        left_out: Places of pairs that cannot be used: no room for an answer, or no difference within the limit.
    """

    pairs: tuple[TokenizedPair, ...]
    memories: Mapping[str, Sequence[TokenizedPair]]
    replayed: int
    left_out: tuple[str, ...]


def mix(work: Workspace, step: Step, say: Callable[[str], None], never: Collection[Prompt] = frozenset()) -> Examples:
    """Tokenises a step's pairs and the remembered pairs of earlier tasks, and mixes them as the method prescribes.

    Tasks that the step supersedes are remembered no longer.

    Args:
        work: The life.
        step: The step of the lifelong loop.
        say: Called with a line about pairs that were left out, or reasoning that was removed.
        never: Prompts that a gate holds back: remembered pairs that have one are not used.

    Raises:
        DataError: If none of the step's own pairs can be used.
    """
    limit = work.config.data.max_length
    work.replay.release(name for task in step.tasks for name in task.supersedes)
    current = [pair for task in step.tasks for pair in task.train]
    mixed = work.replay.mix(current) if work.method.memory_use == "mixed" else distinct(current)
    mixed = [pair for pair in mixed if pair.prompt not in never]
    pairs, left_out = _tokenized(work, mixed)
    own = {pair.key for pair in current}
    if not any(pair.key in own for pair in pairs):
        raise DataError(
            left_out[0].source,
            field="prompt",
            found=f"a prompt that leaves no room for an answer in max_length = {limit} tokens, in all {len(current)} "
            f"pairs of task {step.label!r}",
            expected="at least one pair that fits; raise data.max_length",
        )
    sources = tuple(pair.source for pair in left_out)
    if sources:
        say(
            f"{len(sources)} of {len(mixed)} pairs left out: no room for an answer in {limit} tokens, or no difference "
            f"between the answers within them ({places(sources)})"
        )
    if work.config.data.reasoning == "strip":
        _say_stripped(work, mixed, say)
    memories = {
        name: _tokenized(work, without(remembered, never))[0] for name, remembered in work.replay.by_task().items()
    }
    return Examples(tuple(pairs), memories, sum(pair.key not in own for pair in pairs), sources)


def _tokenized(work: Workspace, pairs: Sequence[Pair]) -> tuple[list[TokenizedPair], list[Pair]]:
    data = work.config.data
    return tokenize_pairs(work.runtime.tokenizer, pairs, data.max_length, data.reasoning)


def _say_stripped(work: Workspace, pairs: Sequence[Pair], say: Callable[[str], None]) -> None:
    stripped, empty = count_reasoning(work.runtime.tokenizer, pairs)
    if stripped:
        nothing_left = f", {empty} of which had nothing else, so their pairs are left out" if empty else ""
        say(
            f"reasoning removed from {stripped} of {2 * len(pairs)} answers{nothing_left}; "
            "data.reasoning: keep would learn it"
        )
