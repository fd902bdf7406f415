"""L2P: a frozen model, and prompts that are picked by the question alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import LAYOUTS, letter_task, pair

from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.methods.l2p import L2P as L2PMethod
from lifealign.methods.seqft import SeqFT
from lifealign.model import generate
from lifealign.model.adapter import read_adapter, trainable_parameters, write_adapter
from lifealign.model.generate import generate_answers
from lifealign.model.prompt_pool import PromptPool, attach_pool, prompt_pool
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import prompt_ids, tokenize_pairs

STREAM = [letter_task("first", "x", "y"), letter_task("second", "y", "x")]
PAIRS = [
    pair("what?", "this", "that one there"),
    pair("a much longer question than the other", "no", "yes, of course"),
    pair("hm", "a", "b"),
]
L2P = {"name": "l2p", "pool_size": 4, "prompt_length": 2, "top_k": 2}


def with_pool(runtime: Runtime, top_k: int = 2, scale: float = 1.0) -> PromptPool:
    """A pool in which every prompt says something else, loudly enough to see."""
    pool = attach_pool(runtime.model, pool_size=4, prompt_length=2, top_k=top_k, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        pool.prompts.copy_(scale * torch.randn(pool.prompts.shape, generator=generator))
    return pool


def naive_embeddings(runtime: Runtime, pool: PromptPool, ids: list[int], prompt: tuple[int, ...]) -> torch.Tensor:
    """Virtual tokens and text, put together by hand for one sequence."""
    causal: Any = runtime.model.get_base_model()
    query = causal.base_model(input_ids=torch.tensor([prompt])).last_hidden_state[0].mean(dim=0)
    cosines = torch.nn.functional.cosine_similarity(query[None], pool.keys, dim=1)
    picked = sorted(cosines.topk(pool.top_k).indices.tolist())
    virtual = torch.cat([pool.prompts[2 * number : 2 * number + 2] for number in picked])
    return torch.cat((virtual, causal.get_input_embeddings()(torch.tensor(ids))))[None]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_log_probabilities_are_those_of_prompts_put_in_front_by_hand(make_runtime, layout, attention) -> None:
    runtime = make_runtime(layout=layout, attention=attention, seed=None)
    pool = with_pool(runtime)
    pairs, _ = tokenize_pairs(runtime.tokenizer, PAIRS, 128)
    found = runtime.policy(runtime.batch(pairs, ("chosen", "rejected"))).chunk(2)
    causal: Any = runtime.model.get_base_model()
    for number, one in enumerate(pairs):
        for logps, completion in zip(found, (one.chosen, one.rejected), strict=True):
            embedded = naive_embeddings(runtime, pool, [*one.prompt, *completion], one.prompt)
            logits = causal(inputs_embeds=embedded).logits[0].log_softmax(dim=-1)
            start = pool.tokens + len(one.prompt) - 1
            expected = sum(logits[start + place, token] for place, token in enumerate(completion))
            assert float(logps[number]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("leave", [False, True])
def test_answers_are_those_of_prompts_put_in_front_by_hand_and_keep_their_head(
    make_runtime, monkeypatch: pytest.MonkeyPatch, leave: bool
) -> None:
    proven = make_runtime(seed=None)
    runtime = Runtime.prepare(proven.model, proven.tokenizer, replace(proven.proof, rows_leave=leave))
    monkeypatch.setattr(generate, "LOOK_EVERY", 2)
    pool = with_pool(runtime, scale=3.0)
    prompts = [one.prompt for one in PAIRS]
    answers = generate_answers(runtime, prompts, max_new_tokens=6, batch_size=3)  # of different lengths: padded
    causal: Any = runtime.model.get_base_model()
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = prompt_ids(runtime.tokenizer, prompt)
        written: list[int] = []
        while len(written) < 6 and (not written or written[-1] != runtime.tokenizer.eos_token_id):
            with torch.no_grad():
                embedded = naive_embeddings(runtime, pool, [*ids, *written], tuple(ids))
                written.append(int(causal(inputs_embeds=embedded).logits[0, -1].argmax()))
        assert answer == runtime.tokenizer.decode(written, skip_special_tokens=True).strip()
    with runtime.base_policy():
        assert generate_answers(runtime, prompts, max_new_tokens=6, batch_size=3) != answers


def test_what_is_picked_does_not_depend_on_answers_or_neighbours(make_runtime) -> None:
    runtime = make_runtime(seed=None)
    with_pool(runtime)
    pairs, _ = tokenize_pairs(runtime.tokenizer, PAIRS, 128)
    other, _ = tokenize_pairs(runtime.tokenizer, [pair("what?", "something else", "or that"), PAIRS[1]], 128)
    pool = prompt_pool(runtime.model)
    assert pool is not None
    causal = runtime.model.get_base_model()
    asked = pool.queries(causal, [one.prompt for one in pairs])
    fresh = with_pool(runtime)  # nothing in its cache
    again = fresh.queries(causal, [one.prompt for one in reversed(other)])
    assert torch.equal(asked[:2], again.flip(0))


def test_the_model_is_frozen_and_the_pool_alone_is_trained(make_life) -> None:
    life = make_life(method=L2P)
    names = set(trainable_parameters(life.workspace.runtime.model))
    assert names == {"prompt_pool.prompts", "prompt_pool.keys"}
    frozen = {
        name: p.detach().clone()
        for name, p in life.workspace.runtime.model.named_parameters()
        if "prompt_pool" not in name
    }
    run_stream(life.workspace, STREAM)  # looks at the base in between, which in PEFT makes LoRA trainable
    assert set(trainable_parameters(life.workspace.runtime.model)) == names
    for name, parameter in life.workspace.runtime.model.named_parameters():
        assert "prompt_pool" in name or torch.equal(parameter, frozen[name]), name
    before, after = read_adapter_of(life.directory, "00-base"), read_adapter_of(life.directory)
    assert all(not torch.equal(before[name], after[name]) for name in names)


def test_the_reference_is_the_model_without_prompts_so_margins_are_not_zero(make_life) -> None:
    life = make_life(method=L2P)
    life.learn(STREAM[0])
    rows = life.directory.json("tasks/01-first/training.json")["stages"]["preference"]
    assert all(abs(row["rewards/margins"]) > 1e-3 for row in rows)
    assert all(abs(row["loss"] - row["penalty"] - math.log(2)) > 1e-3 for row in rows)
    assert abs(life.scores["margin"].last) > 1e-3
    pairs, _ = tokenize_pairs(life.workspace.runtime.tokenizer, STREAM[0].train, 128)
    reference = life.workspace.reference.logps(
        life.workspace.runtime, pairs, life.workspace.base_fingerprint, 4
    )  # as kept by the life
    plain = Life.create(life.directory.path.parent / "plain", life.config.model_copy(update={"method": SeqFT()}))
    with plain.workspace.runtime.base_policy():
        expected = plain.workspace.reference.logps(plain.workspace.runtime, pairs, plain.workspace.base_fingerprint, 4)
    for key, logps in expected.items():
        assert reference[key] == pytest.approx(logps, rel=1e-5)


def test_keys_are_pulled_to_the_questions_they_serve(make_life) -> None:
    def cosine(strength: float) -> float:
        stage = {"num_train_epochs": 15, "learning_rate": 5e-2}
        life = make_life(method=L2P | {"pull_strength": strength, "rate_factor": 1.0}, sft=stage)
        life.learn(STREAM[0])
        pool = prompt_pool(life.workspace.runtime.model)
        assert pool is not None
        prompts = [tuple(prompt_ids(life.workspace.runtime.tokenizer, one.prompt)) for one in STREAM[0].train]
        queries = pool.queries(life.workspace.runtime.model.get_base_model(), prompts)
        return float(pool.similarities(queries).topk(2, dim=-1).values.mean())

    assert cosine(0.5) > 0.6 > 0.4 > cosine(0.0)


def test_where_every_prompt_is_picked_keys_do_not_matter(make_runtime) -> None:
    runtime = make_runtime(seed=None)
    pool = with_pool(runtime, top_k=4)
    pairs, _ = tokenize_pairs(runtime.tokenizer, PAIRS, 128)
    batch = runtime.batch(pairs, ("chosen",))
    with torch.no_grad():
        before = runtime.policy(batch)
        pool.keys.normal_()
        assert torch.equal(runtime.policy(batch), before)  # prompt tuning, the limit of L2P


def test_a_version_is_a_pool_without_pickle_and_nothing_that_looks_like_a_peft_adapter(make_life) -> None:
    life = make_life(method=L2P)
    run_stream(life.workspace, STREAM)
    folder = life.directory.path / "versions" / "02-second"
    assert {path.name for path in folder.iterdir()} == {"README.md", "prompt_pool.safetensors", "prompt_pool.json"}
    assert json.loads((folder / "prompt_pool.json").read_text()) == {"pool_size": 4, "prompt_length": 2, "top_k": 2}
    reopened = Life.open(life.directory.path)
    model, _ = reopened.load("01-first")
    adapter = read_adapter(model)
    assert {name: tuple(tensor.shape) for name, tensor in adapter.items()} == {
        "prompt_pool.prompts": (8, 32),
        "prompt_pool.keys": (4, 32),
    }
    assert all(torch.equal(adapter[name], read_adapter_of(life.directory, "01-first")[name]) for name in adapter)
    with pytest.raises(ValueError, match="expected"):
        write_adapter(model, {name: tensor[:2] for name, tensor in adapter.items()})


def test_the_learning_rate_is_multiplied(make_life) -> None:
    life = make_life(method=L2P | {"rate_factor": 5.0}, sft={"learning_rate": 1e-3})
    life.learn(STREAM[0])
    rows = life.directory.json("tasks/01-first/training.json")["stages"]["sft"]
    assert rows[0]["learning_rate"] == pytest.approx(5e-3)


def test_more_cannot_be_picked_than_there_is() -> None:
    with pytest.raises(ValueError, match="found top_k 5, expected at most pool_size, which is 4"):
        L2PMethod(pool_size=4, top_k=5)
