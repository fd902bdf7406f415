"""Log-probabilities against the plain way to compute them: full logits, log-softmax, gather."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import LAYOUTS, pair
from torch import Tensor

from lifealign.model import logps as module
from lifealign.model.batch import Layout
from lifealign.model.head import OutputHead
from lifealign.model.logps import linear_logps
from lifealign.model.tokens import TokenizedPair, tokenize_pair


@pytest.fixture
def pairs(tokenizer) -> list[TokenizedPair]:
    raw = [pair("one", "good", "bad one"), pair("a longer question", "a", "worse"), pair("x", "yes " * 5, "no")]
    return [tokenize_pair(tokenizer, one, 512) for one in raw]


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 3, 7, 1024])  # 7 tokens: cut unevenly, exactly, and not at all
def test_linear_logps_are_log_softmax_and_gather_in_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    weight, targets, upstream = numbers(1, 11, 5), torch.tensor([0, 10, 3, 3, 7, 1, 2]), numbers(2, 7)
    found, expected = (numbers(3, 7, 5).requires_grad_() for _ in range(2))
    values = linear_logps(found, OutputHead(weight), targets)
    torch.testing.assert_close(values, plain(expected, weight, targets))
    (values * upstream).sum().backward()
    (plain(expected, weight, targets) * upstream).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-6)


def test_no_tokens_have_no_logps_and_no_gradient_is_kept_where_none_is_wanted() -> None:
    assert linear_logps(numbers(0, 0, 5), OutputHead(numbers(1, 11, 5)), torch.empty(0, dtype=torch.long)).shape == (0,)
    assert not linear_logps(numbers(0, 2, 5), OutputHead(numbers(1, 11, 5)), torch.tensor([1, 2])).requires_grad


def test_extreme_logits_stay_finite() -> None:
    hidden = (1e4 * numbers(3, 4, 5)).requires_grad_()
    values = linear_logps(hidden, OutputHead(numbers(1, 11, 5)), torch.tensor([0, 1, 2, 3]))
    values.sum().backward()
    assert hidden.grad is not None
    assert torch.isfinite(values).all()
    assert torch.isfinite(hidden.grad).all()


def test_a_bfloat16_head_gives_float32_logps_near_those_of_float32() -> None:
    hidden, weight, targets = numbers(1, 6, 32), numbers(2, 50, 32) / 6, torch.arange(6)
    values = linear_logps(hidden.bfloat16(), OutputHead(weight.bfloat16()), targets)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, plain(hidden, weight, targets), atol=0.05, rtol=0.02)


def test_a_head_that_trains_is_refused() -> None:
    with pytest.raises(ValueError, match="found an output head that requires gradient, expected it frozen"):
        linear_logps(numbers(0, 2, 5), OutputHead(numbers(1, 11, 5).requires_grad_()), torch.tensor([1, 2]))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_completion_logps_are_those_of_the_models_own_logits(
    make_runtime, pairs: list[TokenizedPair], layout: Layout, attention: str
) -> None:
    runtime = make_runtime(layout, attention)
    expected = []
    with torch.no_grad():
        for name in ("chosen", "rejected"):
            for one in pairs:  # alone, unpadded, through the model's own forward
                ids, answer = [*one.prompt, *getattr(one, name)], getattr(one, name)
                logits = runtime.model(input_ids=torch.tensor([ids])).logits[0, len(one.prompt) - 1 : -1]
                expected.append(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())
        found = runtime.policy(runtime.batch(pairs, ("chosen", "rejected")))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_layout_changes_logps_or_gradients(make_runtime, pairs: list[TokenizedPair], attention: str) -> None:
    upstream = numbers(4, 2 * len(pairs))
    results = []
    for layout in LAYOUTS:
        runtime = make_runtime(layout, attention)
        logps = runtime.policy(runtime.batch(pairs, ("chosen", "rejected")))
        (logps * upstream).sum().backward()
        results.append((logps, {name: p.grad for name, p in runtime.model.named_parameters() if p.requires_grad}))
    (alone, gradients), *others = results
    assert len(gradients) == 8
    for logps, found in others:
        torch.testing.assert_close(logps, alone, rtol=1e-4, atol=0)
        for name, gradient in gradients.items():
            assert gradient.norm() > 0
            assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_completion_positions_get_logits(
    monkeypatch: pytest.MonkeyPatch, make_runtime, pairs: list[TokenizedPair], layout: Layout
) -> None:
    runtime = make_runtime(layout)
    rows: list[int] = []

    def spy(hidden: Tensor, head: OutputHead, targets: Tensor) -> Tensor:
        rows.append(len(hidden))
        return linear_logps(hidden, head, targets)

    def refuse(*_: object) -> None:
        raise AssertionError("the output head was asked for logits of every position")

    monkeypatch.setattr(module, "linear_logps", spy)
    runtime.model.get_base_model().lm_head.register_forward_hook(refuse)
    runtime.policy(runtime.batch(pairs, ("chosen", "rejected")))
    assert rows == [sum(len(one.chosen) + len(one.rejected) for one in pairs)]


def test_a_disabled_adapter_is_the_base_model(make_runtime, pairs: list[TokenizedPair]) -> None:
    trained, new = make_runtime(seed=0), make_runtime(seed=None)  # a new adapter has lora_B at zero
    with trained.model.disable_adapter():
        base = trained.score(pairs, 4)
    assert base == new.score(pairs, 4)
    assert base != trained.score(pairs, 4)
