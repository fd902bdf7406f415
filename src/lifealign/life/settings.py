"""Settings of a life: the sections of its parts, the method and the root seed.

Options have the names that TRL, PEFT and transformers use, if these have the option.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import xxhash
from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, field_validator, model_validator

from lifealign.data.replay import ReplayConfig
from lifealign.evaluation.settings import EvaluationConfig, RetentionConfig
from lifealign.methods import METHODS, Facts, facts_of
from lifealign.model.settings import AdapterConfig, DataConfig, DeviceConfig, Dtype, ModelConfig
from lifealign.settings.faults import Fault, Faults, boolean_as_number, explain, nearest, shown
from lifealign.settings.section import NameOrOptions, Settings
from lifealign.training.settings import PreferenceConfig, SFTConfig

if TYPE_CHECKING:
    from lifealign.methods.base import Method
else:
    Method = Any  # methods are imported when one is named, so that reading a settings file does not import torch

DEFAULT_METHOD = "lifealign"
STORED_AUTO: Dtype = "bfloat16"
"""What ``model.dtype: auto`` is in a life or result file: those that have it were made when it always was bfloat16."""


def method_from(value: Any) -> Method:
    """The method that a setting stands for: its name, or a mapping with its name and options.

    Raises:
        ValueError: If there is no such method or option, or a value is out of range; the message lists those there are.
    """
    from lifealign.methods.base import Method as MethodBase

    if isinstance(value, MethodBase):
        return value
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        near = nearest(str(name), METHODS)
        expected = f"one of {', '.join(METHODS)}, or a mapping with one of them as name and its options{near}"
        raise ValueError(f"found {shown(value if name is None else name)}, expected {expected}")
    kind = METHODS[name]
    faults: list[Fault] = []
    for option in [option for option in options if option not in kind.model_fields]:
        owners = [key for key, other in METHODS.items() if option in other.model_fields]
        owned = f" (it belongs to {', '.join(owners)})" if owners else ""
        near = "" if owners else nearest(option, kind.model_fields)
        known = (", ".join(kind.model_fields) or "none") + near
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
    """The mapping from which :func:`method_from` restores the method."""
    return {"name": method.key, **method.model_dump(mode="json")}


@dataclass(frozen=True)
class ShownMethod:
    """A method for display: its name, its options, and what is known about it without importing it."""

    key: str
    options: Mapping[str, Any]
    facts: Facts

    @property
    def title(self) -> str:
        """Display name."""
        return self.facts.title

    @property
    def one_model(self) -> bool:
        """Whether one model answers for all tasks."""
        return self.facts.one_model

    @property
    def keeps_updates(self) -> bool:
        """Whether the refined updates of all tasks have to be kept."""
        return self.facts.keeps_updates(self.options)


def shown_method(value: Any) -> ShownMethod:
    """The method that a life's settings name, for display.

    Raises:
        ValueError: If the value is not in the form that :func:`method_settings` returns.
    """
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"found {shown(value)}, expected the name of a method, one of {', '.join(METHODS)}")
    # Sorted as in life.json, so that a life just made (in the order of the class) shows the same as one just opened.
    options = {key: value[key] for key in sorted(value) if key != "name"}
    method = ShownMethod(name, options, facts_of(name))
    try:
        assert isinstance(method.keeps_updates, bool)
    except (KeyError, TypeError) as error:
        raise ValueError(f"found {shown(value)}, expected every option of {name}") from error
    return method


class LifeConfig(Settings):
    """Everything that decides what a life learns, apart from its tasks.

    Attributes:
        replay: None takes the method's own default: on for methods that replay, else off.
        retention: What a step may cost the tasks before it; ``warn`` in a new life whose settings do not say.
        method: The method, with its options; in YAML its name, or a mapping with ``name`` and options.
        keep_training_pairs: Whether a life keeps everything it was taught with, compressed, so that a task can be
            forgotten by learning the later ones again; on in a new life whose settings do not say.
        seed: The root seed; every other seed is derived from it.
        save_steps: Optimizer steps after which the state of training is kept on disk, so that the same command goes on
            from there after an interruption; None keeps it only on Ctrl-C and SIGTERM. It does not affect what is
            learnt.
        report_to: Trackers that receive the figures while a task is learnt.
        license: Licence of the adapters, as the Hugging Face hub names them (``apache-2.0``), for their model cards.
    """

    model: ModelConfig = ModelConfig()
    device: DeviceConfig = DeviceConfig()
    lora: AdapterConfig = AdapterConfig()
    method: Annotated[
        Method, PlainValidator(method_from), PlainSerializer(method_settings), NameOrOptions(DEFAULT_METHOD)
    ] = Field(default_factory=lambda: method_from(DEFAULT_METHOD))
    sft: SFTConfig = SFTConfig()
    preference: PreferenceConfig = PreferenceConfig()
    data: DataConfig = DataConfig()
    replay: ReplayConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    retention: RetentionConfig = RetentionConfig()
    keep_training_pairs: bool = False
    seed: int = Field(42, ge=0, lt=2**32)  # released code
    save_steps: int | None = Field(50, ge=1)  # ours; transformers saves every 500
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

    @model_validator(mode="after")
    def _leaves_out_nothing_that_a_penalty_needs(self) -> Self:
        refuse_skipping_beside_a_penalty(self.method, self.preference)
        return self

    @model_validator(mode="after")
    def _has_the_stage_that_the_method_needs(self) -> Self:
        refuse_a_method_without_its_sft(self.method, self.sft)
        return self

    def of_a_new_life(self) -> Self:
        """These settings, with those switched on that a new life has on: an old life that does not say has them off."""
        on = {"retention": RetentionConfig(mode="warn"), "keep_training_pairs": True}
        return self.model_copy(update={key: value for key, value in on.items() if key not in self.model_fields_set})

    def settled(self, dtype: Dtype | Literal["auto"]) -> Self:
        """These settings with a dtype of the base weights in place of ``auto``; unchanged if they name one."""
        if self.model.dtype != "auto":
            return self
        return self.model_copy(update={"model": self.model.model_copy(update={"dtype": dtype})})

    @property
    def replay_or_default(self) -> ReplayConfig:
        """The configured replay, or the method's default: on with its defaults, or off."""
        if self.replay is not None:
            return self.replay
        return ReplayConfig() if self.method.replays else ReplayConfig(fraction=0.0, capacity=0)


