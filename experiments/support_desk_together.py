"""Can one model keep all four house rules at once? If not, the suite could not tell forgetting from impossibility.

    python experiments/support_desk_together.py OUTPUT_DIR RESULT.json

Same base model, adapter and rates as the demo, but one task: those training rows of all four tasks whose chosen answer
happens to keep every rule. The held-out prompts are the demo's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from lifealign import Life, Task
from lifealign.cli.demo import demo_experiment
from lifealign.data.suites.support_desk import RULES, load_suite
from lifealign.experiments.result_file import HASH, content_hash
from lifealign.life.settings import LifeConfig
from lifealign.report.progress import Progress
from lifealign.storage.files import write_json


def main(output_dir: str, result: str) -> None:
    """Trains on the rows that keep every rule, and scores every rule."""
    suite = load_suite()
    rows = [pair for task in suite for pair in task.train if all(rule.check.holds(pair.chosen) for rule in RULES)]
    experiment = demo_experiment("seqft", Path(output_dir), seed=42, full=True)
    settings = {name: getattr(experiment, name) for name in LifeConfig.model_fields}
    settings["sft"] = experiment.sft.model_copy(update={"num_train_epochs": 4})
    life = Life.create(output_dir, LifeConfig(**settings))
    with Progress(Console()) as progress:
        version = life.learn(Task("together", tuple(rows), suite[0].test, RULES[0].check), progress)
    answers = [row["answer"] for row in life.directory.rows(f"tasks/{version.name}/answers.jsonl")]
    kept = {rule.name: sum(rule.check.holds(answer) for answer in answers) / len(answers) for rule in RULES}
    all_kept = sum(all(rule.check.holds(answer) for rule in RULES) for answer in answers) / len(answers)
    found = {"training_rows": len(rows), "prompts": len(answers), "adherence": kept, "all_four_at_once": all_kept}
    write_json(result, found | {HASH: content_hash(found)})
    print(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
