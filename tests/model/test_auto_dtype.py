"""``auto`` is the faster dtype of this machine, measured once; where there is little between them, bfloat16."""

import json
from itertools import count
from pathlib import Path

import pytest
import torch

from lifealign.model import auto_dtype as auto
from lifealign.model.auto_dtype import MACHINE, StepTimes, auto_dtype, measure_step_times, measured_on, settled
from lifealign.model.machine import Processor
from lifealign.model.settings import ModelConfig
from lifealign.storage.user_cache import CACHE_VARIABLE

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing is measured yet."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[StepTimes]:
    """Stands in for the clock: each measurement finds float32 twice as fast, and is listed."""
    made: list[StepTimes] = []

    def measure(_: torch.device) -> StepTimes:
        made.append(StepTimes(bfloat16=0.5, float32=0.25))
        return made[-1]

    monkeypatch.setattr(auto, "measure_step_times", measure)
    return made


@pytest.mark.parametrize(
    ("bfloat16", "float32", "dtype", "ratio"),
    [
        (0.5, 2.0, "bfloat16", "0.25 of its time in float32"),
        (2.0, 0.5, "float32", "0.25 of its time in bfloat16"),
        (1.0, 1.0, "bfloat16", "1.00 of its time in float32"),
        (1.05, 1.0, "bfloat16", "1.05 of its time in float32"),  # half the memory is worth 5 %
        (1.06, 1.0, "float32", "0.94 of its time in bfloat16"),
    ],
)
def test_the_faster_one_is_taken_and_bfloat16_within_five_percent(
    bfloat16: float, float32: float, dtype: str, ratio: str
) -> None:
    times = StepTimes(bfloat16, float32)
    assert times.dtype == dtype
    assert times.reason == f"on this processor a step takes {ratio}"


def test_it_is_measured_once_on_a_machine(cache: Path, measurements: list[StepTimes]) -> None:
    assert [auto_dtype(CPU).dtype for _ in range(3)] == ["float32"] * 3
    assert len(measurements) == 1
    assert json.loads((cache / MACHINE).read_text()) == {measured_on(CPU): {"bfloat16": 0.5, "float32": 0.25}}


@pytest.mark.parametrize(("instructions", "timed"), [(("avx2", "avx512f"), 0), ((), 0), (("amx_bf16",), 1), (None, 1)])
def test_a_processor_without_instructions_for_bfloat16_is_not_timed(
    cache: Path,
    measurements: list[StepTimes],
    monkeypatch: pytest.MonkeyPatch,
    instructions: tuple[str, ...] | None,
    timed: int,
) -> None:
    """Whatever else runs there could only make the wrong one look faster."""
    monkeypatch.setattr(auto, "this_processor", lambda: Processor("any", instructions))
    assert auto_dtype(CPU).dtype == "float32" and len(measurements) == timed


def test_rounds_go_on_until_the_shortest_time_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work makes single rounds long; each dtype's two shortest have to be within a tenth of each other."""
    bfloat16 = [9.0, 3.0, 1.0, 2.0, 1.05, 9.0]
    float32 = [9.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    times = iter([second for both in zip(bfloat16, float32, strict=True) for second in both])
    monkeypatch.setattr(auto, "_timed", lambda *_: next(times))
    assert measure_step_times(CPU) == StepTimes(1.0, 0.5, repeated=True)
    assert list(times) == [9.0, 0.5]  # five of the six rounds


def test_times_that_do_not_repeat_are_used_once_and_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slower = count(40, -1)
    monkeypatch.setattr(auto, "_timed", lambda *_: 1.5 ** next(slower))
    chosen = auto_dtype(CPU)
    assert chosen.reason.endswith("other work here may have decided that") and not (cache / MACHINE).exists()
    assert next(slower) == 40 - 2 * auto.MOST_ROUNDS


def test_another_number_of_threads_is_another_machine_and_forgets_nothing(
    cache: Path, measurements: list[StepTimes]
) -> None:
    threads = torch.get_num_threads()
    auto_dtype(CPU)
    try:
        torch.set_num_threads(threads + 1)
        auto_dtype(CPU)
    finally:
        torch.set_num_threads(threads)
    auto_dtype(CPU)
    assert len(measurements) == 2 and len(json.loads((cache / MACHINE).read_text())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"PLACE": {"bfloat16": 0.1}}',
        b'{"PLACE": {"bfloat16": 0.1, "float32": -1.0}}',
        b'{"PLACE": {"bfloat16": 0.1, "float32": "0.2"}}',
        b'{"PLACE": {"bfloat16": 0.1, "float32": 1e999}}',
        b'{"PLACE": 3}',
    ],
)
def test_a_damaged_file_is_measured_again_and_mended(cache: Path, measurements: list[StepTimes], damage: bytes) -> None:
    auto_dtype(CPU)
    (cache / MACHINE).write_bytes(damage.replace(b"PLACE", measured_on(CPU).encode()))
    assert auto_dtype(CPU).dtype == auto_dtype(CPU).dtype == "float32"
    assert len(measurements) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measurements: list[StepTimes]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert [auto_dtype(CPU).dtype for _ in range(2)] == ["float32"] * 2
    assert len(measurements) == 2


@pytest.mark.parametrize(("native", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_is_asked_and_not_timed(
    cache: Path, measurements: list[StepTimes], monkeypatch: pytest.MonkeyPatch, native: bool, dtype: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:  # older GPUs emulate it, which is slow
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert auto_dtype(torch.device("cuda:0")).dtype == dtype
    assert not measurements and not cache.exists()


def test_settings_that_name_a_dtype_keep_it_and_auto_is_said_in_the_log(
    cache: Path, measurements: list[StepTimes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lifealign")
    named = ModelConfig(dtype="bfloat16")
    assert settled(named, CPU) is named and not caplog.messages and not measurements
    assert settled(ModelConfig(revision="abc"), CPU) == ModelConfig(revision="abc", dtype="float32")
    assert caplog.messages == ["base weights in float32: on this processor a step takes 0.50 of its time in bfloat16"]


def test_the_measurement_leaves_random_numbers_and_gradients_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():  # whoever loads a model may well have switched gradients off
        times = measure_step_times(CPU)
    assert torch.equal(torch.rand(3), expected)
    assert 0 < times.bfloat16 < 60 and 0 < times.float32 < 60


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_step_that_is_timed_reaches_every_factor_and_no_frozen_matrix(dtype: torch.dtype) -> None:
    stack = auto._Stack(dtype, CPU)
    stack.loss().backward()
    factors = [factor for pair in stack.factors.values() for factor in pair]
    assert all(factor.grad is not None and factor.grad.dtype == torch.float32 for factor in factors)
    assert all(float(factor.grad.norm()) > 0 for factor in factors if factor.grad is not None)
    assert all(matrix.grad is None and matrix.dtype == dtype for matrix in stack.frozen.values())
