"""A life of a thousand tasks on the model of the tests: seconds, memory, file handles and disk after every task.

The model is so small that what is timed is everything around it: two layers, 32 wide, a token for each byte. The gate
is off in the long life, because it asks about every earlier task by its promise; what that costs for each of them is
measured in a shorter one.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.stream import HELD_OUT, PAIRS, task
from tests.tiny import save_tiny

from lifealign.life import learn
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.report.page.life_page import life_page
from lifealign.settings.section import build_config
from lifealign.storage.user_cache import CACHE_VARIABLE

PARTS = (
    "hold_back",
    "hold_out",
    "mix",
    "attach",
    "train",
    "consolidate",
    "gate",
    "remember",
    "make_keys",
    "tell_apart",
    "score",
    "commit",
)
"""The parts of :func:`lifealign.life.learn.learn_step` that are timed."""
WINDOW = 50
"""Tasks over which medians are taken; no more than a fifth of a life."""
EVALUATE_LAST, REPLAYED = 8, 32


def measure(methods: list[str], tasks: int, gated: int, threads: int) -> dict[str, Any]:
    """Lives of ``tasks`` tasks, one for each method, and one of ``gated`` tasks with a gate, each in its own process.

    Args:
        methods: Names of methods.
        tasks: Length of their lives.
        gated: Length of the life with a gate; 0 for none.
        threads: Threads of torch.
    """
    found: dict[str, Any] = {"settings": sections("", methods[0], "off") | {"model": "of the tests"}}
    found["task"] = {"pairs": PAIRS, "held_out": HELD_OUT}
    with tempfile.TemporaryDirectory() as folder:
        path = str(save_tiny(Path(folder)))
        found["lives"] = {method: _alone(path, method, "off", tasks, threads) for method in methods}
        if gated:
            found["with a gate"] = _alone(path, methods[0], "warn", gated, threads)
    return found


def sections(model: str, method: str, retention: str) -> dict[str, Any]:
    """Settings of a life, all but what is by default."""
    stage = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    return {
        "model": {"model_name_or_path": model, "dtype": "float32"},
        "method": method,
        "sft": stage,
        "preference": stage,
        "replay": {"fraction": 0.5, "capacity": REPLAYED},
        "evaluation": {"metrics": ["preference_accuracy"], "evaluate_last": EVALUATE_LAST},
        "retention": retention,
    }


def _alone(*arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(one_life, *arguments).result()


def one_life(model: str, method: str, retention: str, tasks: int, threads: int) -> dict[str, Any]:
    """Lives one life, and measures this process after every task."""
    torch.set_num_threads(threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = f"{folder}/user-cache"
        life = Life.create(f"{folder}/life", build_config(LifeConfig, sections(model, method, retention)))
        for number in range(1, tasks + 1):
            taught = task(number)
            with timed() as parts:
                before, wall, cpu = _written(), time.perf_counter(), time.process_time()
                life.learn(taught)
                seconds, cpu = time.perf_counter() - wall, time.process_time() - cpu
            written = _written() - before
            rows.append({"seconds": seconds, "cpu_seconds": cpu, "written_bytes": written, "parts": parts} | _process())
            if number % window_of(tasks) == 0 or number == tasks:
                rows[-1]["disk"] = disk_of(life.directory.path)
                print(f"  {method}, {retention}, task {number}: {_window(rows[-window_of(tasks) :])}", flush=True)
        opening = _opening(life.directory.path)
    return summary(rows) | {"opening": opening}


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Processor seconds of each part of a step, while it lasts."""
    spent = dict.fromkeys(PARTS, 0.0)
    real = {name: getattr(learn, name) for name in PARTS}

    def timing(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return real[name](*arguments, **options)
            finally:
                spent[name] += time.process_time() - start

        return call

    for name in PARTS:
        setattr(learn, name, timing(name))
    try:
        yield spent
    finally:
        for name, function in real.items():
            setattr(learn, name, function)


def _process() -> dict[str, Any]:
    """Megabytes in memory now and at most, and open file handles."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss_megabytes": pages * resource.getpagesize() / 1e6,
        "peak_rss_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "handles": len(os.listdir("/proc/self/fd")),
    }


def _written() -> int:
    """Bytes that this process has written so far, to whatever file."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


def disk_of(life: Path) -> dict[str, dict[str, int]]:
    """Number and bytes of the files of a life, by kind: the folder, and the name without those of step and task."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(life.rglob("*")):
        if path.is_file():
            one = found.setdefault(_kind(path.relative_to(life)), {"files": 0, "bytes": 0})
            one["files"] += 1
            one["bytes"] += path.stat().st_size
    return found


def _kind(path: Path) -> str:
    named = path.parts[0] in ("memory", "replay") or (path.parts[0] == "tasks" and len(path.suffixes) > 1)
    name = f"*{''.join(path.suffixes)}" if named else path.name
    return f"{path.parts[0]}/{name}" if len(path.parts) > 1 else name


def _opening(life: Path) -> dict[str, float]:
    """Processor seconds of what a new process does with the life: open it, learn on, or show it."""
    again = Life.open(life)
    work, pages = again.workspace, list[str]()
    asked: dict[str, Callable[[], Any]] = {
        "open": lambda: Life.open(life),
        "memory, replay and caches": lambda: (work.memory, work.replay, work.reference),
        "scores": lambda: again.scores,
        "verify every file": lambda: again.directory.verify(again.versions),
        "report": lambda: pages.append(life_page(again)),
    }
    found = {}
    for name, one in asked.items():
        start = time.process_time()
        one()
        found[name] = round(time.process_time() - start, 3)
    return found | {"report_megabytes": round(len(pages[0].encode()) / 1e6, 3)}


def window_of(tasks: int) -> int:
    """How many tasks a median is taken over."""
    return min(WINDOW, max(1, tasks // 5))


def _window(rows: list[dict[str, Any]]) -> dict[str, Any]:
    figures = ("seconds", "cpu_seconds", "written_bytes", "rss_megabytes", "peak_rss_megabytes", "handles")
    found: dict[str, Any] = {name: round(median(row[name] for row in rows), 4) for name in figures}
    found["parts"] = {name: round(median(row["parts"][name] for row in rows), 4) for name in PARTS}
    if disk := rows[-1].get("disk"):
        found["disk_megabytes"] = round(sum(one["bytes"] for one in disk.values()) / 1e6, 3)
        found["files"] = sum(one["files"] for one in disk.values())
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians by window, the disk at the end by kind, and every single timing."""
    size = window_of(len(rows))
    starts = range(0, len(rows), size)
    return {
        "windows": [
            {"last_task": min(start + size, len(rows))} | _window(rows[start : start + size]) for start in starts
        ],
        "disk": rows[-1].get("disk", {}),
        "seconds": [round(row["seconds"], 3) for row in rows],
        "cpu_seconds": [round(row["cpu_seconds"], 3) for row in rows],
        "written_bytes": [row["written_bytes"] for row in rows],
    }
