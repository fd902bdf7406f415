"""All timings: ``python -m benchmarks [LEG ...]``. What each leg compares, and why it is fair: docs/performance.md.

Prints what is being timed, and writes ``results/benchmarks/LEG.json`` with every single timing, the machine, the
versions and the command line.
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.alternate import alternate, per_second, ratio, run_side
from benchmarks.rows import SETS, SUITE, rows_of
from benchmarks.sides import MAX_LENGTH, Spec

from benchmarks import answers, consolidation, layouts, life, peak, recalled, stream
from lifealign.model.auto_dtype import settled
from lifealign.model.base_model import load_base, load_tokenizer
from lifealign.model.machine import this_processor
from lifealign.model.settings import ModelConfig
from lifealign.model.tokens import tokenize_pairs

CASES = ("safe-rlhf:8:3", "safe-rlhf:4:1")
"""Data set, batch size and epochs of the legs that compare training, unless others are named."""


def spec_of(case: str, options: argparse.Namespace, work: str) -> Spec:
    """What a case stands for: ``safe-rlhf:8:3`` is that data set at batch 8 and three epochs.

    Raises:
        ValueError: If it is not in that form.
    """
    name, batch, epochs = case.split(":")
    if name not in (*SETS, SUITE):
        raise ValueError(f"case {case!r}: found data set {name!r}, expected one of {', '.join((*SETS, SUITE))}")
    return Spec(
        side="ours",
        work=work,
        model=options.model,
        dtype=options.dtype,
        data=str(options.data) if name != SUITE else "",
        name=name,
        pairs=options.pairs,
        batch=int(batch),
        epochs=int(epochs),
        threads=options.threads,
    )


def preference(options: argparse.Namespace) -> dict[str, Any]:
    """The preference stage, reference pass included, against TRL's DPOTrainer with its reference before and within."""
    return _against_trl(options, "preference", online=True)


def task(options: argparse.Namespace) -> dict[str, Any]:
    """A whole task, SFT and preference, against SFTTrainer and DPOTrainer."""
    return _against_trl(options, "task", online=False)


def _against_trl(options: argparse.Namespace, work: str, *, online: bool) -> dict[str, Any]:
    found = {}
    for case in options.cases:
        print(f"{work} {case}", flush=True)
        ours = spec_of(case, options, work)
        sides = {"ours": ours, "TRL, reference first": replace(ours, side="trl")}
        if online:
            sides["TRL, reference in every step"] = replace(ours, side="trl", precompute=False)
        runs = alternate(sides, options.rounds)
        ratios = {name: ratio(runs, "ours", name) for name in sides if name != "ours"}
        needed = operations(ours)
        memory = {name: max(run["peak_bytes"] for run in each) / 1e6 for name, each in runs.items()}
        found[case] = {
            "pairs_per_second": {name: per_second(each) for name, each in runs.items()},
            "times_as_fast": ratios,
            "peak_megabytes": memory,
            "operations": needed,
            "runs": runs,
        }
        print(f"  times as fast: {ratios}\n  peak MB: {memory}\n  operations: {needed}", flush=True)
    return found


def operations(spec: Spec) -> dict[str, float]:
    """Operations of the preference stage by formula: ours, and one row an answer with the reference in every step."""
    base = load_base(ModelConfig(model_name_or_path=spec.model, dtype=spec.dtype))
    weights, head = peak.linear_weights(base.model)
    raw = rows_of(spec.name, Path(spec.data) if spec.data else None, spec.pairs)
    pairs, _ = tokenize_pairs(base.tokenizer, raw, MAX_LENGTH)
    prompts = [len(pair.prompt) for pair in pairs]
    each = [
        (prompt + len(pair.chosen), prompt + len(pair.rejected)) for prompt, pair in zip(prompts, pairs, strict=True)
    ]
    completions = [sum(rows) - 2 * prompt for prompt, rows in zip(prompts, each, strict=True)]
    ours = peak.step_flops(weights, head, prompts, completions, spec.epochs)
    padded = peak.padded_flops(weights, head, each, spec.batch, spec.epochs)
    return {"ours": ours, "one row an answer": padded, "ratio": padded / ours}


def skipping(options: argparse.Namespace) -> dict[str, Any]:
    """The preference stage after SFT on the same pairs, where many are mastered: FPO, skipping and not, and TRL."""
    found = {}
    for case in [f"{SUITE}:{case.split(':', 1)[1]}" for case in options.cases]:
        print(f"skipping {case}", flush=True)
        plain = spec_of(case, options, "preference")
        with tempfile.TemporaryDirectory() as folder:
            learnt = f"{folder}/sft.safetensors"
            run_side(replace(plain, work="sft", batch=2, epochs=2, sft_rate=4e-3, keep=learnt))  # the demo's
            ours = replace(plain, start=learnt, focal=True)
            sides = {
                "ours, skipping": replace(ours, skip=0.01),
                "ours, every pair": ours,
                "TRL, reference first": replace(ours, side="trl"),
            }
            runs = alternate(sides, options.rounds)
        print(f"  skipped: {[run['skipped'] for run in runs['ours, skipping']]}", flush=True)
        ratios = {name: ratio(runs, "ours, skipping", name) for name in sides if name != "ours, skipping"}
        found[case] = {"times_as_fast": ratios, "runs": runs}
        print(f"  times as fast: {ratios}", flush=True)
    return found


