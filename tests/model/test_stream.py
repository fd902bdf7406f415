"""Streamed answers: the text of generate_answers, shown in pieces that never have to be taken back."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import MakeRuntime

from lifealign.data.pair import Message
from lifealign.model.generate import generate_answers
from lifealign.model.prompt_pool import attach_pool
from lifealign.model.runtime import Runtime
from lifealign.model.sampling import Sampling
from lifealign.model.stream import Streamed, stream_answer

PROMPTS = [(Message("user", text),) for text in ("Hello", "Where is my parcel?", "ä € 漢", "x" * 60)]
SAMPLED = Sampling(1.3, 0.9, 40, seed=3)


def streamed(runtime: Runtime, prompt: tuple[Message, ...], **options: object) -> tuple[Streamed, list[str]]:
    pieces: list[str] = []
    found = stream_answer(runtime, prompt, pieces.append, **({"max_new_tokens": 24} | options))  # type: ignore[arg-type]
    return found, pieces


@pytest.mark.parametrize("sampling", [None, SAMPLED], ids=["greedy", "sampled"])
def test_the_pieces_are_the_answer_that_is_generated(make_runtime: MakeRuntime, sampling: Sampling | None) -> None:
    """The tiny model writes any bytes, so characters of several bytes are cut everywhere."""
    runtime = make_runtime()
    for prompt in PROMPTS:
        found, pieces = streamed(runtime, prompt, sampling=sampling)
        expected = generate_answers(runtime, [prompt], max_new_tokens=24, batch_size=1, sampling=sampling)
        assert [found.text] == expected == ["".join(pieces)]
        assert found.prompt_tokens == len(f"<user\n{prompt[0].content}>\n<assistant\n".encode())


def test_an_answer_ends_by_itself_or_is_cut(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    found, _ = streamed(runtime, PROMPTS[0])
    assert found.finish_reason == "length" and found.completion_tokens == 24
    runtime.model.get_base_model().generation_config.eos_token_id = [*range(259)]  # whatever it writes ends it
    found, pieces = streamed(runtime, PROMPTS[0])
    assert (found.finish_reason, found.completion_tokens, found.text, pieces) == ("stop", 0, "", [])


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    for prompt in PROMPTS:
        whole, _ = streamed(runtime, prompt)
        for start in range(1, len(whole.text) - 2):
            stop = whole.text[start : start + 2]
            found, pieces = streamed(runtime, prompt, stop=["never said", stop])
            assert found.text == whole.text[: whole.text.index(stop)].rstrip() == "".join(pieces)
            assert found.finish_reason == "stop" and found.completion_tokens <= whole.completion_tokens


def test_nothing_is_computed_for_somebody_who_has_gone(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    passes = []
    runtime.model.get_base_model().register_forward_hook(lambda *_: passes.append(1))
    found, pieces = streamed(runtime, PROMPTS[0], cancelled=lambda: True)
    assert found.finish_reason == "cancelled" and not passes and not pieces
    asked = iter([False, False, False, True])
    found, _ = streamed(runtime, PROMPTS[0], cancelled=lambda: next(asked))
    assert found.finish_reason == "cancelled" and len(passes) == 3 and found.completion_tokens == 2


def test_a_prompt_pool_answers_too(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    plain, _ = streamed(runtime, PROMPTS[1])
    pool = attach_pool(runtime.model, pool_size=4, prompt_length=2, top_k=2, seed=0)
    with torch.no_grad():
        pool.prompts.copy_(torch.randn(pool.prompts.shape, generator=torch.Generator().manual_seed(1)))
    found, pieces = streamed(runtime, PROMPTS[1])
    expected = generate_answers(runtime, [PROMPTS[1]], max_new_tokens=24, batch_size=1)
    assert [found.text] == expected == ["".join(pieces)] and found.text != plain.text
