"""How well a rule's pattern tells which answers to other rules' prompts keep the rule.

::

    python -m experiments.pattern_accuracy [PAIRS ...]

Each pattern is fitted to the first PAIRS training pairs of its rule in the support desk (24, 40 and 160 by default),
and rates the chosen answers of the other three rules' 160 pairs. Printed: the area under the curve, which is how often
an answer that keeps the rule is rated above one that does not.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from lifealign.data.suites.support_desk import PAIRS, load_suite
from lifealign.memory.pattern import learn_pattern
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import load_base
from lifealign.model.features import answer_features
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.tokens import tokenize_pairs


def area_under_curve(ratings: Tensor, holds: Tensor) -> float:
    """Share of pairs of one that holds and one that does not in which the first is rated higher; ties count half."""
    right, wrong = ratings[holds][:, None], ratings[~holds][None]
    return float(((right > wrong).double() + (right == wrong).double() / 2).mean())


def main(numbers: list[int]) -> None:
    """Prints a line per number of pairs."""
    base = load_base(ModelConfig(dtype="bfloat16"))
    model = attach_lora(base, AdapterConfig(), 0)
    runtime = Runtime.prepare(model, base.tokenizer, base.proven(model, 256), max_tokens=2048)
    suite = load_suite(PAIRS["train"])
    features = {}
    for task in suite:
        pairs, _ = tokenize_pairs(base.tokenizer, task.train, 256)
        assert len(pairs) == len(task.train)
        features[task.name] = answer_features(runtime, pairs)
    for number in numbers:
        line = []
        for task in suite:
            assert task.check is not None
            pattern = learn_pattern(*(each[:number] for each in features[task.name]))
            others = [other for other in suite if other is not task]
            ratings = torch.cat([pattern.ratings(features[other.name][0]) for other in others])
            holds = torch.tensor([task.check.holds(pair.chosen) for other in others for pair in other.train])
            line.append(f"{task.name} {area_under_curve(ratings, holds):.3f} (own pairs {pattern.accuracy:.2f})")
        print(f"{number:>4} pairs  " + "  ".join(line), flush=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [24, 40, 160])
