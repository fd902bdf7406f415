"""What a base proves of itself: right where it is exact, plain where it is not, and the model as it was afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model import families
from transformers import LlamaForCausalLM

from lifealign.errors import ModelError
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.model import proof as proofs
from lifealign.model.adapter import attach_lora
from lifealign.model.base_model import Base, load_base
from lifealign.model.completeness import ordinary_tokens
from lifealign.model.probes import probes_for
from lifealign.model.proof import Proof, prove
from lifealign.model.rounding import in_float32
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.sharing import CHUNKED, FULL, SLIDING, Reach, Sharing
from lifealign.settings.section import build_config

POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 5, 4, 5]])  # a prompt of four, two chosen tokens, two rejected ones
BRANCHES = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])


def base_of(folder: Path, dtype: str = "float32") -> Base:
    return load_base(ModelConfig(model_name_or_path=str(folder), dtype=dtype))


def proof_of(base: Base, max_length: int = 200) -> Proof:
    return prove(
        attach_lora(base, AdapterConfig(), 0), ordinary_tokens(base.name, base.model, base.tokenizer), max_length, 258
    )


def visible(reach: Reach) -> list[list[int]]:
    """Which places of the row each token sees."""
    allowed = (BRANCHES == 0) | (BRANCHES[:, None] == BRANCHES)
    mask = (allowed & torch.ones(8, 8, dtype=torch.bool).tril())[None, None]
    masks = Sharing((reach,)).masks(mask, POSITIONS, torch.float32)
    assert isinstance(masks, torch.Tensor)
    return [row.nonzero().flatten().tolist() for row in masks[0, 0] == 0]


def test_a_window_is_counted_in_positions_and_not_in_places() -> None:
    seen = visible(Reach(SLIDING, 3))
    assert seen[3] == [1, 2, 3]
    assert seen[5] == [3, 4, 5]
    assert seen[6] == [2, 3, 6]  # position 4 sees 2 and 3, though two chosen tokens stand between
    assert seen[7] == [3, 6, 7]


def test_a_chunk_is_counted_in_positions_too() -> None:
    seen = visible(Reach(CHUNKED, 4))
    assert seen[3] == [0, 1, 2, 3]
    assert seen[4] == [4] and seen[5] == [4, 5]  # positions 4 and 5 begin the second chunk
    assert seen[6] == [6] and seen[7] == [6, 7]


def test_full_attention_sees_the_prompt_and_its_own_answer() -> None:
    assert visible(Reach(FULL))[7] == [0, 1, 2, 3, 6, 7]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_proof_leaves_the_model_as_it_was(tiny_folder: Path, dtype: str) -> None:
    base = base_of(tiny_folder, dtype)
    model = attach_lora(base, AdapterConfig(), 0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    needed = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    random = torch.get_rng_state()
    proof = prove(model, ordinary_tokens(base.name, base.model, base.tokenizer), 100, 258)
    assert proof == Proof(Sharing(packed=True), rows_leave=True)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == needed
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)


def test_narrow_weights_are_widened_and_come_back_bit_by_bit(tiny_folder: Path) -> None:
    model = base_of(tiny_folder, "bfloat16").model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyError), in_float32(model):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        raise KeyError
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bias_of_distance_that_rounding_would_hide_is_found(tmp_path: Path, dtype: str) -> None:
    families.save_family(
        "mpt", tmp_path
    )  # ALiBi by the place in the row: on so small a model, below bfloat16's rounding
    proof = proof_of(base_of(tmp_path, dtype))
    assert proof.sharing is None and proof.plain_because
    assert proof.padded


def test_a_window_longer_than_any_row_is_no_window(tmp_path: Path) -> None:
    families.save_family("mistral", tmp_path)
    proof = proof_of(base_of(tmp_path))
    assert proof.sharing == Sharing((Reach(SLIDING, families.WINDOW),), packed=True)
    assert proof_of(base_of(tmp_path), max_length=families.WINDOW).sharing == proof.sharing


def test_the_rows_of_the_proof_go_beyond_a_window_that_real_rows_hardly_reach(tmp_path: Path) -> None:
    families.save_family("mistral", tmp_path)
    base = base_of(tmp_path)
    vocabulary = ordinary_tokens(base.name, base.model, base.tokenizer)
    assert len(probes_for(base.model, vocabulary, families.WINDOW + 1)[0].prompt) == families.WINDOW + 9
    assert len(probes_for(base.model, vocabulary, families.WINDOW)[0].prompt) == 1  # no row is longer than the window


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("reads the chosen answer into the rejected one", "log-probabilities would be off by"),
        ("forgets positions", "log-probabilities would be off by"),
        ("knows no such masks", "it cannot take their masks (TypeError)"),
    ],
)
def test_whatever_a_model_does_with_shared_prompts_is_found(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str, reason: str
) -> None:
    from transformers import LlamaModel

    forward = LlamaModel.forward

    def wrong(self: Any, attention_mask: Any = None, position_ids: Any = None, **options: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 4:
            if broken == "knows no such masks":
                raise TypeError(broken)
            if broken == "forgets positions":
                position_ids = None
            else:
                attention_mask = None
        return forward(self, attention_mask=attention_mask, position_ids=position_ids, **options)

    monkeypatch.setattr(LlamaModel, "forward", wrong)
    proof = proof_of(base_of(tiny_folder))
    assert proof.sharing is None
    assert proof.plain_because.startswith(reason)


def test_a_model_that_mixes_the_rows_of_a_batch_is_refused(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaModel

    forward = LlamaModel.forward

    def wrong(self: Any, **options: Any) -> Any:
        output = forward(self, **options)
        output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(dim=0, keepdim=True)
        return output

    base = base_of(tiny_folder)
    monkeypatch.setattr(LlamaModel, "forward", wrong)
    with pytest.raises(ModelError, match="LlamaForCausalLM reads a row differently when its batch has a longer one"):
        proof_of(base)


def test_a_model_that_draws_at_random_while_it_trains_is_refused(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaModel

    forward = LlamaModel.forward

    def noisy(self: Any, **options: Any) -> Any:
        output = forward(self, **options)
        if self.training:
            output.last_hidden_state = output.last_hidden_state + torch.randn_like(output.last_hidden_state)
        return output

    base = base_of(tiny_folder)
    monkeypatch.setattr(LlamaModel, "forward", noisy)
    with pytest.raises(ModelError, match="LlamaForCausalLM computes something else in training than in scoring"):
        proof_of(base)


def test_the_token_that_fills_rows_up_is_the_one_of_the_proof(tmp_path: Path) -> None:
    families.save_family("gemma3n_text", tmp_path)  # its gradients are NaN where an embedding is zero, as padding's is
    proof = proof_of(base_of(tmp_path))
    assert (proof.sharing, proof.plain_because) == (None, "gradients would be no numbers")


def test_a_model_that_answers_otherwise_than_it_scores_is_refused(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of(tiny_folder)
    forward = LlamaForCausalLM.forward

    def wrong(self: Any, *args: Any, **options: Any) -> Any:
        output = forward(self, *args, **options)
        output.logits = output.logits.flip(-1)
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", wrong)
    with pytest.raises(ModelError, match="has other logits when it answers than when its answer is scored"):
        proof_of(base)


def test_a_model_that_pads_wrongly_answers_prompts_of_equal_length_together(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaModel

    forward = LlamaModel.forward

    def blind(self: Any, attention_mask: Any = None, **options: Any) -> Any:
        keep = attention_mask if attention_mask is not None and attention_mask.dim() == 4 else None
        return forward(self, attention_mask=keep, **options)

    base = base_of(tiny_folder)
    monkeypatch.setattr(LlamaModel, "forward", blind)
    proof = proof_of(base)
    assert not proof.padded and proof.unpadded_because == "its answer to a prompt would depend on the prompt beside it"
    runtime = Runtime.prepare(attach_lora(base_of(tiny_folder), AdapterConfig(), 0), base.tokenizer, proof)
    alone, together = families.answers_alone_and_together(runtime)
    assert alone == together
    careless = Runtime.prepare(runtime.model, base.tokenizer, Proof(Sharing()))
    assert families.answers_alone_and_together(careless)[1] != alone


@pytest.mark.parametrize("fault", ["keeps every row", "keeps other rows", "has no such thing"])
def test_answers_do_not_leave_the_batch_of_a_model_whose_cache_cannot_part_with_them(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from transformers import DynamicCache

    plain = DynamicCache.batch_select_indices

    def wrong(self: Any, indices: torch.Tensor) -> None:
        if fault == "has no such thing":
            raise NotImplementedError
        if fault == "keeps other rows":
            plain(self, indices - 1)

    assert proof_of(base_of(tiny_folder)).rows_leave
    monkeypatch.setattr(DynamicCache, "batch_select_indices", wrong)
    proof = proof_of(base_of(tiny_folder))
    assert proof.padded and not proof.rows_leave


@pytest.mark.parametrize("where", [torch.float32, torch.bfloat16])
def test_answers_leave_only_if_that_is_exact_in_float32_and_in_the_models_own_precision(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, where: torch.dtype
) -> None:
    assert proof_of(base_of(tiny_folder, "bfloat16")).rows_leave
    monkeypatch.setattr(proofs, "rows_leave", lambda model, probes: model.dtype == where)
    assert not proof_of(base_of(tiny_folder, "bfloat16")).rows_leave


def life_on(folder: Path, place: Path, **data: Any) -> Life:
    sections = {
        "model": {"model_name_or_path": str(folder), "dtype": "float32"},
        "lora": {"lora_r": 2},
        "data": {"max_length": 200} | data,
    }
    return Life.create(place, build_config(LifeConfig, sections))


def test_what_is_not_exact_runs_plain_is_said_and_stands_in_the_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    families.save_family("jamba", tmp_path / "base")
    with caplog.at_level("INFO", "lifealign"):
        life = life_on(tmp_path / "base", tmp_path / "life")
    assert not life.workspace.runtime.share_prefix
    reason = "plain rows: no mask parts two answers in layers of the kind linear_attention"
    assert sum(reason in message for message in caplog.messages) == 1
    written = json.loads((tmp_path / "life" / "life.json").read_text())
    assert written["base"]["exact"] == {
        "shared_prompts": reason,
        "packing": "one pair a row",
        "generation": "padded on the left",
    }


def test_shared_prompts_asked_for_by_hand_are_refused_where_they_are_not_exact(tmp_path: Path) -> None:
    families.save_family("jamba", tmp_path / "base")
    with pytest.raises(ModelError, match=r"data\.share_prefix: found true, expected auto or false, because .*Jamba"):
        life_on(tmp_path / "base", tmp_path / "life", share_prefix=True)
    assert not (tmp_path / "life").exists()


def test_shared_prompts_may_be_switched_off_where_they_are_exact(tiny_folder: Path, tmp_path: Path) -> None:
    assert life_on(tiny_folder, tmp_path / "auto").workspace.runtime.share_prefix
    assert not life_on(tiny_folder, tmp_path / "off", share_prefix=False).workspace.runtime.share_prefix


def test_fewer_positions_than_the_longest_row_are_refused_before_anything_is_made(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"found 1024 positions, expected at least data\.max_length \(1025\)"):
        life_on(tiny_folder, tmp_path / "life", max_length=1025)
    assert not (tmp_path / "life").exists()
