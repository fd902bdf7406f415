"""The small world that all tests share: a tiny model on disk, runtimes on it, and lives that take a second."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tests.tiny import letter_task, save_tiny, tiny_tokenizer
from tests.writers import write_general_text
from transformers import PreTrainedTokenizerFast

from lifealign.data.task import Task
from lifealign.life import step
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.model import auto_dtype
from lifealign.model.adapter import attach_lora, read_adapter, write_adapter
from lifealign.model.auto_dtype import MACHINE, measured_on
from lifealign.model.base_model import load_base
from lifealign.model.batch import Layout
from lifealign.model.machine import Processor
from lifealign.model.proof import Proof
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.sharing import Sharing
from lifealign.model.tokens import TokenizedPair
from lifealign.settings.section import build_config
from lifealign.storage.files import write_json
from lifealign.storage.user_cache import CACHE_VARIABLE

settings.register_profile("lifealign", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("lifealign")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

MakeLife = Callable[..., Life]
Lived = Callable[..., Life]
NoTraining = Callable[[], AbstractContextManager[None]]
MakeRuntime = Callable[..., Runtime]
MoveTo = Callable[[str], None]


@pytest.fixture(scope="session")
def kept_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test run, all its workers together, keeps the copy of the embedded model."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kept-models"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def measured() -> dict[str, dict[str, float]]:
    """What ``auto`` has measured on this machine: bfloat16 is fast. So nothing is timed, in processes of tests too."""
    return {measured_on(torch.device("cpu")): {"bfloat16": 0.1, "float32": 0.2}}


@pytest.fixture(autouse=True)
def user_cache(
    kept_models: Path,
    measured: dict[str, dict[str, float]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A user's cache in place of the real one, for every test its own, but with the one copy of the embedded model.

    And a processor in place of the real one, with instructions for bfloat16, so that ``auto`` is bfloat16 everywhere.
    """
    monkeypatch.setattr(auto_dtype, "this_processor", lambda: Processor("any", ("avx512f", "avx512_bf16")))
    folder = tmp_path_factory.mktemp("user-cache")
    write_json(folder / MACHINE, measured | {measured_on(torch.device("cpu")): {"bfloat16": 0.1, "float32": 0.2}})
    (folder / "models").symlink_to(kept_models, target_is_directory=True)
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def move_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MoveTo:
    """``move_to("float32")``: from here on, the machine is another one, which is faster in float32."""

    def move(dtype: str) -> None:
        folder = tmp_path / f"cache-{dtype}"
        seconds = {"bfloat16": 0.2, "float32": 0.2} | {dtype: 0.1}
        monkeypatch.setenv(CACHE_VARIABLE, str(folder))
        write_json(folder / MACHINE, {measured_on(torch.device("cpu")): seconds})

    return move


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its tokenizer; tests only read it."""
    return save_tiny(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer."""
    return tiny_tokenizer()


def small_config(tiny_folder: Path, folder: Path, **sections: Any) -> LifeConfig:
    """Settings on the tiny model that train visibly within a second, with sections laid over them.

    ``folder`` gets a general text of two passages instead of the 32 that come with the package.
    """
    general = write_general_text(folder)
    small: dict[str, Any] = {"num_train_epochs": 1, "learning_rate": 1e-2, "warmup_ratio": 0.0}
    small |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    defaults: dict[str, Any] = {
        "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
        "lora": {"lora_r": 4, "lora_alpha": 8},
        "sft": small,
        "preference": small,
        "evaluation": {"max_new_tokens": 4, "general_text": general},
        "retention": {"mode": "off"},
        "keep_training_pairs": False,
    }
    merged = {
        key: defaults[key] | sections[key] if isinstance(sections.get(key), dict) and key in defaults else value
        for key, value in (defaults | sections).items()
    }
    return build_config(LifeConfig, merged)


