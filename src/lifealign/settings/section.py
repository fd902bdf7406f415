"""What a section of settings is: it refuses unknown keys, is immutable, read from plain values, written as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from lifealign.settings.faults import Place, Source, boolean_as_number, config_error, explain


@dataclass(frozen=True)
class RelativeToFile:
    """Marks a setting that is a path, relative to the file of settings it is written in.

    Attributes:
        unless: Values that begin with this are not paths; empty if every value is a path.
    """

    unless: str = ""


@dataclass(frozen=True)
class NameOrOptions:
    """Marks a section that may be just a name; setting an option turns it into a mapping.

    Attributes:
        default: The name if none is given.
    """

    default: str


class Settings(BaseModel):
    """What all sections share: unknown keys and non-finite numbers are refused, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name and (fault := boolean_as_number(cls, info.field_name, value)):
            raise ValueError(fault)
        return value


Kind = TypeVar("Kind", bound=BaseModel)


def build_config(
    kind: type[Kind], values: Mapping[str, Any], sources: Mapping[Place, Source] | None = None, source: str = "settings"
) -> Kind:
    """Validates settings given as plain Python values.

    Args:
        kind: The model.
        values: Nested mappings, as in YAML.
        sources: Where single settings come from, for messages; other settings have their parent's source.
        source: Where everything else comes from.

    Raises:
        ConfigError: If there are mistakes; all of them at once, one line and one of its ``faults`` each.

    Example:
        >>> from lifealign.training.settings import PreferenceConfig
        >>> build_config(PreferenceConfig, {"beta": "2e-1"}).beta
        0.2
        >>> build_config(PreferenceConfig, {"betta": 1}, source="a.yaml")
        Traceback (most recent call last):
        lifealign.errors.ConfigError: a.yaml: betta: found an unknown key; did you mean beta?
    """
    sources = {(): Source(source), **(sources or {})}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = []
        for place, text in explain(error, kind):
            nearest = next(place[:end] for end in range(len(place), -1, -1) if place[:end] in sources)
            faults.append((sources[nearest], place, text))
        raise config_error(faults) from error


def dump_config(config: BaseModel) -> str:
    """The settings as YAML, with every default written out; reading it back gives an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
