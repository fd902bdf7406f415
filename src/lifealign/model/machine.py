"""The processor of this machine: its name, its cores and the instruction sets that decide how fast it multiplies."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instruction sets that matrix products gain from, as Linux names them; the last two multiply in bfloat16."""
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """A processor.

    Attributes:
        name: As the system gives it; some virtual machines give one name for different processors.
        instructions: Those of ``INSTRUCTION_SETS`` that it has; None if the system does not say.
    """

    name: str
    instructions: tuple[str, ...] | None

    @property
    def multiplies_in_bfloat16(self) -> bool | None:
        """Whether it has instructions that multiply in bfloat16; None if the system does not say."""
        if self.instructions is None:
            return None
        return any(one.endswith("_bf16") for one in self.instructions)

    def __str__(self) -> str:
        return f"{self.name} ({self.instructions_text})"

    @property
    def instructions_text(self) -> str:
        """The instruction sets in words."""
        if self.instructions is None:
            return "instruction sets unknown"
        return ", ".join(self.instructions) or "no avx2"


def this_processor(cpuinfo: Path = CPUINFO) -> Processor:
    """The processor of this machine.

    Args:
        cpuinfo: Where Linux describes it; elsewhere there is no such file.
    """
    lines: list[str] = []
    with suppress(OSError):
        lines = cpuinfo.read_text(errors="replace").splitlines()
    said = [tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line]
    known = {name: value for name, value in reversed(said)}  # the first core speaks for all
    name = known.get("model name") or platform.processor() or platform.machine() or "unknown"
    if "flags" not in known:
        return Processor(name, None)
    flags = set(known["flags"].split())
    return Processor(name, tuple(one for one in INSTRUCTION_SETS if one in flags))


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
