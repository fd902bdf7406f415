"""The keys of a life's tasks: made when a task is learnt, and for tasks from before that on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from lifealign.data.pair import Message
from lifealign.errors import LifeError, ModelError
from lifealign.evaluation.general import general_passages, passages_hash
from lifealign.evaluation.scores import reason_of
from lifealign.life.disk import names
from lifealign.life.disk.gate_files import gate_sets_of
from lifealign.life.disk.manifest import Version
from lifealign.life.disk.recall_files import MOST_OTHERS, Other, Recalling, ToldApart
from lifealign.life.mix import Examples
from lifealign.life.workspace import Workspace
from lifealign.memory.recall import Key, Whitening, learn_key, learn_whitening, separation
from lifealign.methods.base import Step
from lifealign.model.features import prompt_features
from lifealign.model.tokens import TokenizedPair, prompt_ids, tokenize_pairs
from lifealign.storage.tensors import read_tensors, write_tensors

PIECE = 24
"""Tokens of a piece of general text; each is put to the model as a prompt."""
MOST_PIECES = 400
"""Most pieces, evenly spaced."""
CALIBRATING = 0.25
"""Share of a task's prompts that its centre is not made of."""
MOST_PROMPTS = 512
"""Most prompts of a task that its key is made of."""
MOST_EXAMPLES = 32
"""Most prompts whose features a task keeps: 37 KB of the embedded model's."""


