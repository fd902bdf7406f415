"""SLMC on adapters that another trainer made: its limits, a memory that loses nothing, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.peft_adapters import moved, names, random_factors, write_folder
from tests.tiny import letter_task
from torch import Tensor

from lifealign.errors import ConfigError, LifeAlignError, LifeError, ModelError
from lifealign.life import foreign, learn
from lifealign.life.disk import foreign_memory
from lifealign.life.disk.foreign_memory import ForeignMemory
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.foreign import ConsolidatedAdapter, consolidate_adapters
from lifealign.life.foreign_checks import require_next
from lifealign.life.life import Life
from lifealign.memory.long_term import LongTermMemory, consolidate
from lifealign.memory.update import add, subtract
from lifealign.model.peft_folder import read_peft_folder
from lifealign.storage.lock import exclusive_lock
from lifealign.storage.tensors import read_tensors

START = random_factors(0)


def factors(folder: Path) -> dict[str, Tensor]:
    return read_peft_folder(folder).factors


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


class Chain:
    """Trainings one after the other, each from the adapter that the last one was consolidated to."""

    def __init__(self, place: Path) -> None:
        self.place, self.memory, self.number = place, place / "memory", 0
        self.last = write_folder(place / "start", START)

    def train(self, **how: Any) -> ConsolidatedAdapter:
        """One more training, and its consolidation."""
        self.number += 1
        self.before = self.last
        self.after = self.place / f"after-{self.number}"
        write_folder(self.after, moved(factors(self.last), 10 + self.number), peft_version=f"0.{self.number}")
        self.last = self.place / f"out-{self.number}"
        return consolidate_adapters(self.before, self.after, self.memory, self.last, **how)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


# -- what it computes --------------------------------------------------------------------------------------------------


def test_with_both_shares_at_one_what_comes_out_is_the_trained_adapter(chain: Chain) -> None:
    for _ in range(3):
        made = chain.train(energy_kept=1.0, overlap_kept=1.0)
        out, after = factors(chain.last), factors(chain.after)
        assert all((out[name] - after[name]).abs().max() <= 2**-23 * after[name].abs().max() for name in after)
        assert made.figures["rank_kept"] == 4 and made.figures["energy_kept"] == 1
    assert (made.entry, made.updates, made.factors, made.known) == ("03-out-3", 3, 8, False)
    assert (chain.last / "adapter_config.json").read_bytes() == (chain.after / "adapter_config.json").read_bytes()


def test_an_empty_memory_only_denoises(chain: Chain) -> None:
    made = chain.train(energy_kept=0.5, overlap_kept=0.0)
    update = subtract(factors(chain.after), START)
    expected = consolidate(update, LongTermMemory(), energy_kept=0.5, overlap_kept=1.0)
    assert made.figures["overlap_energy"] == 0 and 1 <= made.figures["rank_kept"] < 4
    wanted = add(START, {name: factor.float() for name, factor in expected.update.items()})
    assert all(torch.equal(factors(chain.last)[name], wanted[name]) for name in update)


def test_with_no_overlap_kept_an_update_is_orthogonal_to_all_before_it(chain: Chain) -> None:
    for _ in range(4):
        chain.train(energy_kept=0.9, overlap_kept=0.0)
    updates = [read_tensors(path) for path in sorted((chain.memory / "updates").glob("*.safetensors"))]
    assert len(updates) == 4
    for name in names():
        rows = torch.stack([update[name].flatten().double() / update[name].double().norm() for update in updates])
        assert (rows @ rows.T - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-6
    raw = subtract(factors(chain.after), factors(chain.before))
    assert any((raw[name].flatten() @ updates[0][name].flatten().double()).abs() > 1e-4 for name in names())


def test_out_is_before_plus_the_update_in_the_memory(chain: Chain) -> None:
    chain.train()
    before = factors(chain.last)
    chain.train()
    update = read_tensors(chain.memory / "updates/02-out-2.safetensors")
    assert all(torch.equal(factors(chain.last)[name], add(before, update)[name]) for name in update)
    told = json.loads((chain.last / "consolidation.json").read_text())
    assert told["name"] == "02-out-2" and told["energy_kept"] == 0.9 and told["overlap_kept"] == 0.5
    assert told["before"] == read_peft_folder(chain.before).fingerprint
    assert set(told["factors"]) == set(names()) and 0 < told["mean"]["overlap_energy"] < 0.5


def test_two_tasks_are_consolidated_as_a_life_does_it(
    make_life: Callable[..., Life], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A life learns two tasks; then its adapters before and after each training are consolidated from outside."""
    updates: list[dict[str, Tensor]] = []
    within = learn.consolidate

    def spied(work: Any, step: Any, segment: Any, update: Any, logs: Any) -> Any:
        updates.append(update)
        return within(work, step, segment, update, logs)

    monkeypatch.setattr(learn, "consolidate", spied)
    life = make_life(method="lifealign")
    for name, good, bad in (("one", "a", "b"), ("two", "c", "d")):
        life.learn(letter_task(name, good, bad))
    versions = life.directory.path / "versions"
    before = versions / "00-base"
    for number, step in enumerate(("01-one", "02-two")):
        after = tmp_path / f"after-{number}"
        shutil.copytree(versions / step, after)
        config = json.loads((after / "adapter_config.json").read_text())
        write_folder(after, add(factors(before), updates[number]), **config)
        out = tmp_path / step
        made = consolidate_adapters(before, after, tmp_path / "memory", out, energy_kept=0.9, overlap_kept=0.5)
        assert made.entry == step
        kept = read_tensors(life.directory.path / f"memory/{step}.safetensors")
        mine = read_tensors(tmp_path / f"memory/updates/{step}.safetensors")
        assert {f"task/{name}" for name in mine} == set(kept)
        assert all(torch.allclose(mine[name], kept[f"task/{name}"], rtol=1e-5, atol=1e-8) for name in mine)
        if number == 0:
            assert all(torch.equal(mine[name], kept[f"task/{name}"]) for name in mine)
        version = read_adapter_of(life.directory, step)
        assert all(torch.allclose(factors(out)[name], version[name], rtol=0, atol=2e-7) for name in version)
        told = json.loads((life.directory.path / f"tasks/{step}/consolidation.json").read_text())["task"]["mean"]
        assert made.figures == pytest.approx(told, rel=1e-4)
        before = out
    assert made.figures["overlap_energy"] > 0


