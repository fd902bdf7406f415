"""Recall: which tasks a prompt belongs to, which version answers it, and which patterns some examples express."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from lifealign.data.pair import Message, Pair
from lifealign.errors import ConfigError, DataError, LifeError
from lifealign.evaluation.rules import retired
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.manifest import Version
from lifealign.life.keys import features_of_prompt, keys_of, whitening_of
from lifealign.life.workspace import Workspace
from lifealign.memory.recall import KeyTable, Whitening, separations
from lifealign.memory.scope import HOUSE_RULE, scope_by
from lifealign.model.adapter import install_adapter
from lifealign.model.tokens import tokenize_pairs


@dataclass(frozen=True)
class RecalledTask:
    """A task, and how a prompt fits it.

    Attributes:
        task: Name of the task.
        step: Name of the step that learnt it.
        score: Cosine of the angle between the prompt and the mean of the task's prompts, in [-1, 1].
        p_value: How typical the prompt is of the task, in (0, 1]; small if it is not.
        compared: Number of the task's own prompts that the prompt was compared with for that.
        scope: How far the task is about every prompt, in [0, 1]: measured by how badly its prompts can be told from
            those of other tasks; 1 if there is no other, or if chance explains that they were told apart.
    """

    task: str
    step: str
    score: float
    p_value: float
    compared: int
    scope: float

    @property
    def house_rule(self) -> bool:
        """Whether it holds whatever a prompt is about."""
        return self.scope >= HOUSE_RULE


@dataclass(frozen=True)
class Recall:
    """What a life recalls for a prompt.

    Attributes:
        tasks: Every task whose rule counts, best score first.
        alpha: p-values up to this are not recalled.
        version: Name of the version that should answer.
        why: Why that one.
    """

    tasks: tuple[RecalledTask, ...]
    alpha: float
    version: str
    why: str

    @property
    def recalled(self) -> tuple[RecalledTask, ...]:
        """The tasks that the prompt belongs to: every house rule, and the domain that fits best, if one does."""
        domains = [one for one in self.tasks if not one.house_rule and one.p_value > self.alpha]
        return tuple(one for one in self.tasks if one.house_rule or one in domains[:1])

    @property
    def never_unlike(self) -> tuple[RecalledTask, ...]:
        """Tasks with too few prompts to compare with: no prompt could have a p-value of at most ``alpha``."""
        return tuple(one for one in self.tasks if 1 / (one.compared + 1) > self.alpha)

    @property
    def unknown(self) -> bool:
        """Whether the prompt is like those of no task."""
        return all(one.p_value <= self.alpha for one in self.tasks)


@dataclass(frozen=True)
class Expressed:
    """How far some examples express what a step has learnt.

    Attributes:
        step: Name of the step.
        mean: Mean implicit reward of chosen over rejected answers, nats.
        standard_error: Its standard error over examples; None for a single example.
    """

    step: str
    mean: float
    standard_error: float | None

    @property
    def ratio(self) -> float:
        """The mean in standard errors; 0 if they are not known."""
        return self.mean / self.standard_error if self.standard_error else 0.0


@dataclass(frozen=True)
class Patterns:
    """What recall looks up of a life, read once: a prompt then costs its features and a few products.

    Attributes:
        whitening: Takes features of prompts to those of the keys.
        table: The keys of the tasks whose rule counts, oldest first.
        tasks: Name of each of them, of the step that learnt it, and its scope.
        shares: By task, the share of its gate prompts that hold under each version that was measured on them.
    """

    whitening: Whitening
    table: KeyTable
    tasks: tuple[tuple[str, str, float], ...]
    shares: Mapping[str, Mapping[str, float]]


def patterns_of(work: Workspace) -> Patterns:
    """What recall looks up of a life as it is now.

    Raises:
        LifeError: If nothing was learnt, a task has no key and nothing is kept of its prompts, or a file is damaged.
        ModelError: If the model does not show its hidden states.
    """
    if not work.steps:
        raise LifeError(f"{work.directory.path}: found no task learnt, expected at least one; `lifealign learn` first")
    found = keys_of(work)
    keys = {name: key for name, (key, _) in found.items()}
    prompts = [len(examples) for _, examples in found.values()]
    separated = separations(list(keys.values()), [examples for _, examples in found.values()])
    scopes = {
        name: 1.0 if told is None else scope_by(told, min(own, sum(prompts) - own))
        for name, told, own in zip(keys, separated, prompts, strict=True)
    }
    gone = retired(task for version in work.steps for task in version.tasks)
    counting = [(task.name, version.name) for version in work.steps for task in version.tasks if task.name not in gone]
    shares = dict[str, dict[str, float]]()
    for version in work.steps:
        for task, share in _shares(work, version).items():
            shares.setdefault(task, {})[version.name] = share
    return Patterns(
        whitening_of(work),
        KeyTable.of([keys[name] for name, _ in counting]),
        tuple((name, step, scopes[name]) for name, step in counting),
        shares,
    )


def recall_prompt(work: Workspace, patterns: Patterns, prompt: str | Sequence[Message], alpha: float = 0.05) -> Recall:
    """Which tasks a prompt belongs to; see :meth:`lifealign.life.life.Life.recall`."""
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha: found {alpha}, expected a number greater than 0 and less than 1")
    messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if not messages or not messages[-1].content.strip():
        raise ConfigError("prompt: found an empty one, expected text")
    found = patterns.whitening(features_of_prompt(work, messages))[0]
    scores, p_values = (row.tolist() for row in patterns.table.look_up(found))
    compared = patterns.table.calibrated.tolist()
    tasks = [
        RecalledTask(name, step, score, p_value, number, wide)
        for (name, step, wide), score, p_value, number in zip(patterns.tasks, scores, p_values, compared, strict=True)
    ]
    tasks.sort(key=lambda one: -one.score)
    recalled = Recall(tuple(tasks), alpha, work.steps[-1].name, "")
    answering, why = _answering(patterns, recalled, [version.name for version in work.steps])
    return Recall(recalled.tasks, alpha, answering, why)


def recall_examples(work: Workspace, pairs: Sequence[Pair]) -> list[Expressed]:
    """Which stored patterns some examples express; see :meth:`lifealign.life.life.Life.recall_examples`."""
    if not work.steps:
        raise LifeError(f"{work.directory.path}: found no task learnt, expected at least one; `lifealign learn` first")
    data, size = work.config.data, work.config.evaluation.per_device_eval_batch_size
    tokenized, _ = tokenize_pairs(work.runtime.tokenizer, pairs, data.max_length, data.reasoning)
    if not tokenized:
        raise DataError(
            pairs[0].source if pairs else "examples",
            found=f"no pair that fits in data.max_length = {data.max_length} tokens",
            expected="at least one",
        )
    margins = []
    try:
        for version in work.directory.versions:
            install_adapter(work.runtime.model, read_adapter_of(work.directory, version.name))
            chosen, rejected = torch.tensor(work.runtime.score(tokenized, size), dtype=torch.float64).reshape(-1, 2).T
            margins.append(chosen - rejected)
    finally:
        work.forget_loaded()
    expressed = []
    for version, before, after in zip(work.steps, margins, margins[1:], strict=False):
        rewards = work.config.preference.beta * (after - before)
        error = float(rewards.std()) / math.sqrt(len(rewards)) if len(rewards) > 1 else None
        expressed.append(Expressed(version.name, float(rewards.mean()), error))
    return sorted(expressed, key=lambda one: (-one.ratio, -one.mean))


def _answering(patterns: Patterns, recall: Recall, steps: Sequence[str]) -> tuple[str, str]:
    """The version that should answer, and why: of a domain, its best since it was learnt, with every house rule on."""
    last = steps[-1]
    if recall.unknown:
        return last, "unknown: the prompt is like those of no task"
    domains = [one for one in recall.recalled if not one.house_rule]
    if not domains:
        return last, "house rules hold for every prompt"
    places = {name: place for place, name in enumerate(steps)}
    first = max(places[one.step] for one in recall.tasks if one.house_rule or one in domains)
    measured = patterns.shares.get(domains[0].task, {})
    shares = {name: measured[name] for name in steps[first:] if name in measured}
    if not shares:
        return last, f"no gate says which version is best at {domains[0].task}"
    best = max(shares, key=lambda name: (shares[name], places[name]))
    return best, f"best at {domains[0].task} on its gate: {100 * shares[best]:.0f} % of prompts hold"


def _shares(work: Workspace, version: Version) -> dict[str, float]:
    """By task, the share of its gate prompts that hold under a version, as far as it was measured."""
    evidence = retention_of(work.directory, version)
    if evidence is None:
        return {}
    values = {name: held.values for name, held in evidence.held.items()}
    values |= {name: loss.values for name, loss in evidence.losses.items()}
    known = {name: [value for value in row or () if value is not None] for name, row in values.items()}
    return {name: fmean(float(value > 0) for value in row) for name, row in known.items() if row}
