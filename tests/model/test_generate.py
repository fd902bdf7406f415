"""Generated answers: greedy, the same whatever they are batched with, and none generated twice."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash

from lifealign.data.pair import Message
from lifealign.model import answer_cache, generate
from lifealign.model.answer_cache import AnswerCache
from lifealign.model.generate import Prompt, generate_answers
from lifealign.model.runtime import Runtime
from lifealign.model.sampling import GumbelNoise, Sampling, filters_of
from lifealign.model.tokens import prompt_ids
from lifealign.storage import files as storage
from lifealign.storage.kept_rows import KeptRows

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


@pytest.mark.parametrize("sampling", [None, Sampling(1.0, 1.0, 0, seed=4)], ids=["greedy", "sampled"])
def test_answers_that_have_ended_leave_their_batch_and_the_others_stay_as_they_are(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch, sampling: Sampling | None
) -> None:
    plainly = make_runtime()
    runtime = Runtime.prepare(plainly.model, plainly.tokenizer, replace(plainly.proof, rows_leave=True))
    # A tiny model hardly ever ends: here a fifth of all tokens do, so that answers have many lengths.
    monkeypatch.setattr(generate, "stop_token_ids", lambda runtime: tuple(range(0, 259, 5)))
    monkeypatch.setattr(generate, "LOOK_EVERY", 2)
    rows: list[int] = []
    plain = runtime.model.generate

    def spied(**options: Any) -> Any:
        rows.append(len(options["input_ids"]))
        return plain(**options)

    monkeypatch.setattr(runtime.model, "generate", spied)
    prompts = [asked(f"Question {number}?" + "!" * (number % 5)) for number in range(24)]
    options: dict[str, Any] = {"max_new_tokens": 15, "batch_size": 24, "sampling": sampling}
    leaving = generate_answers(runtime, prompts, **options)
    assert rows[0] == 24 and rows == sorted(rows, reverse=True) and len(set(rows)) > 1
    assert len(rows) <= 8  # the last part is shorter: 7 of two tokens, one of one
    rows.clear()
    assert generate_answers(plainly, prompts, **options) == leaving
    assert rows == [24]


CHECKPOINTS_ASK = {
    "repetition_penalty": 50.0,
    "no_repeat_ngram_size": 1,
    "num_beams": 3,
    "min_new_tokens": 9,
    "forced_eos_token_id": 65,
    "exponential_decay_length_penalty": (1, 90.0),
    "suppress_tokens": list(range(0, 256, 2)),
}


@pytest.mark.parametrize("setting", CHECKPOINTS_ASK)
@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("sampling", [None, Sampling(1.0, 1.0, 0, seed=4)], ids=["greedy", "sampled"])
def test_what_a_checkpoint_asks_of_generation_changes_no_answer(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch, setting: str, leave: bool, sampling: Sampling | None
) -> None:
    plain = make_runtime()
    runtime = Runtime.prepare(plain.model, plain.tokenizer, replace(plain.proof, rows_leave=leave))
    monkeypatch.setattr(generate, "stop_token_ids", lambda runtime: tuple(range(0, 259, 5)))
    monkeypatch.setattr(generate, "LOOK_EVERY", 2)
    options: dict[str, Any] = {"max_new_tokens": 12, "batch_size": 5, "sampling": sampling}
    expected = generate_answers(plain, PROMPTS, **options)
    asked_for = plain.model.get_base_model().generation_config
    monkeypatch.setattr(asked_for, setting, CHECKPOINTS_ASK[setting])
    assert generate_answers(runtime, PROMPTS, **options) == expected
    assert plain.model.get_base_model().generation_config is asked_for


@pytest.mark.parametrize("fails", [False, True])
def test_the_head_reads_one_row_after_another(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    runtime, contiguous = make_runtime(), []
    head = runtime.model.get_base_model().get_output_embeddings()
    before = dict(head._forward_pre_hooks)
    plain = head.forward

    def spied(hidden: torch.Tensor) -> torch.Tensor:
        contiguous.append(hidden.is_contiguous())
        if fails:
            raise MemoryError
        return plain(hidden)

    monkeypatch.setattr(head, "forward", spied)
    with pytest.raises(MemoryError) if fails else nullcontext():
        generate_answers(runtime, PROMPTS, max_new_tokens=3, batch_size=16)
    assert contiguous and all(contiguous)  # the last positions of a batch are not, as they come from the model
    assert dict(head._forward_pre_hooks) == before


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
    plain = answer_cache.generate_answers

    def spied(runtime: Runtime, prompts: list[Prompt], **options: Any) -> list[str]:
        seen.extend(prompts)
        return plain(runtime, prompts, **options)

    monkeypatch.setattr(answer_cache, "generate_answers", spied)
    return seen


def test_each_distinct_prompt_is_generated_once_and_found_again_on_disk(
    make_runtime: MakeRuntime, generated: list[Prompt], tmp_path: Path
) -> None:
    runtime, path, options = (
        make_runtime(),
        tmp_path / "cache" / "answers.jsonl",
        {"max_new_tokens": 4, "batch_size": 2},
    )
    cache = AnswerCache(path)
    first = cache.answers(runtime, [*PROMPTS, *PROMPTS[:2]], "policy", **options)
    assert sorted(generated) == sorted(PROMPTS)
    assert first == dict(zip(PROMPTS, generate_answers(runtime, PROMPTS, **options), strict=True))
    generated.clear()
    assert AnswerCache(path).answers(runtime, PROMPTS, "policy", **options) == first
    assert generated == []
    AnswerCache(path).answers(runtime, [PROMPTS[0], asked("new")], "policy", **options)
    assert generated == [asked("new")]


def test_the_answers_of_the_base_are_shared_by_lives_and_no_others(
    make_runtime: MakeRuntime, generated: list[Prompt], tmp_path: Path
) -> None:
    runtime, options = make_runtime(), {"max_new_tokens": 4, "batch_size": 2}
    shared = tmp_path / "bases" / "answers.jsonl"
    first = AnswerCache(tmp_path / "one", base="base", shared=shared).answers(runtime, PROMPTS, "base", **options)
    generated.clear()
    second = AnswerCache(tmp_path / "two", base="base", shared=shared)
    assert second.answers(runtime, [*PROMPTS, asked("new")], "base", **options).items() >= first.items()
    assert generated == [asked("new")]
    assert AnswerCache(tmp_path / "two").answers(runtime, PROMPTS, "base", **options) == first  # its own file has them
    second.answers(runtime, PROMPTS[:1], "policy", **options)
    assert generated == [asked("new"), PROMPTS[0]]
    assert len(storage.read_rows(shared)) == len(set(PROMPTS)) + 1


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
@pytest.mark.parametrize("name", ["answers.jsonl", "answers.json"])
def test_a_damaged_cache_only_costs_time(
    make_runtime: MakeRuntime, generated: list[Prompt], tmp_path: Path, content: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    path = tmp_path / "answers.jsonl"
    runtime, options = make_runtime(), {"max_new_tokens": 4, "batch_size": 2}
    found = AnswerCache(path).answers(runtime, PROMPTS, "policy", **options)
    assert found == AnswerCache().answers(runtime, PROMPTS, "policy", **options)
    generated.clear()
    assert AnswerCache(path).answers(runtime, PROMPTS, "policy", **options) == found and generated == []


def test_one_letter_changed_in_the_cache_is_seen_and_the_answer_generated_again(
    make_runtime: MakeRuntime, generated: list[Prompt], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "answers.jsonl"
    runtime, options = make_runtime(), {"max_new_tokens": 4, "batch_size": 2}
    first = AnswerCache(path).answers(runtime, PROMPTS, "policy", **options)
    rows = storage.read_rows(path)
    place, row = next((place, row) for place, row in enumerate(rows) if row["value"])
    letter = chr(ord(row["value"][-1]) ^ 1)
    for changed in ({"value": row["value"][:-1] + letter}, {"value": ""}, {"key": "another"}, {"value": 7}):
        storage.write_rows(path, [*rows[:place], row | changed, *rows[place + 1 :]])  # with the checksum of before
        generated.clear(), caplog.clear()
        assert AnswerCache(path).answers(runtime, PROMPTS, "policy", **options) == first
        assert len(generated) == 1
        assert f"{path}: 1 row is damaged, so it is ignored, and its answers are generated again" in caplog.text
        assert sorted(map(repr, storage.read_rows(path))) == sorted(map(repr, rows))
    KeptRows(path, lambda value: value, "").add({"another": 7})  # as written by somebody else
    assert AnswerCache(path).answers(runtime, PROMPTS, "policy", **options) == first


def test_answers_that_an_earlier_version_has_kept_are_read_and_not_written_again(
    make_runtime: MakeRuntime, generated: list[Prompt], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, older = tmp_path / "answers.jsonl", tmp_path / "answers.json"
    runtime, options = make_runtime(), {"max_new_tokens": 4, "batch_size": 2}
    first = AnswerCache(path).answers(runtime, PROMPTS, "policy", **options)
    answers = {row["key"]: row["value"] for row in storage.read_rows(path)}
    path.unlink()
    storage.write_sealed_json(older, {"answers": answers}, private=True)
    generated.clear()
    assert AnswerCache(path).answers(runtime, PROMPTS, "policy", **options) == first
    assert generated == [] and not path.exists()
    AnswerCache(path).answers(runtime, [PROMPTS[0], asked("new")], "policy", **options)
    assert generated == [asked("new")] and len(storage.read_rows(path)) == 1
    older.write_bytes(older.read_bytes().replace(b'": "', b'": "a', 1))
    AnswerCache(path).answers(runtime, PROMPTS, "policy", **options)
    assert f"{older}: damaged, so it is ignored, and its answers are generated again" in caplog.text


def test_a_cache_that_cannot_be_kept_costs_no_answer(
    make_runtime: MakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "LARGEST_ROWS", 10)
    cache = AnswerCache(tmp_path / "answers.jsonl")
    assert len(cache.answers(make_runtime(), PROMPTS, "policy", max_new_tokens=4, batch_size=2)) == len(PROMPTS)
    assert "answers.jsonl: found no room for more, expected at most 10 bytes" in caplog.text
    assert not (tmp_path / "answers.jsonl").read_bytes()


# -- drawn answers -----------------------------------------------------------------------------------------------------

PAPERS = Sampling(temperature=0.95, top_p=0.7, top_k=50, seed=1)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_drawn_answer_depends_on_its_seed_and_not_on_its_neighbours(
    make_runtime: MakeRuntime, batch_size: int
) -> None:
    runtime = make_runtime()
    flat = Sampling(temperature=3.0, top_p=1.0, top_k=100, seed=1)
    alone = [
        generate_answers(runtime, [prompt], max_new_tokens=8, batch_size=1, sampling=flat)[0] for prompt in PROMPTS
    ]
    assert generate_answers(runtime, PROMPTS, max_new_tokens=8, batch_size=batch_size, sampling=flat) == alone
    other = Sampling(temperature=3.0, top_p=1.0, top_k=100, seed=2)
    assert generate_answers(runtime, PROMPTS, max_new_tokens=8, batch_size=batch_size, sampling=other) != alone


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_drawing_from_the_likeliest_token_alone_is_greedy(make_runtime: MakeRuntime, narrow: dict[str, Any]) -> None:
    runtime = make_runtime()
    sampling = Sampling(**({"temperature": 1.0, "top_p": 1.0, "top_k": 259, "seed": 3} | narrow))
    greedy = generate_answers(runtime, PROMPTS, max_new_tokens=8, batch_size=4)
    assert generate_answers(runtime, PROMPTS, max_new_tokens=8, batch_size=4, sampling=sampling) == greedy


def test_tokens_are_drawn_as_often_as_the_softmax_says_and_never_from_outside_the_filters() -> None:
    # One step of 4000 rows over four tokens with probabilities 0.5, 0.3, 0.15, 0.05.
    rows = 4000
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(rows, -1)

    def drawn(**changes: Any) -> list[float]:
        sampling = Sampling(**({"temperature": 1.0, "top_p": 1.0, "top_k": 4, "seed": 5} | changes))
        processors = filters_of(sampling, GumbelNoise(sampling.seed, [[row] for row in range(rows)]))
        tokens = processors(torch.zeros(rows, 1, dtype=torch.long), logits.clone()).argmax(dim=-1)
        return (torch.bincount(tokens, minlength=4) / rows).tolist()

    # A share of 4000 draws has a standard deviation of at most 0.008.
    assert drawn() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.025)
    assert drawn(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.025)  # 0.5 and 0.3 of 0.8
    assert drawn(top_k=2)[2:] == [0, 0]
    assert drawn(top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0], abs=0.025)  # 0.5 alone does not hold 0.7
    # At temperature 0.5 the probabilities are squared: 0.25, 0.09, 0.0225, 0.0025 of 0.365.
    assert drawn(temperature=0.5) == pytest.approx([0.685, 0.247, 0.062, 0.007], abs=0.025)


def test_answers_from_before_they_were_by_logits_alone_do_not_count(
    make_runtime: MakeRuntime, generated: list[Prompt]
) -> None:
    runtime, cache = make_runtime(), AnswerCache()
    ids = prompt_ids(runtime.tokenizer, PROMPTS[0], runtime.reasoning)
    read = f"{generate.stop_token_ids(runtime)} {runtime.reasoning}"
    cache._own.values[xxhash.xxh3_128(f"a 4 {ids} {read}".encode()).hexdigest()] = "an answer with a penalty"
    cache.answers(runtime, PROMPTS[:1], "a", max_new_tokens=4, batch_size=1)
    assert generated == PROMPTS[:1]


def test_a_drawn_answer_is_cached_apart_from_the_greedy_one(make_runtime: MakeRuntime, generated: list[Prompt]) -> None:
    runtime, cache = make_runtime(), AnswerCache()
    for sampling in (None, PAPERS, Sampling(0.95, 0.7, 50, seed=2), PAPERS, None):
        cache.answers(runtime, PROMPTS[:1], "a", max_new_tokens=4, batch_size=2, sampling=sampling)
    assert len(generated) == 3


@pytest.mark.parametrize("temperature", [1e-5, 1e-9, 1e-40, 5e-324])
def test_a_temperature_near_zero_takes_the_most_likely_token(make_runtime: MakeRuntime, temperature: float) -> None:
    """Logits divided by so little are infinite, and the first of several infinite ones would be taken."""
    runtime = make_runtime()
    cold = Sampling(temperature, 1.0, 0, seed=4)
    options: dict[str, Any] = {"max_new_tokens": 12, "batch_size": 2}
    assert generate_answers(runtime, PROMPTS, **options, sampling=cold) == generate_answers(runtime, PROMPTS, **options)


def test_answers_are_kept_as_they_are_made_and_the_rest_is_answered_in_the_same_batches(
    make_runtime: MakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption in the third batch: two are on disk, and only the others are generated, each batch as it was."""
    runtime = make_runtime("plain")
    prompts = [asked("x" * (3 * length % 11 + 1)) for length in range(7)]
    options: dict[str, Any] = {"max_new_tokens": 4, "batch_size": 2}
    asked_for: list[list[Prompt]] = []
    real = answer_cache.generate_answers

    def generated(runtime: Any, prompts: list[Prompt], **options: Any) -> list[str]:
        asked_for.append(prompts)
        if len(asked_for) == 3:
            raise KeyboardInterrupt
        return real(runtime, prompts, **options)

    monkeypatch.setattr(answer_cache, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(answer_cache, "generate_answers", generated)
    with pytest.raises(KeyboardInterrupt):
        AnswerCache(tmp_path / "cut").answers(runtime, prompts, "policy", **options)
    whole, cut = asked_for[:], AnswerCache(tmp_path / "cut")
    asked_for[:] = [[], [], []]  # so that nothing is interrupted again
    rest = cut.answers(runtime, prompts, "policy", **options)
    assert asked_for[3:] == [whole[2], asked_for[4]] and [len(batch) for batch in asked_for[3:]] == [2, 1]
    assert rest == AnswerCache().answers(runtime, prompts, "policy", **options)
    AnswerCache(tmp_path / "whole").answers(runtime, prompts, "policy", **options)
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
