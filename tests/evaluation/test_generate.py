"""Generated answers: greedy, the same whatever they are batched with, and none generated twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lifealign.data.task import Message
from lifealign.evaluation import generate
from lifealign.evaluation.generate import AnswerCache, Prompt, generate_answers
from lifealign.training.batches import prompt_ids
from lifealign.training.runtime import Runtime

MakeRuntime = Callable[..., Runtime]


def asked(text: str) -> Prompt:
    return (Message("user", text),)


PROMPTS = [asked("Hi"), asked("Where is my parcel? " * 3), asked("?"), asked("Please answer."), asked("Hi again")]


def answered_by_hand(runtime: Runtime, prompt: Prompt, tokens: int) -> str:
    """Greedy, without padding, cache or batch: the likeliest next token of the whole sequence, one after the other."""
    ids = prompt_ids(runtime.tokenizer, prompt)
    answer: list[int] = []
    with torch.no_grad():
        for _ in range(tokens):
            answer.append(int(runtime.model(input_ids=torch.tensor([ids + answer])).logits[0, -1].argmax()))
            if answer[-1] == runtime.tokenizer.eos_token_id:
                break
    return str(runtime.tokenizer.decode(answer, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_answers_are_greedy_and_do_not_depend_on_their_batch(make_runtime: MakeRuntime, batch_size: int) -> None:
    runtime = make_runtime()
    expected = [answered_by_hand(runtime, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) > 1
    for _ in range(2):
        assert generate_answers(runtime, PROMPTS, max_new_tokens=12, batch_size=batch_size) == expected


def test_the_shorter_prompt_of_a_batch_is_padded_on_the_left_and_the_padding_is_masked(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, calls = make_runtime(), []
    plain = runtime.model.generate

    def spied(**options: Any) -> Any:
        calls.append(options)
        return plain(**options)

    monkeypatch.setattr(runtime.model, "generate", spied)
    generate_answers(runtime, [asked("Hello"), asked("Hi")], max_new_tokens=2, batch_size=2)
    (call,) = calls
    short, long = (prompt_ids(runtime.tokenizer, asked(text)) for text in ("Hi", "Hello"))
    assert call["input_ids"].tolist() == [[258] * 3 + short, long]
    assert call["attention_mask"].tolist() == [[0] * 3 + [1] * len(short), [1] * len(long)]
    assert (call["do_sample"], call["max_new_tokens"]) == (False, 2)


def test_an_answer_ends_at_the_end_of_turn_and_holds_no_special_text(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime()

    def scripted(*, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        said = runtime.tokenizer.encode(" Good day. ", add_special_tokens=False)
        return torch.cat([input_ids, torch.tensor([[*said, 257, 258, 258]] * len(input_ids))], dim=1)

    monkeypatch.setattr(runtime.model, "generate", scripted)
    assert generate_answers(runtime, PROMPTS, max_new_tokens=20, batch_size=2) == ["Good day."] * 5


def test_no_prompts_have_no_answers(make_runtime: MakeRuntime) -> None:
    assert generate_answers(make_runtime(), [], max_new_tokens=4, batch_size=2) == []


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """Every prompt that was really generated for."""
    seen: list[Prompt] = []
    plain = generate.generate_answers

    def spied(runtime: Runtime, prompts: list[Prompt], **options: Any) -> list[str]:
        seen.extend(prompts)
        return plain(runtime, prompts, **options)

    monkeypatch.setattr(generate, "generate_answers", spied)
    return seen


def test_each_distinct_prompt_is_generated_once_and_found_again_on_disk(
    make_runtime: MakeRuntime, generated: list[Prompt], tmp_path: Path
) -> None:
    runtime, path, options = make_runtime(), tmp_path / "cache" / "answers.json", {"max_new_tokens": 4, "batch_size": 2}
    cache = AnswerCache(path)
    first = cache.answers(runtime, [*PROMPTS, *PROMPTS[:2]], "policy", **options)
    assert sorted(generated) == sorted(PROMPTS)
    assert first == dict(zip(PROMPTS, generate_answers(runtime, PROMPTS, **options), strict=True))
    generated.clear()
    assert AnswerCache(path).answers(runtime, PROMPTS, "policy", **options) == first
    assert generated == []
    AnswerCache(path).answers(runtime, [PROMPTS[0], asked("new")], "policy", **options)
    assert generated == [asked("new")]


def test_another_policy_or_length_or_prompt_is_another_answer(
    make_runtime: MakeRuntime, generated: list[Prompt]
) -> None:
    runtime, cache = make_runtime(), AnswerCache()
    for policy, tokens in (("a", 4), ("b", 4), ("a", 5), ("a", 4)):
        cache.answers(runtime, PROMPTS[:1], policy, max_new_tokens=tokens, batch_size=2)
    assert len(generated) == 3
    system = (Message("system", "Be brief."), *PROMPTS[0])
    cache.answers(runtime, [system], "a", max_new_tokens=4, batch_size=2)
    assert generated[-1] == system


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"null", b'{"0": "unknown key"}'])
def test_a_damaged_cache_only_costs_time(
    make_runtime: MakeRuntime, generated: list[Prompt], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "answers.json"
    path.write_bytes(content)
    runtime, options = make_runtime(), {"max_new_tokens": 4, "batch_size": 2}
    found = AnswerCache(path).answers(runtime, PROMPTS, "policy", **options)
    assert found == AnswerCache().answers(runtime, PROMPTS, "policy", **options)
    assert set(json.loads(path.read_text()).values()) >= set(found.values())