# -- what trainers leave -----------------------------------------------------------------------------------------------

LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, str], torch.dtype]] = {
    "trl": (
        {},
        {"README.md": "---\n", "tokenizer.json": "{}", "training_args.bin": "no pickle is opened"},
        torch.float32,
    ),
    "trl-qlora": ({}, {"training_args.bin": ""}, torch.bfloat16),  # TRL keeps the adapter of a quantised base in bf16
    "llama-factory": (
        {"base_model_name_or_path": "Qwen/Qwen3-4B-Instruct-2507", "lora_dropout": 0.0},
        {"all_results.json": "{}", "train_results.json": "{}", "trainer_state.json": "{}", "trainer_log.jsonl": "{}\n"},
        torch.float32,
    ),
    "axolotl": (
        {"fan_in_fan_out": None, "target_parameters": [], "layers_to_transform": None, "lora_dropout": 0.05},
        {"config.json": "{}", "tokenizer_config.json": "{}"},  # axolotl saves the base's config beside the adapter
        torch.float32,
    ),
    "ms-swift": (
        {"target_modules": r"^(model)(?=\.).*\.(q_proj|v_proj)$"},
        {"additional_config.json": '{"lora_dtype": null}', "args.json": "{}", "training_args.bin": ""},
        torch.float32,
    ),
    "unsloth": (
        {"base_model_name_or_path": "unsloth/llama-3-8b-bnb-4bit", "loftq_config": {}, "ensure_weight_tying": False},
        {"README.md": "", "tokenizer_config.json": "{}"},
        torch.bfloat16,
    ),
}
"""What is particular in a folder of each trainer, other files in it, and the dtype of the adapter."""


