"""docs/other_trainers.md: its Python blocks run as they are written, and the settings in its table exist."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from lifealign.cli.consolidate import consolidate
from lifealign.life.disk.foreign_memory import read_manifest
from lifealign.life.settings import LifeConfig
from lifealign.methods.lifealign import LifeAlign
from lifealign.model.peft_folder import read_peft_folder, write_peft_folder

trl = pytest.importorskip("trl")

PAGE = Path(__file__).parents[2] / "docs" / "other_trainers.md"
TEXT = PAGE.read_text("utf-8")
BASE = '"HuggingFaceTB/SmolLM2-135M-Instruct"'


@pytest.mark.slow
def test_the_blocks_of_the_page_run_one_after_the_other(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Where is {number}?", "chosen": f"Here: {number}.", "rejected": "No."} for number in range(8)]
    Path("tone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start, consolidated, trained = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    here: dict[str, Any] = {"__name__": "other_trainers"}

    def run(code: str) -> None:
        exec(compile(code, str(PAGE), "exec"), here)

    assert start.count(BASE) == 1
    run(start.replace(BASE, repr(str(tiny_folder))))
    adapter = read_peft_folder("start")
    factors = {name: factor + 0.01 * torch.randn(factor.shape) for name, factor in adapter.factors.items()}
    write_peft_folder(Path("runs/refunds"), factors, adapter.config)
    run(consolidated)
    assert here["made"].entry == "01-refunds" and here["made"].figures["overlap_energy"] == 0
    assert trained.count("bf16=False") == 1
    run(trained.replace("bf16=False", "bf16=False, use_cpu=True, report_to='none'"))
    memory = read_manifest(tmp_path / "memory")
    assert [entry.name for entry in memory.entries] == ["01-refunds", "02-tone"]
    last = read_peft_folder("adapters/02-tone")
    assert last.fingerprint == memory.entries[1].consolidated["float32"] and last.kind.r == 8
    assert any("focal_weight" in row for row in here["trainer"].state.log_history)


def table() -> list[list[str]]:
    lines = TEXT[TEXT.index("| a life | TRL |") :].splitlines()
    rows = [line.strip("|").split("|") for line in lines[2:] if line.startswith("|")]
    assert len(rows) > 20
    return [[cell.strip() for cell in row] for row in rows]


def test_the_settings_of_a_life_in_the_table_exist() -> None:
    config = LifeConfig()
    told = 0
    for row in table():
        for name in re.findall(r"`((?:model|lora|preference|data)\.\w+|seed)", row[0]):
            value: Any = config
            for part in name.split("."):
                value = getattr(value, part)
            told += 1
    assert told > 18 and "focal_exponent" in LifeAlign.model_fields


def test_the_settings_of_trl_and_peft_in_the_table_exist() -> None:
    known = {"DPOConfig": trl.DPOConfig, "LoraConfig": LoraConfig}
    fields = {kind: {field.name for field in dataclasses.fields(of)} for kind, of in known.items()}
    named = [found for row in table() for found in re.findall(r"`(DPOConfig|LoraConfig)\.(\w+)", row[1])]
    assert len(named) > 15 and all(name in fields[kind] for kind, name in named)


def test_the_command_on_the_page_is_the_command() -> None:
    assert "lifealign consolidate BEFORE AFTER --memory DIR --out OUT" in TEXT
    assert {"before", "after", "memory", "out"} <= set(consolidate.__annotations__)
