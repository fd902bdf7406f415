"""Installs the wheel and the sdist where nothing of this repository is, and lives a small life with each.

    python -m tests.installed dist/lifealign-0.1.0-py3-none-any.whl dist/lifealign-0.1.0.tar.gz

Needs the package registry, and takes as long as installing torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.environments import PINNED, Environment, outside_environment
from tests.tiny import save_tiny
from tests.writers import write_task
from transformers.utils.logging import disable_progress_bar

import lifealign

SETTINGS = """
lora: {lora_r: 4, lora_alpha: 8}
sft: {num_train_epochs: 1, per_device_train_batch_size: 4, gradient_accumulation_steps: 1, learning_rate: 1.0e-2}
preference: {num_train_epochs: 1, per_device_train_batch_size: 4, gradient_accumulation_steps: 1, learning_rate: 1.0e-2}
evaluation: {max_new_tokens: 4}
"""
LIFE: Sequence[tuple[str, str]] = (
    ("--version", f"lifealign {lifealign.__version__}\n"),
    ("--help", "teach it one more preference task"),
    ("init bot --model model --config settings.yaml", "bot: a new life on"),
    ("check one.jsonl", "8 usable pairs of 8 rows"),
    ("learn bot one.jsonl --test one-test.jsonl --max-words 3", "adapter: bot/versions/01-one"),
    ("status bot", "all as committed"),  # and perplexity, on the general text that comes with the package
    ("report bot", "report: bot/report.html"),
    ("export bot plain", "adapter: plain"),
    ("export bot merged --merged", "model: merged"),
    ("export bot gguf --gguf", "adapter: gguf/adapter.gguf"),
    ("config show settings.yaml", "model_name_or_path: smollm2-135m"),
)
"""Commands in their order, and what each has to print."""
FILES = """
import importlib.metadata, json, pathlib
from lifealign.cli.demo import demo_experiment
from lifealign.data.suites.support_desk import load_suite
from lifealign.service.review.page import review_page

demo_experiment("lifealign", pathlib.Path("demo"), 42, full=True)
assert all(task.train and task.test for task in load_suite())
assert b"</html>" in review_page("rows.jsonl", pathlib.Path("out.jsonl")).content
files = [file for file in importlib.metadata.files("lifealign") if file.parts[0] == "lifealign"]
assert all(file.locate().is_file() for file in files)
print(json.dumps([str(file) for file in files if file.suffix != ".pyc"]))
"""


def main(distributions: Sequence[str]) -> None:
    """Installs each of the distributions, the later ones in place of the earlier, and uses it."""
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = Environment(folder / "environment", PINNED)
        for number, distribution in enumerate(map(Path, distributions)):
            again = ["--force-reinstall", "--no-deps"] if number else []
            environment.install(*again, distribution.resolve())
            installed = use(environment, folder / f"life-{number}")
            if differing := installed ^ files_of(distribution):
                raise SystemExit(
                    f"either installed or in {distribution.name}, not both: {', '.join(sorted(differing))}"
                )
            print(f"{distribution.name}: {len(installed)} files, installed and used", flush=True)


def files_of(distribution: Path) -> set[str]:
    """The files of the package in a wheel or an sdist, as they are named when it is installed."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as wheel:
            return {name for name in wheel.namelist() if name.startswith("lifealign/")}
    with tarfile.open(distribution) as sdist:
        names = [entry.name.partition("/src/")[2] for entry in sdist if entry.isfile()]
    return {name for name in names if name.startswith("lifealign/")}


def use(environment: Environment, folder: Path) -> set[str]:
    """Lives a small life in a new folder, with a home that is empty.

    Returns:
        The files of the package that are installed.

    Raises:
        SystemExit: If a command fails, or prints something else.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    save_tiny(folder / "model")
    write_task(folder, "one", "a", "b")
    (folder / "settings.yaml").write_text(SETTINGS)

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=folder, env=outside_environment(home), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    for command, expected in LIFE:
        printed = run(environment.programs / "lifealign", *command.split())
        if expected not in printed:
            raise SystemExit(f"lifealign {command}: expected {expected!r} in\n{printed}")
        print(f"  lifealign {command}", flush=True)
    return set(json.loads(run(environment.programs / "python", "-c", FILES)))


if __name__ == "__main__":
    main(sys.argv[1:])
