"""Settings: pydantic models, YAML in with every mistake named by file, line and key, resolved YAML out.

The models come first, then reading. Option names are those of TRL, PEFT and transformers, where they have the option.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
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

from lifealign.data.task import TASK_NAME
from lifealign.errors import ConfigError, describe
from lifealign.evaluation.adherence import AnswerCheck

if TYPE_CHECKING:
    from lifealign.methods import Method
else:
    Method = Any  # the methods are imported when one is named: reading a file of settings should not wait for torch

Kind = TypeVar("Kind", bound=BaseModel)
Place = tuple[str | int, ...]
"""Where a setting is: ``("tasks", 0, "train")``."""
Fault = tuple[Place, str]
"""A mistake: its place, and ``found X, expected Y``."""

DEFAULT_METHOD = "lifealign"


class Faults(ValueError):
    """Mistakes below a setting that pydantic does not look into by itself."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


class Settings(BaseModel):
    """What all sections share: unknown keys and non-finite numbers are refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name and (fault := _boolean_as_number(cls, info.field_name, value)):
            raise ValueError(fault)
        return value


class ModelConfig(Settings):
    """The base model, frozen for the whole life.

    Attributes:
        model_name_or_path: ``smollm2-135m`` (the embedded model), a folder, a ``.gguf`` file, or a hub id.
        revision: Commit, tag or branch of a hub model.
        dtype: Of the base weights; ``auto`` is bfloat16. Adapters are always float32.
        attn_implementation: ``auto`` is sdpa.
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
    """The LoRA adapter, by PEFT's names."""

    lora_r: int = Field(8, ge=1)  # released code
    lora_alpha: int = Field(16, ge=1)  # released code: twice the rank
    lora_dropout: float = Field(0.0, ge=0, lt=1)  # released code
    lora_target_modules: tuple[str, ...] = Field(("q_proj", "v_proj"), min_length=1)  # released code


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
        share_prefix: Whether chosen and rejected of a pair share one copy of the prompt in the batch.
    """

    max_length: int = Field(1024, ge=2)  # the released code has 2048; its rows are mostly below 500
    share_prefix: bool = True  # same log-probabilities, less work


class ReplayConfig(Settings):
    """What is remembered of finished tasks.

    Attributes:
        fraction: Share of each finished task's pairs, in [0, 1].
        capacity: Most pairs in all; 0 switches replay off.
    """

    fraction: float = Field(0.2, ge=0, le=1)  # paper: 20 %
    capacity: int = Field(3000, ge=0)  # released code


class EvaluationConfig(Settings):
    """How the model is scored after each step.

    Attributes:
        max_new_tokens: Most tokens of a generated answer.
        generate: Whether answers are generated, for tasks that have a check.
        prompts: How many held-out prompts of a task get a generated answer; None for all.
    """

    per_device_eval_batch_size: int = Field(16, ge=1)  # ours: fits two cores and the embedded model
    max_new_tokens: int = Field(64, ge=1)  # ours: the checks read short answers; the released code has 1024
    generate: bool = True
    prompts: int | None = Field(None, ge=1)


def _to_method(value: Any) -> Any:
    from lifealign.methods import METHODS
    from lifealign.methods.base import Method as MethodBase

    if isinstance(value, MethodBase):
        return value
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        near = _nearest(str(name), METHODS)
        expected = f"one of {', '.join(METHODS)}{near}, or a mapping with that as name and its options"
        raise ValueError(f"found {_shown(value if name is None else name)}, expected {expected}")
    kind = METHODS[name]
    faults: list[Fault] = []
    for option in [option for option in options if option not in kind.model_fields]:
        owners = [key for key, other in METHODS.items() if option in other.model_fields]
        owned = f" (it is one of {', '.join(owners)})" if owners else _nearest(option, kind.model_fields)
        known = ", ".join(kind.model_fields) or "none"
        faults.append(
            ((option,), f"found an option that {name} does not have{owned}, expected one of its own: {known}")
        )
        del options[option]
    faults += [((option,), fault) for option in options if (fault := _boolean_as_number(kind, option, options[option]))]
    try:
        method = kind.model_validate(options)
    except ValidationError as error:
        faults += _explain(error, kind)
    if faults:
        raise Faults(faults)
    return method


def _from_method(method: Method) -> dict[str, Any]:
    return {"name": method.key, **method.model_dump(mode="json")}


class LifeConfig(Settings):
    """Everything that decides what a life learns, apart from its tasks.

    Attributes:
        replay: None takes the method's own default: on for those that replay, else off.
        method: The method, with its options; in YAML its name, or a mapping with ``name`` and options.
        seed: The one root seed; every other is derived from it.
    """

    model: ModelConfig = ModelConfig()
    lora: AdapterConfig = AdapterConfig()
    method: Annotated[Method, PlainValidator(_to_method), PlainSerializer(_from_method)] = Field(
        default_factory=lambda: _to_method(DEFAULT_METHOD)
    )
    sft: SFTConfig = SFTConfig()
    preference: PreferenceConfig = PreferenceConfig()
    data: DataConfig = DataConfig()
    replay: ReplayConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(42, ge=0, lt=2**32)  # released code


class TaskConfig(Settings):
    """A task of an experiment.

    Attributes:
        name: Letters, digits, ``.``, ``_`` and ``-``, at most 64.
        train: File of training pairs, relative to the YAML file, or ``hub:owner/name[:split]``.
        test: The same for held-out pairs; None: the task is trained and not scored.
        check: Exact check of generated answers.
        max_train: Only the first so many pairs.
        max_test: Only the first so many pairs.
    """

    name: str
    train: str = Field(min_length=1)
    test: str | None = Field(None, min_length=1)
    check: AnswerCheck | None = None
    max_train: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)

    @field_validator("name")
    @classmethod
    def _fits_a_folder(cls, name: str) -> str:
        if not TASK_NAME.fullmatch(name):
            raise ValueError(
                f"found {name!r}, expected 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
            )
        return name


class ExperimentConfig(LifeConfig):
    """A whole stream in one file: a life's settings, and the tasks or the suite it meets.

    Attributes:
        output_dir: Folder of the life, relative to the working directory.
        tasks: The tasks in the order they are met, or None with a suite.
        suite: An embedded suite of tasks, or None with tasks.
        suite_pairs: Training pairs per task of the suite; None for all.
    """

    output_dir: Path
    tasks: tuple[TaskConfig, ...] | None = Field(None, min_length=1)
    suite: Literal["support-desk"] | None = None
    suite_pairs: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _has_one_source_of_tasks(self) -> Self:
        if (self.tasks is None) == (self.suite is None):
            found = "neither tasks nor suite" if self.tasks is None else "both tasks and suite"
            raise ValueError(f"found {found}, expected exactly one of the two")
        if self.suite is None and self.suite_pairs is not None:
            raise Faults([(("suite_pairs",), f"found {self.suite_pairs} without a suite, expected it with one")])
        faults: list[Fault] = []
        tasks = self.tasks or ()
        for number, task in enumerate(tasks):
            for earlier, other in enumerate(tasks[:number]):
                for key in ("name", "train"):
                    if getattr(task, key) == (value := getattr(other, key)):
                        fault = f"found {value!r}, expected another than tasks[{earlier}] has"
                        faults.append((("tasks", number, key), fault))
        if faults:
            raise Faults(faults)
        return self


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Reads an experiment.

    Args:
        path: YAML file.
        overrides: ``KEY=VALUE`` each, the key dotted (``preference.beta=0.2``), the value YAML; they win over the file.

    Raises:
        ConfigError: If the file cannot be read or has mistakes; all of them at once, one line each, with file, line,
            key, what was found and what was expected.
    """
    return load_config(path, ExperimentConfig, overrides)


