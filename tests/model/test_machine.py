"""The processor as Linux describes it, and where nobody does."""

from pathlib import Path

from lifealign.model.machine import Processor, this_processor

TWO_CORES = """processor\t: 0
model name\t: Quick 9000
flags\t\t: fpu avx avx2 avx512f avx512_bf16x

processor\t: 1
model name\t: Another
flags\t\t: fpu amx_bf16
"""


def test_the_first_core_speaks_and_only_whole_words_of_its_flags_count(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(TWO_CORES)
    found = this_processor(cpuinfo)
    assert found == Processor("Quick 9000", ("avx2", "avx512f"))
    assert str(found) == "Quick 9000 (avx2, avx512f)"


def test_flags_without_any_of_these_are_not_the_same_as_no_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name: Old\nflags: fpu sse\n")
    assert this_processor(cpuinfo).instructions == ()
    cpuinfo.write_text("BogoMIPS: 50\nFeatures: asimd bf16\n")
    assert this_processor(cpuinfo).instructions is None
    unknown = this_processor(tmp_path / "nowhere")
    assert unknown.instructions is None and unknown.name and "unknown" in str(unknown)
