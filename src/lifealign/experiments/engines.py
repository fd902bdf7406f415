"""The engines that cells can run on, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lifealign.errors import ConfigError
from lifealign.experiments.executors import Engine, Processes


def engine_of(
    name: str,
    jobs: int,
    *,
    cpus: int = 1,
    gpus: float = 0,
    slurm: Sequence[str] = (),
    logs: Path,
    set_up: Callable[[], None] | None = None,
) -> Engine | None:
    """The engine that a name stands for.

    Args:
        name: ``processes``, ``ray``, ``ray://HOST:PORT`` or ``slurm``.
        jobs: Cells at a time on this machine.
        cpus: Processors that a cell asks for.
        gpus: Graphics processors that a cell asks for.
        slurm: Parameters of the queue, ``KEY=VALUE``.
        logs: Where the queue keeps logs of jobs.
        set_up: Called first in every process of this machine, or None.

    Returns:
        The engine; None runs cells in this process, one after another.

    Raises:
        ConfigError: If there is no such engine, it is not installed, or has no use for what was given.
    """
    if slurm and name != "slurm":
        raise ConfigError(f"--slurm: found it with --on {name}, expected it with --on slurm")
    if name == "processes":
        if cpus != 1 or gpus:
            raise ConfigError("--cpus, --gpus: found them with processes of this machine, expected --on ray or slurm")
        return Processes(jobs, set_up) if jobs > 1 else None
    if name == "ray" or name.startswith("ray://"):
        from lifealign.experiments.ray_cluster import RayCluster

        return RayCluster(name if name != "ray" else None, jobs=jobs, cpus=cpus, gpus=gpus)
    if name == "slurm":
        if gpus != int(gpus):
            raise ConfigError(f"--gpus: found {gpus:g}, expected a whole number with --on slurm")
        from lifealign.experiments.slurm import Slurm

        return Slurm(logs, cpus=cpus, gpus=int(gpus), parameters=dict(map(_parameter, slurm)))
    raise ConfigError(f"--on: found {name!r}, expected processes, ray, ray://HOST:PORT or slurm")


def _parameter(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--slurm: found {text!r}, expected KEY=VALUE, such as slurm_partition=gpu")
    return key, yaml.safe_load(value)
