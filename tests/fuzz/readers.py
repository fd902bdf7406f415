"""Every reader of files that somebody else may have made, with files that it reads."""

from __future__ import annotations

import atexit
import gzip
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from tests.conftest import small_config
from tests.data.collect import logs
from tests.peft_adapters import moved, random_factors, write_folder
from tests.tiny import letter_task, save_tiny
from tests.writers import rows_of, write_jsonl

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.clean import clean_rows
from lifealign.data.collect.collection import collect_logs
from lifealign.data.collect.masking import KINDS
from lifealign.data.inspection import inspect
from lifealign.errors import LifeAlignError
from lifealign.evaluation.general import general_passages
from lifealign.evaluation.judge.cache import StoredReply, VerdictCache
from lifealign.evaluation.judge.rubrics import FOLDER as RUBRICS
from lifealign.evaluation.judge.rubrics import load_rubric
from lifealign.experiments.result_of_life import load_run, save_result
from lifealign.experiments.settings import ExperimentConfig
from lifealign.experiments.tasks import read_tasks
from lifealign.life.decisions import decisions_of
from lifealign.life.disk import names
from lifealign.life.disk.foreign_memory import opened_memory
from lifealign.life.disk.gate_files import gate_answers_of, gate_sets_of, retention_of
from lifealign.life.disk.learnt import read_adapter_of, read_taught
from lifealign.life.disk.measurements import held_out_of, read_records
from lifealign.life.disk.memory import read_memory
from lifealign.life.disk.progress_files import interrupted, read_checkpoint
from lifealign.life.disk.recall_files import overlap_of
from lifealign.life.disk.step_files import consolidation, time_taken, training
from lifealign.life.foreign import consolidate_adapters
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.measure import measure
from lifealign.life.repair import damage_of
from lifealign.life.settings import LifeConfig
from lifealign.model.answer_cache import AnswerCache
from lifealign.model.peft_folder import read_peft_folder
from lifealign.model.reference import ReferenceCache
from lifealign.report.page.life_page import life_page
from lifealign.service.asked import ChatRequest
from lifealign.service.review.candidates import read_candidates
from lifealign.service.review.decisions import read_decisions
from lifealign.settings.yaml_file import load_config
from lifealign.storage.files import file_record, read_json, write_sealed_json
from lifealign.storage.strict_json import parse_json

Read = Callable[[Path, str], None]
Seed = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Reader:
    """A reader of foreign files.

    Attributes:
        seed: Writes files that it reads into a folder, and gives the names of those that are to be damaged.
        read: Reads them from the folder, one of which is damaged; its name is given.
        sealed: Makes the rest fit a file that was changed on purpose: hashes, manifests; None if nothing depends on it.
    """

    seed: Seed
    read: Read
    sealed: Read | None = None


def each(*reads: Callable[[], object]) -> None:
    """Does all of it, whatever is refused; the first refusal is raised at the end."""
    refused: LifeAlignError | None = None
    for read in reads:
        try:
            read()
        except LifeAlignError as error:
            refused = refused or error
    if refused is not None:
        raise refused


# -- rows --------------------------------------------------------------------------------------------------------------

USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "a"), ("assistant", "b"))
)
ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "Hi ü", "chosen": "yes", "rejected": "no", "score_chosen": 2, "score_rejected": 1},
    {"instruction": "Add", "input": "1 2", "chosen": "3", "rejected": "4", "history": [["a", "b"]], "system": "Kind."},
    {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a\n\nAssistant: c"},
    {"prompt": "Human: a\n\nAssistant:", "chosen": " yes", "rejected": " no"},
    {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
    {"messages": [USER, GOOD], "rejected_response": "b"},
    {"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}, "rejected": "c"},
    {
        "prompt": "[{'role': 'user', 'content': 'Hi'}]",
        "chosen": "a",
        "rejected": '[{"role": "assistant", "content": "b"}]',
    },
)


def rows_of_all_kinds(folder: Path) -> list[str]:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "array.json").write_text(json.dumps(ROWS, indent=1))
    (folder / "rows.csv").write_text('prompt,chosen,rejected\nHi,yes,no\n"two\nlines","a ""b""",c\n')
    (folder / "rows.tsv").write_text("prompt\tchosen\trejected\nHi\tyes\tno\n")
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    for name, rows in (("flat", ROWS[:1]), ("nested", ROWS[2:3])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows] * 3), folder / f"{name}.parquet")
    return sorted(path.name for path in folder.iterdir())


def read_rows_of(folder: Path, name: str) -> None:
    each(lambda: clean_rows(folder / name), lambda: inspect(folder / name), lambda: read_candidates(folder / name))


LOGS: dict[str, list[logs.Row]] = {
    "serve": [logs.given("a", logs.BAD), logs.said("a", edited=logs.GOOD, thumb="down")],
    "webui": [logs.rated("a", 1, logs.chat({"a": logs.GOOD, "b": logs.BAD}, "Kind.", ("c", "d")))],
    "label-studio": [logs.task(logs.chose("left"), logs.chose("right", 2))],
    "langfuse": [logs.observed("o-1", logs.BAD), logs.score(), logs.thumb("o-1", 1)],
    "openai": [logs.stored("a", logs.GOOD, logs.BAD, metadata={"thumb": "up"})],
    "pairs": [{"prompt": logs.ASK, "chosen": logs.GOOD, "rejected": logs.BAD}],
}


