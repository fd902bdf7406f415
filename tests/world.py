"""What the documentation takes for granted, small: the embedded model, the hub's copy of it, programs, data, a bot."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree

import torch
from peft import LoraConfig, get_peft_model
from tests.blocks import ROOT, Block
from tests.forks import write_clients
from tests.model.gguf_files import TOKENS, tiny_family, write_base
from tests.tiny import tiny_tokenizer
from tests.writers import rows_of, write_general_text, write_jsonl
from transformers import PreTrainedModel

from lifealign.data.suites.support_desk import load_suite
from lifealign.model.embedded import EMBEDDED_HUB_ID, EMBEDDED_PACKAGE
from lifealign.model.peft_folder import read_peft_folder, write_peft_folder

PORT = "8000"
"""The port that the pages use; a free one is put in its place."""

SMALLER = {
    "{max_new_tokens: 48,": "{max_new_tokens: 4, general_text: general-text.txt,",
    "max_new_tokens=256": "max_new_tokens=8",
    "lifealign chat my-bot": "lifealign chat my-bot --max-new-tokens 8",
    "lifealign serve my-bot --port": "lifealign serve my-bot --max-tokens 8 --port",
    "head -40 ": "head -8 ",
    "head -16 ": "head -4 ",
    "seeds: [1, 2]": "seeds: [1]",
    "methods: [seqft, er, lifealign]": "methods: [er, lifealign]",
    "orders: {there: [greet, brief], back: [brief, greet]}": "orders: {there: [greet, brief]}",
}
"""What else takes the place of something on a page, because the tiny model never ends an answer by itself."""

LINKED = ("src", "experiments", "results")
"""What a page may use of the repository."""

SMALL = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}


class Failed(Exception):
    """A block that did not end well, with what it printed."""


@dataclass
class World:
    """Programs, model and caches; a shell in it finds what a reader's shell would find.

    Attributes:
        folder: Where all of it is.
        bots: Lives that have learnt some tasks, by the tasks.
    """

    folder: Path
    bots: dict[tuple[str, ...], Path] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder / 'packages'}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_CACHE": str(self.folder / "hub"),
            "HF_HUB_OFFLINE": "1",
        }

    def command(self, code: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", code]

    def run(self, code: str, folder: Path, where: str = "") -> str:
        """Runs lines of a shell; what they print.

        Raises:
            Failed: If they do not end with 0.
        """
        said = subprocess.run(
            self.command(code),
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        if said.returncode:
            raise Failed(f"{where} ended with {said.returncode}:\n{code}\n{said.stdout}")
        return said.stdout

    def bot(self, tasks: Sequence[str]) -> Path:
        """A life that has learnt these tasks; made once, to be copied."""
        key = tuple(tasks)
        if key not in self.bots:
            folder = self.folder / "-".join(["bot", *key])
            folder.mkdir()
            general = write_general_text(folder)
            stages = {"sft": SMALL, "preference": SMALL}
            settings = stages | {"evaluation": {"max_new_tokens": 4, "general_text": general}}
            (folder / "small.yaml").write_text(json.dumps(settings))
            write_tasks(folder, key)
            learn = [f"lifealign learn my-bot {one}.jsonl --test {one}-test.jsonl --max-words 25" for one in key]
            self.run("\n".join(["lifealign init my-bot --model smollm2-135m --config small.yaml", *learn]), folder)
            self.bots[key] = folder / "my-bot"
        return self.bots[key]

    def page_folder(self, folder: Path, tasks: Sequence[str], blocks: Sequence[Block]) -> None:
        """Lays out what a page finds in its folder: links into the repository, files that it shows, a bot."""
        write_general_text(folder)
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        for block in blocks:
            if block.title:
                (folder / block.title).write_text(smaller(block.code))
        if tasks:
            copytree(self.bot(tasks), folder / "my-bot")

    @contextmanager
    def page_runs(self, folder: Path) -> Iterator[PageRun]:
        """Runs blocks of one page, in one folder; servers among them end with it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        run = PageRun(self, folder, port)
        try:
            yield run
        finally:
            run.stop()