@pytest.mark.parametrize("trainer", LAYOUTS)
def test_what_each_trainer_leaves_is_consolidated(tmp_path: Path, trainer: str) -> None:
    config, beside, dtype = LAYOUTS[trainer]
    start, trained = ({name: factor.to(dtype) for name, factor in some.items()} for some in (START, moved(START, 1)))
    before = write_folder(tmp_path / "start", start, **config)
    run = write_folder(tmp_path / "run/checkpoint-4", trained, **config)
    for name, text in beside.items():
        (run / name).write_text(text)
    made = consolidate_adapters(before, run, tmp_path / "memory", tmp_path / "out", energy_kept=1, overlap_kept=1)
    expected = read_peft_folder(run).factors
    out = read_peft_folder(tmp_path / "out")
    assert out.dtype == "float32" and out.kind == read_peft_folder(before).kind and not made.not_read
    assert all(torch.allclose(out.factors[name], expected[name], rtol=0, atol=1e-8) for name in expected)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "consolidation.json",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_trainer_that_rounds_the_adapter_it_loads_goes_on_from_it(chain: Chain, dtype: torch.dtype) -> None:
    chain.train()
    rounded = {name: factor.to(dtype) for name, factor in factors(chain.last).items()}
    chain.last = write_folder(chain.place / "as-loaded", rounded, infix=".default")
    chain.train()
    update = read_tensors(chain.memory / "updates/02-out-2.safetensors")
    expected = add({name: factor.float() for name, factor in rounded.items()}, update)
    assert all(torch.equal(factors(chain.last)[name], expected[name]) for name in update)


def test_rank_stabilised_adapters_are_consolidated_like_any(tmp_path: Path) -> None:
    outs = []
    for stable in (False, True):
        place = tmp_path / str(stable)
        before = write_folder(place / "before", START, use_rslora=stable)
        after = write_folder(place / "after", moved(START, 1), use_rslora=stable)
        consolidate_adapters(before, after, place / "memory", place / "out")
        outs.append(read_peft_folder(place / "out"))
    assert outs[0].fingerprint == outs[1].fingerprint and outs[1].kind.use_rslora


def test_adapters_beside_the_trained_one_are_told(tmp_path: Path) -> None:
    before = write_folder(tmp_path / "start", START)
    after = write_folder(tmp_path / "after", moved(START, 1))
    write_folder(after / "ref", START)
    assert consolidate_adapters(before, after, tmp_path / "memory", tmp_path / "out").not_read == ("ref",)
    assert not (tmp_path / "out/ref").exists()


# -- a memory that loses nothing ---------------------------------------------------------------------------------------


def test_the_manifest_names_order_limit_and_every_file_with_size_and_hash(chain: Chain) -> None:
    chain.train()
    chain.train(name="refunds", energy_kept=0.8)
    told = json.loads((chain.memory / "memory.json").read_text())
    assert told["format_version"] == 1 and told["history_limit"] == 32 and len(told["sha256"]) == 64
    assert told["adapter"]["r"] == 4 and told["adapter"]["base_model_name_or_path"] == "some/base"
    assert [entry["name"] for entry in told["entries"]] == ["01-out-1", "02-refunds"]
    assert [entry["energy_kept"] for entry in told["entries"]] == [0.9, 0.8]
    assert told["entries"][1]["folder"] == str(chain.last)
    for entry in told["entries"]:
        for what, ending in (("update", "safetensors"), ("figures", "json")):
            file = chain.memory / f"updates/{entry['name']}.{ending}"
            assert entry[what]["size"] == file.stat().st_size
    assert set(content(chain.memory)) == {"memory.json"} | {
        f"updates/{name}.{ending}" for name in ("01-out-1", "02-refunds") for ending in ("json", "safetensors")
    }


