"""`lifealign doctor`: what it finds on the tiny model, and a line of advice for everything that can be wrong."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeLife

from lifealign.cli import checkup, doctor, options, rates
from lifealign.cli import main as cli
from lifealign.model.embedded import EMBEDDED_INSTALL
from lifealign.report.printing import Terminal
from lifealign.storage.user_cache import CACHE_VARIABLE

Doctor = Callable[..., str]


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Doctor:
    """Runs `lifealign doctor` in a folder of its own, with short measurements; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(rates, "SECONDS", 0.01)
    monkeypatch.setattr(checkup, "SIDE", {"cpu": 64})

    def run(*arguments: object, width: int = 80) -> str:
        console = Terminal(width=width)
        for module in (options, doctor):
            monkeypatch.setattr(module, "console", console)
        monkeypatch.setattr(sys, "argv", ["lifealign", "doctor", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code in (None, 0)
        return capsys.readouterr().out

    return run


def in_json(examined: Doctor, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(examined(*arguments, "--json"))
    return found


@pytest.mark.parametrize("width", [80, 120])
def test_it_says_what_is_there_and_how_fast_it_is(examined: Doctor, tiny_folder: Path, width: int) -> None:
    text = examined(tiny_folder, width=width)
    lines = text.splitlines()
    words = [line.split()[0] for line in lines if line.startswith("  ")]
    for word in ("processor", "instructions", "cores", "memory", "device", "products", "dtype:"):
        assert word in words
    for word in ("parameters", "sft", "preference", "generation", "measured", "writable", "machine.json"):
        assert word in words
    assert all(len(line) <= width for line in lines if line.startswith("  "))
    assert lines[-1] == "advice: nothing to mend"


def test_json_says_the_same_in_numbers(examined: Doctor, tiny_folder: Path) -> None:
    found = in_json(examined, tiny_folder, "--batch-size", 2)
    assert found.keys() == {"versions", "machine", "model", "cache", "advice"} and found["advice"] == []
    model, machine = found["model"], found["machine"]
    assert (model["parameters"], model["batch_size"], model["dtype"]) == (32096, 2, machine["auto_dtype"])
    assert machine["gflops"].keys() == {"bfloat16", "float32"} and machine["auto_dtype_because"]
    for speed in ("sft_tokens_per_second", "preference_pairs_per_second", "generated_tokens_per_second"):
        assert model[speed] > 0
    need = model["memory_need"]
    assert need.pop("total") == sum(need.values()) and model["peak_memory"] > 2**20


def test_a_life_is_examined_in_its_own_dtype(examined: Doctor, make_life: MakeLife, tiny_folder: Path) -> None:
    make_life("bot", model={"dtype": "float32"})
    model = in_json(examined, "bot")["model"]
    assert (model["name"], model["model"], model["dtype"]) == ("bot", str(tiny_folder), "float32")


def test_a_model_that_does_not_fit_is_not_loaded(
    examined: Doctor, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "memory", lambda device: (2**33, 2**29))
    monkeypatch.setattr(checkup, "load_base", lambda config: pytest.fail("loaded"))
    text = examined(tiny_folder, width=200)
    assert "not measured  too little memory" in text and "of it free" in text
    advice = text.splitlines()[-1]
    assert f"advice: {tiny_folder} needs about 0.7 GiB to be trained in bfloat16 and 0.5 GiB are free" in advice
    assert "take a smaller model or --batch-size" in advice


def test_without_the_embedded_model_the_machine_is_still_examined(
    examined: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    text = examined(width=200)
    assert "GFLOP/s in bfloat16" in text and "its package is not installed" in text
    assert text.splitlines()[-1].startswith("advice: model 'smollm2-135m'") and EMBEDDED_INSTALL in text


def test_threads_left_unused_are_pointed_out(
    examined: Doctor, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "usable_cores", lambda: 64)
    assert in_json(examined, tiny_folder)["advice"] == []  # few threads, but nobody asked for few
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (advice,) = in_json(examined, tiny_folder)["advice"]
    assert advice.startswith("OMP_NUM_THREADS=1: torch uses ") and "of 64 cores; unset it" in advice


def test_a_cache_that_cannot_be_written_is_pointed_out(
    examined: Doctor, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "file").chmod(0o755)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    found = in_json(examined, tiny_folder)
    assert found["cache"] == {
        "folder": str(tmp_path / "file" / "cache"),
        "writable": False,
        "entries": {},
        "network": {},
    }
    (advice,) = found["advice"]
    assert f"{tmp_path}/file/cache cannot be written" in advice and f"set {CACHE_VARIABLE}" in advice


def test_a_network_filesystem_is_pointed_out_once_for_each_folder(
    examined: Doctor, tiny_folder: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "network_filesystem", lambda path: "nfs4" if path == user_cache else None)
    (advice,) = in_json(examined, tiny_folder)["advice"]
    assert advice.startswith(f"{user_cache} is on a network filesystem (nfs4), where file locks may not hold")


def test_the_sizes_of_what_the_cache_keeps_are_those_on_disk(
    examined: Doctor, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    (cache / "models" / "one").mkdir(parents=True)
    (cache / "models" / "one" / "weights").write_bytes(b"x" * 3000)
    (cache / "models" / "other").write_bytes(b"x" * 500)
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    assert in_json(examined, tiny_folder)["cache"]["entries"]["models"] == 3500
