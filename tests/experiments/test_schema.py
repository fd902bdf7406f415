"""The JSON schema of settings: every file that is right is valid by it, and what it refuses is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from lifealign.errors import ConfigError
from lifealign.experiments.schema import KINDS, settings_schema
from lifealign.experiments.settings import ExperimentConfig
from lifealign.life.settings import LifeConfig
from lifealign.methods import METHODS
from lifealign.settings.section import build_config

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
VALIDATORS = {kind: Draft202012Validator(settings_schema(kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_schema_with_a_description_of_every_setting(kind: str) -> None:
    schema = settings_schema(kind)
    Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    assert set(schema["properties"]) == set(KINDS[kind].model_fields)
    assert schema["properties"]["seed"]["description"].startswith("The root seed")
    assert "``" not in json.dumps(schema) and ":class:" not in json.dumps(schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_experiments_of_this_repository_are_valid(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    assert not [error.message for error in VALIDATORS["experiment"].iter_errors(values)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_every_default_is_valid(name: str) -> None:
    config = build_config(LifeConfig, {"method": name})
    values = json.loads(config.model_dump_json())
    assert not [error.message for error in VALIDATORS["life"].iter_errors(values)]


@pytest.mark.parametrize(
    "values",
    [
        {"retention": "enforce"},
        {"retention": False},
        {"retention": {"mode": "warn", "max_loss": 0.2}},
        {"report_to": "none"},
        {"report_to": "wandb"},
        {"report_to": ["wandb", "mlflow"]},
        {"method": {"name": "ewc", "strength": 2.0}},
        {"model": {"model_name_or_path": "a"}},
    ],
)
def test_every_way_to_write_a_setting_is_valid(values: dict[str, Any]) -> None:
    assert build_config(LifeConfig, values) and VALIDATORS["life"].is_valid(values)


@pytest.mark.parametrize(
    "values",
    [
        {"methd": "er"},
        {"method": "er2"},
        {"method": {"name": "er", "strength": 1.0}},
        {"method": {"strength": 1.0}},
        {"preference": {"betta": 0.1}},
        {"preference": {"beta": 0}},
        {"seed": -1},
        {"retention": "strict"},
        {"report_to": ["none"]},
        {"sft": {"num_train_epochs": []}},
    ],
)
def test_what_it_refuses_is_wrong(values: dict[str, Any]) -> None:
    assert not VALIDATORS["life"].is_valid(values)
    with pytest.raises(ConfigError):
        build_config(LifeConfig, values)


def test_rows_of_a_comparison() -> None:
    rows: list[Any] = ["er", {"name": "lifealign", "label": "x", "sft": {"num_train_epochs": 1}, "focal_exponent": 0}]
    values: dict[str, Any] = {"output_dir": "a", "suite": "support-desk", "compare": {"methods": rows}}
    assert VALIDATORS["experiment"].is_valid(values) and build_config(ExperimentConfig, values)
    rows.append({"name": "er", "label": "y", "evaluation": {}})
    assert not VALIDATORS["experiment"].is_valid(values)
