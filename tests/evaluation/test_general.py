"""General text: a blind model has the vocabulary for its perplexity, others the loss that transformers computes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tests.tiny import letter_task
from tokenizers.processors import TemplateProcessing

from lifealign.errors import DataError, TrainingError
from lifealign.evaluation.general import general_loss, general_passages, passages_hash
from lifealign.life.life import Life
from lifealign.model.logps import CompletionLogps
from lifealign.model.prompt_pool import attach_pool
from lifealign.model.runtime import Runtime

MakeRuntime = Callable[..., Runtime]
PASSAGES = ("The tide comes in twice a day.", "Bread.", "A much longer passage, of which there is only one here. " * 2)


def by_transformers(runtime: Runtime, passage: str) -> tuple[float, int]:
    """Loss and number of predicted tokens of one passage, by the model's own ``labels``."""
    ids = torch.tensor([runtime.tokenizer.encode(passage, add_special_tokens=False)])
    with torch.no_grad():
        return float(runtime.model(input_ids=ids, labels=ids).loss), ids.shape[1] - 1


def test_a_model_that_knows_nothing_has_the_vocabulary_for_its_perplexity(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    with torch.no_grad():
        runtime.model.get_output_embeddings().weight.zero_()
    assert general_loss(runtime, PASSAGES, batch_size=2, max_length=512).perplexity == pytest.approx(259, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_loss_is_that_of_transformers_whatever_the_batch(make_runtime: MakeRuntime, batch_size: int) -> None:
    runtime = make_runtime()
    found = general_loss(runtime, PASSAGES, batch_size=batch_size, max_length=512)
    expected = [by_transformers(runtime, passage) for passage in PASSAGES]
    assert found.per_passage == pytest.approx([loss for loss, _ in expected], abs=1e-5)
    assert found.tokens == sum(tokens for _, tokens in expected)
    weighted = sum(loss * tokens for loss, tokens in expected) / found.tokens
    assert found.loss == pytest.approx(weighted, abs=1e-5) and found.perplexity == math.exp(found.loss)


def test_the_base_is_measured_without_the_adapter(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    adapted = general_loss(runtime, PASSAGES, batch_size=2, max_length=512)
    with runtime.base_policy():
        base = general_loss(runtime, PASSAGES, batch_size=2, max_length=512)
    fresh = general_loss(make_runtime(seed=None), PASSAGES, batch_size=2, max_length=512)  # its adapter does nothing
    assert base.loss == pytest.approx(fresh.loss, abs=1e-6)
    assert abs(adapted.loss - base.loss) > 1e-3


def test_a_long_passage_is_cut_and_a_single_token_predicts_nothing(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    cut = general_loss(runtime, [PASSAGES[2], "x"], batch_size=2, max_length=20)
    assert cut.tokens == 19 and cut.loss == pytest.approx(by_transformers(runtime, PASSAGES[2][:20])[0], abs=1e-5)
    with pytest.raises(ValueError, match="found 1 passages, none of two tokens"):
        general_loss(runtime, ["x"], batch_size=2, max_length=20)


def test_text_that_looks_like_a_control_token_is_read_as_text(make_runtime: MakeRuntime) -> None:
    # 12 characters, one token per byte; as the control token it would be a single one, with nothing to predict.
    assert general_loss(make_runtime(), ["<|im_start|>"], batch_size=1, max_length=99).tokens == 11


def test_a_tokenizer_that_opens_every_text_with_a_token_of_its_own_opens_no_passage(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    plain = general_loss(runtime, PASSAGES, batch_size=2, max_length=512)
    opening = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 256)])
    runtime.tokenizer.backend_tokenizer.post_processor = opening
    assert runtime.tokenizer.encode("a")[0] == 256
    assert general_loss(runtime, PASSAGES, batch_size=2, max_length=512) == plain


def test_dropout_is_off_and_no_gradient_is_kept(make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make_runtime()
    for module in runtime.model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout["default"] = torch.nn.Dropout(0.5)
    runtime.model.train()
    scored, forward = [], CompletionLogps.forward
    monkeypatch.setattr(
        CompletionLogps, "forward", lambda self, batch: scored.append(forward(self, batch)) or scored[-1]
    )
    found = [general_loss(runtime, PASSAGES, batch_size=2, max_length=512) for _ in range(2)]
    assert found[0] == found[1] and not any(logps.requires_grad for logps in scored)


def test_a_prompt_pool_is_asked_with_the_first_token_and_what_follows_counts_on(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    pool = attach_pool(runtime.model, pool_size=4, prompt_length=3, top_k=2, seed=0)
    causal = runtime.model.get_base_model()
    found = general_loss(runtime, PASSAGES, batch_size=2, max_length=512)
    for passage, loss in zip(PASSAGES, found.per_passage, strict=True):
        ids = torch.tensor([runtime.tokenizer.encode(passage, add_special_tokens=False)])
        with torch.no_grad():
            virtual = pool(pool.queries(causal, [(int(ids[0, 0]),)]))
            whole = torch.cat((virtual, causal.get_input_embeddings()(ids)), dim=1)
            logits = causal(inputs_embeds=whole).logits[0, pool.tokens : -1]  # transformers counts positions itself
        assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:])), abs=1e-5)


