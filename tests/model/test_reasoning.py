"""Reasoning is taken off, kept or refused: in prompts, in answers that are learnt and in those that are generated."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.templates import QWEN3, byte_tokenizer, tokenizer_of
from tests.tiny import pair, tiny_tokenizer
from tokenizers import AddedToken

from lifealign.data.pair import Message, Pair
from lifealign.errors import DataError, ModelError
from lifealign.model.answer_cache import AnswerCache
from lifealign.model.generate import generate_answers, stop_token_ids
from lifealign.model.reasoning import CHANNELS, THINK, Tags, without_reasoning
from lifealign.model.template_check import require_usable_template
from lifealign.model.tokens import count_reasoning, prompt_ids, tokenize_pair, tokenize_pairs

ASKED = (Message("user", "q"),)
BROUGHT = "<think>\nhmm\n</think>\n\nyes"
PROMPTS = {  # how the prompt ends under strip, and under keep
    "qwen3": ("assistant\n<think>\n\n</think>\n\n", "assistant\n"),
    "r1": ("<\uff5cAssistant\uff5c><think>\n\n</think>\n\n", "<\uff5cAssistant\uff5c><think>\n"),
    "harmony": ("<|start|>assistant<|channel|>final<|message|>", "<|start|>assistant"),
    "llama3": ("assistant<|end_header_id|>\n\n",) * 2,
}
COMPLETIONS = {  # of an answer that brings a block and of one that does not, under strip and under keep
    "qwen3": (("yes", "no"), (BROUGHT, "<think>\n\n</think>\n\nno")),
    "r1": (("yes", "no"), ("hmm\n</think>\n\nyes", "no")),  # the prompt has opened the block already
    "harmony": (("yes", "no"), (f"<|channel|>final<|message|>{BROUGHT}", "<|channel|>final<|message|>no")),
    "llama3": (("yes", "no"), (BROUGHT, "no")),
}


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("reasoning", ["strip", "keep"])
def test_prompts_and_completions(name: str, reasoning: Any) -> None:
    tokenizer, number = tokenizer_of(name), ("strip", "keep").index(reasoning)
    tokenized = tokenize_pair(tokenizer, pair("q", BROUGHT, "no"), 512, reasoning)
    assert tokenized is not None
    assert tokenizer.decode(tokenized.prompt).endswith(PROMPTS[name][number])
    assert list(tokenized.prompt) == prompt_ids(tokenizer, ASKED, reasoning)
    end = tokenizer.convert_ids_to_tokens(require_usable_template(tokenizer, name).end_token_id)
    found = tokenizer.decode(tokenized.chosen), tokenizer.decode(tokenized.rejected)
    assert found == tuple(text + end for text in COMPLETIONS[name][number])


def test_a_templates_own_tags_are_found_by_trying_it() -> None:
    source = QWEN3.replace("think>", "seed:ponder>")
    tokenizer = byte_tokenizer(source, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    assert tokenizer.decode(prompt_ids(tokenizer, ASKED)).endswith("<seed:ponder>\n\n</seed:ponder>\n\n")
    answer = BROUGHT.replace("think>", "seed:ponder>")
    tokenized = tokenize_pair(tokenizer, pair("q", answer, "no"), 512)
    assert tokenized is not None and tokenizer.decode(tokenized.chosen) == "yes<|im_end|>"


def test_a_template_whose_answers_stand_in_tags_does_not_reason() -> None:
    source = (
        "{% for m in messages %}{{ '<' + m.role + '>\n' + m.content + '\n</' + m.role + '><|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n{% endif %}{# </assistant> #}"
    )
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = source
    assert not require_usable_template(tokenizer, "tags").reasons
    assert tokenizer.decode(prompt_ids(tokenizer, ASKED)) == "<user>\nq\n</user><|im_end|><assistant>\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "yes"),
        (" yes\n", " yes\n"),
        (BROUGHT, "yes"),
        ("\n <think>a</think> yes", "yes"),
        ("<think>a</think><think>b</think>\nyes", "yes"),
        ("<think>\na\n</think>\n\nyes\n<think>\nb\n</think>\n\nno", "yes\nno"),
        ("<think>cut in the mid", ""),
        ("yes\n<think>cut", "yes\n"),
        ("hmm\n</think>\n\nyes", "yes"),
        ("hmm</think>\nyes", "yes"),
        ("</think>\n\nyes", "yes"),
        ("Put it in <think> and </think> tags.", "Put it in <think> and </think> tags."),
        ("<think></think>", ""),
        ("<thinking>a</thinking>", "<thinking>a</thinking>"),
    ],
)
def test_what_is_left_of_an_answer(text: str, expected: str) -> None:
    assert without_reasoning(text, [THINK]) == expected


def test_other_tags() -> None:
    assert without_reasoning("[THINK]a[/THINK]b", [Tags("[THINK]", "[/THINK]")]) == "b"
    harmony = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b"
    assert without_reasoning(harmony, [CHANNELS]) == "b"


def test_earlier_answers_are_without_reasoning_whatever_the_template() -> None:
    prompt = (*ASKED, Message("assistant", BROUGHT), *ASKED)
    bare = (*ASKED, Message("assistant", "yes"), *ASKED)
    for name in PROMPTS:
        assert prompt_ids(tokenizer_of(name), prompt) == prompt_ids(tokenizer_of(name), bare), name
    kept = tokenizer_of("llama3").decode(prompt_ids(tokenizer_of("llama3"), prompt, "keep"))
    assert BROUGHT in kept  # its template leaves them in


def test_pairs_of_reasoning_alone_are_left_out_and_counted() -> None:
    tokenizer = tokenizer_of("llama3")
    rows = [pair("a", BROUGHT, "no"), pair("b", "<think>only", "no"), pair("c", BROUGHT, "yes"), pair("d", "x", "y")]
    kept, left_out = tokenize_pairs(tokenizer, rows, 512)
    assert [one.key for one in kept] == [rows[0].key, rows[3].key]
    assert left_out == rows[1:3]  # nothing left, and nothing left to prefer
    assert count_reasoning(tokenizer, rows) == (3, 1)
    assert len(tokenize_pairs(tokenizer, rows, 512, "keep")[0]) == 4


def test_refused_reasoning_is_named() -> None:
    rows = [pair("a", "yes", "no"), Pair(ASKED, "yes", BROUGHT, "rows.jsonl:2")]
    with pytest.raises(DataError) as caught:
        tokenize_pairs(tokenizer_of("llama3"), rows, 512, "refuse")
    assert str(caught.value) == (
        "rows.jsonl:2: rejected: found an answer with reasoning (<think>), expected a plain answer, because "
        "data.reasoning is refuse; strip removes reasoning, keep learns it"
    )
    for name in ("qwen3", "r1", "harmony"):
        with pytest.raises(ModelError, match="made for reasoning"):
            require_usable_template(tokenizer_of(name), name, reasoning="refuse")
        with pytest.raises(ModelError, match="made for reasoning"):
            prompt_ids(tokenizer_of(name), ASKED, "refuse")
    require_usable_template(tokenizer_of("llama3"), "llama3", reasoning="refuse")


# -- generated answers -------------------------------------------------------------------------------------------------


def scripted(monkeypatch: pytest.MonkeyPatch, runtime: Any, said: list[int]) -> list[dict[str, Any]]:
    """Lets the model say some tokens; returns the options it was called with."""
    calls: list[dict[str, Any]] = []

    def generate(*, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        calls.append(options)
        return torch.cat([input_ids, torch.tensor([said] * len(input_ids))], dim=1)

    monkeypatch.setattr(runtime.model, "generate", generate)
    return calls


def with_template(runtime: Any, reasoning: str = "strip", **replaced: str) -> Any:
    tokenizer = tiny_tokenizer()
    for old, new in replaced.items():
        tokenizer.chat_template = tokenizer.chat_template.replace(old, new)
    return dataclasses.replace(runtime, tokenizer=tokenizer, reasoning=reasoning)


@pytest.mark.parametrize("configured", [None, 5, [5, 7]])
def test_answers_end_at_every_end_token(make_runtime: Any, monkeypatch: pytest.MonkeyPatch, configured: Any) -> None:
    runtime = with_template(make_runtime(), im_end="pad")  # turns end with <|pad|> (258), text with <|im_end|> (257)
    monkeypatch.setattr(runtime.model.get_base_model().generation_config, "eos_token_id", configured)
    extra = [] if configured is None else [configured] if isinstance(configured, int) else configured
    assert stop_token_ids(runtime) == (258, 257, *extra)
    hello, rest = (runtime.tokenizer.encode(text, add_special_tokens=False) for text in ("Hello", "\nuser more"))
    for stop in stop_token_ids(runtime):
        calls = scripted(monkeypatch, runtime, [*hello, stop, *rest])
        assert generate_answers(runtime, [ASKED], max_new_tokens=20, batch_size=1) == ["Hello"]
        assert calls[0]["eos_token_id"] == [258, 257, *extra]


@pytest.mark.parametrize(
    ("said", "stripped", "kept"),
    [
        (BROUGHT, "yes", BROUGHT),
        ("<think>\ncut in the mid", "", "<think>\ncut in the mid"),
        (" yes ", "yes", "yes"),
    ],
)
@pytest.mark.parametrize("special", [False, True])
def test_generated_reasoning(
    make_runtime: Any, monkeypatch: pytest.MonkeyPatch, said: str, stripped: str, kept: str, special: bool
) -> None:
    for reasoning, expected in (("strip", stripped), ("keep", kept)):
        runtime = with_template(make_runtime(), reasoning)
        if special:
            runtime.tokenizer.add_tokens([AddedToken(tag, special=True) for tag in THINK], special_tokens=True)
        scripted(monkeypatch, runtime, runtime.tokenizer.encode(said, add_special_tokens=False))
        if special and reasoning == "keep":
            expected = expected.replace("<think>", "").replace("</think>", "").strip()  # as transformers decodes
        assert generate_answers(runtime, [ASKED], max_new_tokens=20, batch_size=1) == [expected]


def test_answers_are_cached_apart_by_how_they_are_read(make_runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, base = AnswerCache(), make_runtime()
    for reasoning, expected in (("strip", "yes"), ("keep", BROUGHT), ("strip", "yes")):
        runtime = with_template(base, reasoning)
        scripted(monkeypatch, runtime, runtime.tokenizer.encode(BROUGHT, add_special_tokens=False))
        answers = cache.answers(runtime, [ASKED], "policy", max_new_tokens=20, batch_size=1)
        assert answers == {ASKED: expected}
