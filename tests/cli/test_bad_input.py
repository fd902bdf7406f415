"""Forty-eight kinds of bad input through the command line, each with the outcome that ``docs/bad_input.md`` states."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.blocks import ROOT
from tests.cli.conftest import Command, Result
from tests.cli.test_cli import a_life, content
from tests.peft_adapters import moved, random_factors, write_folder
from tests.scripted_judge import Says, scripted_judge
from tests.tiny import save_tiny
from tests.writers import write_task

from lifealign.data.task import Task
from lifealign.life.life import Life

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
LINE = json.dumps(GOOD) + "\n"


class World:
    """What a case starts from: a folder with the life ``bot``, which has learnt one task, and its model."""

    def __init__(self, lifealign: Command, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lifealign, self.folder, self.model, self.monkeypatch = lifealign, folder, model, monkeypatch

    def write(self, content: str | bytes, name: str = "rows.jsonl") -> str:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def check(self, content: str | bytes, name: str = "rows.jsonl") -> Result:
        return self.lifealign("check", self.write(content, name))

    def learn(self, *arguments: object) -> Result:
        return self.lifealign("learn", "bot", *arguments)

    def rows(self, *changes: dict[str, Any]) -> Result:
        """Checks good rows, each with a change."""
        return self.check("".join(json.dumps(GOOD | change) + "\n" for change in changes))

    def settings(self, text: str) -> Result:
        """Begins a life with settings in YAML."""
        return self.lifealign("init", "new", "--model", self.model, "--config", self.write(text, "settings.yaml"))

    def another_model(self, change: Callable[[Path], None]) -> Result:
        """Begins a life on a model with a change."""
        model = Path(shutil.copytree(self.model, self.folder / "model"))
        change(model)
        return self.lifealign("init", "new", "--model", model)

    def adapter(self, change: Callable[[Path], None]) -> Result:
        """Begins a life with the adapter that ``bot`` was exported to, after a change."""
        assert self.lifealign("export", "bot", "adapter").code == 0
        change(self.folder / "adapter")
        return self.lifealign("adopt", "adapter", "new", "--base", self.model, "--task", "one=one.jsonl")

    def damaged(self, name: str, change: Callable[[Path], None], *command: object) -> Result:
        """Uses ``bot`` after a file of it was changed."""
        change(self.folder / "bot" / name)
        return self.lifealign(*command or ("status", "bot"))


Case = Callable[[World], Result]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def add(work: Case) -> Case:
        CASES[name] = work
        return work

    return add


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes an object in a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """A change of an adapter's tensors."""

    def work(folder: Path) -> None:
        found = load_file(folder / "adapter_model.safetensors")
        change(found)
        save_file(found, folder / "adapter_model.safetensors")

    return work


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A change of the bytes of an adapter's tensors."""

    def work(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return work


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of the header of an adapter's tensors."""

    def rewrite(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        said = json.loads(data[8 : 8 + length])
        change(said)
        text = json.dumps(said).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return raw(rewrite)


# -- preference data ---------------------------------------------------------------------------------------------------

CASES |= {
    "1 a file that is not there": lambda at: at.lifealign("check", "rows.jsonl"),
    "2 an empty file": lambda at: at.check(""),
    "3 a folder": lambda at: at.lifealign("check", "bot"),
    "5 not UTF-8": lambda at: at.check(LINE.encode() + b'{"prompt": "\xff"}\n'),
    "6 a byte order mark": lambda at: at.check(b"\xef\xbb\xbf" + LINE.encode()),
    "7 UTF-16": lambda at: at.check(LINE.encode("utf-16")),
    "8 a last line that is cut": lambda at: at.check(LINE + LINE[:20]),
    "9 broken JSON": lambda at: at.check(LINE + '{"prompt": p}\n'),
    "10 a JSON array in a .jsonl": lambda at: at.check(json.dumps([GOOD, GOOD | {"prompt": "q"}])),
    "11 a row that is no object": lambda at: at.check(LINE + "7\n"),
    "12 no such column": lambda at: at.check('{"prompt": "p", "chosen": "a"}\n'),
    "13 a number for a text": lambda at: at.rows({}, {"chosen": 7}),
    "14 empty text": lambda at: at.rows({"chosen": " "}),
    "14 empty text in some rows": lambda at: at.rows({}, {"prompt": "q", "chosen": " "}),
    "15 equal answers": lambda at: at.rows({"chosen": "b"}),
    "16 a key twice": lambda at: at.check('{"prompt": "p", "chosen": "a", "chosen": "c", "rejected": "b"}\n'),
    "17 a pair twice": lambda at: at.rows({}, {}),
    "18 a pair and its opposite": lambda at: at.rows({}, {"chosen": "b", "rejected": "a"}),
    "19 a lone surrogate": lambda at: at.rows({"chosen": "\ud800"}),
    "19 a NUL": lambda at: at.rows({"chosen": "a\x00b"}),
    "20 a control token in a text": lambda at: at.rows({"prompt": "<|im_start|>system"}),
    "21 a prompt longer than the model reads": lambda at: at.learn(at.write(json.dumps(GOOD | {"prompt": "x" * 999}))),
    "22 an unknown role": lambda at: at.rows({"prompt": [{"role": "boss", "content": "p"}]}),
    "22 a prompt that the assistant ends": lambda at: at.rows(
        {"prompt": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "q"}]}
    ),
    "22 a message of a tool": lambda at: at.rows({"prompt": [{"role": "tool", "content": "p"}]}),
    "23 a line of 20 MB": lambda at: at.check(json.dumps(GOOD | {"prompt": "x" * 20_000_000})),
    "23 a million brackets": lambda at: at.check("[" * 1_000_000),
    "24 gzip that unpacks to a thousand times its size": lambda at: at.check(gzip.compress(b" " * 20_000_000)),
    "24 Parquet by its name only": lambda at: at.check(LINE, "rows.parquet"),
    "24 an archive": lambda at: at.check(b"PK\x03\x04" + bytes(100)),
}


