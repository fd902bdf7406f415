"""Settings of the two stages, under the names that transformers and TRL use."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lifealign.settings.section import Settings


class StageConfig(Settings):
    """One optimisation stage, under the names that transformers uses; the optimiser is AdamW, the schedule cosine.

    Attributes:
        num_train_epochs: 0 switches the stage off.
        warmup_ratio: Share of the optimizer steps, in [0, 1].
        max_grad_norm: Gradients are clipped to this norm.
    """

    learning_rate: float = Field(gt=0)
    num_train_epochs: int = Field(3, ge=0)  # released code, both stages
    per_device_train_batch_size: int = Field(ge=1)
    gradient_accumulation_steps: int = Field(ge=1)
    warmup_ratio: float = Field(0.1, ge=0, le=1)  # released code
    weight_decay: float = Field(0.0, ge=0)  # released code
    max_grad_norm: float = Field(1.0, gt=0)  # released code
    gradient_checkpointing: bool = False  # the released code has it on, for 7B models; it costs time, not quality


class SFTConfig(StageConfig):
    """The ``sft`` stage: cross entropy of the chosen answers."""

    learning_rate: float = Field(1e-4, gt=0)  # released code
    per_device_train_batch_size: int = Field(2, ge=1)  # released code
    gradient_accumulation_steps: int = Field(8, ge=1)  # released code


class PreferenceConfig(StageConfig):
    """The ``preference`` stage: DPO, with the method's weights.

    Attributes:
        beta: DPO's temperature, in 1/nat.
        reference: ``base``: the frozen base, adapter off. ``task_start``: the policy as it was when the task began.
            ``stage_start``: the policy as it was when this stage began, after SFT, as where DPO follows SFT once.
        skip_mastered: Pairs whose loss, with the method's weight, is less steep than this share of what it is at margin
            0 are left out of a step (:class:`~lifealign.training.mastery.Mastery`), in [0, 1); 0 leaves none out.
    """

    learning_rate: float = Field(5e-6, gt=0)  # released code
    per_device_train_batch_size: int = Field(1, ge=1)  # released code, main script
    gradient_accumulation_steps: int = Field(16, ge=1)  # released code, main script
    beta: float = Field(0.1, gt=0)  # released code
    reference: Literal["base", "task_start", "stage_start"] = "base"  # as in the released code, for every task
    skip_mastered: float = Field(0.0, ge=0, lt=1)  # ours; the paper computes every pair
