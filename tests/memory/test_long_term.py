"""Consolidation: denoise, then project, factor by factor, with figures a person can derive."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifealign.memory.history import ExactHistory, SketchedHistory
from lifealign.memory.long_term import FactorFigures, LongTermMemory, consolidate


def memory_of(*updates: dict[str, torch.Tensor]) -> LongTermMemory:
    memory = LongTermMemory()
    for update in updates:
        memory.remember(update)
    return memory


def test_an_update_is_first_denoised_and_then_projected() -> None:
    # diag(3, 1): energies 9 and 1. Denoised at 0.9 it is diag(3, 0); half of it, all in history, stays.
    # The other order would give diag(1.5, 1), energies 2.25 and 1, and keep both.
    memory = memory_of({"w": torch.diag(torch.tensor([7.0, 0.0]))})
    result = consolidate({"w": torch.diag(torch.tensor([3.0, 1.0]))}, memory, energy_kept=0.9, overlap_kept=0.5)
    torch.testing.assert_close(result.update["w"], torch.diag(torch.tensor([1.5, 0.0])))
    figures = result.figures["w"]
    assert figures.rank_kept == 1
    assert figures.energy_kept == pytest.approx(0.9)
    assert figures.overlap_energy == pytest.approx(1.0)  # of what is left after denoising, all lies in history
    assert figures.norm_before == pytest.approx(10**0.5)
    assert figures.norm_after == pytest.approx(1.5)


def test_the_summary_is_the_mean_over_factors() -> None:
    update = {"a": torch.diag(torch.tensor([3.0, 1.0])), "b": torch.diag(torch.tensor([0.0, 4.0]))}
    history = {"a": torch.diag(torch.tensor([0.0, 1.0])), "b": torch.diag(torch.tensor([0.0, 1.0]))}
    result = consolidate(update, memory_of(history), energy_kept=1.0, overlap_kept=0.5)
    assert result.figures["a"].overlap_energy == pytest.approx(0.1)
    assert result.figures["b"] == FactorFigures(1, 1.0, 1.0, 4.0, 2.0)
    summary = result.summary()
    assert summary["rank_kept"] == 1.5
    assert summary["overlap_energy"] == pytest.approx(0.55)
    assert summary["norm_after"] == pytest.approx(((9 + 0.25) ** 0.5 + 2) / 2)


def test_with_both_options_at_one_the_update_comes_back_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    update = {name: torch.randn(4, 6, generator=generator, dtype=torch.float64) for name in ("a", "b")}
    memory = memory_of({name: torch.randn(4, 6, generator=generator) for name in ("a", "b")})
    result = consolidate(update, memory, energy_kept=1.0, overlap_kept=1.0)
    assert all(torch.equal(result.update[name], update[name]) for name in update)
    assert all(0 < figures.overlap_energy < 1 for figures in result.figures.values())  # measured all the same


def test_factors_have_histories_of_their_own() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    result = consolidate({"a": x, "b": x}, memory_of({"a": x, "b": y}), energy_kept=1.0, overlap_kept=0.0)
    assert result.update["a"].abs().max() < 1e-12
    torch.testing.assert_close(result.update["b"], x)


@given(st.integers(0, 1000), st.floats(0.05, 1), st.floats(0, 1))
def test_norms_never_grow_and_bounds_hold(seed: int, energy_kept: float, overlap_kept: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    update, first, second = ({"w": torch.randn(3, 5, generator=generator)} for _ in range(3))
    result = consolidate(update, memory_of(first, second), energy_kept=energy_kept, overlap_kept=overlap_kept)
    figures = result.figures["w"]
    assert figures.norm_after <= figures.norm_before * (1 + 1e-5)
    assert figures.energy_kept >= energy_kept - 1e-6
    assert 0 <= figures.overlap_energy <= 1
    assert figures.norm_before == pytest.approx(update["w"].norm().item())
    assert figures.norm_after == pytest.approx(result.update["w"].norm().item(), abs=1e-6)


def test_the_first_task_is_only_denoised() -> None:
    update = {"w": torch.diag(torch.tensor([3.0, 1.0]))}
    result = consolidate(update, LongTermMemory(), energy_kept=0.9, overlap_kept=0.0)
    torch.testing.assert_close(result.update["w"], torch.diag(torch.tensor([3.0, 0.0])))
    assert result.figures["w"].overlap_energy == 0


def test_consolidating_does_not_change_the_memory_and_remembering_does() -> None:
    update = {"w": torch.ones(1, 2, dtype=torch.float64)}
    memory = LongTermMemory()
    assert memory.histories == {} and memory.history("w", update["w"]).basis.shape == (0, 2)  # type: ignore[union-attr]
    consolidate(update, memory, energy_kept=1.0, overlap_kept=0.5)
    assert memory.updates == [] and memory.remembered == 0
    memory.remember(update)
    memory.remember({"w": 2 * update["w"]})
    assert [one["w"].tolist() for one in memory.updates] == [[[1.0, 1.0]], [[2.0, 2.0]]]  # oldest first
    assert memory.updates[0]["w"].dtype == torch.float32
    history = memory.history("w", update["w"])
    assert isinstance(history, ExactHistory) and history.updates == 2
    torch.testing.assert_close(history.basis.abs(), torch.full((1, 2), 0.5**0.5, dtype=torch.float64))


def test_beyond_the_limit_a_sketch_takes_over_and_says_what_it_may_cost() -> None:
    generator = torch.Generator().manual_seed(0)
    updates = [{"w": torch.randn(2, 6, generator=generator)} for _ in range(7)]
    memory = LongTermMemory(limit=4)
    for number, update in enumerate(updates):
        found = consolidate(update, memory, energy_kept=1.0, overlap_kept=0.25).figures["w"]
        assert found.sketch_error == (0.75 * memory.history("w", update["w"]).error if number > 4 else 0.0)
        memory.remember(update)
        assert len(memory.updates) == (number + 1 if number < 4 else 0)
    history = memory.histories["w"]
    assert isinstance(history, SketchedHistory) and history.rows.shape == (4, 12)
    assert (memory.remembered, history.lost > 0) == (7, True)


def test_a_sketch_counts_a_direction_by_its_energy() -> None:
    """At the second update along x, of two, the sketch of one row holds x with energy 2 and a ridge of 0.02."""
    x = {"w": torch.tensor([[1.0, 0.0]])}
    memory = LongTermMemory(limit=1)
    memory.remember(x)
    memory.remember(x)
    result = consolidate({"w": torch.tensor([[1.0, 1.0]])}, memory, energy_kept=1.0, overlap_kept=0.0)
    torch.testing.assert_close(result.update["w"], torch.tensor([[1 - 2 / 2.02, 1.0]]))
    assert result.figures["w"].sketch_error == 0  # nothing was lost


def test_what_goes_wrong_in_one_factor_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"a": torch.ones(1, 2), "b": torch.ones(1, 2)}
    memory = memory_of(good)
    with pytest.raises(ValueError, match="NaN or infinity"):
        consolidate(good | {"b": torch.tensor([[float("nan"), 0]])}, memory, energy_kept=0.9, overlap_kept=0.5)
    with pytest.raises(ValueError, match=r"history: found matrices of shape \(1, 2\), expected .* \(1, 3\)"):
        consolidate(good | {"b": torch.ones(1, 3)}, memory, energy_kept=0.9, overlap_kept=0.5)
    with pytest.raises(TypeError, match="bfloat16"):
        consolidate({"a": torch.ones(1, 2).bfloat16()}, memory, energy_kept=1.0, overlap_kept=1.0)

    def fail(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(torch.linalg.LinAlgError):
        consolidate(good, memory, energy_kept=1.0, overlap_kept=1.0)
