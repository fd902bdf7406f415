"""Reads JSON from others into typed records; what does not fit is an error of one line with file and place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lifealign.errors import LifeError
from lifealign.settings.faults import Faults, Place, nearest, shown

Number = Annotated[float, Field(ge=-1e100, le=1e100)]
"""A finite number; nothing measured comes near these limits, and sums of squares beyond them would overflow."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things, bytes included."""

BOUNDS = {
    "greater_than_equal": ("a number of at least {}", "ge"),
    "greater_than": ("a number greater than {}", "gt"),
    "less_than_equal": ("a number of at most {}", "le"),
    "less_than": ("a number less than {}", "lt"),
    "too_short": ("at least {} of them", "min_length"),
}
PLAIN = re.compile(r"[\w/-]{1,60}", re.ASCII)  # a key that can be shown in a place without quoting


class Record(BaseModel):
    """An object in a JSON file that this package writes: no unknown keys, no conversions, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind")


def validated(path: str | Path, content: Any, kind: type[Kind]) -> Kind:
    """Validates the content of a JSON file as a record.

    Args:
        path: The file, for the message; with the line, if there is one.
        content: Its content.
        kind: The type of the record, or of a list or dictionary of records.

    Raises:
        LifeError: If the content is not such a record. The message names the first fault: its place, what was found,
            and what was expected.

    Example:
        >>> class Step(Record):
        ...     losses: dict[str, list[Number]]
        >>> validated("a.json", {"losses": {"sft": [0.5, None]}}, Step)
        Traceback (most recent call last):
            ...
        lifealign.errors.LifeError: a.json: losses.sft[1]: found null, expected a number
    """
    try:
        return TypeAdapter(kind).validate_python(content, strict=True)
    except ValidationError as error:
        raise LifeError(f"{path}: {_first_fault(error, kind)}") from error
    except RecursionError as error:
        raise LifeError(f"{path}: found lists or objects nested too deep to read") from error


def _first_fault(error: ValidationError, kind: Any) -> str:
    fault = error.errors(include_url=False)[0]
    place, given, context = fault["loc"], fault["input"], fault.get("ctx", {})
    match fault["type"]:
        case "value_error" if isinstance(faults := context["error"], Faults):
            below, text = faults.faults[0]
            place = (*place, *below)
        case "value_error":
            text = f"found {shown(given)}: {context['error']}"
        case "extra_forbidden":
            *above, key = place
            known = _fields(_annotation(kind, tuple(above)))
            text = f"found an unknown key{nearest(str(key), known) or f', expected one of {_listed(known)}'}"
        case "missing":
            text = f"found nothing, expected {_words(_annotation(kind, place))}"
        case found if found.endswith(("_type", "_parsing", "json")):
            text = f"found {shown(given)}, expected {_words(_annotation(kind, place))}"
        case bound if bound in BOUNDS:
            words, limit = BOUNDS[bound]
            text = f"found {shown(given)}, expected {words.format(shown(context[limit]))}"
        case _:
            text = f"found {shown(given)}, expected {fault['msg'].removeprefix('Input should be ')}"
    return f"{_dotted(place)}: {text}" if place else text


def _annotation(kind: Any, place: Place) -> Any:
    """The type of a place in a record; Any if the record's type does not tell."""
    found = kind
    for key in place:
        found = _bare(found)
        if key in (fields := _fields(found)):
            found = fields[str(key)]
        elif get_origin(found) in (list, dict, tuple):
            found = get_args(found)[-1]
        else:
            return Any
    return found


def _fields(annotation: Any) -> Mapping[str, Any]:
    """The keys of a record with their types, for optional records too; empty for anything else."""
    kind = _bare(annotation)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {}
    return {name: field.annotation for name, field in kind.model_fields.items()}


def _bare(annotation: Any) -> Any:
    """A type without its bounds, and without an alternative None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if NoneType in (parts := get_args(annotation)) and len(parts) == 2:
        return _bare(next(part for part in parts if part is not NoneType))
    return annotation


def _words(annotation: Any) -> str:
    """A type in words: ``a list of numbers or null``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    bare = _bare(annotation)
    words = _one(bare)
    return f"{words} or null" if NoneType in get_args(annotation) else words


def _one(bare: Any) -> str:
    if get_origin(bare) is list:
        return f"a list of {_many(_bare(get_args(bare)[0]))}"
    if set(get_args(bare)) == {int, float}:
        return "a number"
    if fields := _fields(bare):
        return f"an object with {_listed(fields)}"
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    return names.get(bare, "an object" if get_origin(bare) is dict else "a value")


def _many(bare: Any) -> str:
    if get_origin(bare) is list:
        return "lists"
    names = {float: "numbers", int: "whole numbers", str: "texts"}
    return names.get(bare, "objects" if get_origin(bare) is dict or _fields(bare) else "values")


def _listed(keys: Mapping[str, Any]) -> str:
    first = list(keys)[:6]
    return ", ".join(first) + (", ..." if len(keys) > len(first) else "")


def _dotted(place: Place) -> str:
    """A place in dotted form; a key that is not a plain word is put in brackets, so that it cannot break the line."""
    parts = []
    for key in place:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        else:
            parts.append(f".{key}" if PLAIN.fullmatch(key) else f"[{key[:60]!r}]")
    return "".join(parts).removeprefix(".")
