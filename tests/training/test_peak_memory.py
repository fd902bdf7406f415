"""Peak memory: of a stretch of work, not of everything before it."""

from __future__ import annotations

import mmap
import sys

import pytest

from lifealign.training.peak_memory import peak_memory_bytes, reset_peak_memory

SIZE = 256 * 2**20


def allocate() -> None:
    """Touches and gives back 256 MiB, past malloc, which may reuse what it has kept of earlier tests."""
    with mmap.mmap(-1, SIZE) as memory:
        for page in range(0, SIZE, mmap.PAGESIZE):
            memory[page] = 1


def test_what_was_taken_and_given_back_shows() -> None:
    reset_peak_memory()
    before = peak_memory_bytes()
    allocate()
    assert peak_memory_bytes() >= before + 0.9 * SIZE or not sys.platform.startswith("linux")
    assert before > 50 * 2**20  # torch alone takes more: the unit is bytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere only the whole process has a peak")
def test_a_new_measurement_forgets_the_peak_before_it() -> None:
    allocate()
    high = peak_memory_bytes()
    reset_peak_memory()
    assert peak_memory_bytes() < high - 0.5 * SIZE
