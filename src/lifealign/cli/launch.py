"""One command as several processes, started by ``torchrun`` or ``accelerate launch``: the first leads the others."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

SET_BY_A_LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """Number of processes of this launch; 1 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if all(os.environ.get(name) for name in SET_BY_A_LAUNCHER) else 1


def follows() -> bool:
    """Whether this process is one that follows."""
    return processes() > 1 and int(os.environ["RANK"]) > 0


def leading() -> AbstractContextManager[None]:
    """Leads the other processes of this launch within the context; does nothing without any."""
    if processes() == 1:
        return nullcontext()
    from lifealign.life.processes import leading as led_by_this

    return led_by_this()


def follow() -> int:
    """Does what the leader asks until it ends; returns the exit code."""
    from lifealign.life.processes import follow_the_leader

    follow_the_leader()
    return 0
