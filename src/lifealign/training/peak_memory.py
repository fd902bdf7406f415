"""Peak memory of a stretch of work: on the GPU if there is one, otherwise of the process."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def reset_peak_memory() -> None:
    """Starts a new measurement. If the system offers no way to do so, the peak stays that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")  # Linux: resets the peak resident size to the present one


def peak_memory_bytes() -> int:
    """Peak memory since the last reset: allocated on the GPU, or resident in this process, base model included."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
