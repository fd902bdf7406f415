"""Whether the pairs that a life already ranks wrongly, before it learns them, are those that speak against old rules.

::

    python -m experiments.conflict_pairs LIFE

``LIFE`` has learnt rules of the support desk. Before each rule from the second on, its training pairs are scored by the
version before it, against the base. A pair *speaks against* an earlier rule if its rejected answer keeps that rule and
its chosen one does not, by the exact check. Printed for each rule: the mean margin at the start of its task, the slope
of the DPO loss there as a share of the slope at margin 0, how many pairs have a negative margin, and for each earlier
rule the share of pairs that speak against it among those with a negative margin and among all.
"""

from __future__ import annotations

import sys

import torch

from lifealign.data.suites.support_desk import load_suite
from lifealign.data.task import Task
from lifealign.evaluation.preference import held_out_margins
from lifealign.life.life import Life
from lifealign.model.tokens import tokenize_pairs


def learnt_tasks(life: Life) -> list[Task]:
    """The rules that a life has learnt, in order, with the pairs that it learnt them from.

    Raises:
        ValueError: If a task is not a rule of the support desk, learnt from its first pairs.
    """
    found = []
    for record in (record for version in life.steps for record in version.tasks):
        suites = [
            load_suite(record.train_pairs, test_pairs=record.test_pairs, held_out=split) for split in ("dev", "test")
        ]
        same = [task for suite in suites for task in suite if task.data_hash == record.data_hash]
        if not same:
            raise ValueError(
                f"task {record.name!r}: found other pairs than the support desk's, expected its first ones"
            )
        found.append(same[0])
    return found


def margins_before(life: Life, version: str, task: Task) -> torch.Tensor:
    """Margins of a task's pairs under a version, against the base, in nats and with the life's beta."""
    life.load(version)
    work = life.workspace
    pairs, _ = tokenize_pairs(work.runtime.tokenizer, task.train, life.config.data.max_length)
    assert len(pairs) == len(task.train)
    size = life.config.evaluation.per_device_eval_batch_size
    with work.runtime.base_policy():
        reference = work.reference.logps(work.runtime, pairs, work.base_fingerprint, size)
    beta = life.config.preference.beta
    return torch.tensor(held_out_margins(work.runtime, pairs, reference, beta=beta, batch_size=size))


def main(path: str) -> None:
    """Prints a line per rule, and one per earlier rule below it."""
    life = Life.open(path)
    tasks = learnt_tasks(life)
    for number, task in enumerate(tasks[1:], start=1):
        margins = margins_before(life, life.steps[number - 1].name, task)
        wrong = margins < 0
        slope = float(2 * torch.sigmoid(-margins).mean())
        print(
            f"{task.name}: mean margin {margins.mean():+.2f}, slope {slope:.1e}, {int(wrong.sum())} of {len(wrong)} < 0"
        )
        for earlier in tasks[:number]:
            assert earlier.check is not None
            holds = earlier.check.holds
            against = torch.tensor([holds(pair.rejected) and not holds(pair.chosen) for pair in task.train])
            among, share = against[wrong].double().mean(), against.double().mean()
            print(f"    against {earlier.name}: {among:.2f} of them, {share:.2f} of all", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
