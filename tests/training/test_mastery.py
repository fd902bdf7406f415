"""Mastered pairs: what counts as mastered, when a pair is looked at again, and what a step does without them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from tests.tiny import pair
from torch import Tensor

from lifealign.errors import ConfigError
from lifealign.life.settings import LifeConfig
from lifealign.memory.update import Adapter
from lifealign.methods.base import Method
from lifealign.methods.lifealign import LifeAlign
from lifealign.methods.seqft import SeqFT
from lifealign.model.adapter import read_adapter
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair, tokenize_pair
from lifealign.settings.section import build_config
from lifealign.training.mastery import Mastery, slopes
from lifealign.training.moments import StageContext
from lifealign.training.objectives import PreferenceObjective
from lifealign.training.settings import PreferenceConfig
from lifealign.training.stage import train_stage
from lifealign.training.stage_state import LogRow

BETA = 0.1
ONE = TokenizedPair("one", "", (1,), (2,), (3,))
TWO = TokenizedPair("two", "", (1,), (3,), (2,))
BOTH = PreferenceObjective(BETA, {"one": (-5.0, -7.0), "two": (-1.0, -2.0)})


def at_margins(pairs: Sequence[TokenizedPair], *margins: float) -> Tensor:
    """Log-probabilities at which pairs have these margins under :data:`BOTH`: the chosen answers are likelier."""
    chosen = [BOTH.reference[one.key][0] + margin / BETA for one, margin in zip(pairs, margins, strict=True)]
    return torch.tensor([*chosen, *(BOTH.reference[one.key][1] for one in pairs)])


@pytest.mark.parametrize(
    ("method", "margin", "slope"),
    [
        (SeqFT(), 0.0, 0.5),  # DPO: one minus sigma
        (SeqFT(), math.log(3), 0.25),
        (LifeAlign(), 0.0, 0.25 * (0.5 + math.log(2))),  # (1 - s)^2 ((1 - s) - 2 s log s) at s = 1/2
        (LifeAlign(), math.log(3), (0.25 - 1.5 * math.log(0.75)) / 16),  # s = 3/4
        (LifeAlign(focal_exponent=0.0), math.log(3), 0.25),  # DPO again
    ],
)
def test_a_slope_is_that_of_the_weighted_loss(method: Method, margin: float, slope: float) -> None:
    found = slopes(at_margins([ONE], margin), [ONE], BOTH, method)
    assert found.tolist() == pytest.approx([BETA * slope], rel=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize(("method", "threshold"), [(LifeAlign(), 2.19), (SeqFT(), 5.29)])
def test_one_per_cent_of_the_slope_is_where_the_docstring_says(method: Method, threshold: float) -> None:
    mastery = Mastery(BOTH, method, 0.01)
    pairs = [ONE, TWO]
    mastery.saw(pairs, at_margins(pairs, threshold - 0.02, threshold + 0.02))
    assert mastery.unmastered(pairs) == [ONE]
    assert mastery.margins(pairs) == pytest.approx([threshold - 0.02, threshold + 0.02], abs=1e-4)


def test_a_pair_that_is_far_from_learnt_is_not_mastered_though_its_slope_falls_again() -> None:
    mastery = Mastery(BOTH, LifeAlign(), 0.5)
    mastery.saw([ONE], at_margins([ONE], -30.0))  # FPO is steepest at -2.79 and falls towards DPO's slope of 1
    assert mastery.unmastered([ONE]) == [ONE]


def test_a_mastered_pair_is_looked_at_again_at_every_second_visit() -> None:
    mastery = Mastery(BOTH, LifeAlign(), 0.01)
    pairs = [ONE, TWO]
    assert mastery.unseen(pairs) == pairs  # first visit
    mastery.saw(pairs, at_margins(pairs, 9.0, 0.0))
    assert mastery.unmastered(pairs) == [TWO]
    assert mastery.unseen(pairs) == []  # second visit: ONE is left out unseen, TWO takes a step anyway
    assert mastery.unseen(pairs) == [ONE]  # third visit
    mastery.saw([ONE], at_margins([ONE], 0.0))  # it was forgotten meanwhile
    assert mastery.unmastered(pairs) == pairs


# -- in a stage ------------------------------------------------------------------------------------------------------


class Watched(LifeAlign):
    """LifeAlign that notes the gradient of every optimizer step."""

    def edit_gradients(self, context: StageContext) -> None:
        GRADIENTS.append({name: one.grad.clone() for name, one in context.parameters.items() if one.grad is not None})


GRADIENTS: list[Adapter] = []


@pytest.fixture(autouse=True)
def no_gradients() -> None:
    GRADIENTS.clear()


@pytest.fixture
def pairs(tokenizer) -> list[TokenizedPair]:
    raw = [pair("q" * number, "x" * (1 + number % 3), "y" * (2 + number % 2), f"{number}") for number in range(4)]
    return [tokenize_pair(tokenizer, one, 512) for one in raw]


def reference(runtime: Runtime, pairs: list[TokenizedPair], mastered: int) -> Mapping[str, tuple[float, float]]:
    """A reference at which the first pairs have a margin of 20 nats, and the others of 0."""
    scores = runtime.score(pairs, 16)
    return {
        one.key: (chosen - 20 / BETA, rejected) if number < mastered else (chosen, rejected)
        for number, (one, (chosen, rejected)) in enumerate(zip(pairs, scores, strict=True))
    }


def train(
    runtime: Runtime, pairs: list[TokenizedPair], mastered: int, share: float, epochs: int = 1, **changes: Any
) -> tuple[Adapter, list[LogRow]]:
    settings = PreferenceConfig(
        learning_rate=1e-3,
        num_train_epochs=epochs,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        warmup_ratio=0.0,
        skip_mastered=share,
        **changes,
    )
    objective = PreferenceObjective(BETA, reference(runtime, pairs, mastered))
    log = train_stage(runtime, pairs, objective, settings, Watched(), "letters", seed=1)
    return read_adapter(runtime.model), log


def test_skipping_changes_nothing_where_nothing_is_mastered(make_runtime, pairs: list[TokenizedPair]) -> None:
    plain, log = train(make_runtime(), pairs, 0, share=0.0, epochs=3)
    found, skipping_log = train(make_runtime(), pairs, 0, share=1e-6, epochs=3)
    assert all(torch.equal(found[name], factor) for name, factor in plain.items())
    assert [row | {"skipped": 0.0} for row in log] == [
        row | {"rewards/margins": pytest.approx(row["rewards/margins"])} for row in skipping_log
    ]


def test_a_batch_of_mastered_pairs_takes_no_step_and_every_second_epoch_no_forward_pass(
    make_runtime, pairs: list[TokenizedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime()
    before = read_adapter(runtime.model)
    passes: list[int] = []
    score = Runtime.score
    monkeypatch.setattr(Runtime, "score", lambda self, some, size: passes.append(len(some)) or score(self, some, size))
    after, log = train(runtime, pairs, 4, share=0.01, epochs=4)
    assert all(torch.equal(after[name], factor) for name, factor in before.items())
    assert [row["skipped"] for row in log] == [1.0] * 4
    assert [(row["loss"], row["grad_norm"]) for row in log] == [(0.0, 0.0)] * 4
    assert [row["rewards/margins"] for row in log] == pytest.approx([20.0] * 4, abs=1e-3)
    assert log[0]["learning_rate"] > log[-1]["learning_rate"]  # the schedule goes on
    assert GRADIENTS == []
    assert passes == [4, 4, 4]  # for the reference; then in the first and the third epoch
    assert all(parameter.grad is None for parameter in runtime.model.parameters())


def test_what_is_left_out_of_a_gradient_is_bounded_by_the_share(make_runtime, pairs: list[TokenizedPair]) -> None:
    """Half the pairs at 20 nats, whose slope is 0 in float32: the step is that of the others, over all four."""
    train(make_runtime(), pairs, 2, share=0.0)
    train(make_runtime(), pairs, 2, share=0.01)
    (whole,), (left,) = GRADIENTS[:1], GRADIENTS[1:]
    for name, gradient in whole.items():
        assert gradient.norm() > 0
        assert (left[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_pairs_just_under_the_share_change_the_gradient_by_no_more_than_was_promised(
    make_runtime, pairs: list[TokenizedPair]
) -> None:
    """All at 2.3 nats, where FPO has 0.8 % of its slope at 0: nothing is learnt, and little was to be had."""
    runtime = make_runtime()
    scores = {one.key: logps for one, logps in zip(pairs, runtime.score(pairs, 16), strict=True)}
    settings = {"learning_rate": 1e-3, "num_train_epochs": 1, "per_device_train_batch_size": 4}
    norms = []
    for shift, share in ((2.3 / BETA, 0.0), (0.0, 0.0), (2.3 / BETA, 0.01)):
        objective = PreferenceObjective(BETA, {key: (one - shift, two) for key, (one, two) in scores.items()})
        stage = PreferenceConfig(**settings, gradient_accumulation_steps=1, skip_mastered=share)
        train_stage(make_runtime(), pairs, objective, stage, Watched(), "letters", seed=1)
        norms.append(sum(float(one.square().sum()) for one in GRADIENTS[-1].values()) ** 0.5)
    left_out, at_zero = norms[:2]
    assert len(GRADIENTS) == 2  # the third took no step
    assert 0.007 * at_zero < left_out < 0.01 * at_zero


@pytest.mark.parametrize("method", ["ewc", "cppo", "olora"])
def test_a_penalty_is_not_skipped_in_silence(method: str) -> None:
    with pytest.raises(ConfigError, match="skip_mastered") as caught:
        build_config(LifeConfig, {"method": method, "preference": {"skip_mastered": 0.01}})
    assert f"because {method} has a penalty" in str(caught.value)
    assert build_config(LifeConfig, {"method": "gem", "preference": {"skip_mastered": 0.01}})
