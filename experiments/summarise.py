"""Prints result files as Markdown tables: methods by row, mean and spread over seeds.

python experiments/summarise.py results/support_desk/*.json
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

SUMMARY = ("learned", "last", "average", "backward_transfer", "forgetting")


def main(paths: list[str]) -> None:
    """Reads result files and prints one table per metric, then what consolidation did."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        result = json.loads(Path(path).read_text("utf-8"))
        runs[result.get("label", result["method"])].append(result)
    first = next(iter(runs.values()))[0]
    for metric, matrix in first["scores"].items():
        scale = 1.0 if metric == "margin" else 100.0
        tasks = matrix["tasks"]
        print(f"\n{metric}{'' if scale == 1 else ', in per cent'}: after the last task, and over the stream\n")
        print("| method | seeds | " + " | ".join([*tasks, *SUMMARY]) + " |")
        print("|---" * (2 + len(tasks) + len(SUMMARY)) + "|")
        base = [f"{scale * matrix['base'][task]:.2f}" for task in tasks]
        print("| base model | | " + " | ".join([*base, *[""] * len(SUMMARY)]) + " |")
        for method, results in runs.items():
            matrices = [result["scores"][metric] for result in results]
            columns = [[scale * one["rows"][-1][task] for one in matrices] for task in tasks]
            columns += [[scale * one["summary"][name] for one in matrices] for name in SUMMARY]
            cells = [spread(column) for column in columns]
            print(f"| {method} | {len(results)} | " + " | ".join(cells) + " |")
    print("\nconsolidation per step, means over factors and seeds; minutes per method\n")
    print("| method | step | kept rank | kept energy | overlap ρ | norm before | norm after | replayed | minutes |")
    print("|---" * 9 + "|")
    for method, results in runs.items():
        for number, step in enumerate(results[0]["steps"]):
            steps = [result["steps"][number] for result in results]
            for segment in step["consolidation"]:
                figures = [one["consolidation"][segment] for one in steps]
                names = ("rank_kept", "energy_kept", "overlap_energy", "norm_before", "norm_after")
                cells = [f"{fmean(one[name] for one in figures):.3f}" for name in names]
                cells.append(f"{fmean(one['replayed_pairs'] for one in steps):.0f}")
                cells.append(f"{fmean(one['seconds'] for one in steps) / 60:.1f}")
                print(f"| {method} | {step['name']} {segment} | " + " | ".join(cells) + " |")


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation over seeds where there are several."""
    return f"{fmean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    main(sys.argv[1:])
