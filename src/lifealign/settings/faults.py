"""Mistakes in settings, in words and in parts: ``found X, expected Y``, with the nearest known key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lifealign.errors import ConfigError, SettingFault, describe

Place = tuple[str | int, ...]
"""Where a setting is: ``("tasks", 0, "train")``."""
Fault = tuple[Place, str]
"""A mistake: its place, and what is wrong there, usually as a :class:`Words`."""


class Words(str):
    """A mistake in words that still knows its parts. It is text, and goes wherever the text of a mistake goes.

    Attributes:
        found: What is there; None if nothing is.
        expected: What should be there; None if that is not said.
    """

    found: str | None
    expected: str | None

    def __new__(cls, text: str, found: str | None = None, expected: str | None = None) -> Words:
        """The whole text, and its parts."""
        words = super().__new__(cls, text)
        words.found, words.expected = found, expected
        return words


def wrong(found: str, expected: str) -> Words:
    """The words for a wrong value.

    Example:
        >>> wrong("-1", "at least 0")
        'found -1, expected at least 0'
    """
    return Words(f"found {found}, expected {expected}", found, expected)


def needs(missing: str, way_out: str) -> Words:
    """The words for a setting that does nothing without another one.

    Example:
        >>> needs("a suite", "add suite: support-desk")
        'needs a suite; add suite: support-desk'
    """
    expected = f"{missing}; {way_out}"
    return Words(f"needs {expected}", None, expected)


def words_of(text: str) -> Words:
    """The parts of a mistake; of one that was made as plain text, by its ``found`` and ``expected``."""
    if isinstance(text, Words):
        return text
    if not text.startswith("found "):
        return Words(text)
    found, _, expected = text.removeprefix("found ").partition(", expected ")
    return Words(text, found, expected or None)


class Faults(ValueError):
    """Mistakes below a setting that pydantic does not validate by itself."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


@dataclass(frozen=True)
class Source:
    """Where a setting comes from.

    Attributes:
        path: A file, or what else it came from, such as ``--set seed=x``.
        line: Line of the file, from 1.
        column: Column in that line, from 1; for what is no setting yet.
    """

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


def config_error(faults: Iterable[tuple[Source, Place, str]]) -> ConfigError:
    """The error that tells of some mistakes, one line each, and keeps their parts."""
    lines, parts = [], []
    for source, place, text in faults:
        words, field = words_of(text), dotted(place)
        lines.append(": ".join(part for part in (str(source), field, words) if part))
        parts.append(SettingFault(source.path or None, source.line, field or None, words.found, words.expected))
    return ConfigError("\n".join(lines), parts)


BRANCH = re.compile(r"(bool|tuple\[.*\]|literal\[.*\])$")
"""How pydantic marks, after a setting's place, which of several allowed kinds a fault is about."""


def explain(error: ValidationError, kind: type[BaseModel]) -> Iterator[Fault]:
    """What pydantic found, in this package's words; one fault for a value that may be of several kinds."""
    merged: dict[Place, Words] = {}
    for place, text in _explained(error, kind):
        setting = tuple(key for key in place if not (isinstance(key, str) and BRANCH.match(key)))
        words = words_of(text)
        if (first := merged.get(setting)) is None:
            merged[setting] = words
        elif words.expected:
            more = f", or {words.expected.removeprefix('one of ')}"
            merged[setting] = Words(f"{first}{more}", first.found, f"{first.expected or ''}{more}")
        else:
            merged[setting] = Words(f"{first}; {words}", first.found, first.expected)
    yield from merged.items()


def _explained(error: ValidationError, kind: type[BaseModel]) -> Iterator[Fault]:
    for fault in error.errors():
        place, context, given = fault["loc"], fault.get("ctx", {}), fault["input"]
        found = shown(given)
        match fault["type"]:
            case "value_error" if isinstance(inner := context["error"], Faults):
                yield from (((*place, *below), text) for below, text in inner.faults)
            case "value_error":
                text = inner.args[0] if inner.args and isinstance(inner.args[0], Words) else str(inner)
                said = isinstance(text, Words) or text.startswith("found")
                yield place, text if said else Words(f"found {found}: {text}", found)
            case "extra_forbidden":
                yield place, _unknown_key(str(place[-1]), _section(kind, place[:-1]), kind)
            case "missing":
                yield place, wrong("nothing", "a value; it has no default")
            case kind_of_fault:
                yield place, wrong(found, _expected(kind_of_fault, context) or fault["msg"])


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


def _unknown_key(key: str, section: type[BaseModel], root: type[BaseModel]) -> Words:
    found = "an unknown key"
    meant = _nearest(key, section.model_fields)
    if not meant:
        meant = [dotted for dotted in _all_keys(root) if dotted.rpartition(".")[2] == key]
        outermost = min((dotted.count(".") for dotted in meant), default=0)
        meant = [dotted for dotted in meant if dotted.count(".") == outermost]
    if meant:
        likely = " or ".join(meant)
        return Words(f"found {found}; did you mean {likely}?", found, likely)
    return wrong(found, f"one of {', '.join(section.model_fields)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, or nothing where no known word is near."""
    near = _nearest(word, known)
    return f"; did you mean {near[0]}?" if near else ""


def _nearest(word: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word, list(known), n=1)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model inside a type, such as ``Task`` in ``tuple[Task, ...] | None``."""
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
    """The mistake of ``beta: true``, which pydantic would take for 1; empty if there is none."""
    if not isinstance(value, bool) or name not in kind.model_fields:
        return ""
    annotation = kind.model_fields[name].annotation
    types = (annotation, *get_args(annotation))
    return wrong(shown(value), "a number") if {int, float} & set(types) and bool not in types else ""


def shown(value: Any) -> str:
    """A value as shown in a message: short, and never a huge number."""
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
    """Every setting that differs between two mappings, as text."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in (*old, *(key for key in new if key not in old))]
        parts = [differences(old.get(key), new.get(key), f"{place}.{key}" if place else key) for key in keys]
        return [text for part in parts for text in part]
    return [] if old == new else [f"{place}: {old!r} there, {new!r} here"]


def dotted(place: Place) -> str:
    """A place in dotted form: ``tasks[0].train``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".")
