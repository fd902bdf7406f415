"""One of two processes of a run: ``python -m tests.life.led FOLDER MODEL``. The leader writes what it found as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.conftest import small_config
from tests.life.test_progress import METHODS, ONE, STAGE, TWO, Death, Dies, committed, die
from torch.distributed.tensor import DTensor

from lifealign.life import processes
from lifealign.life.disk import names
from lifealign.life.life import Life
from lifealign.model.features import prompt_features
from lifealign.model.generate import generate_answers
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import tokenize_pairs

TRIED = [what for what in METHODS if what not in ("seqft", "stl", "stages", "preference")]
"""Those left out train as another one does."""
SETTINGS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "checkpointing": {stage: STAGE | {"gradient_checkpointing": True} for stage in ("sft", "preference")},
    "tokens": {"data": {"max_tokens_per_batch": 100}},
    "sharded": {"device": {"sharding": "base"}},
    "sharded, ewc": {"device": {"sharding": "base"}, "what": "ewc"},
    "sharded, checkpointing": {
        "device": {"sharding": "base"},
        **{stage: STAGE | {"gradient_checkpointing": True} for stage in ("sft", "preference")},
    },
}
"""Settings that decide how a pass is made, and by whom."""


def make(folder: Path, model: Path, name: str, what: str, **more: Any) -> Life:
    sections: dict[str, Any] = (
        {"method": what, "sft": STAGE, "preference": STAGE, "save_steps": 2} | METHODS[what] | more
    )
    if dtype := sections.pop("dtype", None):
        sections["model"] = {"dtype": dtype}
    return Life.create(folder / name, small_config(model, folder, **sections))


def alone(folder: Path, model: Path, what: str, **more: Any) -> Life:
    """A life that was lived by one process."""
    channel, processes._channel = processes._channel, None
    try:
        return lived(make(folder, model, f"{what}-alone", what, **more))
    finally:
        processes._channel = channel


def lived(life: Life) -> Life:
    for task in (ONE, TWO):
        life.learn(task)
    return life


def differences(one: Life, other: Life) -> dict[str, float]:
    """The largest difference of any factor, relative to its largest number, and of any loss."""
    factors, losses = [0.0], [0.0]
    for version in one.versions:
        name = "prompt_pool.safetensors" if one.config.method.key == "l2p" else "adapter_model.safetensors"
        ours, theirs = (load_file(life.directory.path / "versions" / version.name / name) for life in (one, other))
        assert ours.keys() == theirs.keys()
        for factor in ours:
            scale = ours[factor].abs().max().clamp_min(1e-12)
            factors.append(float((ours[factor] - theirs[factor]).abs().max() / scale))
    for version in one.steps:
        ours, theirs = (
            json.loads((life.directory.path / names.training_log(version.name)).read_text())["stages"]
            for life in (one, other)
        )
        for stage, rows in ours.items():
            losses += [abs(a["loss"] - b["loss"]) for a, b in zip(rows, theirs[stage], strict=True)]
    return {"factors": max(factors), "losses": max(losses), "steps": len(losses)}


def gradients(folder: Path, model: Path) -> dict[str, float]:
    """The gradient of one loss, as this process alone and as both have it; 1, 2, 3 and 10 pairs."""
    life = make(folder, model, "gradients", "seqft")
    life.learn(ONE)
    both = life.workspace.runtime
    pairs, _ = tokenize_pairs(both.tokenizer, [*ONE.train, *TWO.train], 1024)
    parameters = [parameter for parameter in both.model.parameters() if parameter.requires_grad]
    found = {}
    for number in (1, 2, 3, 10):
        slopes = torch.linspace(-1, 2, 2 * number)
        completions = ("chosen", "rejected")
        together = both.logps(both.shares(pairs[:number]), completions)
        single = both.policy(both.batch(pairs[:number], completions))
        ours, theirs = (
            torch.cat([part.flatten() for part in torch.autograd.grad(logps @ slopes, parameters)])
            for logps in (together, single)
        )
        found[f"logps of {number}"] = float((together - single).abs().max() / single.abs().max())
        found[f"gradient of {number}"] = float((ours - theirs).norm() / theirs.norm())
    return found


def held_together(folder: Path, model: Path) -> dict[str, Any]:
    """How much of a base this process holds if two hold it together, and whether it computes what a whole one does."""
    settings = {"lora": {"lora_dropout": 0.0}, "data": {"max_length": 64}}
    whole = make(folder, model, "whole-base", "seqft", **settings)
    both = make(folder, model, "held-together", "seqft", device={"sharding": "base"}, **settings)
    found: dict[str, int] = {}
    for name, parameter in both.workspace.runtime.model.named_parameters():
        kind = "layers" if ".layers." in name and "lora_" not in name else "rest"
        part = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        found[kind] = found.get(kind, 0) + parameter.numel()
        found[f"{kind} here"] = found.get(f"{kind} here", 0) + part.numel()

    def computed(runtime: Runtime) -> dict[str, Any]:
        pairs, _ = tokenize_pairs(runtime.tokenizer, ONE.test, 64)
        generator = torch.Generator().manual_seed(0)
        parameters = [one for one in runtime.model.parameters() if one.requires_grad]
        with torch.no_grad():
            for one in parameters:
                one.copy_(torch.randn(one.shape, generator=generator) * 0.1)
        logps = runtime.policy(runtime.batch(pairs, ("chosen",)))
        return {
            "scores": runtime.score(pairs, 2),
            "answers": generate_answers(runtime, [pair.prompt for pair in ONE.test], max_new_tokens=6, batch_size=2),
            "features": prompt_features(runtime, [pair.prompt for pair in pairs]).tolist(),
            "gradient": [part.tolist() for part in torch.autograd.grad(logps.sum(), parameters)],
        }

    ours = computed(both.workspace.runtime)
    channel, processes._channel = processes._channel, None
    try:
        theirs = computed(whole.workspace.runtime)
    finally:
        processes._channel = channel
    return found | {"alike": {what: ours[what] == theirs[what] for what in ours}}


def resumed(folder: Path, model: Path, **more: Any) -> dict[str, bool]:
    """Whether a life that dies and goes on is the one that does not, both lived by two processes."""
    whole = lived(make(folder, model, "whole", "er", **more))
    life = make(folder, model, "dies", "er", **more)
    life.learn(ONE)
    for after in (3, 2):
        try:
            Life.open(life.directory.path).learn(TWO, Dies(after, die))
        except Death:
            continue
        raise AssertionError("it did not die")
    again = Life.open(life.directory.path)
    again.learn(TWO)
    return {"equal": committed(again) == committed(whole)}


def main(folder: Path, model: Path) -> None:
    found: dict[str, Any] = {"gradients": gradients(folder, model)}
    for what in TRIED:
        more = {"lora": {"lora_dropout": 0.0}}
        life = lived(make(folder, model, f"{what}-led", what, **more))
        assert life.workspace.runtime.ranks is not None
        passes = life.workspace.runtime.ranks._passes
        found[what] = differences(alone(folder, model, what, **more), life) | {"passes": passes}
    for label, given in SETTINGS.items():
        settings = dict(given)
        below = folder / label
        below.mkdir()
        what = str(settings.pop("what", "seqft"))
        life = lived(make(below, model, "led", what, **settings))
        by_one = alone(below, model, what, **settings)
        found[label] = differences(by_one, life)
        if label == "bfloat16":
            found["rounding"] = differences(alone(folder, model, "seqft"), by_one)
    found["held together"] = held_together(folder, model)
    found["resumed"] = resumed(folder, model, lora={"lora_dropout": 0.0})
    (folder / "whole").rename(folder / "whole-before")
    (folder / "dies").rename(folder / "dies-before")
    found["resumed with dropout"] = resumed(folder, model, lora={"lora_dropout": 0.3})
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if int(os.environ["RANK"]):
        processes.follow_the_leader()
    else:
        with processes.leading():
            main(Path(sys.argv[1]), Path(sys.argv[2]))
