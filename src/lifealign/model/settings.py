"""Settings of the base model, the adapter and tokenisation, under the names that transformers and PEFT use."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lifealign.settings.section import Settings
from lifealign.storage.home import with_home

EMBEDDED = "smollm2-135m"
"""Name of the model that ships as a Python package: SmolLM2-135M-Instruct."""

Dtype = Literal["bfloat16", "float32"]
"""Dtypes of base weights."""
Sharding = Literal["none", "base"]
"""What the processes of a run hold together."""


class ModelConfig(Settings):
    """The base model, frozen for the whole life.

    Attributes:
        model_name_or_path: ``smollm2-135m`` (the embedded model), a folder, a ``.gguf`` file, or a hub id.
        revision: Commit, tag or branch of a hub model; None is its default branch. A folder, a file and the embedded
            model have none, and are refused with one.
        dtype: Dtype of the base weights. ``auto`` is float32 on a processor without bfloat16 instructions, else the one
            in which a training step is faster on this machine, and bfloat16 if there is little between them. It is
            settled when a life is made, and the life keeps it. Memory plays no part: for a model that only fits in
            bfloat16, set bfloat16. Adapters are always float32.
        load_in_4bit: Whether the linear layers of the base are kept in 4 bits (QLoRA: NF4 with double quantisation, by
            bitsandbytes) and put together in ``dtype`` when they compute. Their weights then take about a quarter of
            what they take in bfloat16, and it is another base: a life keeps what it was made with.
        attn_implementation: ``auto`` is sdpa, or eager for families that support nothing else.
    """

    model_name_or_path: str = Field(EMBEDDED, min_length=1)  # the model that needs no hub
    revision: str | None = None
    dtype: Dtype | Literal["auto"] = "auto"  # released code: bf16 base
    load_in_4bit: bool = False  # ours
    attn_implementation: Literal["auto", "sdpa", "eager"] = "auto"

    @property
    def is_embedded(self) -> bool:
        """Whether it is the embedded model, whose weights are quantised and differ slightly from the hub's."""
        return self.model_name_or_path == EMBEDDED

    @field_validator("model_name_or_path")
    @classmethod
    def _means_the_same_from_everywhere(cls, name: str) -> str:
        """Makes an existing path absolute, because a life may later be opened from another working directory."""
        path = with_home(name)
        return os.path.abspath(path) if path.exists() and name != EMBEDDED else name


class DeviceConfig(Settings):
    """How a model is laid out on devices. It does not affect what is learnt.

    Attributes:
        sharding: ``base``: the processes of one run hold the frozen base together, each a part of every decoder layer,
            so that a base may be larger than one device; every pass then takes as long as sending the layers around.
            ``none``: each holds all of it. A process that runs alone holds all of it, too.
    """

    sharding: Sharding = "none"


class AdapterConfig(Settings):
    """The LoRA adapter, under PEFT's names.

    Attributes:
        lora_target_modules: Last parts of the names of linear modules; ``auto``: q_proj and v_proj, or what replaces
            them in the model's family.
    """

    lora_r: int = Field(8, ge=1)  # released code
    lora_alpha: int = Field(16, ge=1)  # released code: twice the rank
    lora_dropout: float = Field(0.0, ge=0, lt=1)  # released code
    lora_target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["auto"] = "auto"  # as released code


class DataConfig(Settings):
    """How pairs become tokens.

    Attributes:
        max_length: Maximum number of tokens in a prompt and one completion together.
        share_prefix: Whether chosen and rejected of a pair share one copy of the prompt in the batch; ``auto``: if that
            is proven exact on the model.
        max_tokens_per_batch: Most tokens in one forward pass, padding included; a batch with more is cut into several
            passes. None leaves it to the numbers of pairs, ``per_device_train_batch_size`` and
            ``per_device_eval_batch_size``. A single pair with more tokens has a pass of its own.
        reasoning: What to do with the blocks in which a model thinks before it answers (``<think>``). ``strip`` removes
            them from learnt and generated answers, and prompts ask for an answer without reasoning. ``keep`` leaves
            them. ``refuse`` raises an error if the chat template or an answer has some.
    """

    max_length: int = Field(1024, ge=2)  # the released code has 2048; its rows are mostly below 500
    share_prefix: bool | Literal["auto"] = "auto"  # same log-probabilities, less work
    max_tokens_per_batch: int | None = Field(None, ge=1)  # ours
    reasoning: Literal["strip", "keep", "refuse"] = "strip"  # ours: the paper's models do not reason