def of_peak(options: argparse.Namespace) -> dict[str, Any]:
    """Share of the matrix-product peak that our preference step reaches."""
    torch.set_num_threads(options.threads)
    base = load_base(ModelConfig(model_name_or_path=options.model, dtype=options.dtype))
    weights, head = peak.linear_weights(base.model)
    found = {}
    for case in options.cases:
        spec = spec_of(case, options, "preference")
        raw = rows_of(spec.name, Path(spec.data) if spec.data else None, spec.pairs)
        pairs, _ = tokenize_pairs(base.tokenizer, raw, MAX_LENGTH)
        completions = [len(pair.chosen) + len(pair.rejected) for pair in pairs]
        needed = peak.step_flops(weights, head, [len(pair.prompt) for pair in pairs], completions, spec.epochs)
        dtype = getattr(torch, options.dtype)
        rounds = []
        for _ in range(options.rounds):
            best, run = peak.peak_flops(dtype), run_side(spec)
            rounds.append({"peak_gflops": best / 1e9, "step_gflops": needed / run["seconds"] / 1e9})
        found[case] = {"share": max(one["step_gflops"] / one["peak_gflops"] for one in rounds), "rounds": rounds}
        print(f"  {case}: {found[case]}", flush=True)
    return found


def layouts_of(options: argparse.Namespace) -> dict[str, Any]:
    """One pass over the same batches in every layout, in both dtypes."""
    name = options.cases[0].split(":")[0]
    raw = rows_of(name, options.data if name != SUITE else None, options.pairs)
    dtypes = ("bfloat16", "float32")
    return {dtype: layouts.measure(options.model, dtype, raw, options.threads) for dtype in dtypes}


def small_model(folder: Path) -> str:
    """A Llama of two layers, 32 wide, with the embedded model's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(ModelConfig().model_name_or_path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def long_stream(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds per task over sixty tasks."""
    with tempfile.TemporaryDirectory() as folder:
        return stream.measure(small_model(Path(folder)))


def thousand_tasks(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, memory, file handles and disk of a life of a thousand tasks; only if it is named."""
    return life.measure(options.methods, options.tasks, options.gated, options.threads)


LEGS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "layouts": layouts_of,
    "preference": preference,
    "task": task,
    "skipping": skipping,
    "consolidation": lambda options: consolidation.measure(),
    "peak": of_peak,
    "stream": long_stream,
    "life": thousand_tasks,
    "answers": lambda options: answers.measure(options.model, options.dtype, options.rounds),
    "recall": lambda options: recalled.measure(options.model, options.dtype),
}


ON_REQUEST = ("life",)
"""Legs that are not run unless they are named: they take as long as all others together."""


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What a number depends on."""
    libraries = ("torch", "transformers", "peft", "trl", "lifealign")
    return {
        "processor": str(this_processor()),
        "threads": options.threads,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in libraries},
        "dtype": options.dtype,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python -m benchmarks", *_without_places(sys.argv[1:])]),
    }


def _without_places(arguments: list[str]) -> list[str]:
    """Arguments without those that name folders of this machine."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument in ("--data", "--out"):
            skip = not skip
        else:
            kept.append(argument)
    return kept


def main() -> None:
    """Runs the legs that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"some of {', '.join(LEGS)}; all but life by default")
    parser.add_argument("--model", default=ModelConfig().model_name_or_path)
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the real data sets")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(CASES), help="SET:BATCH:EPOCHS,...")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tasks", type=int, default=1000, help="tasks of the leg life")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["lifealign"], help="of the leg life")
    parser.add_argument("--gated", type=int, default=100, help="tasks of its life with a gate; 0 for none")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    if unknown := set(options.legs) - set(LEGS):
        parser.error(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(LEGS)}")
    if not options.data.is_dir():
        options.cases = [f"{SUITE}:{case.split(':', 1)[1]}" for case in options.cases]
    options.dtype = settled(ModelConfig(dtype=options.dtype), torch.device("cpu")).dtype
    options.out.mkdir(parents=True, exist_ok=True)
    for leg in options.legs or [name for name in LEGS if name not in ON_REQUEST]:
        print(f"== {leg}: {(LEGS[leg].__doc__ or leg).strip()}", flush=True)
        found = {"machine": machine(options), "pairs": options.pairs, "rounds": options.rounds, leg: LEGS[leg](options)}
        (options.out / f"{leg}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