def load_config(path: str | Path, kind: type[Kind], overrides: Sequence[str] = ()) -> Kind:
    """Reads settings of any kind; arguments and errors as :func:`load_experiment`."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: found a byte that is not UTF-8 at offset {error.start}, expected YAML") from error
    except OSError as error:
        raise ConfigError(f"{path}: could not be read: {error.strerror}") from error
    sources: dict[Place, str] = {}
    values = _parse(text, str(path), sources)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {describe(values)}, expected settings, one 'key: value' a line")
    _resolve_paths(values, Path(path).parent)
    for override in overrides:
        _override(values, override, sources)
    return build_config(kind, values, sources, str(path))


def load_overrides(kind: type[Kind], path: str | Path | None, overrides: Sequence[str]) -> Kind:
    """Settings from single ``KEY=VALUE`` texts, on top of a file or of the defaults.

    Raises:
        ConfigError: As :func:`load_experiment`.
    """
    if path is not None:
        return load_config(path, kind, overrides)
    values: dict[str, Any] = {}
    sources: dict[Place, str] = {}
    for override in overrides:
        _override(values, override, sources)
    return build_config(kind, values, sources)


def build_config(
    kind: type[Kind], values: Mapping[str, Any], sources: Mapping[Place, str] | None = None, source: str = "settings"
) -> Kind:
    """Validates settings that are at hand as plain values.

    Args:
        kind: The model.
        values: Nested mappings, as in YAML.
        sources: Where single settings come from, for messages; a setting that is not in it has its parent's source.
        source: Where the rest comes from.

    Raises:
        ConfigError: If there are mistakes; all of them at once, one line each.

    Example:
        >>> build_config(PreferenceConfig, {"beta": "2e-1"}).beta
        0.2
        >>> build_config(PreferenceConfig, {"betta": 1}, source="a.yaml")
        Traceback (most recent call last):
        lifealign.errors.ConfigError: a.yaml: betta: found an unknown key; did you mean beta?
    """
    sources = {(): source, **(sources or {})}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = []
        for place, text in _explain(error, kind):
            nearest = next(place[:end] for end in range(len(place), -1, -1) if place[:end] in sources)
            lines.append(": ".join(part for part in (sources[nearest], _dotted(place), text) if part))
        raise ConfigError("\n".join(lines)) from error


def dump_config(config: BaseModel) -> str:
    """The settings as YAML, every default written out; reading it gives an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML without aliases: ten lines of them can stand for a billion values, and no setting needs one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"found the alias *{event.anchor}, expected the value itself", event.start_mark
            )
        return super().compose_node(parent, index)


