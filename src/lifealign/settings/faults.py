"""Mistakes in settings, in words: ``found X, expected Y``, with the nearest known key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lifealign.errors import describe

Place = tuple[str | int, ...]
"""Where a setting is: ``("tasks", 0, "train")``."""
Fault = tuple[Place, str]
"""A mistake: its place, and ``found X, expected Y``."""


class Faults(ValueError):
    """Mistakes below a setting that pydantic does not look into by itself."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


BRANCH = re.compile(r"(bool|tuple\[.*\]|literal\[.*\])$")
"""How pydantic marks, behind a setting's place, which of several allowed kinds a fault is about."""


def explain(error: ValidationError, kind: type[BaseModel]) -> Iterator[Fault]:
    """What pydantic found, in the words of this package; of a value that may be of several kinds, one fault in all."""
    merged: dict[Place, str] = {}
    for place, text in _explained(error, kind):
        setting = tuple(key for key in place if not (isinstance(key, str) and BRANCH.match(key)))
        alternative = text.partition(", expected ")[2].removeprefix("one of ")
        if setting not in merged:
            merged[setting] = text
        else:
            merged[setting] += f", or {alternative}" if alternative else f"; {text}"
    yield from merged.items()


def _explained(error: ValidationError, kind: type[BaseModel]) -> Iterator[Fault]:
    for fault in error.errors():
        place, context, given = fault["loc"], fault.get("ctx", {}), fault["input"]
        found = f"found {shown(given)}"
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
            limits = {name: value if name == "expected" else shown(value) for name, value in context.items()}
            return words.format(**limits)
    return ""


def _unknown_key(key: str, section: type[BaseModel], root: type[BaseModel]) -> str:
    if near := nearest(key, section.model_fields):
        return f"found an unknown key{near}"
    elsewhere = [dotted for dotted in _all_keys(root) if dotted.rpartition(".")[2] == key]
    if elsewhere:
        return f"found an unknown key; did you mean {' or '.join(elsewhere)}?"
    return f"found an unknown key, expected one of {', '.join(section.model_fields)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that a type has in it, such as ``Task`` in ``tuple[Task, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def _section(kind: type[BaseModel], place: Place) -> type[BaseModel]:
    for key in place:
        if isinstance(key, str):
            kind = next(models_in(kind.model_fields[key].annotation))
    return kind


def _all_keys(kind: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield before + name
        for model in models_in(field.annotation):
            yield from _all_keys(model, f"{before}{name}.")


def boolean_as_number(kind: type[BaseModel], name: str, value: Any) -> str:
    """Pydantic takes true for 1; somebody who wrote ``beta: true`` did not mean it."""
    if not isinstance(value, bool) or name not in kind.model_fields:
        return ""
    annotation = kind.model_fields[name].annotation
    types = (annotation, *get_args(annotation))
    return f"found {shown(value)}, expected a number" if {int, float} & set(types) and bool not in types else ""


def shown(value: Any) -> str:
    """A value as a message shows it: short, and never a huge number."""
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


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Every setting that differs between two mappings, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in (*old, *(key for key in new if key not in old))]
        parts = [differences(old.get(key), new.get(key), f"{place}.{key}" if place else key) for key in keys]
        return [text for part in parts for text in part]
    return [] if old == new else [f"{place}: {old!r} there, {new!r} here"]


def dotted(place: Place) -> str:
    """A place as one writes it: ``tasks[0].train``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".")