@case("4 a file that may not be read")
def _(at: World) -> Result:
    opened = Path.open

    def forbid(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "rows.jsonl":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **options)

    at.write(LINE)
    at.monkeypatch.setattr(Path, "open", forbid)  # not by mode bits: they do not bind the administrator
    return at.lifealign("check", "rows.jsonl")


@case("25 a prompt in training and test of a task")
def _(at: World) -> Result:
    rows = "".join(json.dumps(GOOD | {"prompt": letter}) + "\n" for letter in "pqrs")
    return at.learn(at.write(rows), "--test", at.write(LINE, "test.jsonl"))


@case("25 a prompt in training of one task and test of another")
def _(at: World) -> Result:
    return at.learn("one-test.jsonl", "--name", "two")


@case("26 one file as two tasks")
def _(at: World) -> Result:
    return at.learn("one.jsonl", "--name", "two")


# -- settings ----------------------------------------------------------------------------------------------------------

CASES |= {
    "27 a syntax error": lambda at: at.settings("sft: {learning_rate: 1e-4\n"),
    "28 an unknown key": lambda at: at.settings("sft:\n  learning_rat: 1e-4\n"),
    "29 a key twice": lambda at: at.settings("seed: 1\nseed: 2\n"),
    "30 a value out of range": lambda at: at.settings("replay: {fraction: 1.5}\n"),
    "30 a number that YAML reads as text": lambda at: at.settings("sft: {learning_rate: 1e-4}\n"),
    "30 a word for a number": lambda at: at.settings("preference: {beta: much}\n"),
    "31 aliases that multiply": lambda at: at.settings("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nsft: *c\n"),
    "32 a tag that makes objects": lambda at: at.settings("seed: !!python/object/apply:os.getcwd []\n"),
    "33 a tab": lambda at: at.settings("sft:\n\tlearning_rate: 1\n"),
}


@case("34 a variable that is not set")
def _(at: World) -> Result:
    text = {"model": {"model_name_or_path": str(at.model)}, "tasks": [{"name": "x", "train": "one.jsonl"}]}
    return at.lifealign("run", at.write(yaml.safe_dump(text | {"output_dir": "${NOT_SET}/new"}), "stream.yaml"))


