"""Cells on a Ray cluster: one on this machine, or one that is there."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lifealign.errors import ConfigError
from lifealign.experiments.cells import Cell
from lifealign.experiments.worker import Outcome, live_there

RETRIES = 3
"""How often a cell is begun again whose worker has died; it goes on from what its life has on disk."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayCluster:
    """A Ray cluster.

    Every machine of a cluster needs this package, the base model and the data at the same places, and a life stays on
    the machine that lived it unless its folder is shared; results come back here in any case.

    Args:
        address: Address of a cluster that is there, ``ray://HOST:PORT``; None starts one on this machine.
        jobs: Cells at a time on this machine.
        cpus: Processors that a cell asks for, and threads that it uses.
        gpus: Graphics processors that a cell asks for; may be a fraction.

    Raises:
        ConfigError: If Ray is not installed.
    """

    def __init__(self, address: str | None = None, *, jobs: int = 1, cpus: int = 1, gpus: float = 0) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        try:
            import ray
        except ImportError as error:
            raise ConfigError("--on ray needs Ray; install it with: pip install 'lifealign[ray]'") from error
        self._ray: Any = ray
        self._address, self._jobs, self._cpus, self._gpus = address, jobs, cpus, gpus

    def __enter__(self) -> Self:
        """Connects to the cluster, or starts one.

        Raises:
            ConfigError: If there is no cluster at the address.
        """
        here: dict[str, Any] = {"num_cpus": self._jobs * self._cpus, "_node_ip_address": "127.0.0.1"}
        where: dict[str, Any] = {"address": self._address} if self._address else here
        try:
            self._ray.init(**where, include_dashboard=False, log_to_driver=False, configure_logging=False)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"--on ray: found no cluster at {self._address or 'this machine'} ({first})") from error
        # A cell whose worker is gone is run again; what it returns for itself, an error included, is its outcome.
        kept = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": RETRIES, "retry_exceptions": False}
        self._live = self._ray.remote(**kept)(live_there)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the cluster, or ends the one that was started; what still runs there is given up."""
        self._ray.shutdown()

    def submit(self, cell: Cell) -> Future[Outcome]:
        """Has a worker of the cluster run a cell."""
        future: Future[Outcome] = self._live.remote(cell, str(Path.cwd()), self._cpus).future()
        return future
