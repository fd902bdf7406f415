"""Focalized preference optimization in TRL's own trainer, over its public methods; needs the extra ``trl``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lifealign.errors import ConfigError, describe
from lifealign.training.objectives import focal_preference_loss, focal_weight, preference_margin

try:
    from trl import DPOTrainer  # type: ignore[attr-defined]  # its names are loaded when they are first used
except ImportError as missing:
    raise ConfigError("lifealign.training.trl needs the package trl; pip install 'lifealign[trl]'") from missing

SIGMOID_DPO: dict[str, tuple[Any, ...]] = {
    "loss_type": (["sigmoid"], "sigmoid"),
    "loss_weights": (None, [1.0]),
    "label_smoothing": (0.0,),
    "f_divergence_type": ("reverse_kl",),
    "use_weighting": (False,),
    "ld_alpha": (None,),
    "sync_ref_model": (False,),
    "padding_free": (False,),
    "use_liger_kernel": (False,),
}
"""Options of ``DPOConfig`` that change TRL's loss or how it is computed, and the values that leave it plain DPO."""
READ = {"input_ids", "attention_mask", "completion_mask", "ref_chosen_logps", "ref_rejected_logps"}
"""What a batch of text consists of."""


class FocalDPOTrainer(DPOTrainer):
    r"""TRL's ``DPOTrainer`` with the loss of focalized preference optimization, :math:`-(1-\sigma(r))^g \log\sigma(r)`.

    Data, reference, saving and everything else is TRL's. With ``focal_exponent`` 0 the loss and its gradient are TRL's
    own. Logged under TRL's names: ``rewards/chosen``, ``rewards/rejected``, ``rewards/accuracies``,
    ``rewards/margins``, ``logps/chosen``, ``logps/rejected``; and ``focal_weight``, the mean of
    :math:`(1-\sigma(r))^g`.
    The logits of a whole batch are held in memory, as the model returns them.

    The reference is TRL's choice: the base for a bare model with a ``peft_config``, and for a model that has an adapter
    already a copy of that adapter (``ref_model`` overrides both).

    Args:
        model: As in ``DPOTrainer``.
        ref_model: As there.
        args: A ``DPOConfig`` whose loss is plain DPO.
        focal_exponent: g, at least 0; the paper uses 2, 0 is DPO.
        *more: Further arguments of ``DPOTrainer``.
        **options: Further arguments of ``DPOTrainer``.

    Raises:
        ConfigError: If ``focal_exponent`` is negative, or an option would make TRL's loss something other than plain
            DPO on text; the message names it.

    Reference:
        Li et al., LifeAlign, AAAI 2026 (arXiv:2509.17183), Focalized Preference Optimization.
    """

    args: Any  # of TRL: a DPOConfig
    model: Any
    ref_model: Any

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: Any = None,
        *more: Any,
        focal_exponent: float = 2.0,  # paper
        **options: Any,
    ) -> None:
        if not focal_exponent >= 0:
            raise ConfigError(f"focal_exponent: found {focal_exponent}, expected at least 0")
        if args is not None:
            _require_plain_dpo(args)
        super().__init__(model, ref_model, args, *more, **options)
        _require_no_router_loss(self.model.config, self.args)
        if any(config.is_prompt_learning for config in getattr(self.model, "peft_config", {}).values()):
            raise ConfigError("FocalDPOTrainer: found an adapter of virtual tokens, expected LoRA, or whole weights")
        self.focal_exponent = focal_exponent
        self._figures: dict[str, dict[str, list[float]]] = {"train": defaultdict(list), "eval": defaultdict(list)}

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean FPO loss of a batch of pairs; with ``return_outputs`` the model's outputs too."""
        if strange := sorted(set(inputs) - READ):
            raise ConfigError(
                f"FocalDPOTrainer: found {strange[0]!r} in a batch, expected text only ({', '.join(sorted(READ))})"
            )
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        logps = completion_logps(outputs.logits, inputs["input_ids"], inputs["completion_mask"])
        chosen, rejected = logps.chunk(2)  # a batch has the chosen answers first, then the rejected
        reference = self._reference(inputs)
        margins = preference_margin(chosen, rejected, *reference, beta=self.args.beta)
        self._note((chosen, rejected), reference, margins)
        loss = focal_preference_loss(margins, self.focal_exponent).mean()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs what TRL logs, with the figures of the batches since the last time."""
        mode = "train" if self.model.training else "eval"
        figures = {name: sum(values) / len(values) for name, values in self._figures[mode].items()}
        logs |= {f"eval_{name}" if mode == "eval" else name: value for name, value in figures.items()}
        self._figures[mode].clear()
        super().log(logs, start_time)

    def _reference(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities under the reference: those of the batch if they were precomputed, or computed by TRL."""
        if self.args.precompute_ref_log_probs:
            return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        compute: Any = self.compute_ref_log_probs
        chosen, rejected = compute(self.model if self.ref_model is None else self.ref_model, inputs)
        return chosen, rejected

    @torch.no_grad()
    def _note(self, policy: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor], margins: Tensor) -> None:
        rewards = [self.args.beta * (own - other) for own, other in zip(policy, reference, strict=True)]
        figures = {
            "rewards/chosen": rewards[0],
            "rewards/rejected": rewards[1],
            "rewards/accuracies": (rewards[0] > rewards[1]).float(),
            "rewards/margins": margins,
            "logps/chosen": policy[0],
            "logps/rejected": policy[1],
            "focal_weight": focal_weight(margins, self.focal_exponent),
        }
        noted = self._figures["train" if self.model.training else "eval"]
        for name, values in figures.items():
            noted[name].append(self.accelerator.gather(values.detach()).mean().item())


