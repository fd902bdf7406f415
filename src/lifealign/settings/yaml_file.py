"""Settings from files and command lines: YAML, with every mistake named by file, line and key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lifealign.errors import ConfigError, LifeError, describe
from lifealign.settings.faults import Place, Source, config_error, dotted, models_in, wrong
from lifealign.settings.section import Kind, NameOrOptions, RelativeToFile, build_config
from lifealign.storage.home import with_home
from lifealign.storage.regular_file import read_bytes

VARIABLE = re.compile(r"(?<!\\)\$\{[A-Za-z_]\w*\}")
"""A variable of the environment, as shells write it; a pattern that looks for one has a backslash before it."""
LARGEST = 2**23
"""Most bytes of a file of settings."""


def load_config(path: str | Path, kind: type[Kind], overrides: Sequence[str] = ()) -> Kind:
    """Reads settings of any kind; arguments and errors as :func:`load_experiment`."""
    sources: dict[Place, Source] = {}
    values = _values_of(path, sources)
    _resolve_paths(values, kind, Path(path).parent)
    for override in overrides:
        _override(values, kind, override, sources)
    return build_config(kind, values, sources, str(path))


def keys_in(path: str | Path) -> set[str]:
    """The keys at the top of a file of settings, whatever it is of.

    Raises:
        ConfigError: If it cannot be read as settings at all.
    """
    return set(_values_of(path, {}))


def _values_of(path: str | Path, sources: dict[Place, Source]) -> dict[str, Any]:
    """The values in a file of settings; ``sources`` gets where each of them is."""
    try:
        text = read_bytes(path, LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(path, wrong(f"a byte that is not UTF-8 at offset {error.start}", "YAML")) from error
    except LifeError as error:
        raise _refused(path, str(error).removeprefix(f"{path}: ")) from error
    values = _parse(text, str(path), sources)
    if not isinstance(values, dict):
        raise _refused(path, wrong(describe(values), "settings, one 'key: value' a line"))
    return values


def load_overrides(
    kind: type[Kind], path: str | Path | None, overrides: Sequence[str], given: Mapping[str, Any] | None = None
) -> Kind:
    """Settings from single ``KEY=VALUE`` texts, on top of a file, of given values or of the defaults.

    Args:
        kind: The model.
        path: YAML file, or None.
        overrides: As for :func:`load_experiment`.
        given: Without a file, the values below the overrides; None for the defaults.

    Raises:
        ConfigError: As :func:`load_experiment`.
    """
    if path is not None:
        return load_config(path, kind, overrides)
    values: dict[str, Any] = dict(given or {})
    sources: dict[Place, Source] = {}
    for override in overrides:
        _override(values, kind, override, sources)
    return build_config(kind, values, sources)


def _refused(source: str | Path, text: str, place: Place = (), mark: Any = None) -> ConfigError:
    """The error for a file, or an override, that cannot be read as settings at all."""
    where = Source(str(source)) if mark is None else Source(str(source), mark.line + 1, mark.column + 1)
    return config_error([(where, place, text)])


class _Loader(yaml.SafeLoader):
    """YAML without aliases: ten lines of them can stand for a billion values, and no setting needs one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, wrong(f"the alias *{event.anchor}", "the value itself"), event.start_mark
            )
        return super().compose_node(parent, index)


def _parse(text: str, source: str, sources: dict[Place, Source], place: Place = (), with_line: bool = True) -> Any:
    """Parses YAML into plain values, and records in ``sources`` where each of them is."""

    def source_of(node: yaml.Node) -> Source:
        return Source(source, node.start_mark.line + 1 if with_line else None)

    def value_of(node: yaml.Node, place: Place) -> Any:
        sources[place] = source_of(node)
        match node.tag.removeprefix("tag:yaml.org,2002:"), node:
            case "map", yaml.MappingNode():
                return mapping_of(node, place)
            case "seq", yaml.SequenceNode():
                return [value_of(item, (*place, number)) for number, item in enumerate(node.value)]
            case "str" | "timestamp", yaml.ScalarNode():  # a date is text like any other
                if found := VARIABLE.search(node.value):
                    problem = wrong(found[0], "the value itself; variables of the environment are not replaced here")
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
                return node.value
            case "int" | "float" | "bool" | "null", yaml.ScalarNode():
                return loader.construct_object(node)
            case tag, _:
                raise yaml.MarkedYAMLError(
                    problem=wrong(f"the tag {tag}", "plain values"), problem_mark=node.start_mark
                )

    def mapping_of(node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="found a key that is not a word", problem_mark=key_node.start_mark)
            key = key_node.value
            if key in values:
                first = f" (first in line {sources[*place, key].line})" if with_line else ""
                problem = wrong(f"the key {dotted((*place, key))} again", f"it once{first}")
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            values[key] = value_of(value_node, (*place, key))
            sources[*place, key] = source_of(key_node)
        return values

    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else value_of(node, place)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "found invalid YAML"
        raise _refused(source, problem, mark=mark if with_line else None) from error
    except (yaml.YAMLError, ValueError) as error:  # control characters, numbers of impossible form
        raise _refused(source, f"found invalid YAML ({' '.join(str(error).split())})") from error
    except RecursionError:
        raise _refused(source, wrong("values nested too deep", "settings")) from None


def _resolve_paths(values: dict[str, Any], kind: type[BaseModel], folder: Path) -> None:
    """Makes the paths among some settings absolute: they are relative to the file they are written in."""
    for name, field in kind.model_fields.items():
        value = values.get(name)
        marks = [mark for mark in field.metadata if isinstance(mark, RelativeToFile)]
        if marks and isinstance(value, str) and value:
            if not (marks[0].unless and value.startswith(marks[0].unless)):
                values[name] = os.path.abspath(folder / with_home(value))
            continue
        for section in value if isinstance(value, list) else [value]:
            if isinstance(section, dict):
                for model in models_in(field.annotation):
                    _resolve_paths(section, model, folder)


def _override(values: dict[str, Any], kind: type[BaseModel], override: str, sources: dict[Place, Source]) -> None:
    key, equals, text = override.partition("=")
    source = f"--set {override}"
    *sections, last = place = tuple(key.strip().split("."))
    if not equals or not all(place):
        raise _refused(source, wrong("no key and value", "KEY=VALUE as in preference.beta=0.2"))
    here: Any = values
    field = kind.model_fields.get(sections[0]) if sections else None
    for mark in () if field is None else field.metadata:
        if isinstance(mark, NameOrOptions) and not isinstance(values.get(sections[0]), dict):
            values[sections[0]] = {"name": values.get(sections[0]) or mark.default}  # options need a mapping
    for depth, section in enumerate(sections):
        if here.get(section) is None:
            here[section] = {}
            sources[place[: depth + 1]] = Source(source)
        here = here[section]
        if not isinstance(here, dict):
            raise _refused(source, wrong(f"{describe(here)} at {dotted(place[: depth + 1])}", "a section"))
    here[last] = _parse(text, source, sources, place, with_line=False)
    sources[place] = Source(source)
