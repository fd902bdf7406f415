"""Settings of a life, as pydantic models: the names, defaults and ranges of everything.

Option names are those of TRL, PEFT and transformers, where they have the option. Reading files is in ``config_file``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lifealign.config_words import Fault, Faults, boolean_as_number, explain, nearest, shown
from lifealign.evaluation.metrics import DEFAULT_METRICS, METRICS, PERPLEXITY

if TYPE_CHECKING:
    from lifealign.methods import Method
else:
    Method = Any  # the methods are imported when one is named: reading a file of settings should not wait for torch

DEFAULT_METHOD = "lifealign"


class Settings(BaseModel):
    """What all sections share: unknown keys and non-finite numbers are refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name and (fault := boolean_as_number(cls, info.field_name, value)):
            raise ValueError(fault)
        return value


class ModelConfig(Settings):
    """The base model, frozen for the whole life.

    Attributes:
        model_name_or_path: ``smollm2-135m`` (the embedded model), a folder, a ``.gguf`` file, or a hub id.
        revision: Commit, tag or branch of a hub model.
        dtype: Of the base weights; ``auto`` is bfloat16. Adapters are always float32.
        attn_implementation: ``auto`` is sdpa, or eager for a family that has no other.
    """

    model_name_or_path: str = Field("smollm2-135m", min_length=1)  # the model that needs no hub
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # released code: bf16 base
    attn_implementation: Literal["auto", "sdpa", "eager"] = "auto"

    @field_validator("model_name_or_path")
    @classmethod
    def _means_the_same_from_everywhere(cls, name: str) -> str:
        """A life is opened from other working directories later: what is a path now is made absolute."""
        path = Path(name).expanduser()
        return os.path.abspath(path) if path.exists() and name != "smollm2-135m" else name


class AdapterConfig(Settings):
    """The LoRA adapter, by PEFT's names.

    Attributes:
        lora_target_modules: Last names of linear modules; ``auto``: q_proj and v_proj, or what stands in their place in
            the model's family.
    """

    lora_r: int = Field(8, ge=1)  # released code
    lora_alpha: int = Field(16, ge=1)  # released code: twice the rank
    lora_dropout: float = Field(0.0, ge=0, lt=1)  # released code
    lora_target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["auto"] = "auto"  # as released code


