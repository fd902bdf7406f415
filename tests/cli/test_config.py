"""`lifealign config`: the schema, every setting written out, every mistake with its line."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from tests.cli.conftest import Command

from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.settings.section import build_config


def test_the_schema_is_printed_as_json(lifealign: Command) -> None:
    life, experiment = lifealign("config", "schema"), lifealign("config", "schema", "experiment")
    assert life.code == experiment.code == 0
    assert "output_dir" not in json.loads(life.out)["properties"]
    assert "output_dir" in json.loads(experiment.out)["properties"]
    wrong = lifealign("config", "schema", "task")
    assert wrong.code == 2 and "schema: found 'task', expected life or experiment" in wrong.err


def test_what_is_shown_reads_back_as_the_same_settings(lifealign: Command, taught: Path) -> None:
    Path("small.yaml").write_text("method: er\npreference: {beta: 0.2}\n")
    shown = lifealign("config", "show", "small.yaml", "--set", "seed=7")
    assert shown.code == 0
    expected = build_config(LifeConfig, {"method": "er", "preference": {"beta": 0.2}, "seed": 7})
    assert build_config(LifeConfig, yaml.safe_load(shown.out)) == expected
    of_life = lifealign("config", "show", taught)
    assert build_config(LifeConfig, yaml.safe_load(of_life.out)) == Life.open(taught).config
    fixed = lifealign("config", "show", taught, "--set", "seed=7")
    assert fixed.code == 2 and "--set needs a file; the settings of a life do not change" in fixed.err


def test_every_mistake_is_named_with_its_line(lifealign: Command) -> None:
    Path("a.yaml").write_text("suite: support-desk\noutput_dir: x\nmethd: er\npreference:\n  beta: -1\n")
    found = lifealign("config", "validate", "a.yaml")
    assert found.code == 2 and "a.yaml:3" in found.err and "did you mean method" in found.err
    assert "a.yaml:5" in found.err and "preference.beta" in found.err
    right = lifealign("config", "validate", "a.yaml", "--set", "preference.beta=1")
    assert right.code == 2  # the other mistake is still there
    Path("b.yaml").write_text("seed: 3\n")
    assert lifealign("config", "validate", "b.yaml").out == "b.yaml: settings of a life, without a mistake\n"
    Path("c.yaml").write_text("suite: support-desk\noutput_dir: x\n")
    assert lifealign("config", "validate", "c.yaml").out == "c.yaml: settings of an experiment, without a mistake\n"
    assert lifealign("config", "validate", "none.yaml").code == 2
