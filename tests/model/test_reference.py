"""Reference log-probabilities: once per pair per life, and never a wrong answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import xxhash
from tests.tiny import LAYOUTS, letter_task, pair

from lifealign.errors import TrainingError
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.model.adapter import adapter_fingerprint
from lifealign.model.batch import Batch, Layout
from lifealign.model.reference import ReferenceCache
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair, tokenize_pair
from lifealign.storage.files import read_rows
from lifealign.storage.tensors import write_tensors


@pytest.fixture
def pairs(tokenizer) -> list[TokenizedPair]:
    raw = [pair("question " * number, "good" * (4 - number), f"bad {number}") for number in range(1, 4)]
    return [tokenize_pair(tokenizer, one, 512) for one in raw]


def test_a_life_computes_every_pair_once(make_life) -> None:
    life = make_life(method={"name": "er"}, replay={"fraction": 0.5})
    first, second = letter_task("a", "x", "y"), letter_task("b", "y", "x")
    life.learn(first)
    assert life.workspace.reference.computed == 12
    life.learn(second)  # with 4 replayed pairs of the first, and both tasks' held-out pairs scored
    assert life.workspace.reference.computed == 24
    reopened = type(life).open(life.directory.path)
    reopened.rollback("01-a")
    reopened.learn(second)
    assert reopened.workspace.reference.computed == 0


def test_reference_is_the_base_whatever_the_adapter(make_life) -> None:
    life = make_life()
    life.learn(letter_task("a", "x", "y"))
    kept = dict(life.workspace.reference._own.values)
    fresh = make_life()
    fresh.learn(letter_task("a", "x", "y"))
    assert fresh.workspace.reference._own.values == kept  # the learnt adapter is not in them: both are the base's
    life.learn(letter_task("b", "y", "x"))
    untrained = make_life()
    untrained.learn(letter_task("b", "y", "x"))
    for key, logps in untrained.workspace.reference._own.values.items():
        assert life.workspace.reference._own.values[key] == pytest.approx(logps, rel=1e-5)


def test_the_task_start_reference_is_the_policy_before_the_task(make_life, tokenizer) -> None:
    life = make_life(preference={"reference": "task_start"})
    life.learn(letter_task("a", "x", "y"))
    start = adapter_fingerprint(read_adapter_of(life.directory))
    task = letter_task("b", "y", "x")
    before = life.workspace.runtime.score([tokenize_pair(tokenizer, one, 512) for one in task.train], 16)
    life.learn(task)
    tokenized = [tokenize_pair(tokenizer, one, 512) for one in task.train]
    policy = f"{life.workspace.base_fingerprint} {start}"
    computed = life.workspace.reference.computed
    found = life.workspace.reference.logps(life.workspace.runtime, tokenized, policy, 16)
    assert life.workspace.reference.computed == computed  # they were kept under this very policy
    for one, logps in zip(tokenized, before, strict=True):
        assert found[one.key] == pytest.approx(logps, rel=1e-5)


def test_logps_survive_reopening(make_runtime, pairs: list[TokenizedPair], tmp_path: Path) -> None:
    runtime, path = make_runtime(), tmp_path / "cache" / "reference.jsonl"
    cache = ReferenceCache(path)
    found = cache.logps(runtime, pairs, "policy", 2)
    assert cache.computed == 3
    again = ReferenceCache(path)
    assert again.logps(runtime, pairs, "policy", 2) == found
    assert again.computed == 0
    alone = ReferenceCache()
    assert alone.logps(runtime, pairs, "policy", 2) == found
    assert again.logps(runtime, [], "policy", 2) == {}


def test_a_damaged_row_is_ignored_with_a_warning_and_its_pair_computed_again(
    make_runtime, pairs: list[TokenizedPair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime, path = make_runtime(), tmp_path / "reference.jsonl"
    found = ReferenceCache(path).logps(runtime, pairs, "policy", 2)
    whole = path.read_bytes()
    first, rest = whole.split(b"\n", 1)
    digit = first.index(b"-")  # of a log-probability
    changed = first[:digit] + b"-7" + first[digit + 1 :]
    for broken, computed in ((changed + b"\n" + rest, 1), (b"\n" + rest, 1), (b"not rows\n", 3), (b"[1]\n{}\n", 3)):
        path.write_bytes(broken)
        caplog.clear()
        cache = ReferenceCache(path)
        assert "damaged, so it is ignored, and its log-probabilities are computed again" in caplog.text
        assert str(path) in caplog.text
        assert cache.logps(runtime, pairs, "policy", 2) == found
        assert cache.computed == computed
        caplog.clear()
        assert ReferenceCache(path).logps(runtime, pairs, "policy", 2) == found and not caplog.text
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_what_an_earlier_version_has_computed_is_read_and_not_written_again(
    make_runtime, pairs: list[TokenizedPair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file of before: hashes sorted, sums as float32, and a checksum of both."""
    runtime, path = make_runtime(), tmp_path / "reference.jsonl"
    found = ReferenceCache(path).logps(runtime, pairs[:2], "policy", 2)
    rows = sorted((row["key"], row["value"]) for row in read_rows(path))
    path.unlink()
    keys = torch.tensor([list(bytes.fromhex(key)) for key, _ in rows], dtype=torch.uint8)
    logps = torch.tensor([value for _, value in rows], dtype=torch.float32)
    digest = xxhash.xxh3_128(keys.numpy().tobytes() + logps.numpy().tobytes()).digest()
    checksum = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
    older = tmp_path / "reference.safetensors"
    write_tensors(older, {"keys": keys, "logps": logps, "checksum": checksum})
    before = older.read_bytes()
    cache = ReferenceCache(path)
    assert cache.logps(runtime, pairs[:2], "policy", 2) == found and cache.computed == 0 and not path.exists()
    assert cache.logps(runtime, pairs, "policy", 2).items() >= found.items() and cache.computed == 1
    assert len(read_rows(path)) == 1 and older.read_bytes() == before
    write_tensors(older, {"keys": keys, "logps": logps + 1, "checksum": checksum})
    again = ReferenceCache(path)
    assert f"{older}: damaged, so it is ignored" in caplog.text
    assert again.logps(runtime, pairs, "policy", 2).items() >= found.items() and again.computed == 2


