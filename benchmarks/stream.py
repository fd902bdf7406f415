"""Seconds per task over a life of sixty tasks, replay at a fixed capacity, on a model of two layers.

The model is so small that what is timed is everything around it: replay, scoring, tokenising, consolidation, commit.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from lifealign.data.pair import Message, Pair
from lifealign.data.task import Task
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.settings.section import build_config

TASKS, PAIRS, HELD_OUT = 60, 16, 4
SHOWN = (1, 10, 30, 40, 60)


def task(number: int) -> Task:
    rows = [
        Pair((Message("user", f"{number}: question {row}"),), f"yes {number} {row}", f"no {row}", f"{number}:{row}")
        for row in range(PAIRS + HELD_OUT)
    ]
    return Task(f"t{number}", tuple(rows[:PAIRS]), tuple(rows[PAIRS:]))


def measure(model: str) -> list[dict[str, Any]]:
    stage = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    sections: dict[str, Any] = {
        "model": {"model_name_or_path": model, "dtype": "float32"},
        "sft": stage,
        "preference": stage,
        "replay": {"fraction": 0.5, "capacity": 64},
        "evaluation": {"metrics": ["preference_accuracy"]},
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        life = Life.create(Path(folder) / "life", build_config(LifeConfig, sections))
        for number in range(1, TASKS + 1):
            start = time.perf_counter()
            version = life.learn(task(number))
            took = json.loads((life.directory.path / "tasks" / version.name / "time.json").read_text())
            size = sum(path.stat().st_size for path in life.directory.path.rglob("*") if path.is_file())
            row = {"task": number, "seconds": time.perf_counter() - start, "learning": took["learning_seconds"]}
            rows.append(row | {"disk_megabytes": size / 1e6})
            if number in SHOWN:
                print(f"  {rows[-1]}", flush=True)
    return rows
