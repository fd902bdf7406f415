"""A comparison on the engines of others: Ray with two workers, one of which is killed, and submitit's local queue."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.test_compare import configured, learnt, timeless
from tests.tiny import letter_task
from tests.writers import write_splits

from lifealign.errors import ConfigError
from lifealign.experiments import executors
from lifealign.experiments.cells import Cell, cells_of, finished
from lifealign.experiments.compare import run_comparison
from lifealign.experiments.engines import engine_of
from lifealign.experiments.executors import Processes, run_cells
from lifealign.experiments.worker import Outcome, live, live_there

COMPARED = {"methods": ["seqft", "er"], "seeds": [1, 2]}


@pytest.fixture
def cells(tmp_path: Path, tiny_folder: Path) -> Callable[[str], list[Cell]]:
    """``cells("name")``: four cells, in a folder of that name."""
    for name, good, bad in (("one", "a", "b"), ("two", "c", "d")):
        write_splits(tmp_path, letter_task(name, good, bad))
    return lambda name: cells_of(configured(tmp_path / name, tiny_folder, tmp_path, compare=COMPARED))


def here(cells: list[Cell]) -> list[Cell]:
    assert run_comparison(cells, say=lambda text: None) == []
    return cells


def equal(cells: list[Cell], others: list[Cell]) -> bool:
    """Whether results and lives are the same, but for times and places."""

    def placeless(cell: Cell) -> dict[str, Any]:
        result = timeless(cell)
        result["settings"].pop("output_dir", None)
        return result

    return all(
        placeless(one) == placeless(other) and learnt(one) == learnt(other)
        for one, other in zip(cells, others, strict=True)
    )


def ray_workers() -> list[int]:
    """Process ids of Ray's workers that run something of ours."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::live_there"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_on_ray_a_cell_whose_worker_is_killed_is_run_again_and_nothing_is_lost(
    cells: Callable[[str], list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers on loopback; the first that has begun is killed. Results and lives are those of one process."""
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    theirs = cells("ray")
    killed: list[int] = []

    def kill_one() -> None:
        until = time.monotonic() + 120
        while not killed and time.monotonic() < until:
            begun = any((cell.experiment.output_dir / "life.json").exists() for cell in theirs)
            for worker in ray_workers() if begun else ():
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                break
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    lines: list[str] = []
    failures = run_comparison(theirs, engine=engine_of("ray", 2, logs=Path()), say=lines.append)
    killer.join()
    assert len(killed) == 1 and failures == [], (failures, lines)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert equal(theirs, here(cells("here")))
    assert ray_workers() == []


@pytest.mark.slow
def test_in_a_queue_of_submitit_cells_are_jobs_and_results_come_back(
    cells: Callable[[str], list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    from lifealign.experiments.slurm import Slurm

    theirs = cells("queue")
    queue = Slurm(tmp_path / "logs", cluster="local", parameters={"timeout_min": 5})
    assert run_comparison(theirs, engine=queue, say=lambda text: None) == []
    assert len([*(tmp_path / "logs").glob("*_submitted.pkl")]) == 4
    assert equal(theirs, here(cells("here")))


def test_a_job_that_slurm_takes_its_machine_from_is_put_into_the_queue_again(
    cells: Callable[[str], list[Cell]],
) -> None:
    pytest.importorskip("submitit")
    from lifealign.experiments.slurm import Requeued

    cell, job = cells("queue")[0], Requeued()
    again = job.checkpoint(cell, "/somewhere", 2)
    assert (again.function, again.args) == (job, (cell, "/somewhere", 2))


def test_a_worker_without_the_folder_says_so(cells: Callable[[str], list[Cell]]) -> None:
    outcome = live_there(cells("one")[0], "/nowhere/at/all", 1)
    assert outcome.result is None and outcome.error is not None
    assert outcome.error.startswith("/nowhere/at/all: found none on this worker (No such file or directory)")


class Elsewhere:
    """An engine that does what it is told at once, in this process."""

    def __init__(self, does: Callable[[Cell], Outcome]) -> None:
        self.does, self.ended = does, False

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended = True

    def submit(self, cell: Cell) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        try:
            future.set_result(self.does(cell))
        except Exception as error:
            future.set_exception(error)
        return future


def test_results_are_written_by_who_submits_and_by_nobody_else(
    cells: Callable[[str], list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = cells("ours")
    written: list[Path] = []
    real = executors.write_result
    monkeypatch.setattr(executors, "write_result", lambda path, result: (written.append(path), real(path, result))[1])

    def does(cell: Cell) -> Outcome:
        before = len(written)
        outcome = live(cell)
        assert len(written) == before and outcome.result is not None
        return outcome

    engine = Elsewhere(does)
    assert run_comparison(ours, engine=engine, say=lambda text: None) == [] and engine.ended
    assert sorted(written) == sorted(cell.result for cell in ours)
    assert all(finished(cell) is not None for cell in ours)


def test_whatever_an_engine_says_of_a_worker_is_the_cause_of_that_cell_alone(
    cells: Callable[[str], list[Cell]],
) -> None:
    class WorkerCrashedError(Exception):
        pass

    def does(cell: Cell) -> Outcome:
        if cell.experiment.seed == 2:
            raise WorkerCrashedError("The worker died unexpectedly.\nlong story")
        return live(cell)

    failures = run_comparison(cells("mixed"), engine=Elsewhere(does), say=lambda text: None)
    assert {failure.error for failure in failures} == {"WorkerCrashedError: The worker died unexpectedly."}
    assert [failure.cell.experiment.seed for failure in failures] == [2, 2]


def test_a_result_that_cannot_be_written_is_the_failure_of_its_cell(
    cells: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    ours = cells("full")[:1]
    ours[0].result.parent.parent.mkdir(parents=True, exist_ok=True)
    ours[0].result.parent.write_text("in the way")
    ((_, error),) = run_cells(ours, None, lambda text: None, None)
    assert error is not None and "could not be written" in error


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("kubernetes", {}, "--on: found 'kubernetes', expected processes, ray, ray://HOST:PORT or slurm"),
        ("processes", {"cpus": 2}, "--cpus, --gpus: found them with processes of this machine"),
        ("ray", {"slurm": ["a=b"]}, "--slurm: found it with --on ray, expected it with --on slurm"),
        ("slurm", {"gpus": 0.5}, "--gpus: found 0.5, expected a whole number with --on slurm"),
        ("slurm", {"slurm": ["partition"]}, "--slurm: found 'partition', expected KEY=VALUE"),
    ],
)
def test_an_engine_that_there_is_not_is_one_clear_error(
    name: str, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        engine_of(name, 2, logs=tmp_path, **more)


def test_an_engine_that_is_not_installed_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    for name, extra in (("ray", "ray"), ("slurm", "slurm")):
        with pytest.raises(ConfigError, match=rf"pip install 'lifealign\[{extra}\]'"):
            engine_of(name, 1, logs=tmp_path)


def test_a_parameter_that_the_queue_does_not_know_is_named(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    from lifealign.experiments.slurm import Slurm

    with pytest.raises(ConfigError, match=r"--slurm: .*partitoin"):
        Slurm(tmp_path, cluster="local", parameters={"partitoin": "gpu"})


def test_a_single_cell_needs_no_process_of_its_own(cells: Callable[[str], list[Cell]]) -> None:
    said: list[str] = []
    ((_, error),) = run_cells(cells("one")[:1], Processes(4), said.append, None)
    assert error is None and len(said) == 1  # said where it runs: here
