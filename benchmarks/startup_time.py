"""How long a person waits for the verbs that only look at something.

    python -m benchmarks.startup_time LIFE ROWS.jsonl

Each verb runs in fresh processes, one after the other, in turn with an interpreter that does nothing; the median of
seven is printed. Whether a verb loads torch is a test (tests/cli/test_process.py); this is the time that it saves.
"""

import subprocess
import sys
import time
from statistics import median

ROUNDS = 7


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main(life: str, rows: str) -> None:
    ours = [sys.executable, "-m", "lifealign"]
    verbs = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "lifealign --help": [*ours, "--help"],
        "lifealign check": [*ours, "check", rows],
        "lifealign status": [*ours, "status", life],
        "lifealign report": [*ours, "report", life],
    }
    taken: dict[str, list[float]] = {name: [] for name in verbs}
    for _ in range(ROUNDS):
        for name, command in verbs.items():
            taken[name].append(seconds(command))
    for name, times in taken.items():
        print(f"{name:<20} {median(times):5.2f} s   ({min(times):.2f} to {max(times):.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
