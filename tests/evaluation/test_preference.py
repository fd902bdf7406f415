"""Held-out margins: policy minus reference, chosen minus rejected, times beta."""

from collections.abc import Callable

import pytest
import torch

from lifealign.errors import TrainingError
from lifealign.evaluation.preference import held_out_margins, preference_outcomes
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair

PAIRS = [TokenizedPair(f"key-{n}", f"f:{n}", (256, 5, 6), (10 + n, 20), (30, 40 + n, 50)) for n in range(5)]


def token_logps(runtime: Runtime, prompt: tuple[int, ...], completion: tuple[int, ...]) -> float:
    """The log-probability of a completion, token by token, from the model's own logits."""
    with torch.no_grad():
        logits = runtime.model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].double()
    logps = logits.log_softmax(-1)
    return sum(float(logps[len(prompt) - 1 + n, token]) for n, token in enumerate(completion))


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_margins_are_those_of_the_definition_for_any_batch_size(
    make_runtime: Callable[..., Runtime], batch_size: int
) -> None:
    runtime = make_runtime()
    reference = {pair.key: (-1.0 * n, -2.0) for n, pair in enumerate(PAIRS)}
    found = held_out_margins(runtime, PAIRS, reference, beta=0.5, batch_size=batch_size)
    for n, (pair, margin) in enumerate(zip(PAIRS, found, strict=True)):
        chosen = token_logps(runtime, pair.prompt, pair.chosen) - (-1.0 * n)
        rejected = token_logps(runtime, pair.prompt, pair.rejected) - (-2.0)
        assert margin == pytest.approx(0.5 * (chosen - rejected), abs=1e-4)


def test_no_pairs_have_no_margins(make_runtime: Callable[..., Runtime]) -> None:
    assert held_out_margins(make_runtime(), [], {}, beta=0.1, batch_size=4) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_margin_that_is_no_number_is_an_error_and_not_a_score(
    make_runtime: Callable[..., Runtime], bad: float
) -> None:
    reference = {pair.key: (bad if n == 3 else 0.0, 0.0) for n, pair in enumerate(PAIRS)}
    with pytest.raises(TrainingError, match="stage 'evaluation': a margin on held-out pairs is not finite"):
        held_out_margins(make_runtime(), PAIRS, reference, beta=0.1, batch_size=4)


def test_accuracy_counts_positive_margins_and_half_of_the_zeros() -> None:
    margins = [2.0, 1e-9, -1.0, 0.0]
    assert preference_outcomes(margins) == {"preference_accuracy": [1.0, 1.0, 0.0, 0.5], "margin": margins}
    assert preference_outcomes([0.0] * 7) == {"preference_accuracy": [0.5] * 7, "margin": [0.0] * 7}
    assert preference_outcomes([-0.0])["preference_accuracy"] == [0.5]
    assert preference_outcomes([]) == {"preference_accuracy": [], "margin": []}