def all_logs(folder: Path) -> list[str]:
    for name, rows in LOGS.items():
        write_jsonl(folder / f"{name}.jsonl", [*rows, *rows])
    return sorted(path.name for path in folder.iterdir())


def read_logs(folder: Path, name: str) -> None:
    collect_logs([folder / name, *(folder / other for other in ("serve.jsonl",) if other != name)], [*KINDS])


# -- settings ----------------------------------------------------------------------------------------------------------

SETTINGS = """\
output_dir: runs/a  # a comment
model: {model_name_or_path: base, dtype: float32}
method: {name: lifealign, energy_kept: 0.9}
sft: &stage
  num_train_epochs: 1
  learning_rate: 1.0e-4
preference: *stage
evaluation:
  metrics: [margin, rouge_l]
retention: {mode: warn, max_loss: 0.2}
tasks:
  - name: one
    train: one.jsonl
    test: one-test.jsonl
    check: {max_words: 3, all_of: ["a+b"]}
"""
TASKS = "tasks:\n  - {name: one, train: one.jsonl, check: {max_words: 2}}\n"
COMPARED = SETTINGS + "compare:\n  methods: [er, lifealign]\n  seeds: [1, 2]\n"


def all_settings(folder: Path) -> list[str]:
    (folder / "experiment.yaml").write_text(SETTINGS)
    (folder / "compare.yaml").write_text(COMPARED)
    (folder / "life.yaml").write_text(SETTINGS.partition("tasks:")[0].partition("\n")[2])
    (folder / "tasks.yaml").write_text(TASKS)
    (folder / "rubric.md").write_bytes(sorted(RUBRICS.glob("*.md"))[0].read_bytes())
    (folder / "general.txt").write_text("One passage.\n\nAnother one.\n")
    (folder / "general.jsonl").write_text('{"text": "One passage."}\n{"text": "Another one."}\n')
    files = sorted(path.name for path in folder.iterdir())
    write_jsonl(folder / "one.jsonl", rows_of(letter_task("one", "a", "b").train))
    return files


def read_settings(folder: Path, name: str) -> None:
    path = folder / name
    if name == "tasks.yaml":
        read_tasks(path)
    elif name == "rubric.md":
        load_rubric(path).instructions()
    elif name.startswith("general"):
        general_passages(path)
    else:
        load_config(path, LifeConfig if name == "life.yaml" else ExperimentConfig)


# -- lives -------------------------------------------------------------------------------------------------------------


@cache
def a_life() -> Path:
    """A life with everything that one can have: gates, evaluations, pairs that were kept, a checkpoint."""
    top = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, top)
    base = save_tiny(top / "base")
    stage = {"num_train_epochs": 1, "per_device_train_batch_size": 8}
    gated = {"mode": "warn", "set_aside": 0.25}
    config = small_config(
        base,
        top,
        method="lifealign",
        sft=stage,
        preference=stage,
        retention=gated,
        keep_training_pairs=True,
        save_steps=1,
    )
    life = Life.create(top / "bot", config)
    one = letter_task("one", "a", "b")
    run_stream(life.workspace, [one.__class__("one", one.train, one.test, AnswerCheck(max_words=3))])
    life.learn(letter_task("two", "c", "d"))
    measure(life.workspace, ["paper_bleu"])

    class Dies:
        def begin(self, title: str) -> None: ...
        def say(self, text: str) -> None: ...
        def scored(self, values: object) -> None: ...
        def update(self, stage: str, done: int, total: int, figures: object) -> None:
            if (stage, done) == ("preference", 1):
                raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        life.learn(letter_task("three", "e", "f"), Dies())
    for path in life.directory.path.glob("tasks/*/time.json"):  # the only files that differ from run to run
        path.write_text(json.dumps({"seconds": 1.0, "learning_seconds": 1.0, "peak_memory_bytes": 1}))
        resealed(life.directory.path, path.relative_to(life.directory.path).as_posix())
    save_result(Life.open(life.directory.path), top / "result.json")
    return life.directory.path


def life_in(folder: Path) -> list[str]:
    shutil.copytree(a_life(), folder / "bot")
    return sorted(
        path.relative_to(folder).as_posix()
        for path in (folder / "bot").rglob("*")
        if path.is_file() and ".lock" not in path.name and path.suffix not in (".md", ".yaml")
    )


def read_life(folder: Path, name: str) -> None:
    life = Life.open(folder / "bot")
    directory, work = life.directory, life.workspace
    each(
        lambda: damage_of(directory),
        lambda: life_page(life),
        lambda: read_records(directory),
        lambda: (work.method, work.replay, work.memory),
        lambda: read_memory(directory, work.method.segments, 1),
        lambda: (decisions_of(directory), overlap_of(directory), interrupted(directory), read_checkpoint(directory)),
        lambda: (
            AnswerCache(directory.path / names.ANSWER_CACHE),
            ReferenceCache(directory.path / names.REFERENCE_CACHE),
        ),
        *(partial(read, directory, version) for version in life.versions for read in OF_A_VERSION),
        *(partial(read, directory, version.name) for version in life.steps for read in OF_A_STEP),
    )