def _parse(text: str, source: str, sources: dict[Place, str], place: Place = (), with_line: bool = True) -> Any:
    """Parses YAML into plain values, and notes in ``sources`` where each of them stands."""

    def value_of(node: yaml.Node, place: Place) -> Any:
        sources[place] = f"{source}:{node.start_mark.line + 1}" if with_line else source
        match node.tag.removeprefix("tag:yaml.org,2002:"), node:
            case "map", yaml.MappingNode():
                return mapping_of(node, place)
            case "seq", yaml.SequenceNode():
                return [value_of(item, (*place, number)) for number, item in enumerate(node.value)]
            case "str" | "timestamp", yaml.ScalarNode():  # a date is a name here, like any other text
                return node.value
            case "int" | "float" | "bool" | "null", yaml.ScalarNode():
                return loader.construct_object(node)
            case tag, _:
                raise yaml.MarkedYAMLError(
                    problem=f"found the tag {tag}, expected plain values", problem_mark=node.start_mark
                )

    def mapping_of(node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="found a key that is not a word", problem_mark=key_node.start_mark)
            key = key_node.value
            if key in values:
                first = sources[*place, key].rpartition(":")[2]
                problem = f"found the key {_dotted((*place, key))} again, expected it once (first in line {first})"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            values[key] = value_of(value_node, (*place, key))
            if with_line:
                sources[*place, key] = f"{source}:{key_node.start_mark.line + 1}"
        return values

    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else value_of(node, place)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark and with_line else ""
        raise ConfigError(f"{source}{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # control characters, numbers of impossible form
        raise ConfigError(f"{source}: found no valid YAML ({' '.join(str(error).split())})") from error
    except RecursionError:
        raise ConfigError(f"{source}: found values nested too deep, expected settings") from None


def _resolve_paths(values: Mapping[str, Any], folder: Path) -> None:
    """Makes the files of the tasks absolute: what is written in a file is relative to that file."""
    tasks = values.get("tasks")
    for task in tasks if isinstance(tasks, list) else ():
        for key in ("train", "test"):
            if (
                isinstance(task, dict)
                and isinstance(file := task.get(key), str)
                and file
                and not file.startswith("hub:")
            ):
                task[key] = os.path.abspath(folder / file)


def _override(values: dict[str, Any], override: str, sources: dict[Place, str]) -> None:
    key, equals, text = override.partition("=")
    source = f"--set {override}"
    *sections, last = place = tuple(key.strip().split("."))
    if not equals or not all(place):
        raise ConfigError(f"{source}: found no key and value, expected KEY=VALUE as in preference.beta=0.2")
    here: Any = values
    if sections and sections[0] == "method" and not isinstance(values.get("method"), dict):
        values["method"] = {"name": values.get("method") or DEFAULT_METHOD}  # its options need a mapping to stand in
    for depth, section in enumerate(sections):
        if here.get(section) is None:
            here[section] = {}
            sources[place[: depth + 1]] = source
        here = here[section]
        if not isinstance(here, dict):
            raise ConfigError(f"{source}: found {describe(here)} at {_dotted(place[: depth + 1])}, expected a section")
    here[last] = _parse(text, source, sources, place, with_line=False)
    sources[place] = source


def _explain(error: ValidationError, kind: type[BaseModel]) -> Iterator[Fault]:
    """What pydantic found, in the words of this package."""
    for fault in error.errors():
        place, context, given = fault["loc"], fault.get("ctx", {}), fault["input"]
        found = f"found {_shown(given)}"
        match fault["type"]:
            case "value_error" if isinstance(inner := context["error"], Faults):
                yield from (((*place, *below), text) for below, text in inner.faults)
            case "value_error":
                text = str(context["error"])
                yield place, text if text.startswith("found") else f"{found}: {text}"
            case "extra_forbidden":
                yield place, _unknown_key(str(place[-1]), _section(kind, place[:-1]), kind)
            case "missing":
                yield place, "found nothing, expected a value; it has no default"
            case kind_of_fault:
                yield place, f"{found}, expected {_expected(kind_of_fault, context) or fault['msg']}"


def _expected(fault: str, context: Mapping[str, Any]) -> str:
    for start, words in {
        "greater_than_equal": "a number of at least {ge}",
        "greater_than": "a number greater than {gt}",
        "less_than_equal": "a number of at most {le}",
        "less_than": "a number less than {lt}",
        "finite_number": "a finite number",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "string_type": "text",
        "path": "a path",
        "string_too_short": "text that is not empty",
        "too_short": "at least {min_length} of them",
        "literal_error": "one of {expected}",
        "tuple_type": "a list",
        "model": "a section of settings",
    }.items():
        if fault.startswith(start):
            limits = {name: value if name == "expected" else _shown(value) for name, value in context.items()}
            return words.format(**limits)
    return ""


def _unknown_key(key: str, section: type[BaseModel], root: type[BaseModel]) -> str:
    if near := _nearest(key, section.model_fields):
        return f"found an unknown key{near}"
    elsewhere = [dotted for dotted in _all_keys(root) if dotted.rpartition(".")[2] == key]
    if elsewhere:
        return f"found an unknown key; did you mean {' or '.join(elsewhere)}?"
    return f"found an unknown key, expected one of {', '.join(section.model_fields)}"


def _nearest(word: str, known: Iterator[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _section(kind: type[BaseModel], place: Place) -> type[BaseModel]:
    for key in place:
        if isinstance(key, str):
            kind = next(_models_in(kind.model_fields[key].annotation))
    return kind


def _all_keys(kind: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield before + name
        for model in _models_in(field.annotation):
            yield from _all_keys(model, f"{before}{name}.")


def _boolean_as_number(kind: type[BaseModel], name: str, value: Any) -> str:
    """Pydantic takes true for 1; somebody who wrote ``beta: true`` did not mean it."""
    if not isinstance(value, bool) or name not in kind.model_fields:
        return ""
    annotation = kind.model_fields[name].annotation
    types = (annotation, *get_args(annotation))
    return f"found {_shown(value)}, expected a number" if {int, float} & set(types) and bool not in types else ""


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case int() if abs(value) < 10**15:  # Python refuses to print the longest ones
            return str(value)
        case int():
            return "a number of more than 15 digits"
        case str() if value:
            return repr(value[:60])
        case _:
            return describe(value)


def _dotted(place: Place) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".")
