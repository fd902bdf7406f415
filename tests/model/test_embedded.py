"""The copy of the embedded model in the user's cache: the same model, opened without reading the original."""

import importlib.metadata
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import letter_task
from tests.writers import write_general_text

from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.model import base_model, embedded
from lifealign.model.base_model import Base, load_base, load_tokenizer
from lifealign.model.embedded import HASHES, EmbeddedCopy
from lifealign.model.settings import EMBEDDED, ModelConfig
from lifealign.settings.section import build_config
from lifealign.storage.user_cache import CACHE_VARIABLE, user_cache

FLOAT32 = ModelConfig(model_name_or_path=EMBEDDED, dtype="float32")


class World:
    """A cache folder of its own, and the tiny model in place of the embedded one."""

    def __init__(self, folder: Path, original: Path) -> None:
        self.cache = folder
        self.original = original
        self.read = 0
        """How often the original was read."""

    @property
    def copies(self) -> list[Path]:
        """What lies where the copies are kept."""
        return sorted((self.cache / "models").glob("*"))


@pytest.fixture
def world(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    original = tmp_path / "package" / "tiny.gguf"
    original.parent.mkdir()
    original.write_bytes(b"quantised")
    world = World(tmp_path / "cache", original)
    load = base_model._load

    def loaded(config: ModelConfig, where: str, options: dict[str, Any]) -> Base:
        if "gguf_file" not in options:
            return load(config, where, options)
        world.read += 1
        return load(config, str(tiny_folder), {})

    monkeypatch.setenv(CACHE_VARIABLE, str(world.cache))
    monkeypatch.setattr(base_model, "_load", loaded)
    monkeypatch.setattr(base_model, "embedded_file", lambda: original)
    return world


def test_the_second_load_reads_the_copy_and_comes_to_the_same_numbers(world: World) -> None:
    first, second = load_base(FLOAT32), load_base(FLOAT32)
    assert world.read == 1
    assert first.identity == second.identity
    assert first.name == second.name
    assert first.model.config.to_diff_dict() == second.model.config.to_diff_dict()
    assert first.model.generation_config.to_dict() == second.model.generation_config.to_dict()
    ids = torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad():
        assert torch.equal(first.model(input_ids=ids).logits, second.model(input_ids=ids).logits)


def test_a_life_on_the_copy_is_the_life_on_the_original_to_the_last_byte(world: World, tmp_path: Path) -> None:
    def lived(name: str) -> dict[str, bytes]:
        stage = {"num_train_epochs": 1, "per_device_train_batch_size": 4}
        evaluation = {"max_new_tokens": 2, "general_text": write_general_text(tmp_path)}
        settings = {"model": FLOAT32.model_dump(), "sft": stage, "preference": stage, "evaluation": evaluation}
        life = Life.create(tmp_path / name / "life", build_config(LifeConfig, settings))
        life.learn(letter_task("one", "a", "b"))
        files = {path.relative_to(life.directory.path): path for path in life.directory.path.rglob("*")}
        return {
            str(name): path.read_bytes()
            for name, path in files.items()
            if path.is_file() and path.name not in ("life.json", "time.json", ".lock", ".lock-holder.json")
        }

    assert lived("on the original") == lived("on the copy")
    assert world.read == 1


def test_the_tokenizer_alone_comes_from_the_copy(world: World) -> None:
    base = load_base(FLOAT32)
    tokenizer = load_tokenizer(EMBEDDED)  # the original is no .gguf file that could be read
    assert tokenizer.get_vocab() == base.tokenizer.get_vocab()
    assert tokenizer.chat_template == base.tokenizer.chat_template


def test_each_dtype_content_and_version_has_a_copy_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    load_base(FLOAT32)
    load_base(ModelConfig(model_name_or_path=EMBEDDED, dtype="bfloat16"))
    assert [path.name.split("-")[2] for path in world.copies] == ["bfloat16", "float32"]
    world.original.write_bytes(b"quantised otherwise")
    load_base(FLOAT32)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version(name) + "+1")
    load_base(FLOAT32)
    assert (len(world.copies), world.read) == (4, 4)


def flip_a_bit(copy: Path) -> None:
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def cut(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": flip_a_bit,
    "weights cut short": cut,
    "tokenizer gone": lambda copy: (copy / "tokenizer.json").unlink(),
    "template changed": lambda copy: (copy / "chat_template.jinja").write_text("{{ messages[0].content }}"),
    "a file more": lambda copy: (copy / "model.py").write_text("raise SystemExit"),
    "hashes gone": lambda copy: (copy / HASHES).unlink(),
    "hashes empty": lambda copy: (copy / HASHES).write_text(""),
    "a folder in it": lambda copy: (copy / "more").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_told_and_made_again(world: World, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    identity = load_base(FLOAT32).identity
    DAMAGES[damage](world.copies[0])
    assert load_base(FLOAT32).identity == identity
    assert world.read == 2
    assert f"{world.copies[0]}: found a damaged copy of the embedded model" in caplog.text
    assert load_base(FLOAT32).identity == identity
    assert world.read == 2


def test_a_copy_that_would_be_another_model_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def make(self: EmbeddedCopy, model: Any, tokenizer: Any, is_the_same: Callable[[Path], bool]) -> None:
        with torch.no_grad():
            model.model.norm.weight.add_(1)  # after its identity was taken
        original_make(self, model, tokenizer, is_the_same)

    original_make = EmbeddedCopy.make
    monkeypatch.setattr(EmbeddedCopy, "make", make)
    load_base(FLOAT32)
    assert world.copies == []
    assert "no copy is kept" in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.cache.write_text("a file where the folder would be")
    assert load_base(FLOAT32).identity == load_base(FLOAT32).identity
    assert world.read == 2
    assert f"no copy is kept in {world.cache / 'models'}" in caplog.text


def test_what_a_killed_process_left_goes_and_what_one_is_writing_stays(world: World) -> None:
    abandoned, written = (world.cache / "models" / f"{EMBEDDED}-float32-0.tmp-{number}-ab" for number in (1, 2))
    for folder in (abandoned, written):
        folder.mkdir(parents=True)
    long_ago = time.time() - 2 * embedded.ABANDONED
    os.utime(abandoned, (long_ago, long_ago))
    load_base(FLOAT32)
    assert abandoned not in world.copies
    assert written in world.copies


def test_another_process_that_was_faster_leaves_one_whole_copy(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole = EmbeddedCopy.is_whole
    load_base(FLOAT32)
    monkeypatch.setattr(EmbeddedCopy, "is_whole", lambda self: False)  # as it was when this process looked
    load_base(FLOAT32)
    monkeypatch.setattr(EmbeddedCopy, "is_whole", whole)
    assert len(world.copies) == 1
    load_base(FLOAT32)
    assert world.read == 2
    assert "copy" not in caplog.text


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_cache() == tmp_path / ".cache" / "lifealign"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache() == tmp_path / "xdg" / "lifealign"
    monkeypatch.setenv(CACHE_VARIABLE, "~/mine")
    assert user_cache() == tmp_path / "mine"