@pytest.mark.parametrize(("folder", "entry"), [("02-tone", "01-tone"), ("tone", "01-tone"), ("2024", "01-2024")])
def test_a_number_in_the_folders_name_is_the_memorys_own(tmp_path: Path, folder: str, entry: str) -> None:
    before, after = write_folder(tmp_path / "b", START), write_folder(tmp_path / "a", moved(START, 1))
    assert consolidate_adapters(before, after, tmp_path / "memory", tmp_path / folder).entry == entry


def test_the_same_call_again_takes_nothing_twice(chain: Chain) -> None:
    chain.train()
    first = chain.train()
    before = content(chain.place)
    again = consolidate_adapters(chain.before, chain.after, chain.memory, chain.last)
    assert again.known and not first.known
    assert (again.entry, again.updates, again.figures) == (first.entry, first.updates, pytest.approx(first.figures))
    assert content(chain.place) == before


def test_the_same_call_again_writes_an_adapter_that_is_missing(chain: Chain) -> None:
    chain.train()
    chain.train()
    before = content(chain.place)
    shutil.rmtree(chain.last)
    assert consolidate_adapters(chain.before, chain.after, chain.memory, chain.last).known
    assert content(chain.place) == before  # to the last bit, figures and all


def test_the_same_adapters_with_other_shares_are_refused(chain: Chain) -> None:
    chain.train()
    before = content(chain.place)
    with pytest.raises(ConfigError, match=r"taken as 01-out-1 with energy_kept 0.9 and overlap_kept 0.5, expected the"):
        consolidate_adapters(chain.before, chain.after, chain.memory, chain.place / "other", overlap_kept=0.1)
    assert content(chain.place) == before


def test_the_same_factors_that_mean_something_else_are_not_the_same_call(chain: Chain) -> None:
    chain.train()
    before = write_folder(chain.place / "before", factors(chain.before), lora_alpha=16)
    after = write_folder(chain.place / "after", factors(chain.after), lora_alpha=16)
    told = refusal(chain, ModelError, before, after, chain.memory, chain.place / "new")
    assert "lora_alpha: found a number (16.0), expected a number (8.0), as in" in told


def test_the_same_call_into_a_folder_with_something_else_is_refused(chain: Chain) -> None:
    chain.train()
    with pytest.raises(LifeError, match="found a directory that is not empty"):
        consolidate_adapters(chain.before, chain.after, chain.memory, chain.after)


@pytest.mark.parametrize(
    "moment",
    [
        (foreign, "write_peft_folder"),
        (foreign_memory, "write_tensors"),
        (foreign_memory, "write_json"),
        (foreign_memory, "write_sealed_json"),
    ],
)
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_a_call_that_is_interrupted_leaves_the_memory_as_it_was(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, moment: tuple[Any, str], failure: BaseException
) -> None:
    chain.train()
    before = content(chain.memory)

    def fails(*_: Any, **__: Any) -> None:
        raise failure

    with monkeypatch.context() as patch, pytest.raises((LifeError, KeyboardInterrupt, MemoryError)):
        patch.setattr(*moment, fails)
        chain.train()
    assert not chain.last.exists() and not list(chain.place.glob("out-2.tmp*"))
    assert json.loads((chain.memory / "memory.json").read_text()) == json.loads(before["memory.json"])
    made = consolidate_adapters(chain.before, chain.after, chain.memory, chain.last)  # what was left over is gone
    assert (made.known, made.entry) == (False, "02-out-2")
    assert set(content(chain.memory)) - set(before) == {"updates/02-out-2.safetensors", "updates/02-out-2.json"}