def completion_logps(
    logits: Float[Tensor, "rows tokens words"], input_ids: Int[Tensor, "rows tokens"], mask: Int[Tensor, "rows tokens"]
) -> Float[Tensor, " rows"]:
    """Log-probabilities of the completions in a batch: sums over their tokens, nats, float32.

    Args:
        logits: The model's, of any floating dtype; position t predicts token t + 1.
        input_ids: Prompts and completions.
        mask: 1 for the tokens of a completion, 0 for prompt and padding.

    Example:
        >>> completion_logps(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 1]]))  # 2 log(1/4)
        tensor([-2.7726])
    """
    sums = []
    for row, ids, kept in zip(logits[:, :-1], input_ids[:, 1:], mask[:, 1:].bool(), strict=True):
        chances = row[kept].float()  # only these positions in float32, and one row at a time
        sums.append((chances.gather(-1, ids[kept][:, None])[:, 0] - chances.logsumexp(-1)).sum())
    return torch.stack(sums)


def _require_plain_dpo(args: Any) -> None:
    """Refuses options with which TRL's loss is another one."""
    for name, allowed in SIGMOID_DPO.items():
        found = getattr(args, name, allowed[0])
        if found not in allowed:
            raise ConfigError(
                f"{name}: found {_shown(found)}, expected {_shown(allowed[0])}: FocalDPOTrainer is DPO's sigmoid loss "
                "times the focal weight, and no other"
            )


def _require_no_router_loss(config: Any, args: Any) -> None:
    """Refuses mixtures of experts whose router TRL would train with a loss of its own."""
    text = config.get_text_config()
    asked = getattr(args, "router_aux_loss_coef", None)
    coefficient = getattr(text, "router_aux_loss_coef", 0.0) if asked is None else asked
    if hasattr(text, "output_router_logits") and coefficient:
        raise ConfigError(
            f"router_aux_loss_coef: found {coefficient:g}, expected 0: FocalDPOTrainer adds no loss for a router; set "
            "router_aux_loss_coef=0.0 in DPOConfig"
        )


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | list) else "none" if value is None else describe(value)
