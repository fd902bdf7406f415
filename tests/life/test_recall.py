"""Recall in a life: keys that belong to their task alone, what a prompt recalls, and which version answers it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Lived, MakeLife
from tests.tiny import letter_task

from lifealign.data.pair import Message, Pair
from lifealign.data.task import Task
from lifealign.errors import ConfigError, DataError, LifeError, ModelError
from lifealign.life import keys
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.disk.recall_files import Recalling, overlap_of
from lifealign.life.disk.step_files import read_record
from lifealign.life.keys import keys_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.recall import Expressed, Recall, RecalledTask, patterns_of, recall_prompt
from lifealign.memory.recall import separation
from lifealign.memory.scope import scope
from lifealign.report.page.life_page import life_page
from lifealign.report.page.recall import recalled_line
from lifealign.report.write import write_report


def about(name: str, words: str, number: int = 80) -> Task:
    """A task whose prompts are about something: the same letters over and over."""
    letters = letter_task(name, "a", "b", train=number)
    prompt = [(Message("user", f"{words * (3 + place % 4)} {place}"),) for place in range(number)]
    return replace(
        letters, train=tuple(replace(pair, prompt=own) for pair, own in zip(letters.train, prompt, strict=True))
    )


XY, QZ = about("xy", "xyxyxy"), about("qz", "QZQZQZ")


def test_a_key_is_a_function_of_its_task_alone(make_life: MakeLife) -> None:
    """Whatever was learnt before, and wherever the task stands."""
    first, second = make_life(), make_life(seed=7)
    run_stream(first.workspace, [XY, QZ])
    run_stream(second.workspace, [QZ, XY])
    ours, theirs = first.directory.tensors(names.keys("01-xy")), second.directory.tensors(names.keys("02-xy"))
    assert ours.keys() == theirs.keys() == {"xy.center", "xy.count", "xy.examples"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert int(ours["xy.count"]) == 60 and len(ours["xy.examples"]) == 20


def test_a_prompt_recalls_the_domain_it_belongs_to(lived: Lived) -> None:
    life = lived([XY, QZ])
    for task, other in ((XY, "qz"), (QZ, "xy")):
        found = life.recall(task.train[41].prompt)
        assert [one.task for one in found.recalled] == [task.name]
        assert found.tasks[0].task == task.name and found.tasks[1].task == other
        assert not found.unknown and all(not one.house_rule for one in found.tasks)
    unlike = life.recall("0123 " * 9)
    assert unlike.unknown and not unlike.recalled and unlike.version == "02-qz" and "unknown" in unlike.why


def test_rules_for_the_same_prompts_are_rules_of_the_house(lived: Lived) -> None:
    """They cannot be told apart, so every prompt recalls them all, and the last version answers."""
    same = Task("same", tuple(replace(pair, chosen="ccc", rejected="ddd") for pair in XY.train))
    life = lived([XY, same])
    found = life.recall("anything at all")
    assert [one.scope for one in found.tasks] == [1.0, 1.0]
    assert {one.task for one in found.recalled} == {"xy", "same"}
    assert found.version == "02-same"


def test_a_single_task_is_a_rule_of_the_house(lived: Lived) -> None:
    found = lived([XY]).recall("anything")
    assert [(one.task, one.scope) for one in found.recalled] == [("xy", 1.0)]


def test_a_superseded_task_is_not_recalled(make_life: MakeLife) -> None:
    life = make_life()
    run_stream(life.workspace, [XY, replace(QZ, supersedes=("xy",))])
    assert [one.task for one in life.recall(XY.train[41].prompt).tasks] == ["qz"]


def test_a_domain_is_answered_by_its_best_version_since_it_was_learnt(make_life: MakeLife) -> None:
    """What the gate has measured decides; of equals the later one; and never a version older than a house rule."""
    life = make_life(retention={"mode": "warn", "set_aside": 0.3})
    third = about("mn", "mnmnmn")
    run_stream(life.workspace, [XY, QZ, third])
    evidence = [retention_of(life.directory, version) for version in life.steps]
    assert all(one is not None for one in evidence)

    shares = {"01-xy": 0.9, "02-qz": 0.9, "03-mn": 0.4}
    patterns = replace(patterns_of(life.workspace), shares={"xy": shares})
    found = recall_prompt(life.workspace, patterns, XY.train[41].prompt)
    assert (found.version, found.why) == ("02-qz", "best at xy on its gate: 90 % of prompts hold")
    (xy, qz, mn) = patterns.tasks  # if mn were a rule of the house, which 02-qz does not know
    patterns = replace(patterns, tasks=(xy, qz, (*mn[:2], 1.0)))
    found = recall_prompt(life.workspace, patterns, XY.train[41].prompt)
    assert [one.task for one in found.recalled if one.house_rule] == ["mn"]
    assert (found.version, found.why) == ("03-mn", "best at xy on its gate: 40 % of prompts hold")


def test_what_recall_looks_up_is_read_once_until_something_is_learnt_or_rolled_back(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr("lifealign.life.recall.keys_of", lambda work: read.append(len(work.steps)) or keys_of(work))
    life = make_life()
    life.learn(XY)
    for _ in range(3):
        assert [one.task for one in life.recall("xyxyxy").tasks] == ["xy"]
    life.learn(QZ)
    for _ in range(3):
        assert {one.task for one in life.recall("xyxyxy").tasks} == {"xy", "qz"}
    life.rollback("01-xy")
    assert [one.task for one in life.recall("xyxyxy").tasks] == ["xy"]
    assert read == [1, 2, 1]


def test_the_share_is_that_of_the_gate(make_life: MakeLife) -> None:
    life = make_life(retention={"mode": "warn", "set_aside": 0.3})
    run_stream(life.workspace, [XY, QZ])
    values = [
        retention_of(life.directory, life.steps[0]).held["xy"].values,  # type: ignore[union-attr]
        retention_of(life.directory, life.steps[1]).losses["xy"].values,  # type: ignore[union-attr]
    ]
    shares = [sum(value > 0 for value in row or ()) / len(row or ()) for row in values]
    found = life.recall(XY.train[41].prompt)
    best = "02-qz" if shares[1] >= shares[0] else "01-xy"
    assert found.version == best and f"{100 * max(shares):.0f} % of prompts hold" in found.why


def test_keys_of_an_older_life_are_made_from_what_it_remembers(make_life: MakeLife) -> None:
    life = make_life(replay={"fraction": 1.0})
    run_stream(life.workspace, [XY, QZ])
    before = life.recall(XY.train[41].prompt)
    with life.directory.lock():
        for version in life.steps:
            life.directory.forget(version.name, [names.keys(version.name)])
    again = Life.open(life.directory.path)
    assert not any("keys" in file for version in again.versions for file in version.files)
    found = again.recall(XY.train[41].prompt)  # everything is remembered, so nothing differs
    assert [one.task for one in found.tasks] == [one.task for one in before.tasks]
    for ours, theirs in zip(found.tasks, before.tasks, strict=True):
        assert ours.score == pytest.approx(theirs.score) and ours.p_value == theirs.p_value


def test_a_task_of_which_nothing_is_kept_cannot_be_recalled(make_life: MakeLife) -> None:
    life = make_life(method="seqft")
    life.learn(XY)
    with life.directory.lock():
        life.directory.forget("01-xy", [names.keys("01-xy")])
    with pytest.raises(LifeError, match="found no prompt of xy kept"):
        Life.open(life.directory.path).recall("hello")


def test_a_key_that_cannot_be_made_costs_no_step(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(keys, "prompt_features", fails)
    life = make_life()
    life.learn(XY)
    assert names.keys("01-xy") not in life.steps[0].files

    def hidden(*_: Any, **__: Any) -> Any:
        raise ModelError("no hidden states")

    monkeypatch.setattr(keys, "prompt_features", hidden)
    life.learn(QZ)
    assert names.keys("02-qz") not in life.steps[1].files
    with pytest.raises(ModelError, match="no hidden states"):
        life.recall("hello")


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda life: life.recall(""), ConfigError, "prompt: found an empty one"),
        (lambda life: life.recall([]), ConfigError, "prompt: found an empty one"),
        (lambda life: life.recall("hello", alpha=0), ConfigError, "alpha: found 0"),
        (lambda life: life.recall("hello", alpha=float("nan")), ConfigError, "alpha: found nan"),
        (lambda life: life.recall("word " * 500), ModelError, r"found \d+ tokens, expected at most data.max_length"),
        (lambda life: life.recall_examples([]), DataError, "found no pair that fits"),
        (
            lambda life: life.recall_examples([Pair((Message("user", "x" * 5000),), "a", "b", "f.jsonl:1")]),
            DataError,
            "f.jsonl:1: found no pair that fits",
        ),
    ],
)
def test_what_cannot_be_recalled_is_one_clear_error(
    lived: Lived, ask: Callable[[Life], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(lived([XY, QZ]))


def test_a_life_that_has_learnt_nothing_recalls_nothing(make_life: MakeLife) -> None:
    for ask in (lambda life: life.recall("hello"), lambda life: life.recall_examples(XY.train)):
        with pytest.raises(LifeError, match="found no task learnt"):
            ask(make_life())


def test_examples_express_the_step_that_learnt_their_preference(lived: Lived) -> None:
    """Both tasks have the same prompts: only the answers tell them apart."""
    prompts = [pair.prompt for pair in XY.train]
    one = Task("one", tuple(Pair(prompt, "aaa", "bbb") for prompt in prompts))
    two = Task("two", tuple(Pair(prompt, "ccc", "ddd") for prompt in prompts))
    life = lived([one, two], replay={"capacity": 0}, preference={"num_train_epochs": 3}, sft={"num_train_epochs": 3})
    new = (Message("user", "a new prompt"),)
    for chosen, rejected, step in (("aaa", "bbb", "01-one"), ("ccc", "ddd", "02-two")):
        pairs = [Pair((Message("user", f"{number}"),), chosen, rejected) for number in range(4)]
        found = life.recall_examples(pairs)
        assert found[0].step == step and found[0].ratio > 3
        (single, *_) = life.recall_examples([Pair(new, chosen, rejected)])
        assert single.standard_error is None and single.ratio == 0
    swapped = life.recall_examples([Pair((Message("user", f"{number}"),), "bbb", "aaa") for number in range(4)])
    assert next(one for one in swapped if one.step == "01-one").mean < 0


def test_rewards_of_all_steps_add_up_to_that_of_the_last_version(lived: Lived) -> None:
    """β[log π_T - log π_0] is the sum of β[log π_j - log π_(j-1)]: the mean margin that is scored, too."""
    life = lived([XY, QZ])
    pairs = QZ.train[:6]
    total = sum(one.mean for one in life.recall_examples(pairs))
    life.load()
    from lifealign.evaluation.preference import held_out_margins
    from lifealign.model.tokens import tokenize_pairs

    work = life.workspace
    tokens, _ = tokenize_pairs(work.runtime.tokenizer, pairs, work.config.data.max_length)
    with work.runtime.base_policy():
        reference = work.reference.logps(work.runtime, tokens, work.base_fingerprint, 4)
    margins = held_out_margins(work.runtime, tokens, reference, beta=work.config.preference.beta, batch_size=4)
    assert total == pytest.approx(sum(margins) / len(margins), abs=1e-5)


def test_recall_leaves_the_life_as_it_was(make_life: MakeLife) -> None:
    life = make_life()
    run_stream(life.workspace, [XY, QZ])
    before = {path: path.read_bytes() for path in sorted(life.directory.path.rglob("*")) if path.is_file()}
    life.recall("hello")
    life.recall_examples(XY.train[:3])
    assert {path: path.read_bytes() for path in sorted(life.directory.path.rglob("*")) if path.is_file()} == before


def test_what_is_recalled_is_every_house_rule_and_the_best_domain_that_fits() -> None:
    tasks = (
        RecalledTask("domain", "01-domain", 0.9, 0.04, 19, 0.0),
        RecalledTask("other", "02-other", 0.8, 0.5, 18, 0.1),
        RecalledTask("third", "03-third", 0.7, 0.9, 0, 0.1),
        RecalledTask("house", "04-house", 0.1, 0.01, 99, 0.8),
    )
    recall = Recall(tasks, 0.05, "04-house", "")
    assert [one.task for one in recall.recalled] == ["other", "house"]
    assert [one.task for one in Recall(tasks, 0.5, "04-house", "").recalled] == ["third", "house"]  # 0.5 is unlike
    assert (
        not recall.unknown
        and Recall(tasks, 0.9, "04-house", "").unknown
        and Recall(tasks, 0.95, "04-house", "").unknown
    )
    # Of n prompts compared with, the smallest p-value is 1 / (n + 1).
    assert [one.task for one in recall.never_unlike] == ["other", "third"]
    assert Recall(tasks[:1], 0.049, "04-house", "").never_unlike == tasks[:1]
    assert Expressed("01-a", 0.5, 0.0).ratio == 0.0


def test_the_command_line_recalls(lived: Lived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lifealign.cli.main import main

    life = str(lived([XY, QZ]).directory.path)
    file = tmp_path / "examples.jsonl"
    rows = [{"prompt": f"hello {number}", "chosen": "aaa", "rejected": "bbb"} for number in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr("sys.argv", ["lifealign", *arguments])
            main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    _, out, _ = run("recall", life, "hello", "--alpha", "0.001")
    assert "no prompt can be called unlike these at alpha 0.001, which needs 999 to compare: " in out
    code, out, _ = run("recall", life, XY.train[41].prompt[0].content)
    assert code == 0 and "answer with: 02-qz" in out and "domain" in out
    code, out, _ = run("recall", life, XY.train[41].prompt[0].content, "--json")
    assert code == 0 and json.loads(out)["recalled"] == ["xy"]
    code, out, _ = run("recall", life, "--examples", str(file))
    assert code == 0 and "01-xy" in out and "standard error" in out
    code, out, _ = run("recall", life, "--examples", str(file), "--json")
    assert code == 0 and {one["step"] for one in json.loads(out)} == {"01-xy", "02-qz"}
    for arguments in (("recall", life), ("recall", life, "hello", "--examples", str(file))):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and "recall needs a prompt or --examples FILE, and not both" in err


def test_a_step_stores_how_well_its_prompts_are_told_from_those_before(make_life: MakeLife) -> None:
    """Tasks apart, and one with the prompts of the first: what recall itself measures of each task, pair by pair."""
    same = Task("same", tuple(replace(pair, chosen="ccc", rejected="ddd") for pair in XY.train))
    life = make_life()
    assert overlap_of(life.directory).tasks == ()
    for task in (XY, QZ, same):
        life.learn(task)
    overlap = overlap_of(life.directory)
    assert overlap.tasks == ("xy", "qz", "same") and len(overlap.overlaps) == 6
    assert overlap.overlaps["xy", "same"] == overlap.overlaps["same", "xy"] == 1.0  # the very same prompts
    assert overlap.overlaps["xy", "qz"] == overlap.overlaps["qz", "xy"] == overlap.overlaps["qz", "same"] == 0.0
    assert overlap.prompts == {"xy": 20, "qz": 20, "same": 20}
    # Of all other prompts half are its own: an area of 3/4, which 20 prompts may show by chance.
    assert overlap.scopes == {"xy": 1.0, "qz": 0.0, "same": 1.0}
    assert overlap.scopes == pytest.approx({one.task: one.scope for one in life.recall("hello").tasks})


def test_each_of_two_tasks_is_told_from_the_other_by_its_own_key(make_life: MakeLife) -> None:
    """A task whose prompts are half like those of another is told from it otherwise than the other from it."""
    both = about("both", "xyxyxy")
    half = replace(both, train=tuple((XY if place % 2 else QZ).train[place] for place in range(80)))
    life = make_life()
    for task in (XY, half, about("mn", "mxmxmy")):
        life.learn(task)
    overlaps, known = overlap_of(life.directory).overlaps, keys_of(life.workspace)
    for (one, other), found in overlaps.items():
        (key, own), (_, others) = known[one], known[other]
        assert found == pytest.approx(scope(separation(key.scores(own), key.scores(others))))
    assert any(abs(overlaps[one, other] - overlaps[other, one]) > 0.01 for one, other in overlaps)


def test_overlap_that_cannot_be_measured_costs_no_step(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    life = make_life()
    life.learn(XY)
    monkeypatch.setattr(keys, "whitening_of", lambda work: 1 / 0)
    monkeypatch.setattr("lifealign.life.learn._warn", said.append)
    life.learn(QZ)
    assert names.keys("02-qz") in life.steps[1].files and names.told_apart("02-qz") not in life.steps[1].files
    assert any("could not be measured (ZeroDivisionError" in line for line in said)


def test_a_new_task_is_told_from_the_latest_ones_and_no_other_key_is_read(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST_OTHERS", 2)
    life = make_life(sft={"num_train_epochs": 0}, preference={"num_train_epochs": 0})
    for name, letters in (("xy", "xyxyxy"), ("qz", "qzqzqz"), ("mn", "mnmnmn"), ("ab", "ababab")):
        life.learn(about(name, letters))
    told = [read_record(life.directory, names.told_apart(step.name), Recalling).tasks for step in life.steps]
    assert [sorted(tasks[name].others) for tasks, name in zip(told, ("xy", "qz", "mn", "ab"), strict=True)] == [
        [],
        ["xy"],
        ["qz", "xy"],
        ["mn", "qz"],
    ]
    overlap = overlap_of(life.directory)
    assert ("ab", "xy") not in overlap.overlaps and overlap.scopes["xy"] is not None
    read: list[str] = []
    tensors = LifeDirectory.tensors
    monkeypatch.setattr(LifeDirectory, "tensors", lambda self, name: (read.append(name), tensors(self, name))[1])
    life.learn(about("cd", "cdcdcd"))
    assert [name for name in read if name.endswith(".keys.safetensors")] == [
        "memory/03-mn.keys.safetensors",
        "memory/04-ab.keys.safetensors",
    ]
    assert len(life.recall("xyxyxy").tasks) == 5  # recall itself knows all of them


def test_tasks_learnt_together_are_told_from_the_latest_ones_too(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST_OTHERS", 1)
    life = make_life(method="mtl", sft={"num_train_epochs": 0}, preference={"num_train_epochs": 0})
    run_stream(life.workspace, [about(name, name * 3, 8) for name in ("xy", "qz", "mn")])
    told = read_record(life.directory, names.told_apart(life.steps[0].name), Recalling).tasks
    assert {name: list(apart.others) for name, apart in told.items()} == {"xy": [], "qz": ["xy"], "mn": ["qz"]}


def _without(task: Task, asked: Sequence[Pair]) -> Task:
    """The task with some of its pairs held out."""
    return replace(task, train=tuple(pair for pair in task.train if pair not in asked), test=tuple(asked))


def test_the_page_says_which_tasks_its_prompts_recall(make_life: MakeLife) -> None:
    life = make_life(evaluation={"metrics": ["rouge_l"], "general_text": None})
    asked = {task.name: task.train[5::21] for task in (XY, QZ)}
    run_stream(life.workspace, [_without(task, asked[task.name]) for task in (XY, QZ)])
    page = life_page(life, recall=True)
    right = 0
    for task in (XY, QZ):
        for pair in asked[task.name]:
            found = life.recall(pair.prompt)
            named = [f"{one.task} (p = {one.p_value:.2f})" for one in found.recalled]
            line = f"recalls {', '.join(named) or 'no task'}; answered by {found.version}"
            assert line in page.split(pair.prompt[0].content)[1].split("</article>")[0]
            right += [one.task for one in found.recalled] == [task.name]
    assert right >= 6  # of 8; with 19 prompts to compare, one in twenty is called unlike its own
    assert "recalls" not in life_page(life).split('id="answers"')[1].split("</section>")[0]


def test_a_prompt_of_a_rule_of_the_house_says_so_on_the_page(lived: Lived) -> None:
    life = lived([letter_task("one", "a", "b"), letter_task("two", "c", "d")])
    line = recalled_line(life, [{"role": "user", "content": "one 3"}])
    assert "one (rule of the house)" in line and "two (rule of the house)" in line and "answered by 02-two" in line


def test_the_page_names_the_version_that_recall_has_found(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = RecalledTask("xy", "01-xy", 0.9, 0.43, 20, 0.1)
    monkeypatch.setattr(Life, "recall", lambda self, prompt: Recall((domain,), 0.05, "01-xy", "best"))
    line = recalled_line(Life.__new__(Life), [{"role": "user", "content": "xyxy"}])
    assert line == "recalls xy (p = 0.43); answered by 01-xy"


def test_recall_is_for_the_page_of_one_life(lived: Lived, tmp_path: Path) -> None:
    life = lived([XY, QZ])
    with pytest.raises(ConfigError, match="--recall: found it with several runs, expected it with a single life"):
        write_report([life.directory.path, life.directory.path], tmp_path / "page.html", recall=True)
