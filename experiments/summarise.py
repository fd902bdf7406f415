"""Prints result files as Markdown tables: methods by row, mean and spread over runs.

python experiments/summarise.py results/support_desk/*.json
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

from lifealign.errors import LifeAlignError
from lifealign.experiments.result import RunResult, StepResult
from lifealign.experiments.result_file import load_result

FIGURES = {
    "rank_kept": "kept rank",
    "energy_kept": "kept energy",
    "overlap_energy": "overlap ρ",
    "norm_before": "norm before",
    "norm_after": "norm after",
    "sketch_error": "error of the sketch",
}
SUMMARY = ("learned", "last", "average", "backward_transfer", "forgetting")


def main(paths: list[str]) -> None:
    """Reads result files and prints one table per metric, then what consolidation did."""
    runs: dict[str, list[RunResult]] = defaultdict(list)
    for path in paths:
        result = load_result(Path(path))
        runs[result.label].append(result)
    first = next(iter(runs.values()))[0]
    for metric, matrix in first.scores.items():
        scale = 1.0 if metric == "margin" else 100.0
        tasks = matrix.tasks
        print(f"\n{metric}{'' if scale == 1 else ', in per cent'}: after the last task, and over the stream\n")
        print("| method | runs | " + " | ".join([*tasks, *SUMMARY]) + " |")
        print("|---" * (2 + len(tasks) + len(SUMMARY)) + "|")
        base = [f"{scale * matrix.base[task]:.2f}" if task in matrix.base else "-" for task in tasks]
        print("| base model | | " + " | ".join([*base, *[""] * len(SUMMARY)]) + " |")
        for method, results in runs.items():
            matrices = [result.scores[metric] for result in results if metric in result.scores]
            columns = [[one.rows[-1].get(task) for one in matrices] for task in tasks]
            columns += [[getattr(one.summary, name) for one in matrices] for name in SUMMARY]
            cells = [spread([scale * value for value in column if value is not None]) for column in columns]
            print(f"| {method} | {len(results)} | " + " | ".join(cells) + " |")
    print("\nperplexity on general text after the last task, and what a run takes; means over runs\n")
    print("| method | runs | perplexity | base | optimizer steps | minutes of learning |\n" + "|---" * 6 + "|")
    for method, results in runs.items():
        general = [last for result in results if (last := result.general_text[-1]) is not None]
        costs = [result.cost for result in results if result.cost is not None]
        numbers = [[last.perplexity for last in general], [last.base.perplexity for last in general]]
        numbers.append([sum(len(log) for step in result.steps for log in step.losses.values()) for result in results])
        numbers.append([cost.seconds / 60 for cost in costs])
        cells = [f"{fmean(values):.1f}" if values else "-" for values in numbers]
        print(f"| {method} | {len(results)} | {' | '.join(cells)} |")
    print("\nconsolidation per step, means over factors and runs; minutes per method\n")
    print(f"| method | step | {' | '.join(FIGURES.values())} | replayed | minutes |")
    print("|---" * (4 + len(FIGURES)) + "|")
    for method, results in runs.items():
        for name, steps in by_name(results).items():
            for segment in steps[0].consolidation:
                figures = [one.consolidation[segment] for one in steps if segment in one.consolidation]
                cells = [f"{fmean(getattr(one, figure) for one in figures):.3f}" for figure in FIGURES]
                cells.append(f"{fmean(one.replayed_pairs for one in steps):.0f}")
                cells.append(f"{fmean(one.seconds for one in steps) / 60:.1f}")
                print(f"| {method} | {name} {segment} | " + " | ".join(cells) + " |")


def by_name(results: list[RunResult]) -> dict[str, list[StepResult]]:
    """The steps of several runs, by their names."""
    steps: dict[str, list[StepResult]] = defaultdict(list)
    for result in results:
        for step in result.steps:
            steps[step.name].append(step)
    return steps


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation over seeds where there are several; ``-`` where there is none."""
    if not values:
        return "-"
    return f"{fmean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LifeAlignError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
