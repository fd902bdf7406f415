"""The settings of lives and of experiments as JSON schema, methods and their options included."""

from __future__ import annotations

from typing import Any, get_args

from lifealign.evaluation.settings import RetentionConfig
from lifealign.experiments.settings import OWN_SECTIONS, ExperimentConfig
from lifealign.life.settings import DEFAULT_METHOD, LifeConfig
from lifealign.methods import METHODS, facts_of
from lifealign.settings.schema import schema_of

KINDS: dict[str, type[LifeConfig]] = {"life": LifeConfig, "experiment": ExperimentConfig}
"""What settings can be of."""


def settings_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of the YAML file of a life or of an experiment.

    Args:
        kind: One of ``KINDS``.

    Returns:
        A schema for editors. Rules that join several settings are not in it; reading the file checks those.
    """
    schema = schema_of(KINDS[kind])
    parts = schema.setdefault("$defs", {})
    schema["title"] = f"settings of a lifealign {kind}"
    names = {"enum": list(METHODS)}
    methods = [_with_options(name, parts) for name in METHODS]
    schema["properties"]["method"] |= {"$ref": "#/$defs/Method", "default": DEFAULT_METHOD}
    parts["Method"] = {"anyOf": [names, *methods]}
    if "Variant" in parts:  # a method as a row of a comparison, with a label and sections of its own
        own = {key: parts["Variant"]["properties"][key] for key in ("label", *OWN_SECTIONS)}
        rows = [method | {"properties": method["properties"] | own} for method in methods]
        parts["Variant"] = {"anyOf": [names, *rows]}
    modes = [*get_args(RetentionConfig.model_fields["mode"].annotation), False]  # YAML reads ``off`` as false
    parts["RetentionConfig"] = {"anyOf": [{"enum": modes}, parts["RetentionConfig"]]}
    trackers = schema["properties"]["report_to"]
    listed = {"type": trackers.pop("type"), "items": trackers.pop("items")}
    trackers["anyOf"] = [{"enum": [*listed["items"]["enum"], "none"]}, listed]
    return schema


def _with_options(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    """A method as a mapping with its name and options; sections among them go into ``parts``."""
    options = schema_of(METHODS[name])
    parts |= options.get("$defs", {})
    return {
        "type": "object",
        "title": facts_of(name).title,
        "properties": {"name": {"const": name}} | options.get("properties", {}),
        "required": ["name"],
        "additionalProperties": False,
    }
