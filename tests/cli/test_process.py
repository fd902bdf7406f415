"""Beside other software in one process: what a library may not touch is as it was, whoever was there first.

Each test is a process of its own, because it is about what is there once in a process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeLife
from tests.tiny import letter_task

import lifealign
from lifealign.experiments.result_of_life import save_result

BESIDE = """
import csv, gc, hashlib, json, locale, logging, os, random, signal, socket, sys, warnings
from pathlib import Path

first, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
import accelerate, datasets, numpy, peft, rich.progress, tensorboard, torch, transformers
import transformers.utils.logging as hf
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.utils.tensorboard import SummaryWriter

SINGLETONS = PartialState, AcceleratorState, GradientState

if first == "notebook":
    from trl import DPOConfig, DPOTrainer
    DPOConfig(output_dir=str(folder / "trl"), bf16=True, use_cpu=True)
    user = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    torch.manual_seed(99); random.seed(99); numpy.random.seed(99)
logging.getLogger("transformers").setLevel(logging.CRITICAL)
logging.getLogger("lifealign").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", message="of the user")

def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()

def state():
    loggers = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    numbers = numpy.random.get_state()
    return {
        "level of root": logging.root.level,
        "handlers of root": [str(handler) for handler in logging.root.handlers],
        "logging off": logging.root.manager.disable,
        **{f"logger {name}": (one.level, one.disabled, one.propagate) for name, one in loggers.items()},
        "warnings": [str(one) for one in warnings.filters],
        "showwarning": repr(warnings.showwarning),
        "environment": dict(os.environ),
        "signals": {str(one): repr(signal.getsignal(one)) for one in signal.valid_signals()},
        "folder": os.getcwd(),
        "path": list(sys.path),
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr), repr(sys.excepthook)],
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch's random state": digest(torch.get_rng_state().tolist()),
        "Python's random state": digest(random.getstate()),
        "numpy's random state": digest((numbers[0], numbers[1].tolist(), *numbers[2:])),
        "singletons": [repr(sorted(one._shared_state.items())) for one in SINGLETONS],
        "verbosity": [hf.get_verbosity(), datasets.logging.get_verbosity()],
        "bars": [hf.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()],
        "limits": [sys.getrecursionlimit(), gc.get_threshold(), socket.getdefaulttimeout()],
        "locale": locale.setlocale(locale.LC_ALL),
    }

before = state()
import lifealign
from lifealign.life.settings import LifeConfig
from lifealign.settings.yaml_file import build_config

def adapter(name):
    stage = {"num_train_epochs": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    life = lifealign.Life.create(folder / name, build_config(LifeConfig, {
        "model": {"model_name_or_path": model, "dtype": "float32"},
        "lora": {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.5},
        "method": "olora", "sft": stage, "preference": stage, "evaluation": {"max_new_tokens": 2},
        "report_to": "tensorboard",
    }))
    for task in ("one", "two"):
        asked = [(lifealign.Message("user", f"{task} {n}"),) for n in range(8)]
        pairs = [lifealign.Pair(prompt, f"aaa{n % 3}", f"bbb{n}") for n, prompt in enumerate(asked)]
        life.learn(lifealign.Task(task, tuple(pairs[:6]), tuple(pairs[6:])))
    assert list((folder / name / "logs").rglob("events*"))
    return digest((folder / name / "versions" / "02-two" / "adapter_model.safetensors").read_bytes())

adapters = [adapter(name) for name in (["once", "twice"] if first == "alone" else ["once"])]
after = state()
changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
if first == "alone":
    user = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
assert user.mixed_precision == AcceleratorState().mixed_precision == "bf16" and PartialState()._cpu
print(json.dumps({"adapters": adapters, "changed": changed}))
"""


def outcome(code: str, *arguments: object) -> Any:
    environment = os.environ | {"PYTHONPATH": str(Path(lifealign.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two lives, one after the other, with nobody else in the process."""
    return outcome(BESIDE, "alone", tiny_folder, tmp_path_factory.mktemp("alone"))


def test_two_lives_in_one_process_come_to_the_same_and_leave_no_trace(alone: Any) -> None:
    assert alone["changed"] == {}
    assert len(alone["adapters"]) == 2 and len({*alone["adapters"]}) == 1


def test_a_life_beside_trl_and_a_bf16_accelerator_comes_to_the_same_and_leaves_them_alone(
    alone: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    beside = outcome(BESIDE, "notebook", tiny_folder, tmp_path)
    assert beside["changed"] == {}
    assert beside["adapters"] == alone["adapters"][:1]


LIGHT = """
import json, sys
import lifealign

def heavy():
    return sorted({"torch", "transformers", "peft", "datasets", "safetensors", "accelerate"} & sys.modules.keys())

found = {"import": heavy()}
assert not {*lifealign.__all__} - {*dir(lifealign)}
from lifealign import Pair, Task, DataError, ConfigError
found["data"] = heavy()
from lifealign.cli.main import main
rows, lives, result = sys.argv[1], sys.argv[2:4], sys.argv[4]
looks = {
    "--help": ["--help"],
    "learn --help": ["learn", "--help"],
    "check": ["check", rows],
    "status": ["status", lives[0]],
    "report of a life": ["report", lives[0]],
    "report of runs": ["report", *lives, "--out", rows + ".html"],
    "report of a result": ["report", result, "--out", rows + ".html"],
}
for name, verb in looks.items():
    sys.argv = ["lifealign", *verb]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0
    found[name] = heavy()
print(json.dumps(found))
"""


def test_looking_at_things_does_not_wait_for_torch(tmp_path: Path, make_life: MakeLife) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n")
    lives = [make_life(name, method=method) for name, method in (("plain", "er"), ("aligned", "lifealign"))]
    for life in lives:
        life.learn(letter_task("one", "a", "b"))
    save_result(lives[0], tmp_path / "result.json")
    found = outcome(LIGHT, rows, *(life.directory.path for life in lives), tmp_path / "result.json")
    assert len(found) == 9 and not any(found.values()), found


def test_public_names_are_sorted_and_are_what_their_modules_hold() -> None:
    assert [*lifealign.__all__] == sorted(lifealign.__all__) == sorted(lifealign._PLACES)
    for name in lifealign.__all__:
        assert getattr(lifealign, name).__name__ == name
        assert getattr(lifealign, name).__module__ == f"lifealign.{lifealign._PLACES[name]}"
    declared = [
        line.split(" as ")[1]
        for line in Path(lifealign.__file__).read_text().splitlines()
        if line.startswith("    from lifealign.")
    ]
    assert sorted(declared) == [*lifealign.__all__]
    with pytest.raises(AttributeError, match="module 'lifealign' has no attribute 'Live'"):
        _ = lifealign.Live


def test_every_public_name_is_documented_and_no_other() -> None:
    page = (Path(lifealign.__file__).parents[2] / "docs" / "api.md").read_text()
    listed = [
        name
        for line in page.splitlines()
        if line.startswith("| `")
        for name in re.findall("`(\\w+)`", line.split("|")[1])
    ]
    assert sorted(listed) == [*lifealign.__all__]