@pytest.fixture
def make_life(tiny_folder: Path, tmp_path: Path) -> MakeLife:
    """Makes lives on the tiny model, each in a folder of its own.

    ``make_life(name="my-bot", method={"name": "er"}, sft={"num_train_epochs": 2})``: ``name`` is the folder below
    ``tmp_path``, the rest are sections of the configuration, laid over those of :func:`small_config`.
    """
    numbers = itertools.count(1)

    def make(name: str | None = None, **sections: Any) -> Life:
        folder = tmp_path / (name or f"life-{next(numbers)}")
        return Life.create(folder, small_config(tiny_folder, tmp_path, **sections))

    return make


@pytest.fixture(scope="session")
def lived(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """Lives that many tests look at, each lived once in a session; who changes one makes a life of its own.

    ``lived([ONE, TWO], method={"name": "er"})``: the tasks, and sections of the configuration.
    """
    lives: dict[str, Life] = {}

    def live(tasks: Sequence[Task], **sections: Any) -> Life:
        key = repr(([(task.name, task.data_hash) for task in tasks], sorted(sections.items())))
        if key not in lives:
            folder = tmp_path_factory.mktemp("lived")
            life = Life.create(folder / "life", small_config(tiny_folder, folder, **sections))
            run_stream(life.workspace, tasks)
            lives[key] = life
        return lives[key]

    return live


@pytest.fixture
def make_runtime(tiny_folder: Path) -> MakeRuntime:
    """Makes runtimes on the tiny model in float32, with an adapter in which no factor is zero.

    ``make_runtime("plain", attention="eager", seed=1)``; ``seed`` decides the adapter, None leaves it new.
    """

    def make(layout: Layout = "packed", attention: str = "sdpa", seed: int | None = 0) -> Runtime:
        base = load_base(
            ModelConfig(model_name_or_path=str(tiny_folder), dtype="float32", attn_implementation=attention)
        )
        model = attach_lora(base, AdapterConfig(lora_r=4, lora_alpha=8), seed or 0)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            moved = {
                name: torch.randn(factor.shape, generator=generator) * 0.2
                for name, factor in read_adapter(model).items()
            }
            write_adapter(model, moved)
        proof = Proof(Sharing(packed=layout == "packed" and attention == "sdpa"))
        return Runtime.prepare(model, base.tokenizer, proof, share_prefix=layout != "plain")

    return make


@pytest.fixture(scope="session")
def taught(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A life that has learnt two tasks so hard that its three versions answer differently; tests only read it."""
    folder = tmp_path_factory.mktemp("taught")
    hard = {"num_train_epochs": 8, "learning_rate": 5e-2}
    life = Life.create(folder / "my-bot", small_config(tiny_folder, folder, sft=hard))
    run_stream(life.workspace, [letter_task("tone", "a", "b"), letter_task("refunds", "c", "d")])
    return folder / "my-bot"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window; skips where there is none."""
    if BROWSER is None:
        pytest.skip("no Chromium found; Debian: apt-get install chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@dataclass(frozen=True)
class TrainedStage:
    """A stage that was trained: its name, the names of its tasks, and the pairs, replayed ones included."""

    stage: str
    task: str
    pairs: tuple[TokenizedPair, ...]

    @property
    def keys(self) -> set[str]:
        return {pair.key for pair in self.pairs}

    @property
    def sources(self) -> list[str]:
        return [pair.source for pair in self.pairs]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainedStage]:
    """Every stage that is trained from here on, in order."""
    seen: list[TrainedStage] = []
    train_stage = step.train_stage

    def noted(runtime: Any, pairs: Any, objective: Any, settings: Any, method: Any, task: str, **more: Any) -> Any:
        seen.append(TrainedStage(objective.stage, task, tuple(pairs)))
        return train_stage(runtime, pairs, objective, settings, method, task, **more)

    monkeypatch.setattr(step, "train_stage", noted)
    return seen


@pytest.fixture
def train_nothing(monkeypatch: pytest.MonkeyPatch) -> NoTraining:
    """``with train_nothing():`` whatever trains a stage fails the test."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("trained, and nothing should have been")

    @contextmanager
    def nothing() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(step, "train_stage", never)
            yield

    return nothing
