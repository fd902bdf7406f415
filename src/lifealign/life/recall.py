"""Recall: which tasks a prompt belongs to, which version answers it, and which patterns some examples express."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from lifealign.data.pair import Message, Pair
from lifealign.errors import ConfigError, DataError, LifeError
from lifealign.evaluation.rules import retired
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.keys import keys_of, whitened_prompt
from lifealign.life.workspace import Workspace
from lifealign.memory.recall import scope, separation
from lifealign.model.adapter import install_adapter
from lifealign.model.tokens import tokenize_pairs

HOUSE_RULE = 0.5
"""Scope from which a task counts as a rule of the house, which holds whatever the prompt is about."""


@dataclass(frozen=True)
class RecalledTask:
    """A task, and how a prompt fits it.

    Attributes:
        task: Name of the task.
        step: Name of the step that learnt it.
        score: Log-density of the prompt under the task's prompts, nats per dimension, up to a constant.
        p_value: How typical the prompt is of the task, in (0, 1]; small if it is not.
        scope: How far the task is about every prompt, in [0, 1]: measured by how badly its prompts can be told from
            those of other tasks; 1 if there is no other.
    """

    task: str
    step: str
    score: float
    p_value: float
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


def recall_prompt(work: Workspace, prompt: str | Sequence[Message], alpha: float = 0.05) -> Recall:
    """Which tasks a prompt belongs to; see :meth:`lifealign.life.life.Life.recall`."""
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha: found {alpha}, expected a number greater than 0 and less than 1")
    messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if not messages or not messages[-1].content.strip():
        raise ConfigError("prompt: found an empty one, expected text")
    if not work.steps:
        raise LifeError(f"{work.directory.path}: found no task learnt, expected at least one; `lifealign learn` first")
    keys, found = keys_of(work), whitened_prompt(work, messages)
    gone = retired(task for version in work.steps for task in version.tasks)
    tasks = []
    for version in work.steps:
        for task in version.tasks:
            if task.name in gone:
                continue
            key, own = keys[task.name]
            others = [examples for name, (_, examples) in keys.items() if name != task.name and len(examples)]
            wide = 1.0
            if others and len(own):
                wide = scope(separation(key.scores(own), key.scores(torch.cat(others))))
            tasks.append(
                RecalledTask(task.name, version.name, float(key.scores(found)), float(key.p_values(found)), wide)
            )
    tasks.sort(key=lambda one: -one.score)
    recalled = Recall(tuple(tasks), alpha, work.steps[-1].name, "")
    answering, why = _answering(work, recalled)
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


def _answering(work: Workspace, recall: Recall) -> tuple[str, str]:
    """The version that should answer, and why: of a domain, its best since it was learnt, with every house rule on."""
    last = work.steps[-1].name
    if recall.unknown:
        return last, "unknown: the prompt is like those of no task"
    domains = [one for one in recall.recalled if not one.house_rule]
    if not domains:
        return last, "house rules hold for every prompt"
    places = {version.name: place for place, version in enumerate(work.steps)}
    first = max(places[one.step] for one in recall.tasks if one.house_rule or one in domains)
    shares = {}
    for version in work.steps[first:]:
        share = _share(work, version.name, domains[0].task)
        if share is not None:
            shares[version.name] = share
    if not shares:
        return last, f"no gate says which version is best at {domains[0].task}"
    best = max(shares, key=lambda name: (shares[name], places[name]))
    return best, f"best at {domains[0].task} on its gate: {100 * shares[best]:.0f} % of prompts hold"


def _share(work: Workspace, step: str, task: str) -> float | None:
    """Share of a task's gate prompts that hold under a version; None if it was not measured."""
    version = work.directory.versions[work.directory.index(step)]
    evidence = retention_of(work.directory, version)
    if evidence is None:
        return None
    own, later = evidence.held.get(task), evidence.losses.get(task)
    values = later.values if later is not None else own.values if own is not None else None
    return fmean(float(value > 0) for value in values) if values else None
