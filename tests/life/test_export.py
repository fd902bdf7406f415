"""What a life has learnt, for other programs: each form is the life's own model, and a failure leaves nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from tests.model.gguf_files import tiny_family, write_base
from tests.model.test_merge import assert_close
from tests.tiny import letter_task
from transformers import AutoModelForCausalLM, AutoTokenizer

from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life import export as exporting
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.export import export_life
from lifealign.life.life import Life
from lifealign.model.base_model import load_base
from lifealign.model.gguf_lora import gguf_factors
from lifealign.model.settings import ModelConfig

Lived = Callable[..., Life]
TASKS = [letter_task("one", "a", "b"), letter_task("two", "c", "d"), letter_task("three", "e", "f")]
IDS = torch.tensor([[256, 10, 20, 30, 40, 50]])


@pytest.fixture
def life(lived: Lived) -> Life:
    return lived(TASKS, method="lifealign", lora={"lora_r": 4, "lora_alpha": 12})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def plain_base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


# -- an adapter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("as_of", "name"), [(None, "03-three"), ("01-one", "01-one")])
def test_an_adapter_is_the_folder_of_its_version_byte_for_byte(
    life: Life, tmp_path: Path, as_of: str | None, name: str
) -> None:
    before = content(life.directory.path)
    written = export_life(life.workspace, tmp_path / "out", as_of=as_of)
    assert content(tmp_path / "out") == content(life.directory.path / "versions" / name)
    assert content(life.directory.path) == before
    assert (written.form, written.version, written.weights, written.dtype) == ("adapter", name, {}, "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("method", "rank"), [("lifealign", 4), ("olora", 12), ("stl", 4), ("seqft", 4), ("cumulative", None)]
)
def test_peft_loads_it_on_the_base_that_it_names(
    lived: Lived, tiny_folder: Path, tmp_path: Path, method: str, rank: int | None
) -> None:
    life = lived(TASKS, method=method, lora={"lora_r": 4, "lora_alpha": 12})
    export_life(life.workspace, tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_folder)
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert rank is None or (config["r"], config["lora_alpha"]) == (rank, 3 * rank)
    loaded = PeftModel.from_pretrained(plain_base(config["base_model_name_or_path"]), str(tmp_path / "out"))
    assert_close(logits(loaded), logits(life.load()[0]))
    assert_close(logits(loaded.merge_and_unload()), logits(life.load()[0]))


def test_without_a_task_it_is_a_composition_that_says_it_was_not_scored(
    life: Life, tiny_folder: Path, tmp_path: Path
) -> None:
    how = {"without": ["one"], "weights": {"two": 0.5}, "as_of": "02-two"}
    written = export_life(life.workspace, tmp_path / "out", **how)
    assert written.version is None and written.weights == {"01-one": 0, "02-two": 0.5, "03-three": 0}
    loaded = PeftModel.from_pretrained(plain_base(tiny_folder), str(tmp_path / "out"))
    assert_close(logits(loaded), logits(life.load(life.compose(**how))[0]))
    assert "It was not scored." in card(tmp_path / "out") and "| 02-two | two | 0.5 |" in card(tmp_path / "out")


def test_without_the_last_task_it_is_the_version_before_it(life: Life, tmp_path: Path) -> None:
    written = export_life(life.workspace, tmp_path / "out", without=["three"])
    assert written.version == "02-two"
    assert content(tmp_path / "out") == content(life.directory.path / "versions/02-two")


# -- a merged model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lifealign", "olora", "stl"])
@pytest.mark.parametrize("as_of", ["01-one", None])
def test_a_merged_model_is_the_life_s_own(lived: Lived, tmp_path: Path, method: str, as_of: str | None) -> None:
    life = lived(TASKS, method=method, lora={"lora_r": 4, "lora_alpha": 12})
    expected = logits(life.load(as_of)[0])
    life.load("02-two")  # what is loaded in the life does not matter
    written = export_life(life.workspace, tmp_path / "out", form="merged", as_of=as_of)
    assert (written.form, written.dtype) == ("merged", "float32")
    assert_close(logits(plain_base(tmp_path / "out")), expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == (
        life.workspace.base.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    )


def test_a_life_that_has_not_loaded_its_model_exports_the_same(life: Life, tmp_path: Path) -> None:
    fresh = Life.open(life.directory.path)
    export_life(fresh.workspace, tmp_path / "fresh", form="merged")
    assert "runtime" not in fresh.workspace.__dict__  # nothing was proven or put on a device
    life.load()
    export_life(life.workspace, tmp_path / "loaded", form="merged")
    assert content(tmp_path / "fresh") == content(tmp_path / "loaded")


def test_a_merged_composition_is_the_composition(life: Life, tmp_path: Path) -> None:
    export_life(life.workspace, tmp_path / "out", form="merged", without=["two"])
    assert_close(logits(plain_base(tmp_path / "out")), logits(life.load(life.compose(without=["two"]))[0]))
    assert "It was not scored." in card(tmp_path / "out") and "| 02-two | two | 0 |" in card(tmp_path / "out")
    assert "## How well it knows it" not in card(tmp_path / "out")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_dtype_is_that_of_the_weights(life: Life, tmp_path: Path, dtype: str) -> None:
    written = export_life(life.workspace, tmp_path / "out", form="merged", dtype=dtype)  # type: ignore[arg-type]
    assert written.dtype == dtype
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", trust_remote_code=False)
    assert {str(weight.dtype) for weight in model.parameters()} == {f"torch.{dtype}"}
    expected = logits(life.load()[0])
    assert_close(logits(model.float()), expected, relative=0.02)
    assert f"rounded once, to {dtype}" in card(tmp_path / "out")
    assert "in float32. Merged, its answers may differ a little" in card(tmp_path / "out")


def test_by_default_a_merged_model_has_the_dtype_of_the_base(lived: Lived, tiny_folder: Path, tmp_path: Path) -> None:
    half = lived(TASKS[:1], model={"model_name_or_path": str(tiny_folder), "dtype": "bfloat16"})
    assert export_life(half.workspace, tmp_path / "out", form="merged").dtype == "bfloat16"
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_on_a_gguf_base_the_merged_model_is_plain(make_life: Callable[..., Life], tmp_path: Path) -> None:
    write_base(tmp_path / "base.gguf", tiny_family("llama"))
    model = {"model_name_or_path": str(tmp_path / "base.gguf"), "dtype": "float32"}
    life = make_life(model=model, data={"max_length": 64})
    life.learn(TASKS[0])
    expected = logits(life.load()[0])
    export_life(life.workspace, tmp_path / "out", form="merged")
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    assert_close(logits(plain_base(tmp_path / "out")), expected)
    load_base(ModelConfig(model_name_or_path=str(tmp_path / "out"), dtype="float32"))  # a base for another life


def test_the_card_of_a_merged_version_has_what_was_measured_of_it(
    life: Life, tiny_folder: Path, tmp_path: Path
) -> None:
    export_life(life.workspace, tmp_path / "out", form="merged", as_of="02-two")
    text, own = card(tmp_path / "out"), (life.directory.path / "versions/02-two/README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\nlicense: unknown\n") and "\n# 02-two\n" in text
    assert f"{tiny_folder.name} with what lifealign has taught it" in text and str(tiny_folder) not in text
    assert text[text.index("## What it was taught") :] == own[own.index("## What it was taught") :]
    assert "PeftModel" not in text and "AutoModelForCausalLM" in text
    assert "which computes the same but for the last digits" in text


# -- a GGUF file -------------------------------------------------------------------------------------------------------


def test_a_gguf_file_has_the_factors_of_the_version(life: Life, tmp_path: Path) -> None:
    written = export_life(life.workspace, tmp_path / "out", form="gguf", as_of="02-two")
    assert (written.form, written.dtype) == ("gguf", "float32")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "adapter.gguf"}
    reader = GGUFReader(tmp_path / "out/adapter.gguf")
    assert reader.fields["adapter.lora.alpha"].contents() == 12
    assert reader.fields["general.name"].contents() == "02-two"
    expected = gguf_factors(read_adapter_of(life.directory, "02-two"), life.workspace.base.model.config)
    found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert "llama-server -m BASE.gguf --lora adapter.gguf" in card(tmp_path / "out")
    assert "## How well it knows it" in card(tmp_path / "out") and "tags:\n- lifealign" in card(tmp_path / "out")


def test_stacked_adapters_keep_their_scaling(lived: Lived, tmp_path: Path) -> None:
    life = lived(TASKS, method="olora", lora={"lora_r": 4, "lora_alpha": 12})
    export_life(life.workspace, tmp_path / "out", form="gguf", dtype="float16")
    reader = GGUFReader(tmp_path / "out/adapter.gguf")
    ranks = {int(tensor.shape[0]) for tensor in reader.tensors if tensor.name.endswith("lora_b")}
    assert ranks == {12} and reader.fields["adapter.lora.alpha"].contents() == 36  # 36 / 12 is 12 / 4


def test_on_the_embedded_model_every_card_says_so(life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelConfig, "is_embedded", property(lambda self: True))
    for form, said in (
        ("merged", "the weights here are plain as well"),
        ("gguf", "own .gguf file is the base that it fits"),
    ):
        export_life(life.workspace, tmp_path / form, form=form)  # type: ignore[arg-type]
        assert said in card(tmp_path / form) and "license: apache-2.0" in card(tmp_path / form)
        assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card(tmp_path / form)


# -- what is refused, before anything is written -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["adapter", "merged", "gguf"])
def test_a_pool_of_prompts_cannot_be_exported(lived: Lived, tmp_path: Path, form: Any) -> None:
    life = lived(TASKS[:1], method={"name": "l2p", "pool_size": 4, "prompt_length": 2, "top_k": 2})
    with pytest.raises(LifeError, match="a life of L2P cannot be exported: a version is a pool of prompts, from which"):
        export_life(life.workspace, tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


def test_a_stacked_life_has_no_compositions(lived: Lived, tmp_path: Path) -> None:
    with pytest.raises(LifeError, match="cannot be composed: a version stacks the adapters"):
        export_life(lived(TASKS, method="olora").workspace, tmp_path / "out", without=["one"])


@pytest.mark.parametrize(
    ("how", "kind", "fault"),
    [
        ({"as_of": "00-base"}, LifeError, "found 00-base, in which nothing was learnt, expected a version"),
        ({"without": ["one", "two", "three"]}, LifeError, "found 00-base, in which nothing was learnt"),
        ({"as_of": "02-tow"}, LifeError, "found no version '02-tow', expected one of: 00-base, 01-one, 02-two"),
        ({"without": ["twoo"]}, ConfigError, "did you mean two?"),
        ({"form": "onnx"}, ConfigError, "form: found 'onnx', expected one of adapter, merged, gguf"),
        ({"form": "merged", "dtype": "int8"}, ConfigError, "dtype: found 'int8', expected one of float32, bfloat16"),
        ({"dtype": "bfloat16"}, ConfigError, "found bfloat16, expected none, because an adapter for PEFT is float32"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    life: Life, tmp_path: Path, how: dict[str, Any], kind: type[Exception], fault: str
) -> None:
    with pytest.raises(kind) as raised:
        export_life(life.workspace, tmp_path / "out", **how)
    assert fault in str(raised.value) and "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())


def test_a_life_that_has_learnt_nothing_has_nothing_to_export(make_life: Callable[..., Life], tmp_path: Path) -> None:
    with pytest.raises(LifeError, match="found nothing learnt yet, expected a version that has learnt something"):
        export_life(make_life().workspace, tmp_path / "out")


def test_folders_in_use_are_left_alone(life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    for out, fault in (
        (tmp_path / "full", "found a directory that is not empty"),
        (tmp_path / "file", "could not be read: Not a directory"),
        (life.directory.path / "versions/04-out", "found a folder of the life itself"),
        (Path("."), "found the folder that you are in"),
    ):
        with pytest.raises(LifeError, match=fault):
            export_life(life.workspace, out, form="merged")
    with pytest.raises(LifeError, match=r"found the name of a file, .* the file in it is adapter.gguf"):
        export_life(life.workspace, tmp_path / "bot.gguf", form="gguf")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("form", ["adapter", "merged", "gguf"])
def test_a_disk_with_too_little_room_is_found_before_anything_is_written(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(LifeError, match=r"found 0 MiB free on its disk, expected at least \d+ MiB"):
        export_life(life.workspace, tmp_path / "out", form=form)
    assert not any(tmp_path.iterdir())


def test_a_family_that_llama_cpp_stores_otherwise_is_refused(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life.workspace.base.model.config, "model_type", "unheard")
    monkeypatch.setattr(exporting, "whole_folder", lambda out: pytest.fail("it was begun"))
    with pytest.raises(ModelError, match="found a base of the family unheard, expected one whose layout in GGUF"):
        export_life(life.workspace, tmp_path / "out", form="gguf")
    assert not any(tmp_path.iterdir())


def test_factors_of_another_rank_than_their_scaling_counts_on_are_refused(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = {
        name: factor[:2] if ".lora_A." in name else factor[:, :2]
        for name, factor in read_adapter_of(life.directory).items()
    }
    monkeypatch.setattr(exporting, "read_adapter_of", lambda *_: cut)
    with pytest.raises(ModelError, match=r"q_proj: found rank 2 and 2, expected 4, as in adapter_config.json"):
        export_life(life.workspace, tmp_path / "out", form="merged")


# -- what goes wrong while it is written -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["adapter", "merged", "gguf"])
def test_a_disk_that_becomes_full_leaves_nothing(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_bytes" if form == "adapter" else "write_text", full)  # weights come first
    with pytest.raises(LifeError, match=r"could not be written: No space left on device\. Nothing of it was kept"):
        export_life(life.workspace, tmp_path / "deep/out", form=form)
    assert not any(tmp_path.iterdir())


def test_a_damaged_adapter_is_not_exported(life: Life, tmp_path: Path) -> None:
    copied = Life.open(shutil.copytree(life.directory.path, tmp_path / "life"))
    file = copied.directory.path / "versions/03-three/README.md"
    file.write_text(file.read_text() + " ")
    for form in ("adapter", "merged", "gguf"):
        with pytest.raises(LifeError, match="The file was changed or damaged"):
            export_life(copied.workspace, tmp_path / "out", form=form)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()
