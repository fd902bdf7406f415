"""Does the gate refuse what harms and accept what does not? Many commits on one life, harmless and harmful by design.

    python -m experiments.gate_proof OUT --commits 20

A life learns *brief*. Then, each from a copy of it, it learns one more task on 40 pairs of its own:

benign       *greet*, taught by answers that are brief as well
contradicts  the pairs of *brief* with chosen and rejected exchanged
flipped      as benign, with a third of the pairs exchanged
fast         *greet*, two in five of whose answers are brief, at five times the learning rates

The gate only watches (``warn``), so that what was truly lost can be measured after the step on 96 held-out prompts that
neither training nor the gate has seen. A line is written for each commit; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifealign.data.clean import read_clean
from lifealign.data.pair import Pair
from lifealign.data.suites.support_desk import load_suite
from lifealign.data.task import Task
from lifealign.evaluation.retention import promise
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.life import Life

KINDS = ("benign", "contradicts", "benign", "flipped", "benign", "fast")
"""In turn: half of the commits are benign."""
TRAINED, PAIRS, GATE = 80, 40, 120
SFT_RATE, PREFERENCE_RATE, FASTER = 4e-3, 2e-4, 5
STAGE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}


def main(arguments: Sequence[str]) -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.gate_proof")
    parser.add_argument("out", type=Path)
    parser.add_argument("--commits", type=int, default=20)
    parser.add_argument("--max-loss", type=float, default=0.1)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    data = {name: _rows(given.out / name, share) for name, share in (("plain", None), ("both", "1"))}
    rows = given.out / "commits.jsonl"
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    life = _taught(given.out / "life", data["both"]["brief"], given.max_loss)
    for number in range(len(done), given.commits):
        found = _commit(life, given.out / "copy", number, data)
        done.append(found)
        with rows.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
    print(table(done, given.max_loss))


def _rows(folder: Path, chosen_share: str | None) -> dict[str, tuple[Pair, ...]]:
    """200 pairs of both rules; with a share, chosen answers keep both."""
    if not folder.exists():
        more = [] if chosen_share is None else ["--chosen-share", chosen_share]
        command = [sys.executable, "-m", "experiments.support_desk.generate", "--rules", "brief", "greet", "--pairs"]
        subprocess.run([*command, "200", *more, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return {rule: read_clean(folder / rule / "train.jsonl").pairs for rule in ("brief", "greet")}


def _taught(path: Path, pairs: Sequence[Pair], max_loss: float) -> Life:
    """A life that has learnt *brief*, with 120 gate prompts and 96 held-out ones."""
    life = Life.open(path) if (path / "life.json").exists() else _made(path, max_loss)
    (brief, *_), (dev, *_) = load_suite(), load_suite(held_out="dev")
    test = (*dev.test, *brief.test)
    assert not {pair.prompt for pair in test} & {pair.prompt for pair in pairs}
    life.learn(Task("brief", tuple(pairs[:TRAINED]), test, brief.check, gate=tuple(pairs[TRAINED : TRAINED + GATE])))
    return life


def _made(path: Path, max_loss: float, rate: float = 1.0) -> Life:
    return Life.create(
        path,
        model="smollm2-135m",
        method="er",
        seed=1,
        sft=STAGE | {"learning_rate": rate * SFT_RATE, "num_train_epochs": 2},
        preference=STAGE | {"learning_rate": rate * PREFERENCE_RATE, "num_train_epochs": 1},
        data={"max_length": 256, "max_tokens_per_batch": 2048},
        evaluation={"metrics": ["adherence"], "per_device_eval_batch_size": 48, "max_new_tokens": 80},
        retention={"mode": "warn", "max_loss": max_loss, "set_aside": 0.0},
    )


def _commit(life: Life, copy: Path, number: int, data: dict[str, dict[str, tuple[Pair, ...]]]) -> dict[str, Any]:
    """Learns one more task in a copy of the life."""
    kind, draw = KINDS[number % len(KINDS)], random.Random(number)
    pairs = data["plain" if kind == "fast" else "both"]["brief" if kind == "contradicts" else "greet"]
    held = {pair.prompt for pair in data["both"]["brief"][TRAINED:]}
    chosen = draw.sample([pair for pair in pairs if pair.prompt not in held], PAIRS)
    exchanged = set(range(PAIRS) if kind == "contradicts" else range(0, PAIRS, 3) if kind == "flipped" else ())
    train = tuple(
        replace(pair, chosen=pair.rejected, rejected=pair.chosen) if place in exchanged else pair
        for place, pair in enumerate(chosen)
    )
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(life.directory.path, copy)
    if kind == "fast":
        opened = Life.open(copy)
        stages = {
            key: section.model_copy(update={"learning_rate": FASTER * section.learning_rate})
            for key, section in (("sft", opened.config.sft), ("preference", opened.config.preference))
        }
        opened.__dict__["config"] = opened.config.model_copy(update=stages)
    else:
        opened = Life.open(copy)
    version = opened.learn(Task("new", train))
    evidence = retention_of(opened.directory, version)
    assert evidence is not None
    loss = evidence.losses["brief"]
    row = opened.scores["adherence"].rows
    return {
        "number": number,
        "kind": kind,
        "accepted": loss.kept,
        "lost": len(loss.lost),
        "gained": len(loss.gained),
        "prompts": loss.prompts,
        "bound": round(loss.bound, 4),
        "held_out_before": round(row[0]["brief"], 4),
        "held_out_after": round(row[1]["brief"], 4),
        "trained": version.tasks[0].train_pairs,
    }


def table(commits: Sequence[dict[str, Any]], max_loss: float) -> str:
    """How often each kind was accepted, and what was truly lost.

    Example:
        >>> one = {"kind": "benign", "accepted": True, "held_out_before": 1.0, "held_out_after": 0.98}
        >>> print(table([one], 0.1).splitlines()[2])
        | benign | 1 | 1 | +2.0 to +2.0 | 0 | 0 |
    """
    lines = [
        "| kind | commits | accepted | loss on held-out prompts, points | accepted with more than allowed | refused "
        "with less |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(KINDS):
        rows = [commit for commit in commits if commit["kind"] == kind]
        if not rows:
            continue
        losses = [commit["held_out_before"] - commit["held_out_after"] for commit in rows]
        wrong = sum(loss > max_loss and commit["accepted"] for loss, commit in zip(losses, rows, strict=True))
        strict = sum(loss <= max_loss and not commit["accepted"] for loss, commit in zip(losses, rows, strict=True))
        spread = f"{100 * min(losses):+.1f} to {100 * max(losses):+.1f}"
        accepted = sum(commit["accepted"] for commit in rows)
        lines.append(f"| {kind} | {len(rows)} | {accepted} | {spread} | {wrong} | {strict} |")
    lines.append(f"\n{GATE} gate prompts; without a flip they show {100 * promise(GATE, 0.05 * 6 / 9.8696):.1f} %.")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