class ShownConfig(LifeConfig):
    """Settings of a life for display: the method as name and options, so that its code need not be imported."""

    method: Annotated[  # type: ignore[assignment]
        ShownMethod,
        PlainValidator(shown_method),
        PlainSerializer(lambda method: {"name": method.key, **method.options}),
    ]

    @model_validator(mode="after")
    def _has_a_use_for_replay(self) -> Self:
        return self  # this was checked when the life was made

    @model_validator(mode="after")
    def _leaves_out_nothing_that_a_penalty_needs(self) -> Self:
        return self  # as was this

    @model_validator(mode="after")
    def _has_the_stage_that_the_method_needs(self) -> Self:
        return self  # and this


def refuse_skipping_beside_a_penalty(method: Method, preference: PreferenceConfig) -> None:
    """Refuses to skip mastered pairs for a method with a penalty: it holds for every pair and every step.

    Raises:
        Faults: If both are asked for.
    """
    from lifealign.methods.base import Method as MethodBase

    if preference.skip_mastered and type(method).penalty is not MethodBase.penalty:
        fault = f"found {preference.skip_mastered}, expected 0, because {method.key} has a penalty on every step"
        raise Faults([(("preference", "skip_mastered"), fault)])


def refuse_a_method_without_its_sft(method: Method, sft: SFTConfig) -> None:
    """Refuses to switch SFT off for a method that decides what is imitated: its options would do nothing.

    Raises:
        Faults: If SFT is off and the method needs it.
    """
    if method.needs_sft and not sft.num_train_epochs:
        fault = f"found 0, expected at least 1, because {method.key} decides what SFT imitates; lifealign is without it"
        raise Faults([(("sft", "num_train_epochs"), fault)])


def refuse_idle_replay(method: Method, replay: ReplayConfig | None) -> None:
    """Refuses replay settings for a method that would not use them.

    Raises:
        Faults: If there are replay settings, and the method uses no pairs of earlier tasks.
    """
    if replay is not None and method.memory_use == "none":
        fault = f"found settings, expected none, because {method.key} uses no pairs of earlier tasks"
        raise Faults([(("replay",), fault)])


def derive_seed(root: int, purpose: str) -> int:
    """A seed for one purpose, derived from the root seed and the purpose alone, so that it is the same in every run.

    Example:
        >>> derive_seed(42, "01-tone") == derive_seed(42, "01-tone") != derive_seed(42, "02-tone")
        True
    """
    return xxhash.xxh64(f"{root} {purpose}".encode()).intdigest() >> 1  # torch takes a signed 64-bit number