@case("35 a path beside the settings")
def _(at: World) -> Result:
    (at.folder / "below").mkdir()
    text = {
        "model": {"model_name_or_path": str(at.model)},
        "tasks": [{"name": "x", "train": "one.jsonl"}],
        "output_dir": "x",
    }
    return at.lifealign("run", at.write(yaml.safe_dump(text), "below/stream.yaml"))


@case("36 a task whose name is a path")
def _(at: World) -> Result:
    return at.learn(at.write(LINE), "--name", "../other")


# -- adapters, memories, models ----------------------------------------------------------------------------------------


def config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "adapter_config.json", change)


CASES |= {
    "37 an adapter of another model": lambda at: at.adapter(
        tensors(lambda all_: all_.update({name: torch.zeros(8, 7) for name in list(all_)[:1]}))
    ),
    "38 no adapter_config.json": lambda at: at.adapter(lambda folder: (folder / "adapter_config.json").unlink()),
    "38 DoRA": lambda at: at.adapter(config(lambda said: said.update(use_dora=True))),
    "38 rsLoRA": lambda at: at.adapter(config(lambda said: said.update(use_rslora=True))),
    "38 whole modules beside the factors": lambda at: at.adapter(
        config(lambda said: said.update(modules_to_save=["lm_head"]))
    ),
    "38 no LoRA": lambda at: at.adapter(config(lambda said: said.update(peft_type="IA3"))),
    "39 a header of a wrong length": lambda at: at.adapter(raw(lambda data: b"\xff" * 8 + data[8:])),
    "39 offsets that overlap": lambda at: at.adapter(
        header(lambda said: said.update({list(said)[-1]: said[list(said)[-2]]}))
    ),
    "39 bytes after the end": lambda at: at.adapter(raw(lambda data: data + b"more")),
    "39 a file that is cut": lambda at: at.adapter(raw(lambda data: data[:-10])),
    "39 NaN": lambda at: at.adapter(tensors(lambda all_: next(iter(all_.values())).fill_(float("nan")))),
    "39 a tensor of integers": lambda at: at.adapter(
        tensors(lambda all_: all_.update({name: part.int() for name, part in list(all_.items())[:1]}))
    ),
    "40 only a pickle": lambda at: at.adapter(
        lambda folder: os.rename(folder / "adapter_model.safetensors", folder / "adapter_model.bin")
    ),
    "42 a file that was changed": lambda at: at.damaged(
        "versions/01-one/adapter_model.safetensors",
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        "verify",
        "bot",
    ),
    "45 no chat template": lambda at: at.another_model(lambda model: (model / "chat_template.jinja").unlink()),
    "46 a model that is not on this machine": lambda at: at.lifealign("init", "new", "--model", "nobody/nothing"),
}


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the life ``bot`` and its task's file."""
    folder = tmp_path_factory.mktemp("made")
    begin(folder / "bot", tiny_folder).learn(Task.from_files("one", *write_task(folder, "one", "a", "b")))
    return folder


def begin(place: Path, model: Path) -> Life:
    """A life that keeps what it is taught with."""
    return a_life(place, model, keep_training_pairs=True)


def _consolidated(at: World, **change: Any) -> Result:
    write_folder(at.folder / "start", random_factors(0))
    write_folder(at.folder / "sft", moved(random_factors(0), 1))
    assert at.lifealign("consolidate", "start", "sft", "--memory", "memory", "--out", "first").code == 0
    write_folder(at.folder / "a", random_factors(0, **change), r=2, lora_alpha=4)
    write_folder(at.folder / "b", moved(random_factors(0, **change), 1), r=2, lora_alpha=4)
    return at.lifealign("consolidate", "a", "b", "--memory", "memory", "--out", "second")


CASES["41 a memory of another rank"] = lambda at: _consolidated(at, rank=2)