def test_a_process_that_dies_after_the_memory_has_the_update_is_made_whole_by_the_same_call(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = ForeignMemory.take

    def dies(*arguments: Any, **fields: Any) -> None:
        taken(*arguments, **fields)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ForeignMemory, "take", dies)
        chain.train()
    assert not chain.last.exists()
    made = consolidate_adapters(chain.before, chain.after, chain.memory, chain.last)
    assert made.known and made.updates == 1
    update = read_tensors(chain.memory / "updates/01-out-1.safetensors")
    assert all(torch.equal(factors(chain.last)[name], add(START, update)[name]) for name in update)


def test_what_a_killed_process_left_is_cleared_and_nothing_else(chain: Chain) -> None:
    chain.train()
    (chain.memory / "updates/02-out-2.safetensors").write_bytes(b"half")
    (chain.memory / "updates/.x.tmp-12-0123abcd").write_bytes(b"half")
    (chain.memory / "memory.json.tmp-12-0123abcd").write_bytes(b"half")
    (chain.memory / "mine").mkdir()
    (chain.memory / "mine/notes.txt").write_text("mine")
    chain.train()
    assert sorted(path.name for path in chain.memory.iterdir() if not path.name.startswith(".lock")) == [
        "memory.json",
        "mine",
        "updates",
    ]
    assert (chain.memory / "mine/notes.txt").read_text() == "mine"
    assert len(list((chain.memory / "updates").iterdir())) == 4


@pytest.mark.parametrize("file", ["01-out-1.safetensors", "02-out-2.safetensors"])
@pytest.mark.parametrize("damage", ["changed", "missing", "a link"])
def test_a_damaged_update_is_found_and_named(chain: Chain, file: str, damage: str) -> None:
    chain.train()
    chain.train()
    path = chain.memory / "updates" / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "a link":
        (chain.place / "elsewhere").write_bytes(whole)
        path.symlink_to(chain.place / "elsewhere")
    with pytest.raises(LifeError) as raised:
        chain.train()
    assert str(path) in str(raised.value) and not chain.last.exists()


def test_figures_that_were_damaged_are_found_when_they_are_asked_for(chain: Chain) -> None:
    chain.train()
    path = chain.memory / "updates/01-out-1.json"
    path.write_text(path.read_text().replace("rank_kept", "rank_held", 1))
    with pytest.raises(LifeError, match=r"01-out-1.json: found \d+ bytes, .* The file was changed or damaged"):
        consolidate_adapters(chain.before, chain.after, chain.memory, chain.last)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text.replace('"history_limit": 32', '"history_limit": 33'), "does not match its own sha256"),
        (
            lambda text: text.replace('"format_version": 1', '"format_version": 2'),
            "format_version: found 2, expected 1",
        ),
        (lambda text: text[:-20], "found invalid JSON"),
        (lambda text: "[]", "format_version: found None, expected 1"),
    ],
)
def test_a_damaged_manifest_is_found(chain: Chain, change: Callable[[str], str], fault: str) -> None:
    chain.train()
    path = chain.memory / "memory.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(LifeError, match=fault) as raised:
        chain.train()
    assert str(path) in str(raised.value) and not chain.last.exists()


def test_one_process_at_a_time(chain: Chain) -> None:
    chain.train()
    with exclusive_lock(chain.memory), pytest.raises(LifeError, match=f"in use by process {os.getpid()} on "):
        chain.train()
    assert not chain.last.exists()
    assert consolidate_adapters(chain.before, chain.after, chain.memory, chain.last).updates == 2


def test_beyond_the_limit_a_sketch_stands_for_the_updates(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_memory, "HISTORY_LIMIT", 2)
    figures = [chain.train(energy_kept=1.0, overlap_kept=0.0).figures for _ in range(5)]
    assert all("sketch_error" not in one for one in figures[:3])
    assert figures[4]["sketch_error"] > 0
    assert json.loads((chain.memory / "memory.json").read_text())["history_limit"] == 2