def test_another_policy_or_other_tokens_miss(make_runtime, pairs: list[TokenizedPair]) -> None:
    runtime, cache = make_runtime(), ReferenceCache()
    one = pairs[0]
    cache.logps(runtime, [one], "policy", 2)
    cache.logps(runtime, [one], "other policy", 2)
    assert cache.computed == 2
    shorter = dataclasses.replace(one, chosen=one.chosen[:-1])  # the same text, cut at another max_length
    moved = dataclasses.replace(one, prompt=one.prompt[:-1], chosen=(one.prompt[-1], *one.chosen))
    swapped = dataclasses.replace(one, chosen=one.rejected, rejected=one.chosen)
    cache.logps(runtime, [shorter], "policy", 2)
    cache.logps(runtime, [moved], "policy", 2)
    assert cache.logps(runtime, [swapped], "policy", 2)[one.key] == pytest.approx(
        cache.logps(runtime, [one], "policy", 2)[one.key][::-1], rel=1e-5
    )
    assert cache.computed == 5


def test_the_same_pair_twice_is_computed_once(make_runtime, pairs: list[TokenizedPair]) -> None:
    cache = ReferenceCache()
    found = cache.logps(make_runtime(), [pairs[0], pairs[1], pairs[0]], "policy", 2)
    assert cache.computed == 2
    assert set(found) == {pairs[0].key, pairs[1].key}


def test_the_base_scores_every_pair_alone_and_lives_share_it(
    make_runtime, pairs: list[TokenizedPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, shared = make_runtime(), tmp_path / "bases" / "reference.jsonl"

    def cache(name: str) -> ReferenceCache:
        return ReferenceCache(tmp_path / name, base="base", shared=shared)

    one, two = cache("one"), cache("two")
    of_one = one.logps(runtime, pairs[:2], "base", 16)
    of_two = two.logps(runtime, pairs, "base", 16)
    assert (one.computed, two.computed) == (2, 1)
    alone = ReferenceCache(base="base").logps(runtime, pairs[::-1], "base", 1)
    assert of_two == alone  # to the last bit, whatever was asked for together
    together: list[int] = []
    batch = Runtime.batch

    def counted(self: Runtime, some: Sequence[TokenizedPair], completions: Sequence[str]) -> Batch:
        together.append(len(some))
        return batch(self, some, completions)

    monkeypatch.setattr(Runtime, "batch", counted)
    ReferenceCache(base="base").logps(runtime, pairs, "base", 16)
    assert together == [1, 1, 1]  # rounding may depend on what stands beside a pair, on some processors
    assert of_one == {key: alone[key] for key in of_one}
    again = ReferenceCache(tmp_path / "two")  # its own file holds everything that it used
    assert again.logps(runtime, pairs, "base", 16) == alone and again.computed == 0
    third = cache("three")
    third.logps(runtime, pairs, "policy", 16)
    assert third.computed == 3  # only what the base computes is shared
    assert len(read_rows(shared)) == 3


def test_a_shared_file_that_is_damaged_or_cannot_be_written_costs_only_time(
    make_runtime, pairs: list[TokenizedPair], tmp_path: Path
) -> None:
    runtime, shared = make_runtime(), tmp_path / "bases" / "reference.jsonl"
    found = ReferenceCache(base="base", shared=shared).logps(runtime, pairs, "base", 16)
    shared.write_bytes(b"not rows\n")
    cache = ReferenceCache(base="base", shared=shared)
    assert cache.logps(runtime, pairs, "base", 16) == found and cache.computed == 3
    assert len(read_rows(shared)) == 3  # written anew
    (tmp_path / "file").write_text("")
    cache = ReferenceCache(base="base", shared=tmp_path / "file" / "below" / "reference.jsonl")
    assert cache.logps(runtime, pairs, "base", 16) == found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_come_in_the_order_of_the_pairs(make_runtime, pairs: list[TokenizedPair], layout: Layout) -> None:
    runtime = make_runtime(layout)
    alone = [runtime.score([one], 1)[0] for one in pairs]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        for batch_size in (1, 2, 3):
            scores = runtime.score([pairs[index] for index in order], batch_size)
            for index, found in zip(order, scores, strict=True):
                assert found == pytest.approx(alone[index], rel=1e-5)


def test_a_reference_that_is_not_finite_is_refused_and_not_kept(
    make_runtime, pairs: list[TokenizedPair], tmp_path: Path
) -> None:
    runtime, path = make_runtime(), tmp_path / "reference.jsonl"
    factor = next(p for name, p in runtime.model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        factor.fill_(float("nan"))
    with pytest.raises(TrainingError, match="stage 'reference'"):
        ReferenceCache(path).logps(runtime, pairs, "policy", 2)
    assert not path.exists()


def test_the_fingerprint_of_an_adapter_is_that_of_its_numbers() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    assert adapter_fingerprint(dict(reversed(one.items()))) == adapter_fingerprint(one)
    assert adapter_fingerprint(one | {"b": torch.tensor([3.0000002])}) != adapter_fingerprint(one)
    assert adapter_fingerprint({"a": one["a"], "c": one["b"]}) != adapter_fingerprint(one)
