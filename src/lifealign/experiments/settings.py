"""Settings of an experiment: the stream of tasks that a life meets, and what is compared on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainSerializer,
    PlainValidator,
    field_validator,
    model_serializer,
    model_validator,
)

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.replay import ReplayConfig
from lifealign.data.task import TASK_NAME
from lifealign.life.settings import LifeConfig, method_from, method_settings, refuse_idle_replay
from lifealign.settings.faults import Fault, Faults, nearest, needs, shown, wrong
from lifealign.settings.section import RelativeToFile, Settings
from lifealign.settings.yaml_file import load_config
from lifealign.storage.home import with_home
from lifealign.training.settings import PreferenceConfig, SFTConfig

if TYPE_CHECKING:
    from lifealign.methods.base import Method
else:
    Method = Any  # as in life/settings.py


def _task_name(name: str) -> str:
    if not TASK_NAME.fullmatch(name):
        rule = "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
        raise ValueError(wrong(repr(name), rule))
    return name


Values = TypeVar("Values")


def _at_least_one(values: Values) -> Values:
    if values is not None and not values:
        raise ValueError(wrong(shown(values), "at least 1 of them"))
    return values


# Not min_length: pydantic counts only valid items, and calls a list of one invalid item too short.
NotEmpty = AfterValidator(_at_least_one)


def _names_in(values: Any, expected: str) -> list[Fault]:
    """The mistakes in a list of names; for a value with several forms, pydantic would report on every form."""
    if not isinstance(values, list | tuple) or not values:
        return [((), wrong(shown(values), expected))]
    no_names = [(number, value) for number, value in enumerate(values) if not isinstance(value, str) or not value]
    return [((number,), wrong(shown(value), "a name")) for number, value in no_names]


class TaskConfig(Settings):
    """A task of an experiment.

    Attributes:
        name: Letters, digits, ``.``, ``_`` and ``-``, at most 64.
        train: File of training pairs, relative to the YAML file, or ``hub:owner/name[:split]``.
        test: The same for held-out pairs; None if the task is not scored.
        check: Exact check of generated answers.
        supersedes: Names of tasks that are met before this one and whose rule it replaces.
        gate: The same for pairs by which later steps are accepted or refused; None sets some of the training pairs
            aside, if the experiment's ``retention`` is on.
        max_loss: The largest loss of this task that a later step may cost; None takes that of ``retention``.
        max_train: Most training pairs; the first ones of the file are taken.
        max_test: Most held-out pairs, likewise.
    """

    name: str
    train: Annotated[str, RelativeToFile(unless="hub:")] = Field(min_length=1)
    test: Annotated[str | None, RelativeToFile(unless="hub:")] = Field(None, min_length=1)
    check: AnswerCheck | None = None
    supersedes: tuple[str, ...] = ()
    gate: Annotated[str | None, RelativeToFile(unless="hub:")] = Field(None, min_length=1)
    max_loss: float | None = Field(None, gt=0, lt=1)
    max_train: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)

    @field_validator("name")
    @classmethod
    def _fits_a_folder(cls, name: str) -> str:
        return _task_name(name)


OWN_SECTIONS = ("replay", "sft", "preference")
"""Sections that a row of a comparison may have of its own."""


class Variant(Settings):
    """A row of a comparison: a method with its options, and a label.

    Attributes:
        label: Its name in tables and, simplified, in file names; by default the method's title.
        method: The method.
        replay: What this row remembers; by default, methods that replay take the experiment's section, and the others
            remember nothing.
        sft: Settings of the stage that this row has otherwise than the experiment; the others are the experiment's.
        preference: The same for the other stage.
    """

    label: str = Field(min_length=1, max_length=40)
    method: Annotated[Method, PlainValidator(method_from), PlainSerializer(method_settings)]
    replay: ReplayConfig | None = None
    sft: SFTConfig | None = None
    preference: PreferenceConfig | None = None

    @property
    def slug(self) -> str:
        """The label for file names: lower case, with hyphens for everything but letters and digits."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")

    @model_validator(mode="before")
    @classmethod
    def _from_name_or_options(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("method"), BaseModel):
            return value  # made in Python, with the names of the attributes
        options = dict(value) if isinstance(value, Mapping) else {"name": value}
        label, own = options.pop("label", None), {key: options.pop(key, None) for key in OWN_SECTIONS}
        method = method_from(options if len(options) > 1 else options.get("name"))
        return {"label": method.title if label is None else label, "method": method} | own

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        sections = {key: getattr(self, key) for key in OWN_SECTIONS}
        own = {
            key: section.model_dump(mode="json", exclude_unset=key != "replay")
            for key, section in sections.items()
            if section is not None
        }
        return {**method_settings(self.method), "label": self.label, **own}

    def stage_settings(self, experiment: LifeConfig) -> dict[str, SFTConfig | PreferenceConfig]:
        """The settings of both stages in this row: the experiment's, but for what the row has otherwise."""
        found = {}
        for key, own in (("sft", self.sft), ("preference", self.preference)):
            changed = {} if own is None else {name: getattr(own, name) for name in own.model_fields_set}
            found[key] = getattr(experiment, key).model_copy(update=changed)
        return found

    @model_validator(mode="after")
    def _has_a_use_for_replay(self) -> Self:
        refuse_idle_replay(self.method, self.replay)
        return self

    @field_validator("label")
    @classmethod
    def _leaves_a_slug(cls, label: str) -> str:
        if not re.search("[A-Za-z0-9]", label):
            raise ValueError(wrong(repr(label), "at least one letter or digit, for file names"))
        return label


