"""FPO in TRL's trainer: at exponent 0 the installed TRL's loss and gradient, at 2 ours; all else is refused."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tests.tiny import tiny_model
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lifealign.errors import ConfigError
from lifealign.training.objectives import focal_preference_loss, focal_weight

trl = pytest.importorskip("trl")
DPOTrainer = trl.DPOTrainer

from lifealign.training.trl import SIGMOID_DPO, FocalDPOTrainer, completion_logps  # noqa: E402 (it needs trl)

BETA = 0.1
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
ROWS = [  # short answers of unequal length: a sum of few nats has roundings far below 1e-6 of the loss
    {"prompt": "Where is my parcel?", "chosen": "Here", "rejected": "No"},
    {"prompt": "Hi", "chosen": "Hey", "rejected": "What?"},
    {"prompt": "Refund 12345", "chosen": "Ok", "rejected": "!"},
    {"prompt": "Bye", "chosen": "So", "rejected": "Go"},
]

Make = Callable[..., Any]


def conversations() -> Dataset:
    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return Dataset.from_list(
        [
            {"prompt": said("user", row["prompt"])}
            | {name: said("assistant", row[name]) for name in ("chosen", "rejected")}
            for row in ROWS
        ]
    )


def arguments(folder: Path, **options: Any) -> Any:
    plain = {"beta": BETA, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    plain |= {"max_length": None, "per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-2}
    return trl.DPOConfig(output_dir=str(folder), **(plain | {"logging_steps": 1, "save_strategy": "no"} | options))


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Make:
    """Makes trainers on the tiny model with an adapter in which no factor is zero.

    ``make(FocalDPOTrainer, focal_exponent=0.0, args={"precompute_ref_log_probs": True})``
    """

    def trainer(kind: type[Any], args: dict[str, Any] | None = None, model: Any = None, **options: Any) -> Any:
        options = {"peft_config": LORA} | options
        made = kind(
            tiny_model() if model is None else model,
            args=arguments(tmp_path / "run", **(args or {})),
            train_dataset=conversations(),
            processing_class=tokenizer,
            **options,
        )
        generator = torch.Generator().manual_seed(3)
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        return made

    return trainer


def result(trainer: Any, rows: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of a batch of the first rows of a trainer's data."""
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(rows)])
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = {name: one.grad for name, one in trainer.model.named_parameters() if one.requires_grad}
    assert gradients
    return loss.detach(), gradients


@pytest.mark.parametrize("args", [{}, {"precompute_ref_log_probs": True}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("rows", [1, 4])
def test_at_exponent_zero_loss_and_gradient_are_trls(make: Make, args: dict[str, Any], rows: int) -> None:
    expected, wanted = result(make(DPOTrainer, args), rows)
    loss, found = result(make(FocalDPOTrainer, args, focal_exponent=0.0), rows)
    assert abs(expected.item() - 0.6931) > 1e-3  # no margin is at its trivial value
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6, rel=1e-6)
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 1e-6
        assert (found[name] - gradient).abs().max() <= 1e-6 * max(1.0, gradient.abs().max().item()), name
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_an_adapter_that_is_trained_on_has_trls_reference_too(make: Make) -> None:
    """TRL takes a copy of the adapter as reference; so at first every margin is 0, and after a change both agree."""
    trainers = [
        make(kind, model=get_peft_model(tiny_model(), LORA), peft_config=None, **options)
        for kind, options in ((DPOTrainer, {}), (FocalDPOTrainer, {"focal_exponent": 0.0}))
    ]
    (expected, wanted), (loss, found) = (result(trainer) for trainer in trainers)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert all(torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-6) for name, gradient in wanted.items())


def test_whole_weights_are_trained_as_trl_trains_them(make: Make) -> None:
    options = {"peft_config": None, "ref_model": tiny_model(seed=1)}
    expected, wanted = result(make(DPOTrainer, **options))
    loss, found = result(make(FocalDPOTrainer, focal_exponent=0.0, **options))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert all((found[name] - gradient).norm() <= 1e-4 * gradient.norm() for name, gradient in wanted.items())


def test_at_exponent_two_it_is_the_focal_loss_of_trls_margins(make: Make) -> None:
    """The margin of a pair follows from TRL's loss of that pair alone: -log σ(r) is log(1 + exp(-r))."""
    trainer, focal = make(DPOTrainer), make(FocalDPOTrainer)
    alone = []
    for number in range(4):
        batch = trainer.data_collator([trainer.train_dataset[number]])
        alone.append(trainer.compute_loss(trainer.model, batch).detach().double())
    margins = -torch.log(torch.expm1(torch.stack(alone)))
    loss, gradients = result(focal)
    assert loss.item() == pytest.approx(focal_preference_loss(margins, 2.0).mean().item(), rel=1e-5)
    assert loss.item() < 0.9 * torch.stack(alone).mean().item()
    name, wanted = next(iter(gradients.items()))
    parameter = dict(focal.model.named_parameters())[name]
    place = divmod(int(wanted.abs().argmax()), wanted.shape[1])
    sides = []
    for step in (1e-2, -1e-2):
        parameter.data[place] += step
        sides.append(result(focal)[0].double())
        parameter.data[place] -= step
    assert ((sides[0] - sides[1]) / 2e-2).item() == pytest.approx(wanted[place].item(), rel=2e-2)


