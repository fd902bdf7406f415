"""Preference accuracy at the end of a life: by the latest version alone, and by the version recalled for each prompt.

    python -m experiments.recall_last LIFE

The recalled version is chosen as ``lifealign serve`` chooses it: by keys of training prompts and shares of gate
prompts. Held-out pairs are only measured. Beside it: the same choice if the task of every prompt were known.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import torch

from lifealign.evaluation.preference import preference_outcomes
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.measurements import held_out_of
from lifealign.life.keys import keys_of
from lifealign.life.life import Life
from lifealign.life.recall import patterns_of, recall_prompt
from lifealign.life.workspace import Workspace
from lifealign.memory.recall import separations
from lifealign.model.adapter import install_adapter
from lifealign.model.tokens import TokenizedPair, tokenize_pairs


def main(life: str) -> None:
    """Measures and prints Markdown."""
    work = Life.open(life).workspace
    patterns = patterns_of(work)
    last = work.steps[-1].name
    print("| task | pairs | right, latest version | recalled version | if the task were known | answered by |")
    print("|---|---|---|---|---|---|")
    means = []
    for task in (found for version in work.steps for found in held_out_of(work.directory, version)):
        pairs, _ = tokenize_pairs(work.runtime.tokenizer, task.pairs, work.config.data.max_length)
        prompts = {pair.key: pair.prompt for pair in task.pairs}
        recalled = [recall_prompt(work, patterns, prompts[pair.key]).version for pair in pairs]
        shares = patterns.shares.get(task.name, {})
        known = max(shares, key=lambda name: (shares[name], name), default=last)
        right = {name: accuracies(work, pairs, name) for name in {last, known, *recalled}}
        found = [
            sum(right[last]) / len(pairs),
            sum(right[name][place] for place, name in enumerate(recalled)) / len(pairs),
            sum(right[known]) / len(pairs),
        ]
        means.append(found)
        answered = ", ".join(f"{name} {number}" for name, number in sorted(Counter(recalled).items()))
        print(f"| {task.name} | {len(pairs)} | {' | '.join(f'{100 * value:.1f}' for value in found)} | {answered} |")
    mean = [sum(column) / len(means) for column in zip(*means, strict=True)]
    print(f"| mean | | {' | '.join(f'{100 * value:.1f}' for value in mean)} | |")
    stored = keys_of(work)
    areas = separations([key for key, _ in stored.values()], [examples for _, examples in stored.values()])
    told = {name: (area, len(stored[name][1])) for name, area in zip(stored, areas, strict=True)}
    print("\nhow a task's prompts are told from others (area under the curve, of so many), and its scope:")
    for name, _, scope in patterns.tasks:
        area, number = told[name]
        print(f"{name}: {'-' if area is None else f'{area:.2f}'} of {number}, scope {scope:.2f}")


def accuracies(work: Workspace, pairs: Sequence[TokenizedPair], version: str) -> list[float]:
    """Whether each pair is ranked right by a version: 1, or 0, or a half at a margin of exactly 0."""
    policy, base = (_differences(work, pairs, name) for name in (version, work.directory.versions[0].name))
    return preference_outcomes((policy - base).tolist())["preference_accuracy"]


def _differences(work: Workspace, pairs: Sequence[TokenizedPair], version: str) -> torch.Tensor:
    """By how many nats a version finds the chosen answer likelier than the rejected one."""
    install_adapter(work.runtime.model, read_adapter_of(work.directory, version))
    size = work.config.evaluation.per_device_eval_batch_size
    logps = torch.tensor(work.runtime.score(pairs, size), dtype=torch.float64).reshape(-1, 2)
    return logps[:, 0] - logps[:, 1]


if __name__ == "__main__":
    main(*sys.argv[1:])
