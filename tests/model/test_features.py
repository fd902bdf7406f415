"""Features of answers: the frozen base's middle layer, averaged, whatever the layout and the adapter."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import LAYOUTS, pair

from lifealign.model.batch import Layout
from lifealign.model.features import answer_features
from lifealign.model.tokens import TokenizedPair, tokenize_pair


@pytest.fixture
def pairs(tokenizer) -> list[TokenizedPair]:
    raw = [pair("a longer question", "a", "worse"), pair("one", "good", "bad one"), pair("x", "yes " * 5, "no")]
    return [tokenize_pair(tokenizer, one, 512) for one in raw]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_the_mean_of_the_middle_layer_where_the_answer_is_predicted(
    make_runtime, pairs, layout: Layout
) -> None:
    runtime = make_runtime(layout)
    found = answer_features(runtime, pairs, batch_size=2)
    for name, features in zip(("chosen", "rejected"), found, strict=True):
        for one, row in zip(pairs, features, strict=True):
            answer = getattr(one, name)
            ids = torch.tensor([[*one.prompt, *answer]])
            with torch.no_grad(), runtime.base_policy():
                states = runtime.model.get_base_model().model(input_ids=ids, output_hidden_states=True).hidden_states
            assert len(states) == 3  # the embedding and two layers
            expected = states[1][0, len(one.prompt) - 1 : len(one.prompt) + len(answer) - 1].mean(dim=0)
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_the_adapter_plays_no_part_and_is_as_before(make_runtime, pairs) -> None:
    one, other = make_runtime(seed=1), make_runtime(seed=2)
    scores = one.score(pairs, 2)
    assert torch.equal(answer_features(one, pairs)[0], answer_features(other, pairs)[0])
    assert one.score(pairs, 2) == scores != other.score(pairs, 2)
    assert any(parameter.requires_grad for parameter in one.model.parameters())


def test_one_completion_alone_has_the_features_that_it_has_beside_the_other(make_runtime, pairs) -> None:
    runtime = make_runtime()
    (alone,) = answer_features(runtime, pairs, ("chosen",))
    torch.testing.assert_close(alone, answer_features(runtime, pairs)[0], rtol=1e-4, atol=1e-5)
    assert alone.shape == (3, runtime.model.config.hidden_size)
