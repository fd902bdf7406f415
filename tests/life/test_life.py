"""A life on disk: what is in it, what is refused, and that a step is learnt whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Never

import pytest
import torch
from peft import PeftConfig, PeftModel
from tests.conftest import NoTraining
from tests.tiny import letter_task, save_tiny
from tests.writers import write_general_text
from transformers import LlamaForCausalLM

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError, ModelError, TrainingError
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.disk.manifest import Manifest
from lifealign.life.disk.measurements import write_scores
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.model.adapter import read_adapter
from lifealign.settings.section import build_config
from lifealign.storage import files as storage
from lifealign.storage.tensors import read_tensors
from lifealign.training.objectives import PreferenceObjective, SupervisedObjective

MakeLife = Callable[..., Life]
ONE = letter_task("one", "a", "b")
TWO = Task(
    *[getattr(letter_task("two", "c", "d"), name) for name in ("name", "train", "test")], AnswerCheck(max_words=3)
)
IDS = torch.tensor([[256, 10, 20, 30, 40, 50]])

HOLD = """
import sys
from lifealign.storage.lock import exclusive_lock
with exclusive_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def everything(life: Path, cache: bool = True) -> dict[str, bytes]:
    """Content by path of what two lives must have in common: all but times, their hashes, and who holds the lock."""
    content = {}
    for path in sorted(life.rglob("*")):
        name = path.relative_to(life).as_posix()
        if path.is_dir() or name.startswith(".lock") or path.name == "time.json":
            continue
        if name == "life.json":
            manifest = json.loads(path.read_bytes()) | {"sha256": ""}
            for version in manifest["versions"]:
                version["files"] = {key: value for key, value in version["files"].items() if "/time.json" not in key}
            content[name] = json.dumps(manifest).encode()
        elif cache or not name.startswith("cache/"):
            content[name] = path.read_bytes()
    return content


def committed(life: Path) -> dict[str, bytes]:
    """Content of ``life.json`` and of every file that it names."""
    names = ["life.json", *(name for version in Manifest.read(life).versions for name in version.files)]
    return {name: (life / name).read_bytes() for name in names}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(input_ids=IDS).logits
    return result


