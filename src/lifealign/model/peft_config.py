"""``adapter_config.json`` of PEFT: what the factors of a LoRA adapter mean, and whether there is more than factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifealign.errors import ModelError, describe

MORE_THAN_FACTORS = {
    "use_dora": "DoRA scales every weight by a magnitude beside the factors",
    "modules_to_save": "whole modules were trained beside the factors",
    "trainable_token_indices": "rows of the embeddings were trained beside the factors",
    "lora_bias": "biases were trained beside the factors",
    "rank_pattern": "the rank differs from layer to layer",
    "alpha_pattern": "the scaling differs from layer to layer",
    "layer_replication": "the model has other layers than its base",
    "target_parameters": "parameters were adapted that are not the weight of a linear module",
    "use_qalora": "inputs are pooled before they reach the factors",
    "use_bdlora": "the factors are block-diagonal",
    "alora_invocation_tokens": "the factors act on some tokens only",
    "arrow_config": "the factors act by a router",
    "kasa_config": "the base's own weights were changed",
    "monteclora_config": "the factors are drawn at random",
}
"""Options with which a model is no longer its base plus scaled products of two factors, and why."""
OF_NO_CONSEQUENCE = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode", "runtime_config"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),  # the names of the factors say it
    *("lora_dropout", "megatron_config", "megatron_core", "ensure_weight_tying", "qalora_group_size", "velora_config"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),  # init_lora_weights says whether they are used
    *("r", "lora_alpha", "use_rslora", "fan_in_fan_out", "base_model_name_or_path", "revision"),  # read below
    *("bias", "init_lora_weights"),  # read below, too
}
"""Options that play no part in what the factors mean, or are read one by one."""
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the weights of the base as they are."""


@dataclass(frozen=True)
class LoraKind:
    """What the factors of an adapter mean: on which base, and how their product is scaled, under PEFT's names.

    Rank-stabilised LoRA (``use_rslora``) divides alpha by the square root of the rank instead of the rank. That is a
    number beside the factors, and so whatever is done to factors is done to its as well as to any others.
    """

    base_model_name_or_path: str | None
    revision: str | None
    r: int
    lora_alpha: float
    use_rslora: bool
    fan_in_fan_out: bool


def kind_of(path: Path, config: Any) -> LoraKind:
    """Reads what the factors beside an ``adapter_config.json`` mean.

    Args:
        path: The file, for the message.
        config: Its content.

    Raises:
        ModelError: If it describes anything but plain LoRA, or has an option that is not known to be harmless.

    Example:
        >>> kind = kind_of(Path("adapter_config.json"), {"peft_type": "LORA", "r": 8, "lora_alpha": 16})
        >>> kind.r, kind.lora_alpha, kind.use_rslora
        (8, 16.0, False)
        >>> kind_of(Path("adapter_config.json"), {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_dora": True})
        Traceback (most recent call last):
        lifealign.errors.ModelError: adapter_config.json: use_dora: found a boolean (true), expected none: DoRA scales
        every weight by a magnitude beside the factors, and only factors can be consolidated; train without it
    """
    if not isinstance(config, Mapping):
        raise ModelError(f"{path}: found {describe(config)}, expected an object")
    if (kind := config.get("peft_type")) != "LORA":
        raise ModelError(
            f"{path}: peft_type: found {describe(kind)}, expected 'LORA'; prompts and adapters of other kinds have no "
            "pair of factors"
        )
    for key, why in MORE_THAN_FACTORS.items():
        if config.get(key):
            raise ModelError(_more(path, key, config[key], why))
    if config.get("bias", "none") != "none":
        raise ModelError(_more(path, "bias", config["bias"], "biases were trained beside the factors"))
    if (start := config.get("init_lora_weights", True)) not in STARTS:
        raise ModelError(
            f"{path}: init_lora_weights: found {describe(start)}, expected true or 'gaussian': others change the "
            "base's own weights, so that the adapter means something only together with that change"
        )
    for key, value in config.items():
        if value and key not in OF_NO_CONSEQUENCE and key not in MORE_THAN_FACTORS:
            raise ModelError(
                f"{path}: {key[:80]!r}: found {describe(value)} in an option that this version of lifealign does not "
                "know, expected none, because it may change what the factors mean"
            )
    return LoraKind(
        _text(path, config, "base_model_name_or_path"),
        _text(path, config, "revision"),
        int(_number(path, config, "r", whole=True)),
        float(_number(path, config, "lora_alpha")),
        bool(config.get("use_rslora")),
        bool(config.get("fan_in_fan_out")),
    )


def _more(path: Path, key: str, value: Any, why: str) -> str:
    return (
        f"{path}: {key}: found {describe(value)}, expected none: {why}, and only factors can be consolidated; train "
        "without it"
    )


def _text(path: Path, config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    if not isinstance(value, str | None):
        raise ModelError(f"{path}: {key}: found {describe(value)}, expected text or null")
    return value


def _number(path: Path, config: Mapping[str, Any], key: str, whole: bool = False) -> float:
    value = config.get(key)
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not right or not (math.isfinite(value) and value > 0):  # type: ignore[arg-type, operator]
        expected = "a whole number greater than 0" if whole else "a number greater than 0"
        raise ModelError(f"{path}: {key}: found {describe(value)}, expected {expected}")
    return value  # type: ignore[return-value]
