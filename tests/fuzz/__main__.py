"""``make fuzz``: damages the files of every reader, for ``FUZZ_SECONDS`` in all.

``python -m tests.fuzz [SECONDS [SEED [READER ...]]]`` ends with 1 if something failed; ``python -m tests.fuzz FILE``
reads an input again that was kept, and shows the traceback.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz, read_again

KEEP = Path("build/fuzz")


def main(arguments: list[str]) -> int:
    if arguments and Path(arguments[0]).is_file():
        read_again(Path(arguments[0]))
        return 0
    seconds = float(arguments[0]) if arguments else 60.0
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(10**6)
    print(f"seed {seed}; inputs that fail are kept in {KEEP}", flush=True)
    failed = 0
    chosen = arguments[2:] or [*READERS]
    for name in chosen:
        outcome = fuzz(name, seed, seconds / len(chosen), KEEP)
        print(f"{name:10} {outcome.inputs:8} inputs, {outcome.accepted} read, {outcome.refused} refused", flush=True)
        for fault in outcome.faults:
            print(f"  {fault.kept}\n{fault.what}", flush=True)
        failed += len(outcome.faults)
    print(f"{failed} failed" if failed else "none failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