def test_a_loss_that_is_not_finite_is_no_number_to_keep(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    with torch.no_grad():
        runtime.model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="the loss on general text is nan"):
        general_loss(runtime, PASSAGES, batch_size=2, max_length=99)


def test_a_prompt_pool_stands_in_front_and_is_gone_in_the_base(make_life: Callable[..., Life]) -> None:
    life = make_life(method="l2p", evaluation={"metrics": ("perplexity",)})
    life.learn(letter_task("one", "a", "b"))
    (record,) = life.records
    assert record.general is not None
    with life.workspace.runtime.base_policy():
        base = general_loss(
            life.workspace.runtime, general_passages(Path(life.config.evaluation.general_text or "")), **SIZES
        )
    assert record.general["base"]["loss"] == pytest.approx(base.loss, abs=1e-6)
    assert abs(record.general["loss"] - base.loss) > 1e-4


SIZES = {"batch_size": 16, "max_length": 1024}


def test_the_passages_that_come_along_are_many_and_of_many_kinds() -> None:
    rows = [json.loads(line) for line in Path(general_passages.__globals__["SHIPPED"]).read_text().splitlines()]
    assert [row["text"].strip() for row in rows] == list(general_passages())
    kinds = [row["kind"] for row in rows]
    assert len(rows) == len({row["text"] for row in rows}) == 32 and {kinds.count(kind) for kind in kinds} == {2}
    assert all(45 <= len(row["text"].split()) <= 140 for row in rows)


def test_the_hash_tells_passages_apart_and_their_borders_too() -> None:
    assert passages_hash(["ab", "c"]) == passages_hash(("ab", "c"))
    assert len({passages_hash(each) for each in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])}) == 4


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    text, rows = tmp_path / "own.txt", tmp_path / "own.jsonl"
    text.write_text("\ufeffOne.\nStill one.\n \t\nTwo.\n", encoding="utf-8")  # the line looks blank to a person
    rows.write_text('{"text": "One.\\n\\nStill one."}\n\n{"text": "Two.", "more": 1}\n')
    assert general_passages(text) == ("One.\nStill one.", "Two.")
    assert general_passages(rows) == ("One.\n\nStill one.", "Two.")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b" \n\n ", r"empty\.txt: found no passage, expected at least one"),
        ("bad.txt", b"ab\xff", r"bad\.txt: found a byte that is not UTF-8 at offset 2"),
        ("bad.jsonl", b'{"text": "a"}\n{"text"', r"bad\.jsonl:2: found invalid JSON"),
        ("no.jsonl", b'{"text": 7}', r"no\.jsonl:1: text: found a number \(7\), expected a string"),
        ("list.jsonl", b"[1]", r"list\.jsonl:1: text: found a list of 1, expected a string"),
        ("half.jsonl", b'{"text": "\\ud800"}', r"half\.jsonl:1: text: found half of a surrogate pair"),
        ("none.jsonl", b'{"prompt": "a"}', r"none\.jsonl:1: text: found null, expected a string"),
    ],
)
def test_a_file_that_is_no_general_text_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        general_passages(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt: found nothing that can be read"):
        general_passages(tmp_path / "gone.txt")