@pytest.fixture(scope="module")
def learnt(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A life with two tasks, the second with a check; tests only read it."""
    small = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-2}
    folder = tmp_path_factory.mktemp("learnt")
    settings = {
        "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
        "lora": {"lora_r": 4, "lora_alpha": 8},
        "sft": small | {"num_train_epochs": 2},
        "preference": small | {"num_train_epochs": 2},
        "evaluation": {"max_new_tokens": 4, "general_text": write_general_text(folder)},
    }
    life = Life.create(folder / "life", build_config(LifeConfig, settings))
    life.learn(ONE)
    life.learn(TWO)
    return life.directory.path


@pytest.fixture
def copied(learnt: Path, tmp_path: Path) -> Path:
    """A copy of the life with two tasks, to do harm to."""
    return Path(shutil.copytree(learnt, tmp_path / "copied"))


def after_one(copied: Path) -> Life:
    life = Life.open(copied)
    life.rollback("01-one")
    return life


# -- create, open, load ------------------------------------------------------------------------------------------------


def test_a_new_life_knows_nothing_and_changes_nothing_of_its_base(make_life: MakeLife, tiny_folder: Path) -> None:
    life = make_life()
    assert [version.name for version in life.versions] == ["00-base"]
    assert life.steps == [] and life.scores == {}
    model, tokenizer = life.load()
    base = LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    assert torch.equal(logits(model), logits(base))
    assert tokenizer.chat_template
    assert all(not factor.any() for name, factor in read_adapter_of(life.directory).items() if "lora_B" in name)


def test_create_takes_a_model_and_single_sections_or_a_config_but_not_both(tiny_folder: Path, tmp_path: Path) -> None:
    life = Life.create(tmp_path / "life", model=str(tiny_folder), method="er", lora={"lora_r": 2}, seed=7)
    opened = Life.open(tmp_path / "life")
    assert (opened.config.method.key, opened.config.lora.lora_r, opened.config.seed) == ("er", 2, 7)
    with pytest.raises(ConfigError, match="found config beside model or single sections"):
        Life.create(tmp_path / "other", life.config, seed=7)
    with pytest.raises(ConfigError, match="lora_rank"):
        Life.create(tmp_path / "other", model=str(tiny_folder), lora={"lora_rank": 2})
    assert not (tmp_path / "other").exists()


def test_create_refuses_a_place_that_is_taken_and_leaves_it_alone(make_life: MakeLife, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(LifeError, match=rf"{name}: found .* expected an empty or new directory"):
            make_life(name=name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious.txt"]
    (tmp_path / "empty").mkdir()
    assert make_life(name="empty").steps == []


def test_create_leaves_nothing_behind_where_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Life.create(tmp_path / "life", model=str(tmp_path / "nothing"))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_create_can_be_repeated(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    make_life(name="whole")
    with failing_writes(monkeypatch) as writes:
        make_life(name="counted")
    for number in range(len(writes)):
        name = f"life-of-{number}"
        with failing_writes(monkeypatch, number), pytest.raises(OSError, match="disk full"):
            make_life(name=name)
        life = make_life(name=name)
        whole = life.directory.path.parent / "whole"
        assert everything(life.directory.path) == everything(whole)


def test_a_create_that_was_killed_after_its_last_rename_is_finished_when_repeated(
    make_life: MakeLife, tiny_folder: Path, tmp_path: Path
) -> None:
    life = make_life(name="bot")
    folder = life.directory.path
    (folder / "life.json.tmp-12-0123abcd").write_text("half")
    before = everything(folder)
    again = make_life(name="bot")
    assert everything(folder) == before
    assert again.directory.manifest == life.directory.manifest and again.steps == []
    again.learn(ONE)
    refused = pytest.raises(LifeError, match="bot: found a file or a directory that is not empty, expected an empty")
    with refused:
        make_life(name="bot")  # it has learnt something


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "life.json").write_text('{"versions": []}'),
        lambda folder: (folder / "versions/00-base/adapter_model.safetensors").write_bytes(b""),
        lambda folder: (folder / "notes.txt").write_text("mine"),
    ],
    ids=["manifest", "adapter", "something else"],
)
def test_a_life_that_is_not_whole_or_not_this_one_is_not_taken_for_it(
    make_life: MakeLife, harm: Callable[[Path], object]
) -> None:
    folder = make_life(name="bot").directory.path
    for sections in ({"seed": 1}, {}):
        if not sections:
            harm(folder)
        before = everything(folder)
        with pytest.raises(LifeError, match="bot: found a file or a directory that is not empty"):
            make_life(name="bot", **sections)
        assert everything(folder) == before


def test_the_adapter_of_every_version_loads_with_plain_peft(learnt: Path, tiny_folder: Path) -> None:
    seen = []
    for version in ("00-base", "01-one", "02-two"):
        folder = learnt / "versions" / version
        card = [] if folder.name == "00-base" else ["README.md"]
        assert sorted(path.name for path in folder.iterdir()) == [
            *card,
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        base = LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
        plain = logits(PeftModel.from_pretrained(base, folder))
        assert torch.equal(plain, logits(Life.open(learnt).load(version)[0]))
        seen.append(plain)
    assert torch.equal(seen[2], logits(Life.open(learnt).load()[0]))
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_the_model_in_memory_is_the_one_on_disk(make_life: MakeLife, tiny_folder: Path) -> None:
    life = make_life()
    for number, task in enumerate((ONE, TWO), start=1):
        life.learn(task)
        in_memory = logits(life.workspace.runtime.model)
        base = LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
        folder = life.directory.path / "versions" / f"0{number}-{task.name}"
        assert torch.equal(in_memory, logits(PeftModel.from_pretrained(base, folder)))
        assert torch.equal(in_memory, logits(Life.open(life.directory.path).load()[0]))
        assert torch.equal(in_memory, logits(life.load()[0]))


def test_the_adapter_is_plain_lora(learnt: Path, tiny_folder: Path) -> None:
    config = PeftConfig.from_pretrained(str(learnt / "versions" / "02-two"))
    assert (config.r, config.lora_alpha, config.bias, config.modules_to_save) == (4, 8, "none", None)
    assert not (config.use_dora or config.use_rslora or config.rank_pattern or config.alpha_pattern)
    assert sorted(config.target_modules) == ["q_proj", "v_proj"]
    assert config.base_model_name_or_path == str(tiny_folder)
    assert (config.task_type, config.inference_mode) == ("CAUSAL_LM", True)
    tensors = read_tensors(learnt / "versions" / "02-two" / "adapter_model.safetensors")
    # 2 layers x (q_proj 32 -> 32, v_proj 32 -> 16: two of four heads), rank 4 after every step
    shapes = {tuple(name.split(".")[-3:-1]): tuple(tensor.shape) for name, tensor in tensors.items()}
    assert len(tensors) == 8
    assert shapes == {
        ("q_proj", "lora_A"): (4, 32),
        ("q_proj", "lora_B"): (32, 4),
        ("v_proj", "lora_A"): (4, 32),
        ("v_proj", "lora_B"): (16, 4),
    }
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_load_refuses_a_version_there_is_not(learnt: Path) -> None:
    with pytest.raises(LifeError, match="no version '03-three', expected one of: 00-base, 01-one, 02-two"):
        Life.open(learnt).load("03-three")


def test_looking_at_an_earlier_version_does_not_change_what_is_learnt_next(copied: Path, learnt: Path) -> None:
    life = after_one(copied)
    life.load("00-base")
    life.learn(TWO)
    assert everything(copied) == everything(learnt)


def test_two_lives_made_the_same_way_are_equal_byte_for_byte(make_life: MakeLife) -> None:
    lives = [make_life(sft={"num_train_epochs": 2}) for _ in range(2)]
    for life in lives:
        life.learn(ONE)
        life.learn(TWO)
    first, second = (everything(life.directory.path) for life in lives)
    assert len(first) == 37  # 2 of the base, 15 of each step without its time, life, config, scores, two caches
    assert first == second
    other = make_life(sft={"num_train_epochs": 2}, seed=1)
    other.learn(ONE)
    name = "versions/01-one/adapter_model.safetensors"
    assert everything(other.directory.path)[name] != first[name]


# -- what is not a life ------------------------------------------------------------------------------------------------


def test_open_says_what_is_there_instead_of_a_life(tmp_path: Path) -> None:
    with pytest.raises(LifeError, match=r"nothing: found no such directory, expected a life"):
        Life.open(tmp_path / "nothing")
    with pytest.raises(LifeError, match=r"found a directory without life.json, expected a life"):
        Life.open(tmp_path)


def test_open_refuses_another_format_version_and_says_which(copied: Path) -> None:
    manifest = json.loads((copied / "life.json").read_text())
    for found in (2, "1", None):
        (copied / "life.json").write_text(json.dumps(manifest | {"format_version": found}))
        with pytest.raises(LifeError, match=rf"life.json: format_version: found {found!r}, expected 1"):
            Life.open(copied)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda text: text[: len(text) // 2], r"life.json:\d+:\d+: found invalid JSON"),
        (lambda text: "[]", "format_version: found None"),
        (lambda text: text.replace('"versions"', '"virsions"'), "does not match its own sha256"),
        (lambda text: text.replace("\n", "\r\n"), "does not match its own sha256"),
        (lambda text: "\n".join(line for line in text.splitlines() if '  "sha256": ' not in line[:14]), "own sha256"),
        (lambda text: text.replace('"base": {', '"base": {}, "base": {', 1), "the key 'base' occurs twice"),
        (lambda text: "[" * 100_000, "nested more than 64 levels deep"),
        (lambda text: text[:2] + '"deep": ' + "[" * 65 + "]" * 65 + "," + text[2:], "nested more than 64 levels deep"),
        (lambda text: text.replace('"seed": 42', '"seed": NaN'), "NaN is not a number in JSON"),
        (lambda text: text.replace('"seed": 42', '"seed": 1e999'), "the number 1e999 is too large"),
        (lambda text: text.replace('"seed": 42', '"seed": ' + "9" * 5000), "invalid JSON .*digits"),
    ],
    ids=[
        "cut short",
        "a list",
        "a key gone",
        "other line ends",
        "no hash",
        "a key twice",
        "endless",
        "deep",
        "not a number",
        "infinite",
        "digits",
    ],
)
def test_open_refuses_a_damaged_manifest(copied: Path, harm: Callable[[str], str], message: str) -> None:
    path = copied / "life.json"
    path.write_text(harm(path.read_text()))
    with pytest.raises(LifeError, match=message):
        Life.open(copied)


def test_a_base_whose_weights_have_changed_is_refused_before_anything_is_done(
    make_life: MakeLife, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "base")
    life = make_life(model={"model_name_or_path": str(folder)})
    before = everything(life.directory.path)
    save_tiny(folder, seed=1)
    opened = Life.open(life.directory.path)
    for use in (lambda: opened.learn(ONE), opened.load):
        with pytest.raises(ModelError, match=rf"found base model .* expected .*{life.workspace.base_fingerprint}"):
            use()
    assert everything(life.directory.path) == before


FILES = {
    "adapter config": "versions/01-one/adapter_config.json",
    "adapter": "versions/01-one/adapter_model.safetensors",
    "model card": "versions/01-one/README.md",
    "base adapter": "versions/00-base/adapter_model.safetensors",
    "refined update": "memory/01-one.safetensors",
    "method state": "memory/01-one.method.safetensors",
    "method values": "tasks/01-one/method.json",
    "replay rows": "replay/01-one.jsonl",
    "held-out rows": "tasks/01-one/one.test.jsonl",
    "training log": "tasks/01-one/training.json",
    "consolidation": "tasks/01-one/consolidation.json",
    "scores": "tasks/01-one/scores.json",
    "answers": "tasks/02-two/answers.jsonl",
    "base answers": "tasks/02-two/base_answers.jsonl",
    "time": "tasks/01-one/time.json",
    "taught rows": "tasks/01-one/one.taught.jsonl.gz",
    "gate rows": "tasks/01-one/one.gate.jsonl",
    "gate answers": "tasks/02-two/gate_answers.jsonl",
    "retention": "tasks/02-two/retention.json",
    "keys": "memory/01-one.keys.safetensors",
    "recall": "tasks/01-one/recall.json",
}


def test_every_kind_of_committed_file_is_among_those_damaged_below(learnt: Path) -> None:
    kinds = {
        name.replace("00-base", "01-one").replace("02-two", "01-one").replace("two.", "one.") for name in FILES.values()
    }
    names = {name for version in Life.open(learnt).versions for name in version.files}
    assert {
        name.replace("00-base", "01-one").replace("02-two", "01-one").replace("two.", "one.") for name in names
    } == kinds


@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
def test_one_flipped_bit_or_a_missing_file_is_found_and_named(copied: Path, name: str) -> None:
    life = Life.open(copied)
    assert life.directory.verify(life.versions) == 41  # 2 of the base, 19 of each step, and one with gate answers
    path = copied / name
    content = bytearray(path.read_bytes())
    for position in (0, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        size = len(content)
        with pytest.raises(
            LifeError, match=rf"{name}: found {size} bytes, sha256 \w+, expected {size} bytes, sha256 \w+"
        ):
            life.directory.verify(life.versions)
    path.write_bytes(content[:-1])
    with pytest.raises(LifeError, match=rf"{name}: found {len(content) - 1} bytes, .* expected {len(content)} bytes"):
        life.directory.verify(life.versions)
    path.unlink()
    with pytest.raises(LifeError, match=rf"{name}: could not be read"):
        life.directory.verify(life.versions)


@pytest.mark.parametrize(
    "kind", ["adapter", "refined update", "method state", "replay rows", "held-out rows", "method values"]
)
def test_what_is_damaged_is_not_learnt_from(copied: Path, kind: str) -> None:
    after_one(copied)
    path = copied / FILES[kind]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = committed(copied)
    with pytest.raises(LifeError, match=f"{FILES[kind]}: found"):
        Life.open(copied).learn(TWO)
    assert committed(copied) == before


# -- learning again, rolling back --------------------------------------------------------------------------------------


def test_a_task_learnt_again_from_the_same_data_is_not_trained_again(copied: Path, train_nothing: NoTraining) -> None:
    before = everything(copied)
    life = Life.open(copied)
    with train_nothing():
        assert life.learn(ONE).name == "01-one" and life.learn(TWO).name == "02-two"
    assert everything(copied) == before


@pytest.mark.parametrize(
    "other",
    [
        letter_task("one", "a", "c"),
        letter_task("one", "a", "b", train=7),
        letter_task("one", "a", "b", test=3),
        Task(ONE.name, ONE.train, ONE.test, AnswerCheck(max_words=3)),
    ],
    ids=["another answer", "a pair less", "a held-out pair less", "a check"],
)
def test_a_name_that_is_taken_by_other_data_is_refused(copied: Path, other: Task) -> None:
    before = everything(copied)
    with pytest.raises(LifeError, match="found task 'one' learnt from other data in step 01-one"):
        Life.open(copied).learn(other)
    assert everything(copied) == before


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "a b", ".hidden", "a" * 65, "ü", "a\n"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="task name: found"):
        letter_task(name, "a", "b")


def test_rollback_forgets_later_versions_with_all_they_brought(copied: Path) -> None:
    life = Life.open(copied)
    life.workspace.runtime  # noqa: B018 - loaded with the last adapter, which rollback has to take back
    assert set(life.workspace.replay.tasks) == {"one", "two"} and len(life.workspace.memory.updates) == 2
    life.rollback("01-one")
    for seen in (life, Life.open(copied)):
        assert [version.name for version in seen.versions] == ["00-base", "01-one"]
        assert set(seen.workspace.replay.tasks) == {"one"} and len(seen.workspace.memory.updates) == 1
        assert "adherence" not in seen.scores  # only the second task had a check
        assert [dict(row).keys() for row in seen.scores["margin"].rows] == [{"one"}]
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                read_adapter(seen.workspace.runtime.model).values(),
                read_adapter_of(seen.directory).values(),
                strict=True,
            )
        )
    assert not [name for name in everything(copied, cache=False) if "two" in name]
    assert "two" not in (copied / "scores.json").read_text()


def test_what_was_rolled_back_is_learnt_again_to_the_last_byte(copied: Path, learnt: Path) -> None:
    life = after_one(copied)
    life.learn(TWO)
    assert everything(copied) == everything(learnt)
    life.rollback("00-base")
    assert life.scores == {} and life.steps == []
    life.learn(ONE)
    life.learn(TWO)
    assert everything(copied) == everything(learnt)


def test_rollback_is_the_way_out_of_damage_done_later_but_not_earlier(copied: Path) -> None:
    (copied / FILES["answers"]).write_text("[]")
    with pytest.raises(LifeError, match="answers"):
        Life.open(copied).rollback("02-two")
    Life.open(copied).rollback("01-one")
    (copied / FILES["replay rows"]).write_text("[]")
    with pytest.raises(LifeError, match="replay/01-one"):
        Life.open(copied).rollback("01-one")
    with pytest.raises(LifeError, match="no version '02-two', expected one of: 00-base, 01-one"):
        Life.open(copied).rollback("02-two")


LATER = {kind: name.replace("01-one", "02-two").replace("/one.", "/two.") for kind, name in FILES.items()}
LATER |= {"later scores": "tasks/02-two/evaluation/rouge_l.json", "view": "scores.json"}
del LATER["base adapter"]


@pytest.mark.parametrize("to", ["01-one", "00-base"])
def test_no_damage_to_what_goes_keeps_rollback_from_taking_it(copied: Path, learnt: Path, to: str) -> None:
    life = Life.open(copied)
    with life.directory.lock():
        life.directory.extend("02-two", {LATER["later scores"]: {"metric": "rouge_l"}})
    for number, name in enumerate(LATER.values()):  # all of them at once, each in another way
        harm = (copied / name).read_bytes()
        (copied / name).unlink()
        if number % 3 == 0:
            (copied / name).write_bytes(harm[:-1] + bytes([harm[-1] ^ 1]))
        elif number % 3 == 1:
            os.mkfifo(copied / name)
    life = Life.open(copied)
    with pytest.raises(LifeError):
        write_scores(life.directory)
    life.rollback(to)
    opened = Life.open(copied)
    assert opened.directory.verify(opened.versions) == (21 if to == "01-one" else 2)
    assert not [name for name in everything(copied, cache=False) if "two" in name]
    view = json.loads((copied / "scores.json").read_text())
    assert {metric: matrix["tasks"] for metric, matrix in view.items()} == (
        {"preference_accuracy": ["one"], "margin": ["one"]} if to == "01-one" else {}
    )
    if to == "01-one":
        opened.learn(TWO)
        assert everything(copied) == everything(learnt)


def test_a_view_that_cannot_be_replaced_is_a_warning_and_the_steps_are_gone(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copied / "scores.json").unlink()
    (copied / "scores.json").mkdir()
    (copied / "result.json").symlink_to(copied / "config.yaml")
    Life.open(copied).rollback("01-one")
    assert "scores.json: could not be written: Is a directory" in caplog.text
    assert "the life itself is rolled back to 01-one" in caplog.text
    assert len(Life.open(copied).steps) == 1
    assert not (copied / "result.json").is_symlink() and (copied / "config.yaml").is_file()


# -- all or nothing ----------------------------------------------------------------------------------------------------


@contextmanager
def failing_writes(monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> Iterator[list[str]]:
    """Lists the files that are written; the one of number ``at`` fails half way, and so do all after it."""
    written: list[str] = []
    write = storage.write_bytes

    def counted(path: str | Path, content: bytes, **options: Any) -> None:
        written.append(Path(path).name)
        if at is not None and len(written) > at:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{path}.tmp-1-00000000").write_bytes(content[: len(content) // 2])
            raise OSError("disk full")
        write(path, content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", counted)
        yield written


def test_a_write_that_fails_leaves_the_life_as_it_was_and_learning_again_makes_up_for_it(
    copied: Path, learnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_one(copied)
    before = committed(copied)
    start = Path(shutil.copytree(copied, tmp_path / "start"))
    with failing_writes(monkeypatch) as written:
        Life.open(copied).learn(TWO)
    assert written[0] == ".lock-holder.json" and written[-2:] == ["life.json", "scores.json"]
    assert len(written) > 14
    for number in range(len(written) - 1):  # the last write is not part of the commit
        life = Life.open(shutil.copytree(start, tmp_path / f"failed-{number}"))
        with failing_writes(monkeypatch, number), pytest.raises(OSError, match="disk full"):
            life.learn(TWO)
        path = life.directory.path
        assert committed(path) == before, written[number]
        assert [version.name for version in life.versions] == ["00-base", "01-one"]
        life.learn(TWO)
        assert everything(path, cache=False) == everything(learnt, cache=False), written[number]
        assert not list(path.rglob("*.tmp-*"))


def test_a_manifest_that_cannot_be_replaced_commits_nothing(
    copied: Path, learnt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = after_one(copied)
    before = committed(copied)

    def refused(*_: Any) -> Never:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "save", refused)
        with pytest.raises(OSError, match="disk full"):
            life.learn(TWO)
    assert committed(copied) == before
    assert (copied / "versions" / "02-two").is_dir()  # written, and not named
    life.learn(TWO)
    assert everything(copied) == everything(learnt)


def test_scores_that_could_not_be_written_after_the_commit_are_written_by_the_next_learn(
    copied: Path, learnt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The step stands, so it is no error; before a step, when nothing can be lost, it is one."""
    life = after_one(copied)

    def refused(*_: Any) -> Never:
        raise LifeError("scores.json: disk full")

    with monkeypatch.context() as patch:
        patch.setattr("lifealign.life.disk.measurements.write_scores", refused)
        life.learn(TWO)
        assert "scores.json: disk full; the life itself is as it should be" in caplog.text
        patch.setattr("lifealign.life.workspace.refresh_scores", refused)
        with pytest.raises(LifeError, match="disk full"):
            life.learn(letter_task("three", "e", "f"))
    Life.open(copied).learn(TWO)
    assert everything(copied) == everything(learnt)


def test_leftovers_of_a_killed_run_are_cleared_and_nothing_else_is(copied: Path) -> None:
    before = everything(copied)
    leftovers = [
        "versions/03-three/adapter_model.safetensors",
        "memory/03-three.safetensors",
        "replay/03-three.jsonl",
        "tasks/03-three/training.json",
        "tasks/02-two/surplus.json",
        "life.json.tmp-1234-0123abcd",
        "report.html.tmp-1234-0123abcd",
        "cache/reference.safetensors.tmp-1234-0123abcd",
    ]
    for name in leftovers:
        (copied / name).parent.mkdir(exist_ok=True)
        (copied / name).write_text("half")
    (copied / "notes.txt").write_text("mine")
    with Life.open(copied).directory.lock():
        pass
    assert everything(copied) == before | {"notes.txt": b"mine"}
    assert not (copied / "versions" / "03-three").exists()


# -- one at a time -----------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_with_the_first_ones_number(copied: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(copied)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        life = Life.open(copied)
        before = everything(copied)
        with pytest.raises(LifeError, match=f"in use by process {holder.pid} on "):
            life.learn(letter_task("three", "e", "f"))
        with pytest.raises(LifeError, match=f"in use by process {holder.pid} on "):
            life.rollback("00-base")
        assert everything(copied) == before
        shown = subprocess.run(
            [sys.executable, "-m", "lifealign", "rollback", str(copied), "--to", "00-base"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert shown.returncode == 2
        assert f"in use by process {holder.pid} on " in shown.stderr and "Traceback" not in shown.stderr
        holder.stdin.close()
    life.rollback("01-one")
    assert len(life.steps) == 1


def test_a_life_that_someone_else_has_changed_since_is_to_be_opened_again(copied: Path) -> None:
    first, second = Life.open(copied), Life.open(copied)
    second.learn(letter_task("four", "g", "h"))
    before = everything(copied)
    with pytest.raises(LifeError, match="another process has changed this life since it was opened; open it again"):
        first.learn(letter_task("three", "e", "f"))
    assert everything(copied) == before
    Life.open(copied).learn(letter_task("three", "e", "f"))
    assert [version.name for version in Life.open(copied).steps] == ["01-one", "02-two", "03-four", "04-three"]


# -- numbers that go wrong ---------------------------------------------------------------------------------------------


@contextmanager
def nan_losses(monkeypatch: pytest.MonkeyPatch, objective: type, call: int) -> Iterator[None]:
    """Losses of a stage are NaN from some forward pass on, counted from 1."""
    outcome = objective.outcome  # type: ignore[attr-defined]
    calls = 0

    def spoilt(self: Any, logps: torch.Tensor, pairs: Any) -> Any:
        nonlocal calls
        calls += 1
        return outcome(self, logps * float("nan") if calls >= call else logps, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "outcome", spoilt)
        yield


@pytest.mark.parametrize(
    ("objective", "stage", "call"), [(SupervisedObjective, "sft", 2), (PreferenceObjective, "preference", 1)]
)
def test_a_loss_that_is_not_a_number_stops_and_the_life_is_as_it_was(
    copied: Path, learnt: Path, monkeypatch: pytest.MonkeyPatch, objective: type, stage: str, call: int
) -> None:
    life = after_one(copied)
    before, adapter, remembered = committed(copied), read_adapter_of(life.directory), len(life.workspace.memory.updates)
    with nan_losses(monkeypatch, objective, call), pytest.raises(TrainingError) as raised:
        life.learn(TWO)
    assert f"task 'two', stage '{stage}', optimizer step {call}: the loss is nan" in str(raised.value)
    assert committed(copied) == before and not (copied / "versions" / "02-two").exists()
    now = read_adapter(life.workspace.runtime.model)
    assert all(torch.equal(now[name], adapter[name]) for name in adapter)
    assert len(life.workspace.memory.updates) == remembered and set(life.workspace.replay.tasks) == {"one"}
    life.learn(TWO)
    assert everything(copied) == everything(learnt)


def test_a_step_that_failed_between_two_micro_batches_leaves_no_gradient_behind(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    failed, smooth = (make_life(sft={"num_train_epochs": 0}, preference=two_parts) for _ in range(2))
    with nan_losses(monkeypatch, PreferenceObjective, call=2), pytest.raises(TrainingError):
        failed.learn(ONE)
    for life in (failed, smooth):
        life.learn(ONE)
    assert everything(failed.directory.path) == everything(smooth.directory.path)


def test_a_learning_rate_out_of_all_proportion_never_reaches_the_disk(make_life: MakeLife) -> None:
    life = make_life(sft={"learning_rate": 1e30, "num_train_epochs": 3})
    before = committed(life.directory.path)
    with pytest.raises(TrainingError, match=r"task 'one', stage '.*', optimizer step [0-9]+: the .* is (nan|inf)"):
        life.learn(ONE)
    assert committed(life.directory.path) == before
    assert life.steps == []


@pytest.mark.parametrize("error", [torch.linalg.LinAlgError("did not converge"), ValueError("found NaN")])
def test_a_consolidation_that_fails_never_falls_back_to_the_raw_update(
    copied: Path, learnt: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    life = after_one(copied)
    before = committed(copied)

    def failed(*_: Any, **__: Any) -> Never:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "svd", failed)
        with pytest.raises(TrainingError, match=rf"task 'two', stage 'task', .*consolidation failed: {error}"):
            life.learn(TWO)
    assert committed(copied) == before and not (copied / "versions" / "02-two").exists()
    now, adapter = read_adapter(life.workspace.runtime.model), read_adapter_of(life.directory)
    assert all(torch.equal(now[name], adapter[name]) for name in adapter)
    life.learn(TWO)
    assert everything(copied) == everything(learnt)


# -- inside ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cache", "cache/reference.jsonl", "cache/answers.jsonl", "cache/answers.json"])
def test_a_cache_is_neither_read_nor_written_through_a_link(copied: Path, tmp_path: Path, name: str) -> None:
    if not (copied / name).exists():  # an earlier version has left one
        (copied / name).write_text("{}")
    outside = Path(shutil.move(copied / name, tmp_path / "outside"))
    (copied / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    life = Life.open(copied)
    with pytest.raises(LifeError, match=f"copied/{name}: found a symbolic link"):
        _ = life.workspace.reference, life.workspace.answers
    with pytest.raises(LifeError, match=f"copied/{name}: found a symbolic link"):
        life.learn(letter_task("three", "e", "f"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_life_that_somebody_has_renamed_into_the_open_is_refused_before_it_writes(copied: Path) -> None:
    manifest = json.loads((copied / "life.json").read_text())
    manifest["versions"][2]["name"] = "../../escaped"
    storage.write_sealed_json(copied / "life.json", manifest)  # with a hash that fits
    with pytest.raises(LifeError, match=r"versions\.2\.name: .*found '\.\./\.\./escaped'"):
        Life.open(copied)
