"""Several processes learn what one learns: the same losses, gradients and adapters, and nothing is lost with one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from tests.blocks import ROOT, blocks_of
from tests.conftest import MakeLife, MakeRuntime
from tests.life.led import SETTINGS, TRIED
from tests.writers import write_jsonl

from lifealign.cli.streams import compare
from lifealign.errors import ConfigError, ModelError
from lifealign.life import progress
from lifealign.life.life import Life
from lifealign.model.adapter import freeze_adapter, read_adapter, write_adapter
from lifealign.model.adapter_shape import flat, put_flat, shape_of, take_shape
from lifealign.model.channel import SIGNS, Channel, noticing
from lifealign.model.follower import follow
from lifealign.model.prompt_pool import attach_pool
from lifealign.model.ranks import Ranks
from lifealign.model.runtime import Runtime
from lifealign.model.sharded import Attended, decoder_of, require_shardable
from lifealign.model.tokens import TokenizedPair

pytestmark = pytest.mark.slow


def launch(rank: int, port: int, *command: str) -> subprocess.Popen[str]:
    """One of two processes, as a launcher starts it."""
    said = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = os.environ | said | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def found(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes have found; see ``led.py``."""
    folder, port = tmp_path_factory.mktemp("led"), free_port()
    both = [launch(rank, port, "tests.life.led", str(folder), str(tiny_folder)) for rank in (0, 1)]
    output = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], output
    result: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return result


def test_a_loss_and_its_gradient_are_those_of_one_process(found: dict[str, Any]) -> None:
    """Also of a single pair, where the other process has nothing to do, and of numbers that cannot be halved."""
    assert len(found["gradients"]) == 8
    assert max(found["gradients"].values()) < 1e-6


@pytest.mark.parametrize("what", [*TRIED, *SETTINGS])
def test_every_method_learns_what_it_learns_in_one_process(found: dict[str, Any], what: str) -> None:
    """Losses to 1e-5 nats in every optimizer step, factors to 1e-4 of the largest number in them.

    In bfloat16 a row's numbers may depend on how many rows are computed at once (where the processor has no
    instructions for it, they do), so there it is half of what rounding to bfloat16 changes in one process.
    """
    losses, factors = 1e-5, 1e-4
    if what == "bfloat16":
        losses, factors = (found["rounding"][number] / 2 for number in ("losses", "factors"))
    assert found[what]["steps"] > 20
    assert found[what]["losses"] < losses and found[what]["factors"] < factors


@pytest.mark.parametrize("what", ["gem", "agem"])
def test_gradients_of_memories_are_computed_by_all_processes(found: dict[str, Any], what: str) -> None:
    """Twelve optimizer steps for each task, and in the second one a memory for each."""
    assert found["er"]["passes"] == 24 and found[what]["passes"] == 36


def test_processes_that_hold_the_base_together_have_half_of_its_layers_each(found: dict[str, Any]) -> None:
    """The embedding, the norm at the end and the adapter are whole everywhere; the head is the embedding."""
    held = found["held together"]
    assert 2 * held["layers here"] == held["layers"] > 0
    assert held["rest here"] == held["rest"]


def test_passes_of_the_leader_alone_are_attended_and_are_those_of_a_whole_base(found: dict[str, Any]) -> None:
    """Bit for bit: the numbers are put together before a layer is computed."""
    assert found["held together"]["alike"] == dict.fromkeys(["scores", "answers", "features", "gradient"], True)


@pytest.mark.parametrize("what", ["resumed", "resumed with dropout"])
def test_a_step_that_several_processes_learn_goes_on_byte_for_byte(found: dict[str, Any], what: str) -> None:
    assert found[what] == {"equal": True}