OF_A_VERSION = (read_taught, held_out_of, retention_of, gate_sets_of, gate_answers_of)
OF_A_STEP = (read_adapter_of, training, consolidation, time_taken)


def resealed(life: Path, name: str) -> None:
    """Writes the hash of a changed file into the manifest, or the seal of a sealed file into itself."""
    path = life / name
    with suppress(LifeAlignError, ValueError):
        if path.suffix == ".json" and isinstance(content := read_json(path), dict) and "sha256" in content:
            write_sealed_json(path, content)
    manifest = read_json(life / names.MANIFEST)
    for version in manifest.get("versions", ()):
        if name in version["files"]:
            version["files"][name] = file_record(path)
            write_sealed_json(life / names.MANIFEST, manifest)


def reseal_life(folder: Path, name: str) -> None:
    with suppress(LifeAlignError, AttributeError, KeyError, TypeError):  # the manifest may be the one that is damaged
        resealed(folder / "bot", name.removeprefix("bot/"))


# -- adapters, memories, results, requests -----------------------------------------------------------------------------


def adapters(folder: Path) -> list[str]:
    write_folder(folder / "start", random_factors(0))
    write_folder(folder / "end", moved(random_factors(0), 1))
    return [f"end/{name}" for name in ("adapter_config.json", "adapter_model.safetensors")]


def read_adapters(folder: Path, name: str) -> None:
    adapter = read_peft_folder(folder / "end")
    assert adapter.fingerprint and adapter.kind


def memory(folder: Path) -> list[str]:
    adapters(folder)
    consolidate_adapters(folder / "start", folder / "end", memory=folder / "memory", out=folder / "out", name="one")
    return sorted(
        path.relative_to(folder).as_posix()
        for path in (folder / "memory").rglob("*")
        if path.is_file() and ".lock" not in path.name
    )


def read_foreign_memory(folder: Path, name: str) -> None:
    with opened_memory(folder / "memory") as opened:
        each(opened.long_term, *(partial(opened.figures, entry) for entry in opened.entries))


def reseal_memory(folder: Path, name: str) -> None:
    path = folder / "memory/memory.json"
    with suppress(LifeAlignError, AttributeError, KeyError, TypeError, IndexError):
        manifest = read_json(path)
        for part in ("update", "figures"):
            suffix = "safetensors" if part == "update" else "json"
            manifest["entries"][0][part] = file_record(next((folder / "memory/updates").glob(f"*.{suffix}")))
        write_sealed_json(path, manifest)
    with suppress(LifeAlignError, AttributeError, TypeError):
        write_sealed_json(path, read_json(path))


def results(folder: Path) -> list[str]:
    shutil.copy(a_life().parent / "result.json", folder)
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "out.jsonl.review").mkdir()
    write_sealed_json(folder / "out.jsonl.review/decisions.json", DECIDED)
    with VerdictCache(folder / "judge.sqlite") as cache:
        for number in range(20):
            cache.put(f"key-{number}", "judge", StoredReply("7", "7"))
    return ["result.json", "request.json", "out.jsonl.review/decisions.json", "judge.sqlite"]


REQUEST = {
    "model": "bot",
    "messages": [{"role": "system", "content": "Kind."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    "temperature": 0.5,
    "max_tokens": 10,
    "stop": ["\n"],
    "n": 1,
}
DECIDED = {
    "format": 1,
    "file": "rows.jsonl",
    "version": 2,
    "outputs": ["0" * 64],
    "decisions": [{"key": "k", "choice": "a", "edited": "text"}, {"key": "l", "choice": "skip", "edited": None}],
}


def read_others(folder: Path, name: str) -> None:
    if name == "result.json":
        load_run(folder / name)
    elif name == "request.json":
        with suppress(ValueError):  # which whoever reads the body answers
            ChatRequest.parse(parse_json((folder / name).read_bytes()))
    elif name == "judge.sqlite":
        with VerdictCache(folder / name) as cache:
            cache.get("key-1")
            cache.put("key-99", "judge", StoredReply("8", "8"))
    else:
        read_decisions(folder / "out.jsonl")


def reseal_others(folder: Path, name: str) -> None:
    with suppress(LifeAlignError, TypeError):
        if isinstance(content := read_json(folder / name), dict) and {"sha256", "content_hash"} & content.keys():
            write_sealed_json(folder / name, content)


READERS: dict[str, Reader] = {
    "rows": Reader(rows_of_all_kinds, read_rows_of),
    "logs": Reader(all_logs, read_logs),
    "settings": Reader(all_settings, read_settings),
    "life": Reader(life_in, read_life, reseal_life),
    "adapter": Reader(adapters, read_adapters),
    "memory": Reader(memory, read_foreign_memory, reseal_memory),
    "others": Reader(results, read_others, reseal_others),
}
