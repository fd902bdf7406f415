"""The installed TRL as the oracle: at focal exponent 0, its DPO loss, margins and LoRA gradients are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict
from tests.tiny import LAYOUTS, pair, tiny_model
from torch import Tensor

from lifealign.model.adapter import read_adapter
from lifealign.model.batch import Layout
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair, tokenize_pair
from lifealign.training.objectives import BatchOutcome, PreferenceObjective, focal_preference_loss, focal_weight

pytest.importorskip("trl")

BETA = 0.1


@pytest.fixture
def pairs(tokenizer) -> list[TokenizedPair]:
    # Short answers of unequal length: a sum of few nats has roundings far below 1e-6 of the loss
    raw = [pair("Where is my parcel?", "Here", "No"), pair("Hi", "Hey", "What?"), pair("Refund 12345", "Ok", "!")]
    return [tokenize_pair(tokenizer, one, 512) for one in raw]


def trl_trainer(tokenizer: Any, adapter: dict[str, Tensor], folder: Path, loss_type: str = "sigmoid") -> Any:
    """TRL's trainer on the same base with a new adapter of its own, in which our factors are put."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt": [{"role": "user", "content": "q"}]}]
    rows[0] |= {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    arguments = DPOConfig(
        output_dir=str(folder),
        beta=BETA,
        loss_type=[loss_type],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        max_length=None,
    )
    # A bare base with peft_config: then the reference is the base (an existing PeftModel would get a copy of itself)
    trainer = DPOTrainer(
        tiny_model(),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, task_type="CAUSAL_LM"
        ),
    )
    set_peft_model_state_dict(trainer.model, adapter)
    written = get_peft_model_state_dict(trainer.model)
    assert all(torch.equal(written[name], adapter[name]) for name in adapter)
    return trainer


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Gradients by factor; wrappers outside the PEFT model put words before the common part of the name."""
    found = {
        name[name.index("layers.") :]: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert len(found) == 8
    return found


def our_outcome(runtime: Runtime, pairs: list[TokenizedPair]) -> BatchOutcome:
    with runtime.model.disable_adapter():
        reference = dict(zip((one.key for one in pairs), runtime.score(pairs, 16), strict=True))
    objective = PreferenceObjective(BETA, reference)
    return objective.outcome(runtime.policy(runtime.batch(pairs, objective.completions)), pairs)


@pytest.fixture
def trl_result(
    tokenizer, make_runtime, pairs: list[TokenizedPair], tmp_path: Path
) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """TRL's loss on the pairs, the LoRA gradients it gives, and what it logs."""
    trainer = trl_trainer(tokenizer, read_adapter(make_runtime().model), tmp_path)
    rows = [{f"{name}_ids": list(getattr(one, name)) for name in ("prompt", "chosen", "rejected")} for one in pairs]
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items() if values}
    return loss.detach(), gradients(trainer.model), logged


@pytest.mark.parametrize("layout", LAYOUTS)
def test_at_exponent_zero_loss_and_gradients_are_those_of_trl(
    make_runtime, pairs: list[TokenizedPair], trl_result: Any, layout: Layout
) -> None:
    expected, expected_gradients, logged = trl_result
    runtime = make_runtime(layout)
    outcome = our_outcome(runtime, pairs)
    loss = (focal_weight(outcome.margins, 0.0) * outcome.losses).mean()
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert outcome.margins.mean().item() == pytest.approx(logged["rewards/margins"], rel=1e-5)
    assert (outcome.margins > 0).float().mean().item() == pytest.approx(logged["rewards/accuracies"])
    assert outcome.margins.abs().min() > 1e-3  # no margin is at its trivial value
    for name, gradient in gradients(runtime.model).items():
        scale = expected_gradients[name].abs().max()
        assert scale > 0
        assert (gradient - expected_gradients[name]).abs().max() <= 1e-6 * max(scale.item(), 1.0), name
        assert (gradient - expected_gradients[name]).norm() <= 1e-5 * expected_gradients[name].norm(), name


def test_at_exponent_two_the_weighted_loss_is_fpo_and_not_that_of_trl(
    make_runtime, pairs: list[TokenizedPair], trl_result: Any
) -> None:
    outcome = our_outcome(make_runtime(), pairs)
    weighted = (focal_weight(outcome.margins, 2.0) * outcome.losses).mean()
    assert weighted.item() == pytest.approx(focal_preference_loss(outcome.margins, 2.0).mean().item(), rel=1e-6)
    assert weighted.item() < 0.9 * trl_result[0].item()


def test_trls_own_tokens_are_ours_up_to_the_newline_after_the_turn(tokenizer, make_runtime, tmp_path: Path) -> None:
    trainer = trl_trainer(tokenizer, read_adapter(make_runtime().model), tmp_path)
    row = trainer.train_dataset[0]
    ours = tokenize_pair(tokenizer, pair("q", "chosen", "rejected"), 512)
    assert row["prompt_ids"] == list(ours.prompt)
    newline = tokenizer.encode("\n")
    assert row["chosen_ids"] in (list(ours.chosen), [*ours.chosen, *newline])
    assert row["rejected_ids"] in (list(ours.rejected), [*ours.rejected, *newline])
