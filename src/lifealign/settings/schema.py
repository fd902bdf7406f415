"""Sections of settings as JSON schema, with what their docstrings say of each setting, for editors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from lifealign.settings.faults import models_in

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a section and of all sections in it.

    Args:
        kind: The section. Fields that pydantic knows nothing of, such as a method, accept anything.

    Returns:
        A schema in which every setting that a docstring describes has that description.
    """
    schema = kind.model_json_schema()
    described = {one.__name__: one for one in _with_sections(kind)}
    for name, part in [(kind.__name__, schema), *schema.get("$defs", {}).items()]:
        if name in described and "properties" in part:
            describe_settings(part, described[name])
    return {"$schema": DIALECT} | schema


def describe_settings(schema: dict[str, Any], kind: type[BaseModel]) -> None:
    """Adds what the docstring of a section says to its schema, in place."""
    summary, attributes = _docstring(kind)
    schema["description"] = summary
    for setting, text in attributes.items():
        if setting in schema["properties"]:
            schema["properties"][setting]["description"] = text


def _with_sections(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and all sections in it."""
    yield kind
    for field in kind.model_fields.values():
        for inner in models_in(field.annotation):
            yield from _with_sections(inner)


def _docstring(kind: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and its ``Attributes``, those of the classes it is derived from included."""
    attributes: dict[str, str] = {}
    for one in reversed([base for base in kind.__mro__ if issubclass(base, BaseModel) and base is not BaseModel]):
        listed = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(one.__doc__ or ""), re.M | re.S)
        for name, text in re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w+: |\Z)", listed[1] if listed else "", re.M | re.S):
            attributes[name] = plain_text(text)
    return plain_text(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]), attributes


def plain_text(text: str) -> str:
    r"""A text of a docstring in one line, without its marks.

    Example:
        >>> plain_text("As :func:`~a.b.work` does, or\n    ``auto``.")
        'As work does, or auto.'
    """
    shown = re.sub(r":\w+:`~?(?:[^`<]*\.)?([^`.<]+)`", r"\1", text)
    return " ".join(shown.replace("``", "").split())
