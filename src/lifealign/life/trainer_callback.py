"""A callback for the trainers of transformers and TRL: when a training ends, its adapter is consolidated."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life.foreign import ConsolidatedAdapter, consolidate_adapters
from lifealign.life.foreign_checks import require_next
from lifealign.model.peft_folder import active_adapter, read_peft_folder, save_active_adapter
from lifealign.storage.home import with_home

logger = logging.getLogger(__name__)

PLACE = "consolidation"
"""Folder in the trainer's ``output_dir`` for the adapters before and after the training."""


class ConsolidateCallback(TrainerCallback):
    """Consolidates a LoRA adapter at the end of its training, by :func:`lifealign.life.foreign.consolidate_adapters`.

    When the training begins, the adapter as it then is goes to ``output_dir/consolidation/before``, and what could not
    be consolidated in the end is refused at once. When it ends, the trained adapter goes to ``.../after``, the
    consolidated one to ``out``, and the model's adapter becomes the consolidated one: what the trainer saves, evaluates
    or trains on afterwards is that. A training that is resumed from a checkpoint began where its first run did.

    Use one for each training: for a task of SFT and preferences that is to count as one update, call
    ``consolidate_adapters`` on the adapter before the one and after the other.

    Args:
        memory: Folder of the memory: one that earlier trainings have made, or a new one.
        out: Folder of the consolidated adapter; new or empty.
        energy_kept: θ, share of each factor's update that denoising keeps, in (0, 1].
        overlap_kept: λ, share of the overlap with earlier updates that is kept, in [0, 1].
        name: Name of the update in the memory; None for that of ``out``.

    Attributes:
        result: What was done; None until a training has ended.
    """

    def __init__(
        self,
        memory: str | Path,
        out: str | Path,
        *,
        energy_kept: float = 0.9,
        overlap_kept: float = 0.5,
        name: str | None = None,
    ) -> None:
        self.memory, self.out = with_home(memory), with_home(out)
        self.options: dict[str, Any] = {"energy_kept": energy_kept, "overlap_kept": overlap_kept, "name": name}
        self.result: ConsolidatedAdapter | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Saves the adapter that the training begins from.

        Raises:
            ConfigError: If there is no LoRA adapter in this one process, or the training is resumed from a checkpoint
                and where it began is not known.
            ModelError: If what comes of it could not be consolidated.
            LifeError: For the same reason.
        """
        adapted = _whole(model, args)
        before = _place(args) / "before"
        if state.global_step == 0:
            save_active_adapter(adapted, before)
        elif not before.is_dir():
            raise ConfigError(
                f"{before}: found nothing, expected the adapter that this training began from: it is resumed at step "
                f"{state.global_step}, and its first run did not save it. Run it without ConsolidateCallback, or from "
                "its beginning"
            )
        require_next(before, self.memory, self.out, **self.options)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Saves the trained adapter, consolidates it, and puts the consolidated one into the model.

        Raises:
            ConfigError: If it cannot be consolidated, as :func:`lifealign.life.foreign.consolidate_adapters` says; the
                message says where the trained adapter is.
            ModelError: For the same reasons.
            LifeError: For the same reasons.
        """
        adapted = _whole(model, args)
        before, after = _place(args) / "before", _place(args) / "after"
        save_active_adapter(adapted, after)
        try:
            result = consolidate_adapters(before, after, self.memory, self.out, **self.options)
        except (ConfigError, LifeError, ModelError) as error:
            folders = shlex.join(map(str, (before, after, "--memory", self.memory, "--out", self.out)))
            raise type(error)(
                f"{error}. The trained adapter is in {after}; `lifealign consolidate {folders}` tries again"
            ) from error
        factors = read_peft_folder(self.out).factors
        set_peft_model_state_dict(adapted, factors, adapter_name=active_adapter(adapted))
        self.result = result
        logger.info("%s: consolidated as %s of %s", result.out, result.entry, result.memory)


def _place(args: TrainingArguments) -> Path:
    """Where the adapters before and after a training are kept."""
    return Path(args.output_dir or ".") / PLACE


def _whole(model: Any, args: TrainingArguments) -> PeftModel:
    """The trained model, if all of its adapter is in this process.

    Raises:
        ConfigError: If it is not.
    """
    if args.world_size > 1:
        raise ConfigError(
            f"ConsolidateCallback: found {args.world_size} processes, expected one, which has the whole adapter; save "
            "the adapter before and after the training, and consolidate the two folders with `lifealign consolidate`"
        )
    if not isinstance(model, PeftModel):
        raise ConfigError(
            f"ConsolidateCallback: found a {type(model).__name__}, expected a model with a LoRA adapter of PEFT; give "
            "the trainer a peft_config"
        )
    return model