class StageConfig(Settings):
    """One optimisation stage, by the names of transformers; AdamW, cosine schedule.

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
    """The ``preference`` stage: DPO, weighted as the method says.

    Attributes:
        beta: DPO's temperature, in 1/nat.
        reference: ``base``: the frozen base, adapter off. ``task_start``: the policy as it was when the task began.
    """

    learning_rate: float = Field(5e-6, gt=0)  # released code
    per_device_train_batch_size: int = Field(1, ge=1)  # released code, main script
    gradient_accumulation_steps: int = Field(16, ge=1)  # released code, main script
    beta: float = Field(0.1, gt=0)  # released code
    reference: Literal["base", "task_start"] = "base"  # as in the released code: the frozen base, for every task


class DataConfig(Settings):
    """How pairs become tokens.

    Attributes:
        max_length: Most tokens of prompt and one completion together.
        share_prefix: Whether chosen and rejected of a pair share one copy of the prompt in the batch; ``auto``: where
            that is proven exact on the model.
        reasoning: What becomes of blocks in which a model thinks before it answers (``<think>``). ``strip``: taken off
            answers, those that are learnt and those that are generated, and prompts ask for an answer without any.
            ``keep``: left as it is. ``refuse``: an error, where the chat template or an answer has some.
    """

    max_length: int = Field(1024, ge=2)  # the released code has 2048; its rows are mostly below 500
    share_prefix: bool | Literal["auto"] = "auto"  # same log-probabilities, less work
    reasoning: Literal["strip", "keep", "refuse"] = "strip"  # ours: the paper's models do not reason


class ReplayConfig(Settings):
    """What is remembered of finished tasks.

    Attributes:
        fraction: Share of each finished task's pairs, in [0, 1].
        capacity: Most pairs in all; 0 switches replay off.
    """

    fraction: float = Field(0.2, ge=0, le=1)  # paper: 20 %
    capacity: int = Field(3000, ge=0)  # released code


class EvaluationConfig(Settings):
    """How the model is scored after each step; ``lifealign evaluate`` adds metrics later.

    Attributes:
        metrics: What is measured: of ``lifealign.evaluation.metrics.METRICS`` all but the judge, whom only ``lifealign
            evaluate`` asks, and ``perplexity`` on general text.
        max_new_tokens: Most tokens of a generated answer.
        generate: Whether answers are generated, for the metrics that need them.
        do_sample: Whether answers are drawn instead of greedy; the paper's way, with the three numbers below.
        temperature: Divides the logits before a token is drawn.
        top_p: Tokens are drawn from the likeliest ones that hold this probability together, in (0, 1].
        top_k: Tokens are drawn from at most this many likeliest ones.
        prompts: How many held-out prompts of a task get a generated answer; None for all.
        pairs: How many held-out pairs of a task are scored for preference; None for all.
        general_text: File of general text for the perplexity, ``.jsonl`` with a field ``text`` or ``.txt`` with a blank
            line between passages; None for the passages that come with the package.
    """

    metrics: tuple[str, ...] = DEFAULT_METRICS
    per_device_eval_batch_size: int = Field(16, ge=1)  # ours: fits two cores and the embedded model
    max_new_tokens: int = Field(64, ge=1)  # ours: the checks read short answers; the released code has 1024
    generate: bool = True
    do_sample: bool = False  # ours: the same answer every time
    temperature: float = Field(0.95, gt=0)  # released code
    top_p: float = Field(0.7, gt=0, le=1)  # released code
    top_k: int = Field(50, ge=1)  # released code
    prompts: int | None = Field(None, ge=1)
    pairs: int | None = Field(None, ge=1)
    general_text: str | None = None

    @field_validator("metrics")
    @classmethod
    def _are_known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        known = [*(name for name, metric in METRICS.items() if metric.measured_on != "judge"), PERPLEXITY]
        for number, name in enumerate(metrics):
            if name not in known:
                hint = "; the judge is asked by `lifealign evaluate`" if name == "judge" else nearest(name, known)
                raise ValueError(f"found {name!r}, expected some of {', '.join(known)}{hint}")
            if name in metrics[:number]:
                raise ValueError(f"found {name!r} twice, expected each metric once")
        return metrics

    @field_validator("general_text")
    @classmethod
    def _is_found_from_everywhere(cls, file: str | None) -> str | None:
        return None if file is None else os.path.abspath(Path(file).expanduser())

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        """Settings that would do nothing are refused."""
        faults: list[Fault] = []
        for key in ("temperature", "top_p", "top_k"):
            if not self.do_sample and getattr(self, key) != type(self).model_fields[key].default:
                faults.append(((key,), f"found {getattr(self, key)}, expected it with do_sample: true"))
        if self.general_text is not None and PERPLEXITY not in self.metrics:
            faults.append((("general_text",), f"found a file, expected it with {PERPLEXITY} among the metrics"))
        if faults:
            raise Faults(faults)
        return self


def method_from(value: Any) -> Method:
    """The method that a setting means: its name, or a mapping with its name and options.

    Raises:
        ValueError: If there is no such method or option, or a value is out of range; it says what there is.
    """
    from lifealign.methods import METHODS
    from lifealign.methods.base import Method as MethodBase

    if isinstance(value, MethodBase):
        return value
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        near = nearest(str(name), METHODS)
        expected = f"one of {', '.join(METHODS)}{near}, or a mapping with that as name and its options"
        raise ValueError(f"found {shown(value if name is None else name)}, expected {expected}")
    kind = METHODS[name]
    faults: list[Fault] = []
    for option in [option for option in options if option not in kind.model_fields]:
        owners = [key for key, other in METHODS.items() if option in other.model_fields]
        owned = f" (it is one of {', '.join(owners)})" if owners else nearest(option, kind.model_fields)
        known = ", ".join(kind.model_fields) or "none"
        faults.append(
            ((option,), f"found an option that {name} does not have{owned}, expected one of its own: {known}")
        )
        del options[option]
    faults += [((option,), fault) for option in options if (fault := boolean_as_number(kind, option, options[option]))]
    try:
        method = kind.model_validate(options)
    except ValidationError as error:
        faults += explain(error, kind)
    if faults:
        raise Faults(faults)
    return method


def method_settings(method: Method) -> dict[str, Any]:
    """The mapping that :func:`method_from` takes back."""
    return {"name": method.key, **method.model_dump(mode="json")}


class LifeConfig(Settings):
    """Everything that decides what a life learns, apart from its tasks.

    Attributes:
        replay: None takes the method's own default: on for those that replay, else off.
        method: The method, with its options; in YAML its name, or a mapping with ``name`` and options.
        seed: The one root seed; every other is derived from it.
        report_to: Trackers that are told what happens while a task is learnt.
        license: Licence of the adapters, as the Hugging Face hub names them (``apache-2.0``), for their model cards.
    """

    model: ModelConfig = ModelConfig()
    lora: AdapterConfig = AdapterConfig()
    method: Annotated[Method, PlainValidator(method_from), PlainSerializer(method_settings)] = Field(
        default_factory=lambda: method_from(DEFAULT_METHOD)
    )
    sft: SFTConfig = SFTConfig()
    preference: PreferenceConfig = PreferenceConfig()
    data: DataConfig = DataConfig()
    replay: ReplayConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(42, ge=0, lt=2**32)  # released code
    license: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9.-]*$")
    report_to: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()

    @field_validator("report_to", mode="before")
    @classmethod
    def _is_one_or_many(cls, value: Any) -> Any:
        """One name stands for a list of one, and ``none`` for no tracker, as in transformers."""
        return () if value == "none" else (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_use_for_replay(self) -> Self:
        refuse_idle_replay(self.method, self.replay)
        return self


def refuse_idle_replay(method: Method, replay: ReplayConfig | None) -> None:
    """Refuses settings of replay beside a method that would do nothing with them.

    Raises:
        Faults: If there are some, and the method uses nothing of earlier tasks.
    """
    if replay is not None and method.memory_use == "none":
        fault = f"found settings, expected none: {method.key} uses nothing of earlier tasks"
        raise Faults([(("replay",), fault)])
