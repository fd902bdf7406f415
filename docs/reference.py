"""The pages of reference that are written from the code: public names, settings, commands."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from typing import Any

import typer.main
from pydantic import BaseModel

import lifealign
from lifealign.cli.main import app
from lifealign.experiments.schema import KINDS, settings_schema

Schema = dict[str, Any]


def python_page() -> str:
    """Every public name with its docstring, which Sphinx puts there."""
    lines = [
        "# Python reference",
        "",
        "Every public name, from its docstring; a table of them: [The Python interface](api.md).",
        "",
    ]
    for name in lifealign.__all__:
        lines += ["```{eval-rst}", *_directive(name), "```", ""]
    return "\n".join(lines)


def _directive(name: str) -> list[str]:
    """What tells Sphinx to document a public name; settings have a page of their own."""
    public = getattr(lifealign, name)
    if not inspect.isclass(public):
        return [f".. autofunction:: lifealign.{name}"]
    members = [] if issubclass(public, (BaseModel, Exception)) else ["   :members:"]
    return [f".. autoclass:: lifealign.{name}", *members]


def settings_page() -> str:
    """All settings as tables: those of a life section by section, then what only an experiment has."""
    life, experiment = (settings_schema(kind) for kind in KINDS)
    only_there = {key: one for key, one in experiment["properties"].items() if key not in life["properties"]}
    return "\n".join(
        [
            "# Settings",
            "",
            "Every setting of a life and of an experiment, from the schema that `lifealign config schema` prints.",
            "`lifealign config show FILE` writes all of them out, with their values; where the numbers come from is in",
            "[the map of the paper](paper_map.md#hyper-parameters).",
            "",
            "## A life",
            "",
            *_table(life["properties"], life["$defs"]),
            *_sections(life["properties"], life["$defs"]),
            "## An experiment",
            "",
            "What a life has, and:",
            "",
            *_table(only_there, experiment["$defs"]),
            *_sections(only_there, experiment["$defs"]),
            "## Methods",
            "",
            "`method: NAME`, or with options `method: {name: NAME, ...}`.",
            "",
            *_methods(life["$defs"]),
        ]
    )


def _sections(properties: Schema, parts: Schema, within: str = "") -> Iterator[str]:
    """A table for each setting that is a section with settings of its own, and for the sections in it."""
    for name, one in properties.items():
        section = _resolved(one, parts)
        if name != "method" and "properties" in section:
            yield from [f"### `{within}{name}`", "", section.get("description", ""), ""]
            yield from _table(section["properties"], parts, f"{within}{name}.")
            yield from _sections(section["properties"], parts, f"{within}{name}.")


def _methods(parts: Schema) -> Iterator[str]:
    for method in parts["Method"]["anyOf"][1:]:
        name = method["properties"]["name"]["const"]
        options = {key: one for key, one in method["properties"].items() if key != "name"}
        yield from [f"### `{name}`: {method['title']}", ""]
        yield from _table(options, parts) if options else ["No options.", ""]


def _table(properties: Schema, parts: Schema, within: str = "") -> Iterator[str]:
    yield from ["| setting | value | default | |", "|---|---|---|---|"]
    for name, one in properties.items():
        default = _value(one["default"]) if _is_plain(one.get("default")) else ""
        section = _resolved(one, parts)
        is_section = name != "method" and "properties" in section
        kind = f"[section](#{f'{within}{name}'.replace('.', '')})" if is_section else _kind(one, parts)
        said = one.get("description") or (section.get("description", "") if is_section else "")
        yield f"| `{name}` | {kind} | {default} | {_cell(said)} |"
    yield ""


def _resolved(schema: Schema, parts: Schema) -> Schema:
    """What a reference stands for: of several, the one that is a section."""
    if "$ref" in schema:
        return _resolved(parts[schema["$ref"].rsplit("/", 1)[1]], parts)
    sections = [one for one in (_resolved(one, parts) for one in schema.get("anyOf", ())) if "properties" in one]
    return sections[0] if len(sections) == 1 else schema


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, dict)


def _value(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _kind(schema: Schema, parts: Schema) -> str:
    """What a setting may be, in a few words."""
    if "$ref" in schema:
        return "a method" if schema["$ref"].endswith("/Method") else _kind(_resolved(schema, parts), parts)
    if "enum" in schema:
        return _joined(map(_value, schema["enum"]))
    if "const" in schema:
        return _value(schema["const"])
    if "anyOf" in schema:
        return _joined(_kind(one, parts) for one in schema["anyOf"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_kind(schema['items'], parts)}" if schema.get("items") else "list"
    if kind == "object":
        return "section" if "properties" in schema else "mapping"
    named = {"string": "text", "boolean": "`true`, `false`", "null": "nothing"}.get(kind, kind)
    return " ".join([named, ", ".join(_limits(schema))]).strip()


def _joined(kinds: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(kinds))


def _limits(schema: Schema) -> Iterator[str]:
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in schema:
            yield f"{sign} {schema[key]}"


def commands_page() -> str:
    """Every command with its help, arguments and options, as ``--help`` shows them."""
    lines = [
        "# Commands",
        "",
        "What `lifealign COMMAND --help` says of each. What they are for: [the table](index.md#use-it).",
        "",
    ]
    for name, command in _commands("lifealign", typer.main.get_command(app)):
        lines += [f"## `{name}`", "", *_help(command), ""]
        lines += ["| | |", "|---|---|"]
        lines += [f"| {_names(one)} | {_cell(getattr(one, 'help', '') or '')} |" for one in command.params]
        lines += [""]
    return "\n".join(lines)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """All commands that do something, those in groups included, by their full names."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for key, one in inner.items():
        yield from _commands(f"{name} {key}", one)


def _help(command: Any) -> list[str]:
    return [line.strip() for line in (command.help or "").split("\f")[0].splitlines()]


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return ", ".join(f"`{one}`" for one in [*parameter.opts, *parameter.secondary_opts])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