def test_what_it_logs_has_trls_names_and_trls_values(make: Make) -> None:
    rows = []
    for kind, options in ((DPOTrainer, {}), (FocalDPOTrainer, {"focal_exponent": 0.0})):
        trainer = make(kind, {"eval_strategy": "steps", "eval_steps": 1}, eval_dataset=conversations(), **options)
        trainer.train()
        rows.append(trainer.state.log_history)
    figures = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"]
    figures += ["logps/chosen", "logps/rejected"]
    assert [len(row) > 5 for row in rows[0]] == [len(row) > 5 for row in rows[1]]
    told = 0
    for theirs, ours in zip(*rows, strict=True):
        for name in figures + [f"eval_{name}" for name in figures] + ["loss", "eval_loss"]:
            assert (name in theirs) == (name in ours), name
            if name in theirs:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
                told += 1
    assert told == 2 * 2 * 7


def test_the_mean_focal_weight_is_logged(make: Make) -> None:
    trainer = make(FocalDPOTrainer)
    trainer.train()
    first = next(row for row in trainer.state.log_history if "loss" in row)
    assert 0 < first["focal_weight"] < 1
    alone = make(FocalDPOTrainer, {"per_device_train_batch_size": 1, "max_steps": 1})
    alone.train()
    row = next(row for row in alone.state.log_history if "loss" in row)
    expected = focal_weight(torch.tensor(row["rewards/margins"]), 2.0).item()
    assert row["focal_weight"] == pytest.approx(expected, rel=1e-5)


def test_outputs_are_returned_for_metrics(make: Make) -> None:
    trainer = make(FocalDPOTrainer)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.logits.shape[:2] == batch["input_ids"].shape and loss.ndim == 0


def test_log_probabilities_of_completions_are_sums_over_their_tokens_alone() -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor([[1, 2, 3, 4, 0], [5, 6, 1, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]])
    chances = logits.log_softmax(-1)
    expected = torch.stack([chances[0, 1, 3] + chances[0, 2, 4], chances[1, 0, 6]])
    assert torch.allclose(completion_logps(logits, ids, mask).double(), expected, atol=1e-6)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        ("loss_type", "hinge", "loss_type: found ['hinge'], expected ['sigmoid']"),
        ("loss_type", ["sigmoid", "sft"], "loss_type: found ['sigmoid', 'sft'], expected ['sigmoid']"),
        ("loss_weights", [0.5], "loss_weights: found [0.5], expected none"),
        ("label_smoothing", 0.1, "label_smoothing: found a number (0.1), expected a number (0.0)"),
        ("f_divergence_type", "forward_kl", "f_divergence_type: found 'forward_kl', expected 'reverse_kl'"),
        ("use_weighting", True, "use_weighting: found a boolean (true), expected a boolean (false)"),
        ("ld_alpha", 0.5, "ld_alpha: found a number (0.5), expected none"),
        ("sync_ref_model", True, "sync_ref_model: found a boolean (true), expected a boolean (false)"),
        ("padding_free", True, "padding_free: found a boolean (true), expected a boolean (false)"),
        ("use_liger_kernel", True, "use_liger_kernel: found a boolean (true), expected a boolean (false)"),
    ],
)
def test_what_would_change_trls_loss_is_refused_by_name(make: Make, option: str, value: Any, fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make(FocalDPOTrainer, {option: value})
    assert str(raised.value).startswith(fault) and "\n" not in str(raised.value)


def test_every_option_that_is_refused_is_one_of_trls(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    assert all(getattr(args, name) in allowed for name, allowed in SIGMOID_DPO.items())


@pytest.mark.parametrize("exponent", [-1.0, float("nan")])
def test_an_exponent_that_is_none_is_refused(make: Make, exponent: float) -> None:
    with pytest.raises(ConfigError, match="focal_exponent: found"):
        make(FocalDPOTrainer, focal_exponent=exponent)


def test_a_router_with_a_loss_of_its_own_is_refused(make: Make) -> None:
    model = tiny_model()
    model.config.output_router_logits, model.config.router_aux_loss_coef = False, 0.01
    with pytest.raises(
        ConfigError, match=r"router_aux_loss_coef: found 0.0+1, expected 0: .* set router_aux_loss_coef=0"
    ):
        make(FocalDPOTrainer, model=model)


def test_virtual_tokens_and_batches_of_more_than_text_are_refused(make: Make) -> None:
    tuned = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ConfigError, match="found an adapter of virtual tokens, expected LoRA"):
        make(FocalDPOTrainer, peft_config=tuned)
    trainer = make(FocalDPOTrainer)
    batch = trainer.data_collator([trainer.train_dataset[0]]) | {"pixel_values": torch.zeros(1)}
    with pytest.raises(ConfigError, match="found 'pixel_values' in a batch, expected text only"):
        trainer.compute_loss(trainer.model, batch)


def test_without_trl_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "trl":
            raise ImportError(f"No module named {name!r}")
        return whole(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "lifealign.training.trl")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"needs the package trl; pip install 'lifealign\[trl\]'"):
        importlib.import_module("lifealign.training.trl")