# -- what is refused, and leaves everything as it was ------------------------------------------------------------------


def refusal(chain: Chain, kind: type[LifeAlignError], *folders: Path, **how: Any) -> str:
    before = content(chain.place)
    present = {path for path in chain.place.rglob("*") if not path.name.startswith(".lock")}
    with pytest.raises(kind) as raised:
        consolidate_adapters(*folders, **how)
    assert type(raised.value) is kind and "\n" not in str(raised.value) and raised.value.exit_code == 2
    assert content(chain.place) == before
    assert {path for path in chain.place.rglob("*") if not path.name.startswith(".lock")} == present
    return str(raised.value)


def test_a_training_that_did_not_go_on_from_the_last_adapter_is_refused(chain: Chain) -> None:
    chain.train()
    first = chain.last
    chain.train()
    trained, expected = chain.after, read_peft_folder(chain.last).fingerprint
    for number, (start, found) in enumerate(
        (
            (trained, "found the adapter as it was before 02-out-2 was consolidated"),
            (first, "found the adapter that 01-out-1 came to"),
            (
                chain.place / "start",
                f"found an adapter of fingerprint {read_peft_folder(chain.place / 'start').fingerprint}",
            ),
        )
    ):
        after = write_folder(chain.place / f"wrong-{number}", moved(factors(start), 5))
        told = refusal(chain, LifeError, start, after, chain.memory, chain.place / "new")
        assert f"{start}: {found}, expected the one that 02-out-2, the last update of {chain.memory}, came to" in told
        assert f"fingerprint {expected}, written to {chain.last}" in told


def test_adapters_that_do_not_fit_the_memory_are_refused(chain: Chain) -> None:
    chain.train()
    other = {"lora_alpha": 32}
    before = write_folder(chain.place / "before", factors(chain.last), **other)
    after = write_folder(chain.place / "after", moved(factors(chain.last), 7), **other)
    told = refusal(chain, ModelError, before, after, chain.memory, chain.place / "new")
    assert f"lora_alpha: found a number (32.0), expected a number (8.0), as in {chain.memory}" in told


def test_two_adapters_that_are_no_before_and_after_are_refused(chain: Chain) -> None:
    start, out, memory = chain.place / "start", chain.place / "out", chain.place / "memory"
    same = write_folder(chain.place / "same", START, infix=".default")
    assert "found the same factors as in" in refusal(chain, ModelError, start, same, memory, out)
    for name, config, fault in (
        ("alpha", {"lora_alpha": 16}, "lora_alpha: found a number (16.0), expected a number (8.0), as in"),
        ("base", {"base_model_name_or_path": "other/base"}, "found 'other/base', expected 'some/base', as in"),
        ("dora", {"use_dora": True}, "use_dora: found"),
    ):
        after = write_folder(chain.place / name, moved(START, 1), **config)
        assert fault in refusal(chain, ModelError, start, after, memory, out)
    nan = moved(START, 1) | {names()[0]: torch.full((4, 12), torch.nan)}
    assert "NaN" in refusal(chain, ModelError, start, write_folder(chain.place / "nan", nan), memory, out)
    assert "found no such folder" in refusal(chain, ModelError, chain.place / "nothing", same, memory, out)


def test_a_new_adapter_is_needed_as_it_was(chain: Chain) -> None:
    after = write_folder(chain.place / "after", moved(START, 1))
    told = refusal(chain, ConfigError, Path("none"), after, chain.memory, chain.place / "out")
    assert told.startswith("before: found none, expected the folder of the adapter that the training began from")
    assert "model.save_pretrained(FOLDER)" in told


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"energy_kept": 0.0}, "energy_kept: found 0.0, expected more than 0 and at most 1"),
        ({"energy_kept": 1.1}, "energy_kept: found 1.1"),
        ({"energy_kept": float("nan")}, "energy_kept: found nan"),
        ({"overlap_kept": -0.1}, "overlap_kept: found -0.1, expected a number from 0 to 1"),
        ({"name": "a b"}, "name: found 'a b', expected 1 to 64 letters, digits"),
    ],
)
def test_options_out_of_range_are_refused(chain: Chain, how: dict[str, Any], fault: str) -> None:
    after = write_folder(chain.place / "after", moved(START, 1))
    told = refusal(chain, ConfigError, chain.last, after, chain.memory, chain.place / "out", **how)
    assert fault in told


