"""Two or more sides of a comparison, each run in a process of its own, in turn, and what they took."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.sides import Spec

from lifealign.__main__ import NO_TELEMETRY


def alternate(sides: Mapping[str, Spec], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Runs every side once per round, in turn, so that a slow minute of the machine hits all of them."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, spec in sides.items():
            found[name].append(run_side(spec))
            print(f"  round {number + 1}  {name:<28} {found[name][-1]['seconds']:8.1f} s", flush=True)
    return found


def run_side(spec: Spec) -> dict[str, Any]:
    """One side in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sides", json.dumps(asdict(spec))]
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = NO_TELEMETRY | os.environ | quiet
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{spec}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def per_second(runs: list[dict[str, Any]]) -> float:
    """Pairs per second, median over the rounds."""
    return median(float(run["pairs"]) / float(run["seconds"]) for run in runs)


def ratio(runs: Mapping[str, list[dict[str, Any]]], ours: str, theirs: str) -> float:
    """How many times as fast ours is, median over the rounds, each against its neighbour in time."""
    return median(float(b["seconds"]) / float(a["seconds"]) for a, b in zip(runs[ours], runs[theirs], strict=True))
