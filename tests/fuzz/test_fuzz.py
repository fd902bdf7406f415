"""A short run of ``make fuzz``, and that it finds what it is there to find."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fuzz import run
from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz, read_again

from lifealign.errors import DataError

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory as Linux tells it")


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_only_our_own_errors_escape_from_damaged_files(name: str, tmp_path: Path) -> None:
    outcome = fuzz(name, seed=7, seconds=60, keep=tmp_path, most=40)
    assert not outcome.faults, "\n".join(fault.what for fault in outcome.faults)
    assert outcome.inputs == 40 and outcome.refused > 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda: [][0], "IndexError"),
        (lambda: bytearray(2**29), "TooMuch: it took"),
        (lambda: [None for _ in iter(time.process_time, None)], "TooMuch: it took too long"),
    ],
)
def test_a_reader_that_lets_something_escape_is_caught(
    how: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another exception, memory, time; and the input that did it is kept, and read again does it again."""

    def reads(folder: Path, name: str) -> None:
        if b"yes" not in (folder / name).read_bytes():
            how()  # type: ignore[operator]
        raise DataError(name, found="no", expected="yes")

    def seed(folder: Path) -> list[str]:
        (folder / "rows.jsonl").write_text('"yes"')
        return ["rows.jsonl"]

    monkeypatch.setitem(READERS, "rows", replace(READERS["rows"], seed=seed, read=reads))
    monkeypatch.setattr(run, "SECONDS", 0.5)
    outcome = fuzz("rows", seed=1, seconds=20, keep=tmp_path, most=60)
    assert outcome.faults and said in outcome.faults[0].what
    if said == "IndexError":
        with pytest.raises(IndexError):
            read_again(outcome.faults[0].kept)