@case("43 remembered pairs that were changed")
def _(at: World) -> Result:
    path = at.folder / "bot" / "replay" / "01-one.jsonl"
    path.write_bytes(path.read_bytes()[:-2])
    return at.learn(at.write(LINE))


@case("44 a cache that another base has filled")
def _(at: World) -> Result:
    """The same rows under the same settings, so only the base tells: the step is that of a life without a cache."""
    rows, cache = at.write(LINE), Path("cache", "reference.jsonl")
    (at.folder / "bot" / cache).unlink()
    shutil.copytree(at.folder / "bot", at.folder / "empty")
    save_tiny(at.folder / "other-model", seed=1)
    begin(at.folder / "other", at.folder / "other-model").learn(Task.from_files("rows", rows))
    filled = shutil.copy(at.folder / "other" / cache, at.folder / "bot" / cache)
    assert filled.stat().st_size > 0
    assert at.lifealign("learn", "empty", rows).code == 0
    learnt = at.learn(rows)
    assert Life.open("bot").scores == Life.open("empty").scores
    return learnt


@case("45 a vocabulary larger than the embeddings")
def _(at: World) -> Result:
    def change(model: Path) -> None:
        def add(said: dict[str, Any]) -> None:
            said["added_tokens"].append(
                {
                    "id": 999,
                    "content": "<new>",
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": False,
                }
            )

        edit(model / "tokenizer.json", add)

    return at.another_model(change)


@case("45 no token to end with")
def _(at: World) -> Result:
    return at.another_model(
        lambda model: edit(
            model / "tokenizer_config.json", lambda said: [said.pop(k, None) for k in ("eos_token", "pad_token")]
        )
    )


@case("47 a disk that is too small")
def _(at: World) -> Result:
    at.monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30 - 1000, 1000))
    return at.learn(at.write(LINE))


def judged(say: Any) -> Case:
    def work(at: World) -> Result:
        at.monkeypatch.setattr("lifealign.evaluation.judge.endpoint.pause", lambda *_: 0.0)
        with scripted_judge(lambda messages, _: say) as server:
            return at.lifealign("evaluate", "bot", "--judge-model", "scripted", "--judge-url", server.url)

    return work


CASES |= {
    "48 a mark that is no whole number": judged("7.5"),
    "48 a mark out of range": judged("11"),
    "48 several marks": judged("7 or 8"),
    "48 a refusal": judged("I cannot judge this."),
    "48 an empty reply": judged(""),
    "48 too many requests": judged(Says(status=429)),
    "48 a server that fails": judged(Says(status=500)),
    "48 JSON that breaks off": judged(Says(body=b'{"choices": [')),
    "48 a key that is refused": judged(Says(status=401)),
}


PAGE = ROOT / "docs" / "bad_input.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (\d) \| (.+) \|$", re.MULTILINE)


def stated() -> dict[str, tuple[int, list[str]]]:
    """The exit code that the page states for each case, and the parts of what it says is printed."""
    return {
        f"{number} {kind}": (int(code), said.replace("\\|", "|").strip("` ").split("\u2026"))
        for number, kind, code, said in ROW.findall(PAGE.read_text())
    }


def test_the_page_states_every_case_and_no_other() -> None:
    assert stated().keys() == CASES.keys()
    assert {int(name.split()[0]) for name in CASES} == set(range(1, 49))


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused_is_one_line_and_what_is_accepted_is_said(
    name: str,
    made: Path,
    lifealign: Command,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("WARNING", logger="lifealign")
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    code, parts = stated()[name]
    result = CASES[name](World(lifealign, tmp_path, tiny_folder, monkeypatch))
    assert result.code == code, result
    if code:
        (line,) = result.err.splitlines()
        assert re.fullmatch(r"error: .*" + ".*".join(map(re.escape, parts)), line), line
    else:
        said = " ".join(f"{result.out}\n{caplog.text}".split())
        assert re.search(".*".join(map(re.escape, parts)), said), said
    if code == 2 and not name.startswith(("42 ", "43 ")):
        assert content(tmp_path / "bot") == content(made / "bot")
    assert not (tmp_path / "new").exists() or code == 0
