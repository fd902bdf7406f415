"""Cells in a Slurm queue, by way of submitit."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lifealign.errors import ConfigError
from lifealign.experiments.cells import Cell
from lifealign.experiments.worker import Outcome, live_there

RETRIES = 3
"""How often a job is put into the queue again that was preempted or has timed out; it goes on from its life on disk."""
WAITING = 64
"""Jobs that are waited for at a time; others are in the queue all the same."""


class Requeued:
    """What a job runs; when Slurm takes its machine away, the same is put into the queue again."""

    def __call__(self, cell: Cell, folder: str, threads: int) -> Outcome:
        """Lives through a cell, or what is left of it."""
        return live_there(cell, folder, threads)

    def checkpoint(self, *given: Any) -> Any:
        """Called by submitit when the job is preempted or its time is up: what to run next."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *given)


class Slurm:
    """A Slurm queue. Its machines share this folder, the base model and the data, as clusters do.

    Args:
        folder: Where submitit keeps scripts and logs of jobs.
        cluster: ``slurm``, or ``local`` for processes of this machine; None finds out.
        cpus: Processors that a cell asks for, and threads that it uses.
        gpus: Graphics processors that a cell asks for.
        parameters: Others, under submitit's names, such as ``slurm_partition`` or ``timeout_min``.

    Raises:
        ConfigError: If submitit is not installed, or knows no such parameter.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cluster: str | None = None,
        cpus: int = 1,
        gpus: int = 0,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ConfigError("--on slurm needs submitit; install it with: pip install 'lifealign[slurm]'") from error
        self._cpus, self._jobs = cpus, list[Any]()
        try:
            logs = folder.absolute()
            self._queue = submitit.AutoExecutor(folder=logs, cluster=cluster, slurm_max_num_timeout=RETRIES)
            asked = {"name": "lifealign", "cpus_per_task": cpus, "gpus_per_node": gpus, **(parameters or {})}
            self._queue.update_parameters(**asked)
        except (NameError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"--slurm: {' '.join(str(error).split())}") from error

    def __enter__(self) -> Self:
        """Begins to wait for jobs."""
        self._waiting = ThreadPoolExecutor(WAITING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes jobs back that have not ended, if something went wrong."""
        if kind is not None:
            for job in self._jobs:
                job.cancel()
        self._waiting.shutdown(wait=kind is None, cancel_futures=True)

    def submit(self, cell: Cell) -> Future[Outcome]:
        """Puts a cell into the queue."""
        job = self._queue.submit(Requeued(), cell, str(Path.cwd()), self._cpus)
        self._jobs.append(job)
        return self._waiting.submit(job.result)