@dataclass
class PageRun:
    """The blocks of one page, one after the other.

    Attributes:
        world: What they are run in.
        folder: Their working directory.
        port: What stands in for ``PORT``.
        staying: The servers.
    """

    world: World
    folder: Path
    port: str
    staying: list[subprocess.Popen[str]] = field(default_factory=list)

    def take(self, block: Block) -> None:
        """Runs a block.

        Raises:
            Failed: If it does not end well.
        """
        code = smaller(block.code).replace(PORT, self.port)
        if block.mark == "runs on":
            self._start(code, block.where)
        elif block.language == "python":
            (self.folder / "block.py").write_text(code)
            self.world.run("python block.py", self.folder, block.where)
        else:
            self.world.run(code, self.folder, block.where)

    def _start(self, code: str, where: str) -> None:
        """Starts a server, and waits until it has said its address."""
        server = subprocess.Popen(
            self.world.command(f"exec {code}"),
            cwd=self.folder,
            env=self.world.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.staying.append(server)
        assert server.stdout
        said = []
        for line in server.stdout:
            said.append(line)
            if line.startswith("http"):
                return
        raise Failed(f"{where} did not start:\n{code}\n{''.join(said)}")

    def stop(self) -> None:
        """Ends the servers as Ctrl-C does."""
        for server in self.staying:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)


def smaller(code: str) -> str:
    """A block as it is run."""
    for written, run in SMALLER.items():
        code = code.replace(written, run)
    return code


@contextmanager
def world_in(folder: Path) -> Iterator[World]:
    """Makes the world in a folder, and has its programs answer until it is left."""
    (folder / "bin").mkdir()
    write_clients(folder / "bin", folder / "forks")
    model = tiny_family("llama")
    model.config.max_position_embeddings = 1024
    _embedded(folder / "packages" / EMBEDDED_PACKAGE, model)
    _hub(folder / "hub", model)
    world = World(folder)
    command = [sys.executable, "-m", "tests.forks", str(folder / "forks")]
    server = subprocess.Popen(command, cwd=ROOT, env=world.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout and server.stdout.readline() == "ready\n"
        yield world
    finally:
        server.terminate()
        server.communicate()


def _embedded(package: Path, model: PreTrainedModel) -> None:
    """A package like that of the embedded model, with a tiny one."""
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    write_base(package / "SmolLM2-135M-Instruct.Q4_1.gguf", model, model.config.max_position_embeddings)


def _hub(hub: Path, model: PreTrainedModel) -> None:
    """A cache of the hub in which the embedded model's name has the tiny one, with a tokenizer of as many tokens."""
    repository = hub / f"models--{EMBEDDED_HUB_ID.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    model.save_pretrained(snapshot)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(TOKENS[len(tokenizer) :])
    tokenizer.save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)


def write_tasks(folder: Path, names: Sequence[str], pairs: int = 8, held_out: int = 4) -> None:
    """Training and held-out rows of tasks, by any names, as ``NAME.jsonl`` and ``NAME-test.jsonl``."""
    tasks = load_suite(pairs, test_pairs=held_out)
    for name, task in zip(names, tasks, strict=False):
        write_jsonl(folder / f"{name}.jsonl", rows_of(task.train))
        write_jsonl(folder / f"{name}-test.jsonl", rows_of(task.test))


def write_adapters(folder: Path) -> None:
    """Adapters on the tiny model, as other trainers leave them: one to begin from, and two that were trained."""
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(tiny_family("llama"), lora).save_pretrained(folder / "start")
    start = read_peft_folder(str(folder / "start"))
    for seed, name in enumerate(("refunds", "tone")):
        generator = torch.Generator().manual_seed(seed)
        factors = {key: one + 0.01 * torch.randn(one.shape, generator=generator) for key, one in start.factors.items()}
        write_peft_folder(folder / "runs" / name, factors, start.config)


def write_logs(folder: Path) -> None:
    """A log of `serve` with two answers to one prompt, and a file of feedback, an edit of the first."""
    asked = [{"role": "user", "content": "Where is my order? I am at me@example.com."}]
    answers = [
        {"kind": "answer", "id": f"chatcmpl-{number}", "time": "2026-11-27T12:00:00Z", "model": "my-bot@02-brief"}
        | {"life": "my-bot", "version": "02-brief", "messages": asked, "answer": text, "finish_reason": "stop"}
        for number, text in enumerate(("No idea.", "Later."))
    ]
    edit = {"kind": "feedback", "id": "chatcmpl-0", "time": "2026-11-27T12:01:00Z", "edited": "It is on its way."}
    write_jsonl(folder / "served.jsonl", answers)
    write_jsonl(folder / "feedback.jsonl", [edit])


def write_csv(folder: Path) -> None:
    """A training and a held-out file as CSV, of a pair each."""
    for name, asked in (("refunds.csv", "Where is it?"), ("refunds-test.csv", "Where is mine?")):
        (folder / name).write_text(f"prompt,chosen,rejected\n{asked},On its way.,No idea.\n")
