"""Adapters as tensors: out of a model and back, differences that give back what they came from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifealign.memory.update import add, subtract
from lifealign.model.adapter import read_adapter, write_adapter

floats = st.floats(
    width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-1e3, max_value=1e3
)


def test_an_adapter_reads_back_as_it_was_written(make_runtime) -> None:
    model = make_runtime(seed=None).model
    new = read_adapter(model)
    assert list(new) == sorted(new)
    assert len(new) == 2 * 2 * 2  # two layers, q and v, A and B
    assert {tuple(factor.shape) for factor in new.values()} == {(4, 32), (32, 4), (16, 4)}
    assert all(factor.dtype == torch.float32 for factor in new.values())
    assert all((factor == 0).all() for name, factor in new.items() if "lora_B" in name)
    written = {name: torch.randn_like(factor) for name, factor in new.items()}
    write_adapter(model, written)
    read = read_adapter(model)
    assert all(torch.equal(read[name], written[name]) for name in written)


def test_what_was_read_is_a_copy(make_runtime) -> None:
    model = make_runtime().model
    before = read_adapter(model)
    copy = {name: factor.clone() for name, factor in before.items()}
    write_adapter(model, {name: factor + 1 for name, factor in before.items()})
    assert all(torch.equal(before[name], copy[name]) for name in copy)


def test_a_written_adapter_still_trains(make_runtime) -> None:
    model = make_runtime().model
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    write_adapter(model, read_adapter(model))
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable
    assert all("lora_" in name for name in trainable)


def test_other_names_or_shapes_are_refused_and_nothing_is_written(make_runtime) -> None:
    model = make_runtime().model
    before = read_adapter(model)
    name = next(iter(before))
    moved = {key: factor + 1 for key, factor in before.items()}
    with pytest.raises(ValueError, match="found factors other than the model's, the first difference is 'other'"):
        write_adapter(model, moved | {"other": torch.ones(1)})
    with pytest.raises(ValueError, match="the first difference is"):
        write_adapter(model, {key: factor for key, factor in moved.items() if key != name})
    with pytest.raises(ValueError, match=r"found shape \(3, 3\), expected"):
        write_adapter(model, moved | {name: torch.ones(3, 3)})
    after = read_adapter(model)
    assert all(torch.equal(after[key], before[key]) for key in before)


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=8))
def test_adding_a_difference_gives_back_the_last_bit(numbers: list[tuple[float, float]]) -> None:
    # float64 has 29 bits more than float32: enough unless a weight falls to less than 2^-28 of what it was
    numbers = [(one, two) for one, two in numbers if two == 0 or abs(two) > abs(one) * 2.0**-28]
    before = {"w": torch.tensor([one for one, _ in numbers])}
    after = {"w": torch.tensor([two for _, two in numbers])}
    again = add(before, subtract(after, before))["w"]
    assert again.dtype == torch.float32
    assert torch.equal(again, after["w"])


def test_a_difference_is_after_minus_before() -> None:
    update = subtract({"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])})
    assert update["w"].tolist() == [2.0]
    assert add({"w": torch.tensor([1.0])}, update)["w"].tolist() == [3.0]
