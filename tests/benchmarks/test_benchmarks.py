"""What the timings rest on: the number of operations, the cases, and two sides that compute the same thing."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.__main__ import small_model, spec_of
from benchmarks.alternate import ratio
from benchmarks.peak import linear_weights, step_flops
from benchmarks.rows import SUITE
from benchmarks.sides import main
from safetensors.torch import save_file
from tests.tiny import tiny_model

from lifealign.model.adapter import attach_lora, read_adapter
from lifealign.model.base_model import load_base
from lifealign.model.settings import AdapterConfig, ModelConfig

OPTIONS = argparse.Namespace(model="m", dtype="float32", data=Path("data"), pairs=6, threads=1)


def test_operations_are_two_per_weight_and_token_and_direction() -> None:
    """One pair of 3 prompt and 4 completion tokens: 7 tokens through 10 weights, 4 through a head of 5, three times."""
    assert step_flops(10, 5, [3], [4], epochs=1) == 3 * (2 * 10 * 7 + 2 * 5 * 4)
    assert step_flops(10, 5, [3, 3], [4, 4], epochs=3) == 2 * 7 * (2 * 10 * 7 + 2 * 5 * 4)  # and one reference pass


def test_the_weights_counted_are_those_of_the_linear_layers() -> None:
    weights, head = linear_weights(tiny_model())
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48  # q, k and v of half the heads, o, gate, up and down
    assert (weights, head) == (2 * layer, 259 * 32)


def test_a_case_is_a_data_set_a_batch_and_epochs() -> None:
    spec = spec_of("safe-rlhf:8:3", OPTIONS, "preference")
    assert (spec.name, spec.batch, spec.epochs, spec.data, spec.side) == ("safe-rlhf", 8, 3, "data", "ours")
    with pytest.raises(ValueError, match="found data set 'safe', expected one of"):
        spec_of("safe:8:3", OPTIONS, "preference")


def test_a_ratio_is_taken_within_rounds() -> None:
    runs = {"a": [{"seconds": 1.0}, {"seconds": 10.0}], "b": [{"seconds": 2.0}, {"seconds": 40.0}]}
    assert ratio(runs, "a", "b") == 3.0  # of 2 and 4, whatever the rounds themselves took


@pytest.mark.slow
def test_both_sides_learn_the_same_from_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    """One batch of all six pairs, three steps, from the same factors, at a rate that moves the loss."""
    model, start = small_model(tmp_path / "model"), tmp_path / "start.safetensors"
    base = load_base(ModelConfig(model_name_or_path=model, dtype="float32"))
    save_file(read_adapter(attach_lora(base, AdapterConfig(), 0)), start)
    spec = replace(spec_of(f"{SUITE}:6:3", OPTIONS, "preference"), model=model, rate=3e-2, start=str(start))
    ours, trl = main(spec), main(replace(spec, side="trl"))
    assert ours["loss_first"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), rel=1e-5)
    assert trl["loss_first"] == pytest.approx(ours["loss_first"], rel=1e-5)
    assert ours["loss_last"] < 0.68  # they have learnt something
    assert trl["loss_last"] == pytest.approx(ours["loss_last"], rel=1e-3)  # it scores the newline after a turn, too
    assert ours["pairs"] == trl["pairs"] == 18 and ours["tokens"] == trl["tokens"]
    assert ours["seconds"] > 0 and 0 < ours["loaded_bytes"] <= ours["peak_bytes"]
