"""Heads with bias, scale and soft cap: logits, log-probabilities and gradients against autograd on the formula."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lifealign.model import logps as module
from lifealign.model.head import OutputHead, output_head
from lifealign.model.logps import linear_logps


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": numbers(9, 11)},
    "scale": {"scale": 0.25},
    "soft cap": {"soft_cap": 1.5},
    "all of them": {"bias": numbers(9, 11), "scale": 3.0, "soft_cap": 2.0},
}


def by_hand(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, scale: float = 1, soft_cap: float = 0
) -> Tensor:
    logits = (hidden @ weight.T + (0 if bias is None else bias)) * scale
    return soft_cap * torch.tanh(logits / soft_cap) if soft_cap else logits


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("chunk", [2, 1024])
def test_log_probabilities_and_their_gradients_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], chunk: int
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    weight, targets, upstream = numbers(1, 11, 5), torch.tensor([0, 10, 3, 3, 7]), numbers(2, 5)
    found, expected = (numbers(3, 5, 5).requires_grad_() for _ in range(2))
    head = OutputHead(weight, **options)
    torch.testing.assert_close(head.logits(found), by_hand(expected, weight, **options))
    values = linear_logps(found, head, targets)
    plain = by_hand(expected, weight, **options).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(values, plain)
    (values * upstream).sum().backward()
    (plain * upstream).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_a_capped_logit_of_one_at_a_cap_of_one_is_its_hyperbolic_tangent() -> None:
    head = OutputHead(torch.ones(2, 1), scale=2.0, soft_cap=1.0)
    assert head.logits(torch.tensor([[0.5]]))[0].tolist() == pytest.approx(
        [0.76159, 0.76159], abs=1e-5
    )  # tanh(2 · 0.5)


def causal(module: Any, **settings: Any) -> Any:
    config = SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(**settings))
    return SimpleNamespace(get_output_embeddings=lambda: module, config=config)


def test_scale_and_cap_are_read_under_every_name_that_they_have() -> None:
    linear = torch.nn.Linear(3, 4, bias=False)
    assert output_head(causal(linear)) == OutputHead(linear.weight)
    assert output_head(causal(linear, logit_scale=0.0625)) == OutputHead(linear.weight, scale=0.0625)  # Cohere
    assert output_head(causal(linear, logits_scaling=8)) == OutputHead(linear.weight, scale=0.125)  # Granite
    assert output_head(causal(linear, final_logit_softcapping=30.0)) == OutputHead(
        linear.weight, soft_cap=30.0
    )  # Gemma 2
    assert output_head(causal(linear, final_logit_softcapping=None)) == OutputHead(linear.weight)
    assert output_head(causal(None)) is None
    assert output_head(causal(torch.nn.Sequential(linear))) is None