def make_keys(work: Workspace, step: Step, examples: Examples, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The keys of a step's tasks, from the pairs that were trained on; none if making them fails, which is said.

    They can be made later from what the life remembers, so a failure must not cost what was learnt.
    """
    own = {task.name: {pair.key for pair in task.train} for task in step.tasks}
    tasks = {name: [pair for pair in examples.pairs if pair.key in keys] for name, keys in own.items()}
    try:
        tensors = key_tensors(work, tasks)
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError("features that are not finite")
    except Exception as error:  # whatever the model or a library raises
        say(f"{step.name}: no keys could be made to recall it by ({reason_of(error)}); the step is kept")
        return {}
    return tensors


def key_tensors(work: Workspace, tasks: Mapping[str, Sequence[TokenizedPair]]) -> dict[str, Tensor]:
    """What is kept of the prompts of some tasks, as it is stored.

    Args:
        work: The life.
        tasks: By name, pairs of the task; only their prompts count.

    Returns:
        For each task that has a prompt ``TASK.center``, the mean features of three quarters of its prompts,
        ``TASK.count``, their number, and ``TASK.examples``, features of some of the others; empty if the model does
        not show its hidden states.
    """
    tensors: dict[str, Tensor] = {}
    try:
        for name, pairs in tasks.items():
            tensors |= _of_task(work, name, pairs)
    except ModelError:
        return {}
    return tensors


def keys_of(work: Workspace) -> dict[str, tuple[Key, Float[Tensor, "examples whitened"]]]:
    """The key of every task of a life, oldest first, with the whitened features of the prompts that calibrate it.

    Raises:
        LifeError: If a task has none and nothing is kept of its prompts, or a file is damaged.
        ModelError: If the model does not show its hidden states.
    """
    found: dict[str, tuple[Key, Tensor]] = {}
    whitening = whitening_of(work)
    for version in work.steps:
        file = names.keys(version.name)
        stored = file in version.files
        tensors = work.directory.tensors(file) if stored else key_tensors(work, _kept(work, version))
        for task in version.tasks:
            if f"{task.name}.center" not in tensors:
                raise LifeError(
                    f"{work.directory.path}: found no prompt of {task.name} kept, expected some to recall it by; of a "
                    "task from before there were keys, a life without replay and without a gate keeps none"
                )
            found[task.name] = _key(whitening, tensors, task.name)
    return found


def tell_apart(work: Workspace, step: Step, tensors: Mapping[str, Tensor], say: Callable[[str], None]) -> Recalling:
    """How well prompts of a step's tasks can be told from those of the latest tasks before them, which have keys.

    Args:
        work: The life, without the step.
        step: The step.
        tensors: Its keys, as :func:`make_keys` has made them.
        say: Called with a line if it cannot be measured, which must not cost what was learnt.
    """
    if not tensors:
        return Recalling(tasks={})
    told, known = dict[str, ToldApart](), dict[str, tuple[Key, Tensor]]()
    try:
        whitening = whitening_of(work)
        for file in _latest_keys(work.steps):
            known |= _keys(whitening, work.directory.tensors(file))
        for name, own in _keys(whitening, tensors).items():
            others = [(other, key) for other, key in known.items() if len(key[1])]
            told[name] = _told_apart(own, dict(others[-MOST_OTHERS:]))
            known[name] = own
    except Exception as error:  # whatever the model, a library or a damaged file raises
        say(f"{step.name}: how well its prompts are told from others could not be measured ({reason_of(error)})")
        return Recalling(tasks={})
    return Recalling(tasks=told)


def _latest_keys(steps: Sequence[Version]) -> list[str]:
    """Files with the keys of the latest tasks, oldest first; so many tasks as a new one is told from."""
    found: list[str] = []
    tasks = 0
    for version in reversed(steps):
        if tasks < MOST_OTHERS and (file := names.keys(version.name)) in version.files:
            found.append(file)
            tasks += len(version.tasks)
    return found[::-1]


def _keys(whitening: Whitening, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Key, Tensor]]:
    """The keys of a step's tasks, by name."""
    tasks = [name.removesuffix(".center") for name in tensors if name.endswith(".center")]
    return {task: _key(whitening, tensors, task) for task in tasks}


def _told_apart(own: tuple[Key, Tensor], known: Mapping[str, tuple[Key, Tensor]]) -> ToldApart:
    key, examples = own
    if not len(examples):
        return ToldApart(prompts=0, others={})
    return ToldApart(
        prompts=len(examples),
        others={
            name: Other(
                by_own=separation(key.scores(examples), key.scores(others)),
                by_other=separation(other.scores(others), other.scores(examples)),
                prompts=len(others),
            )
            for name, (other, others) in known.items()
        },
    )


def _key(whitening: Whitening, tensors: Mapping[str, Tensor], task: str) -> tuple[Key, Tensor]:
    """The key of a task as it is stored, with the whitened features of the prompts that calibrate it."""
    center, examples = whitening(tensors[f"{task}.center"][None]), tensors[f"{task}.examples"]
    others = whitening(examples.float())
    return learn_key(center, others, count=int(tensors[f"{task}.count"])), others


def features_of_prompt(work: Workspace, prompt: Sequence[Message]) -> Float[Tensor, "one width"]:
    """The features of one prompt.

    Raises:
        ModelError: If the prompt is longer than the model reads, or the template refuses it.
    """
    ids = tuple(prompt_ids(work.runtime.tokenizer, prompt, work.config.data.reasoning))
    longest = work.config.data.max_length
    if len(ids) > longest:
        raise ModelError(f"prompt: found {len(ids)} tokens, expected at most data.max_length = {longest}")
    return prompt_features(work.runtime, [ids], batch_size=1)


def whitening_of(work: Workspace) -> Whitening:
    """Whitening by the package's general text, kept in the user's cache for the base.

    Raises:
        ModelError: If the model does not show its hidden states.
    """
    path = work.of_base / f"whitening-{_background()}.safetensors"
    if path.exists():
        with suppress(LifeError, KeyError):  # what is damaged is made again
            known = read_tensors(path)
            return Whitening(known["mean"], known["matrix"])
    pieces = [tuple(prompt_ids(work.runtime.tokenizer, (Message("user", text),))) for text in _pieces(work)]
    features = prompt_features(work.runtime, pieces, batch_size=work.config.evaluation.per_device_eval_batch_size)
    made = learn_whitening(features)
    with suppress(LifeError):  # a cache that cannot be written is only slower
        write_tensors(path, {"mean": made.mean, "matrix": made.matrix})
    return made


def _of_task(work: Workspace, name: str, pairs: Sequence[TokenizedPair]) -> dict[str, Tensor]:
    """What is kept of the prompts of one task; nothing if it has none."""
    prompts = sorted({pair.prompt for pair in pairs if len(pair.prompt) > 2}, key=_place)[:MOST_PROMPTS]
    if not prompts:
        return {}
    size = work.config.evaluation.per_device_eval_batch_size
    features = prompt_features(work.runtime, prompts, batch_size=size)
    calibrating = round(CALIBRATING * len(prompts))
    return {
        f"{name}.center": features[calibrating:].double().mean(dim=0).float(),
        f"{name}.count": torch.tensor(len(prompts) - calibrating),
        f"{name}.examples": features[: min(calibrating, MOST_EXAMPLES)].bfloat16(),
    }


def _kept(work: Workspace, version: Version) -> dict[str, list[TokenizedPair]]:
    """What a life still has of the prompts of a step's tasks: remembered pairs and gates."""
    data = work.config.data
    kept = {task.name: list(work.replay.tasks.get(task.name, ())) for task in version.tasks}
    for gate in gate_sets_of(work.directory, version):
        kept[gate.task] += [*gate.pairs, *gate.select]
    return {
        name: tokenize_pairs(work.runtime.tokenizer, pairs, data.max_length, data.reasoning)[0]
        for name, pairs in kept.items()
    }


def _pieces(work: Workspace) -> list[str]:
    """The package's general text, cut into pieces."""
    tokenizer = work.runtime.tokenizer
    pieces: list[str] = []
    for passage in general_passages():
        ids = tokenizer.encode(passage, add_special_tokens=False)
        pieces += [str(tokenizer.decode(ids[start : start + PIECE])) for start in range(0, len(ids), PIECE)]
    there = [piece for piece in pieces if piece.strip()]
    return there[:: -(-len(there) // MOST_PIECES)]


def _background() -> str:
    """Hash of the general text and of how it is cut."""
    return xxhash.xxh3_128_hexdigest(f"{passages_hash(general_passages())} {PIECE} {MOST_PIECES}".encode())


def _place(ids: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return xxhash.xxh3_64_intdigest(" ".join(map(str, ids)).encode()), ids