def test_folders_in_use_are_left_alone(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    after = write_folder(chain.place / "after", moved(START, 1))
    (chain.place / "full").mkdir()
    (chain.place / "full/notes.txt").write_text("mine")
    (chain.place / "file").write_text("mine")
    (chain.place / "life").mkdir()
    (chain.place / "life/life.json").write_text("{}")
    (chain.place / "here").mkdir()
    monkeypatch.chdir(chain.place / "here")
    memory, out = chain.memory, chain.place / "out"
    for folders, fault in (
        ((memory, chain.place / "full"), "full: found a directory that is not empty, expected an empty or new one"),
        ((memory, chain.place / "file"), "file: could not be read: Not a directory"),
        ((memory, Path(".")), "found the folder that you are in"),
        ((chain.place / "full", out), "full: found 'notes.txt' and no memory.json, expected a memory that"),
        ((chain.place / "file", out), "file: found a file, expected a folder, which may be new"),
        ((chain.place / "life", out), "life: found a life, whose own memory grows with `lifealign learn`"),
        ((memory, memory / "out"), f"found a folder of the memory {memory}, expected one beside it"),
        ((memory, memory), f"found a folder of the memory {memory}, expected one beside it"),
        ((out / "memory", out), f"found a folder of the memory {out / 'memory'}, expected one beside it"),
    ):
        assert fault in refusal(chain, LifeError, chain.last, after, *folders)


def test_a_disk_with_too_little_room_is_found_before_anything_is_written(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.train()
    free = shutil.disk_usage(chain.place)._replace(free=1000)
    after = write_folder(chain.place / "after", moved(factors(chain.last), 1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    told = refusal(chain, LifeError, chain.last, after, chain.memory, chain.place / "out")
    assert "found 0 MiB free on its disk, expected at least 2 MiB" in told  # 1 MiB and some KB, rounded up


def test_a_decomposition_that_fails_is_not_passed_over(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.train()

    def fails(*_: Any, **__: Any) -> None:
        raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]

    after = write_folder(chain.place / "after", moved(factors(chain.last), 1))
    monkeypatch.setattr(foreign, "consolidate", fails)
    told = refusal(chain, LifeError, chain.last, after, chain.memory, chain.place / "out")
    assert "consolidation failed: did not converge; the memory is as it was" in told


def test_what_would_be_refused_in_the_end_is_refused_before_the_training(chain: Chain) -> None:
    require_next(chain.last, chain.memory, chain.place / "out")
    assert not chain.memory.exists()
    chain.train()
    require_next(chain.last, chain.memory, chain.place / "out")
    for folders, how, kind in (
        ((chain.after, chain.memory, chain.place / "out"), {}, LifeError),
        ((chain.last, chain.memory, chain.last), {}, LifeError),
        ((chain.last, chain.place / "start", chain.place / "out"), {}, LifeError),
        ((chain.place / "nothing", chain.memory, chain.place / "out"), {}, ModelError),
        ((chain.last, chain.memory, chain.place / "out"), {"energy_kept": 2.0}, ConfigError),
        ((chain.last, chain.memory, chain.place / "out"), {"name": "a b"}, ConfigError),
    ):
        with pytest.raises(kind):
            require_next(*folders, **how)
    other = write_folder(chain.place / "other", factors(chain.last), lora_alpha=16)
    with pytest.raises(ModelError, match="lora_alpha: found"):
        require_next(other, chain.memory, chain.place / "out")