class CompareConfig(Settings):
    """What ``lifealign compare`` runs: every method on every order with every seed.

    Attributes:
        methods: Methods by name, or mappings with ``name``, options and a ``label``; by default every method.
        orders: Names of orders of the paper's catalog, or a mapping from a name to the tasks in their order; by default
            the experiment's own order.
        seeds: Root seeds; by default the experiment's own.
        against: Label or name of the method that the others are compared with by bootstrap; None for no comparison.
    """

    methods: Annotated[tuple[Variant, ...], NotEmpty] = Field(default_factory=lambda: _all_methods())
    orders: dict[str, tuple[str, ...]] | tuple[str, ...] | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32, strict=True)], ...] | None, NotEmpty] = None
    against: str | None = None

    @field_validator("orders", mode="before")
    @classmethod
    def _are_names_or_lists(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value:
            tasks = "a list of tasks, at least one"
            faults: list[Fault] = [
                ((str(name), *place), text) for name, order in value.items() for place, text in _names_in(order, tasks)
            ]
        else:
            names = "a list of orders of the paper's catalog, or a mapping from names to lists of tasks"
            faults = [] if value is None else _names_in(value, names)
        if faults:
            raise Faults(faults)
        return value

    @model_validator(mode="after")
    def _cells_have_folders_of_their_own(self) -> Self:
        faults: list[Fault] = []
        for number, variant in enumerate(self.methods):
            for earlier, other in enumerate(self.methods[:number]):
                if variant.slug == other.slug:
                    found = f"{variant.label!r}, which shares its folder with methods[{earlier}] ({other.label!r})"
                    faults.append((("methods", number), wrong(found, "a label of its own")))
        for key, values in (("orders", self.orders), ("seeds", self.seeds)):
            if isinstance(values, tuple) and len(set(values)) < len(values):
                faults.append(((key,), wrong(str(list(values)), "each once")))
        for name in self.orders or ():
            if not TASK_NAME.fullmatch(name):
                faults.append((("orders",), wrong(repr(name), "letters, digits, '.', '_' or '-'")))
        if self.against is not None and self.against not in (known := self._names()):
            expected = f"one of {', '.join(dict.fromkeys(known))}{nearest(self.against, known)}"
            faults.append((("against",), wrong(repr(self.against), expected)))
        if faults:
            raise Faults(faults)
        return self

    @property
    def reference_label(self) -> str | None:
        """The label that ``against`` refers to."""
        return next((one.label for one in self.methods if self.against in (one.label, one.method.key)), None)

    def _names(self) -> list[str]:
        return [name for variant in self.methods for name in (variant.label, variant.method.key)]


class ExperimentConfig(LifeConfig):
    """A whole stream in one file: a life's settings, and the tasks or the suite it meets.

    Attributes:
        output_dir: Folder of the life, relative to the working directory; for a comparison, folder of all its lives.
        tasks: The tasks in the order they are met, or None with a suite.
        suite: A suite of tasks, or None with tasks: ``support-desk`` is embedded, ``paper`` is the paper's six tasks
            from the hub (``lifealign.data.suites.paper``).
        suite_pairs: Training pairs per task of the suite; None for all.
        suite_test_pairs: Held-out pairs per task of the suite; None for all.
        suite_held_out: ``dev`` for choosing settings, ``test`` for reported results; for ``support-desk`` only.
        order: Names of the tasks in the order in which they are met, or the name of an order of the paper's catalog;
            None for all tasks as listed (``order1`` for the paper's).
        data_dir: Folder with ``NAME/train.jsonl`` and ``NAME/test.jsonl`` for each task, in place of the hub.
        compare: What ``lifealign compare`` runs; ``lifealign run`` ignores it.
    """

    output_dir: Annotated[Path, AfterValidator(with_home)]
    tasks: Annotated[tuple[TaskConfig, ...] | None, NotEmpty] = None
    suite: Literal["support-desk", "paper"] | None = None
    suite_pairs: int | None = Field(None, ge=1)
    suite_test_pairs: int | None = Field(None, ge=1)
    suite_held_out: Literal["test", "dev"] = "test"
    order: str | tuple[str, ...] | None = None
    data_dir: Annotated[Path | None, RelativeToFile()] = None
    compare: CompareConfig = Field(default_factory=lambda: CompareConfig())

    @field_validator("order", mode="before")
    @classmethod
    def _is_a_name_or_a_list(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, str) and value):
            faults = _names_in(value, "the name of an order of the paper's catalog, or a list of tasks, at least one")
            if faults:
                raise Faults(faults)
        return value

    @model_validator(mode="after")
    def _has_one_source_of_tasks(self) -> Self:
        if self.tasks is None and self.suite is None:
            raise ValueError(needs("tasks or a suite", "add one of the two"))
        if self.tasks is not None and self.suite is not None:
            raise ValueError(wrong("both tasks and suite", "exactly one of the two"))
        faults: list[Fault] = [
            ((key,), needs("a suite", "add suite: support-desk or suite: paper"))
            for key in ("suite_pairs", "suite_test_pairs")
            if self.suite is None and getattr(self, key) is not None
        ]
        if self.suite != "support-desk" and self.suite_held_out != "test":
            faults.append((("suite_held_out",), needs("a suite with a dev split", "add suite: support-desk")))
        tasks = self.tasks or ()
        from_hub = [file for task in tasks for file in (task.train, task.test or "") if file.startswith("hub:")]
        if self.data_dir is not None and self.suite != "paper" and not from_hub:
            way_out = "add suite: paper, or tasks whose files begin with hub:"
            faults.append((("data_dir",), needs("data from the hub, which it replaces", way_out)))
        for number, task in enumerate(tasks):
            for earlier, other in enumerate(tasks[:number]):
                for key in ("name", "train"):
                    if getattr(task, key) == (value := getattr(other, key)):
                        fault = wrong(repr(value), f"another {key} than that of tasks[{earlier}]")
                        faults.append((("tasks", number, key), fault))
        if faults:
            raise Faults(faults)
        return self


def _all_methods() -> tuple[Variant, ...]:
    from lifealign.methods import METHODS

    return tuple(Variant.model_validate(name) for name in METHODS)


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
