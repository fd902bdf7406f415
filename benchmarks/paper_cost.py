"""What a stream of the paper's size takes, by arithmetic: ``python -m benchmarks.paper_cost DATA``.

Tokens are counted on the real rows of DATA (with the embedded model's tokenizer) and scaled to the paper's six tasks;
operations are those of ``peak``: frozen weights take no gradient, the reference is computed once. The last line says
what share of its machine's peak the run in ``results/benchmarks`` reached by the same arithmetic.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peak import step_flops
from benchmarks.rows import SETS, rows_of

from lifealign.model.base_model import load_tokenizer
from lifealign.model.settings import ModelConfig
from lifealign.model.tokens import tokenize_pairs

TASKS, PAIRS, REPLAYED = 6, 3000, 0.2
"""Paper: six tasks; the released code's files have 3,000 pairs each; a fifth of every earlier task is replayed."""
SFT_EPOCHS, PREFERENCE_EPOCHS = 3, 3
"""Released code."""
H100_PEAK, H100_BYTES = 989e12, 80e9
"""NVIDIA's data sheet: dense bfloat16 operations a second, and bytes of memory."""
SHARE = 0.4
"""Of the peak, reached by common trainers of this size; ours was never run on a GPU, so this is an assumption."""
DOLLARS_AN_HOUR = 3.0
"""What one H100 is rented for, about; an assumption too."""


@dataclass(frozen=True)
class Model:
    """Weights in the frozen linear layers, in the head, and in all; bytes of an adapter."""

    name: str
    layers: float
    head: float
    weights: float
    adapter: float


MODELS = (
    Model("SmolLM2-135M", 106.2e6, 28.3e6, 134.5e6, 1.84e6),
    Model("Qwen2.5-7B", 6.525e9, 0.545e9, 7.616e9, 10.1e6),
)


def tokens(data: Path, pairs: int) -> tuple[list[int], list[int], list[int]]:
    """Prompt, chosen and rejected tokens of some pairs of every real set."""
    tokenizer = load_tokenizer(ModelConfig().model_name_or_path)
    found = [
        pair for name in SETS for pair in tokenize_pairs(tokenizer, rows_of(name, data, pairs), max_length=1024)[0]
    ]
    return [len(one.prompt) for one in found], [len(one.chosen) for one in found], [len(one.rejected) for one in found]


def operations(model: Model, counted: tuple[list[int], list[int], list[int]], trained: float) -> float:
    """Of a whole stream: SFT on the chosen answers, the reference once, and the preference stage."""
    prompts, chosen, rejected = counted
    both = [one + other for one, other in zip(chosen, rejected, strict=True)]
    scale = trained / len(prompts)
    sft = step_flops(int(model.layers), int(model.head), prompts, chosen, 1) / 3 * 2 * SFT_EPOCHS  # no reference
    preference = step_flops(int(model.layers), int(model.head), prompts, both, PREFERENCE_EPOCHS)
    return scale * (sft + preference)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_cost", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    options = parser.parse_args()
    counted = tokens(options.data, options.pairs)
    mean = [sum(part) / len(part) for part in counted]
    trained = sum(PAIRS * (1 + REPLAYED * earlier) for earlier in range(TASKS))
    print(f"tokens of a pair, of {len(counted[0])}: prompt {mean[0]:.0f}, chosen {mean[1]:.0f}, rejected {mean[2]:.0f}")
    print(f"pairs trained on, replayed ones included: {trained:,.0f} in {TASKS} tasks of {PAIRS:,}")
    for model in MODELS:
        needed = operations(model, counted, trained)
        hours = needed / (SHARE * H100_PEAK) / 3600
        print(
            f"{model.name}: {needed:.2e} operations; {hours:.2f} hours of one H100 at {SHARE:.0%} of its peak, "
            f"{hours / 8:.2f} of eight; {DOLLARS_AN_HOUR * hours:.2f} dollars; weights "
            f"{2 * model.weights / 1e9:.1f} GB in bfloat16, an adapter and each remembered update "
            f"{model.adapter / 1e6:.1f} MB"
        )
    measured = json.loads(Path("results/benchmarks/preference.json").read_text())
    case, run = next(iter(measured["preference"].items()))
    peak = json.loads(Path("results/benchmarks/peak.json").read_text())["peak"][case]
    best = max(peak["rounds"], key=lambda one: one["step_gflops"] / one["peak_gflops"])
    print(
        f"measured, {case}, {measured['machine']['processor']}: {run['pairs_per_second']['ours']:.2f} pairs a second; "
        f"by the same arithmetic {best['step_gflops']:.0f} of {best['peak_gflops']:.0f} GFLOP/s, "
        f"{best['step_gflops'] / best['peak_gflops']:.0%} of the peak"
    )


if __name__ == "__main__":
    main()
