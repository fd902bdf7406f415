"""The demo: one stream of house rules, learnt with and without LifeAlign, and which rules each model still keeps."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lifealign.data.suites.support_desk import RULES
from lifealign.evaluation.metrics import METRICS
from lifealign.experiments.run import run_experiment
from lifealign.experiments.settings import ExperimentConfig, load_experiment
from lifealign.experiments.tasks import order_of
from lifealign.life.disk import names
from lifealign.life.life import Life
from lifealign.model.base_model import load_base
from lifealign.report.page.life_page import life_page
from lifealign.report.printing import one_line, plain, say, show
from lifealign.report.progress import Progress
from lifealign.report.terminal import LEGEND, answers_table, comparison_table, matrix_table
from lifealign.storage.files import write_text

RECIPE = Path(__file__).with_name("demo.yaml")
"""The settings of the whole demo; ``lifealign run`` takes the same file."""
QUICK = {
    "order": ["brief", "greet", "escalate"],
    "suite_pairs": 24,
    "suite_test_pairs": 16,
    "sft.per_device_train_batch_size": 2,
    "preference.per_device_train_batch_size": 2,
    "preference.num_train_epochs": 1,
    "preference.skip_mastered": 0.01,
    "evaluation.metrics": ["adherence"],
}
"""What a short demo changes: three rules, fewer pairs and prompts, only rules kept as a score, mastered pairs skipped.
As many optimizer steps of SFT as pairs, because they are few; chosen on the suite's dev pairs (docs/log.md)."""
SHOWN_ANSWERS = 3


def run_demo(console: Console, out: Path, *, full: bool, seed: int) -> dict[str, Life]:
    """Runs the demo, prints its results and writes a page per life; finished parts are not run again.

    Args:
        console: Where to print.
        out: Folder for one life per method; those of a full demo are in its subfolder ``full``.
        full: Teach all four rules, with more pairs, and run experience replay alone as well.
        seed: Root seed of every life.

    Returns:
        The lives, by the method's display name.
    """
    methods = ("seqft", "er", "lifealign") if full else ("seqft", "lifealign")
    experiments = [demo_experiment(method, out, seed, full=full) for method in methods]
    taught = order_of(experiments[0])
    say(console, "A help desk teaches its model one rule after another, on the same messages:", style="bold")
    for number, rule in enumerate([rule for rule in RULES if rule.name in taught], start=1):
        say(console, f"  {number}. {rule.name:<13} {rule.sentence}")
    base = load_base(experiments[0].model)  # once for all lives
    lives: dict[str, Life] = {}
    for experiment in experiments:
        title = experiment.method.title
        say(console, "", Text.assemble(plain(title, "bold"), plain(one_line(f", into {experiment.output_dir}"))))
        with Progress(console) as progress:
            lives[title] = run_experiment(experiment, progress, base=base)
    _show(console, lives)
    for title, life in lives.items():
        page = life.directory.path / names.PAGE
        write_text(page, life_page(life))
        say(console, f"{f'{title} as a page:':<20} {page}")
    return lives


def demo_experiment(method: str, out: Path, seed: int, *, full: bool) -> ExperimentConfig:
    """The demo's experiment for one method."""
    folder = out / "full" / method if full else out / method
    changed = {} if full else QUICK
    settings = {"method": method, "output_dir": str(folder), "seed": seed} | changed
    return load_experiment(RECIPE, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def _show(console: Console, lives: Mapping[str, Life]) -> None:
    console.rule("which rules each model keeps after each step")
    for title, life in lives.items():
        say(console, "", plain(title, "bold"))
        show(console, matrix_table(life.scores["adherence"], [version.name for version in life.steps]))
    console.rule("after the last rule")
    measured = next(iter(lives.values())).scores
    for metric in (metric for metric in ("adherence", "preference_accuracy") if metric in measured):
        say(console, "", plain(METRICS[metric].label, "bold"))
        show(console, comparison_table({title: life.scores[metric] for title, life in lives.items()}))
    say(console, LEGEND, style="dim")
    console.rule("the same customer, answered after the last rule")
    answers = {title: _last_answers(life) for title, life in lives.items()}
    for prompt in _spaced(answers):
        say(console, "", plain(f"“{prompt}”", "italic"))
        show(console, answers_table({title: given[prompt] for title, given in answers.items()}))
    life = lives["LifeAlign"]
    adapter = life.directory.path / names.version_folder(life.versions[-1].name)
    say(console, f"the aligned adapter: {adapter}")
    command = sys.argv[0] if Path(sys.argv[0]).name == "lifealign" else "lifealign"  # as it was called this time
    say(console, f"look closer:         {command} status {life.directory.path}")


def _last_answers(life: Life) -> dict[str, tuple[str, dict[str, bool]]]:
    """Answers of the last version by prompt text, and whether each keeps each rule."""
    rows: list[dict[str, Any]] = life.directory.rows(names.answers(life.steps[-1].name))
    return {
        row["prompt"][-1]["content"]: (
            row["answer"],
            {rule.name: row["holds"][rule.name] for rule in RULES if rule.name in row["holds"]},
        )
        for row in rows
    }


def _spaced(answers: Mapping[str, Mapping[str, tuple[str, Mapping[str, bool]]]]) -> list[str]:
    """Evenly spaced prompts of the suite, so that they are not picked by what the answers say."""
    prompts = list(next(iter(answers.values())))
    stride = max(1, len(prompts) // SHOWN_ANSWERS)
    return prompts[::stride][:SHOWN_ANSWERS]