@pytest.fixture
def stream(tiny_folder: Path, tmp_path: Path) -> Path:
    """An experiment that takes a while; its life is in ``life`` beside it."""
    rows = [{"prompt": f"say {n}", "chosen": "aaa", "rejected": "bbb"} for n in range(32)]
    tasks = [{"name": name, "train": write_jsonl(tmp_path / f"{name}.jsonl", rows)} for name in ("one", "two")]
    for task in tasks:
        task["train"] = str(task["train"])
    stage = {"num_train_epochs": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    written = {
        "tasks": tasks,
        "output_dir": str(tmp_path / "life"),
        "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
        "sft": stage,
        "preference": dict(stage),
        "retention": {"mode": "off"},
        "save_steps": 1,
    }
    path = tmp_path / "stream.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


@pytest.mark.parametrize(("killed", "sharding"), [(0, "none"), (1, "none"), (1, "base")])
def test_a_killed_process_ends_all_and_the_same_command_goes_on(stream: Path, killed: int, sharding: str) -> None:
    port = free_port()
    command = ("lifealign", "run", str(stream), "--set", f"device.sharding={sharding}")
    both = [launch(rank, port, *command) for rank in (0, 1)]
    state = stream.parent / "life" / "learning"
    deadline = time.monotonic() + 120
    while not state.is_dir() and both[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    both[killed].send_signal(signal.SIGKILL)
    said = [process.communicate(timeout=60)[0] for process in both]
    assert both[killed].returncode == -signal.SIGKILL and both[1 - killed].returncode == 1
    last = said[1 - killed].strip().splitlines()[-1]
    assert "another process of this run has ended" in last and "Traceback" not in said[1 - killed]
    if killed == 0:  # going on is the same whoever has gone
        return
    port = free_port()
    both = [launch(rank, port, *command) for rank in (0, 1)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "goes on after" in said[0] and said[1] == ""
    assert [version.name for version in Life.open(stream.parent / "life").steps] == ["01-one", "02-two"]


def test_torchrun_learns_a_task_with_two_processes(make_life: MakeLife, tmp_path: Path) -> None:
    make_life("my-bot")
    rows = [{"prompt": f"say {n}", "chosen": "aaa", "rejected": "bbb"} for n in range(12)]
    for name, part in (("refunds", rows[:8]), ("refunds-test", rows[8:])):
        write_jsonl(tmp_path / f"{name}.jsonl", part)
    page = ROOT / "docs" / "scaling.md"
    (command,) = [block.code.split() for block in blocks_of(page) if block.code.startswith("torchrun ")]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--master-port", str(free_port()), *command[1:]],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [version.name for version in Life.open(tmp_path / "my-bot").steps] == ["01-refunds"]


def test_cells_are_not_spread_under_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifealign.cli.streams.processes", lambda: 2)
    with pytest.raises(ConfigError, match="found 2 processes of a launcher, expected one with --jobs or --on"):
        compare(tmp_path / "stream.yaml", jobs=2)


def test_an_error_of_the_leader_ends_the_others_quietly(tmp_path: Path) -> None:
    port = free_port()
    both = [launch(rank, port, "lifealign", "status", str(tmp_path / "nothing")) for rank in (0, 1)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [2, 0]
    assert "found no such directory" in said[0] and said[1] == ""


def test_a_state_of_training_belongs_to_a_number_of_processes(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another one sums round otherwise, so what goes on would not be byte for byte what began."""
    work = make_life().workspace
    alone = progress._machine(work)
    monkeypatch.setattr(Runtime, "processes", 2)
    two = progress._machine(work)
    monkeypatch.setattr(Runtime, "processes", 3)
    assert len({alone, two, progress._machine(work)}) == 3


# -- without processes -------------------------------------------------------------------------------------------------


class Wire:
    """A channel to nobody: what is told and answered, by hand."""

    def __init__(self, *, rank: int = 0, orders: Sequence[Mapping[str, Any]] = (), texts: Sequence[str] = ()) -> None:
        self.rank, self.size = rank, 2
        self.led: object = None
        self.orders, self.texts = list(orders), list(texts)
        self.told: list[Any] = []

    def tell(self, order: Mapping[str, Any]) -> None:
        self.told.append(order)

    def hear(self) -> Mapping[str, Any]:
        return self.orders.pop(0)

    def answers(self) -> list[str]:
        return self.texts

    def answer(self, text: str) -> None:
        self.told.append(text)


def test_a_base_that_another_process_cannot_load_is_its_leaders_error(make_runtime: MakeRuntime) -> None:
    def load(described: Mapping[str, Any], ready: Callable[[], None]) -> Any:
        raise ModelError(f"found another base than {described['name']}")

    wire: Any = Wire(rank=1, orders=[{"do": "load", "model": {"name": "ours"}}, {"do": "stop"}])
    follow(wire, load)
    assert wire.told == ["found another base than ours"]
    runtime, wire = make_runtime(), Wire(texts=wire.told)
    with pytest.raises(ModelError, match="process 1 of this run: found another base than ours"):
        Ranks(wire, {"name": "ours"}).logps(
            runtime.model, [[TokenizedPair("", "", (1,), (2,), (3,))]], ("chosen",), len
        )


def test_a_base_that_is_held_together_is_not_used_once_another_one_is(make_runtime: MakeRuntime) -> None:
    """The others have dropped their parts of it: what would be put together are parts of two bases."""
    model, wire = make_runtime().model, Wire()
    ranks = Ranks(cast(Channel, wire), {})
    ranks.attended = Attended(model, cast(Channel, wire), ranks.meet)
    wire.led = ranks
    ids = torch.arange(3)[None]
    with torch.no_grad():
        model(input_ids=ids)
        assert [(said["do"], said["gradient"]) for said in wire.told] == [("attend", False)]
        with ranks.round():
            model(input_ids=ids)
        assert len(wire.told) == 1
        wire.led = object()
        with pytest.raises(ModelError, match=r"device\.sharding: found another life in use since"):
            model(input_ids=ids)


def test_a_base_that_does_not_name_its_layers_is_not_cut(make_runtime: MakeRuntime) -> None:
    model = make_runtime().model
    base: Any = model.get_base_model()
    assert decoder_of(model) == (base.model, base.model.layers)
    for named in (None, [], ["LlamaModel"], ["LlamaDecoderLayer", "LlamaMLP"]):
        base._no_split_modules = named
        with pytest.raises(ModelError, match="expected none, because the layers of LlamaForCausalLM are not one list"):
            require_shardable(model)


def test_soft_prompts_are_not_used_with_a_base_that_is_held_together(make_runtime: MakeRuntime) -> None:
    model = make_runtime().model
    require_shardable(model)
    attach_pool(model, pool_size=4, prompt_length=2, top_k=1, seed=0)
    with pytest.raises(ModelError, match=r"expected none with soft prompts \(l2p\)"):
        require_shardable(model)


LOST = """
import os, torch, torch.distributed as dist
from lifealign.errors import LostProcess
from lifealign.model.channel import SIGNS, noticing
dist.init_process_group("gloo")
if dist.get_rank():
    os._exit(0)
try:
    with noticing(SIGNS):
        dist.all_gather_into_tensor(torch.zeros(2), torch.zeros(1))
except LostProcess:
    print("lost")
"""


def test_a_process_that_ends_within_a_pass_is_noticed_by_what_the_library_says() -> None:
    port = str(free_port())
    said = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", LOST], env=os.environ | said | {"RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    assert both[0].communicate(timeout=120)[0] == "lost\n" and both[1].wait() == 0


def test_another_error_within_a_pass_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="out of memory") as caught, noticing(SIGNS):
        raise RuntimeError("out of memory")
    assert type(caught.value) is RuntimeError


@pytest.mark.parametrize("frozen", [False, True])
def test_a_copy_takes_over_an_adapter_of_any_shape(make_runtime: MakeRuntime, frozen: bool) -> None:
    model, copy = make_runtime(seed=1).model, make_runtime(seed=None).model
    if frozen:
        freeze_adapter(model, rank=2, seed=3)
    write_adapter(model, {name: torch.randn_like(factor) for name, factor in read_adapter(model).items()})
    take_shape(copy, shape_of(model))
    put_flat(copy, flat(model))
    ids = torch.arange(12)[None]
    assert torch.equal(model(input_ids=ids).logits, copy(input_ids=ids).logits)
    assert shape_of(copy) == shape_of(model)
    take_shape(copy, shape_of(make_runtime().model))  # and back
    assert shape_of(copy) == shape_of(make_runtime().model)
