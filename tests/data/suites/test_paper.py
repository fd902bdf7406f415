"""The paper's tasks: its orders, what a row of each dataset becomes, the draw, and the two ways to load them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.refusals import Parts, refusal
from tests.tiny import pair

from lifealign.data import clean as checks
from lifealign.data.formats import parse_row
from lifealign.data.pair import Pair
from lifealign.data.suites.paper import (
    CATALOG,
    DRAW_SEED,
    ORDERS,
    best_before_wrong,
    conversations,
    draw,
    human_before_chatgpt,
    load_catalog_tasks,
    safer,
)
from lifealign.errors import ConfigError, LifeAlignError
from lifealign.experiments.settings import load_experiment
from lifealign.methods import METHODS

NAMES = "capybara, hc3, hh-harmless, hh-helpful, safe-rlhf, truthfulqa"
ROOT = Path(__file__).parents[3]
RAW = ROOT.parent / "shared" / "data"

Row = dict[str, Any]


# -------------------------------------------------------------------------------------------------------------- orders


def test_the_orders_are_those_of_the_paper() -> None:
    assert ORDERS == {
        "order1": ("capybara", "hc3", "hh-harmless", "hh-helpful", "safe-rlhf", "truthfulqa"),
        "order2": ("truthfulqa", "safe-rlhf", "hh-helpful", "hh-harmless", "hc3", "capybara"),
        "order3": ("hh-harmless", "capybara", "truthfulqa", "hh-helpful", "hc3", "safe-rlhf"),
    }


def test_every_order_has_every_task_once() -> None:
    assert all(sorted(order) == sorted(CATALOG) for order in ORDERS.values())
    assert ORDERS["order3"] == tuple(ORDERS["order1"][place - 1] for place in (3, 1, 6, 4, 2, 5))  # as the paper counts


# ---------------------------------------------------------------------------------------------------------------- rows


def read(converted: Row) -> tuple[list[tuple[str, str]], str, str]:
    one, _ = parse_row(converted, "f", 1)
    return [tuple(message) for message in one.prompt], one.chosen, one.rejected


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_a_capybara_row_is_a_conversation_and_two_last_answers() -> None:
    begun = [turn("user", "One?"), turn("assistant", "Yes."), turn("user", "Two?")]
    row = {
        "source": "Dove",
        "chosen": [*begun, turn("assistant", "Three.")],
        "chosen_rating": 5,
        "chosen_model": "a",
        "rejected": [*begun, turn("assistant", "Four.")],
        "rejected_rating": 2,
        "rejected_model": "b",
    }
    prompt = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    assert read(conversations(row)) == (prompt, "Three.", "Four.")


def test_an_hh_row_is_a_transcript_in_turns() -> None:
    begun = "\n\nHuman: One?\n\nAssistant: Yes.\n\nHuman: Two?\n\nAssistant:"
    prompt = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    row = {"chosen": f"{begun} Three.", "rejected": f"{begun} Four."}
    assert read(conversations(row)) == (prompt, "Three.", "Four.")


def test_an_hc3_row_prefers_the_first_human_answer_to_the_first_of_chatgpt() -> None:
    row = {
        "question": "Why?",
        "human_answers": ["It 's so .", "No ."],
        "chatgpt_answers": ["Because it is.", "Since."],
        "index": None,
        "source": "reddit_eli5",
    }
    assert read(human_before_chatgpt(row)) == ([("user", "Why?")], "It 's so .", "Because it is.")
    assert human_before_chatgpt(row | {"chatgpt_answers": []})["rejected"] == ""  # cleaning drops and counts it
    assert human_before_chatgpt(row | {"human_answers": None})["chosen"] == ""


@pytest.mark.parametrize(("label", "chosen", "rejected"), [(0, "zero", "one"), (1, "one", "zero")])
def test_a_safe_rlhf_row_prefers_the_safer_answer_not_the_better(label: int, chosen: str, rejected: str) -> None:
    row = {
        "prompt": "How?",
        "response_0": "zero",
        "response_1": "one",
        "is_response_0_safe": False,
        "is_response_1_safe": False,
        "better_response_id": 1 - label,
        "safer_response_id": label,
    }
    assert read(safer(row)) == ([("user", "How?")], chosen, rejected)


def test_a_truthfulqa_row_prefers_the_best_answer_to_all_wrong_ones_together() -> None:
    row = {
        "type": "Adversarial",
        "question": "Flat?",
        "best_answer": "Round",
        "correct_answers": ["Round", "A ball"],
        "incorrect_answers": ["Flat", "Hollow", "A cube"],
    }
    assert read(best_before_wrong(row)) == ([("user", "Flat?")], "Round", "Flat; Hollow; A cube")


@pytest.mark.parametrize(
    ("convert", "row"),
    [
        (best_before_wrong, {"question": "Flat?", "best_answer": "Round", "incorrect_answers": "Flat"}),
        (human_before_chatgpt, {"question": "Why?", "human_answers": "So", "chatgpt_answers": ["Because"]}),
    ],
)
def test_one_text_in_place_of_a_list_is_refused_and_not_taken_apart(convert: Callable[[Row], Row], row: Row) -> None:
    with pytest.raises(TypeError):
        convert(row)


# ---------------------------------------------------------------------------------------------------------------- draw


def some_pairs(name: str, prompts: int, repeats: int = 1) -> list[Pair]:
    return [pair(f"{name} {p}", f"good {r}", "bad") for p in range(prompts) for r in range(repeats)]


def test_the_draw_is_seeded_and_not_the_first_rows() -> None:
    pairs = some_pairs("a", 100)
    sizes = {"train_pairs": 40, "test_pairs": 20}
    assert draw(pairs, None, **sizes) == draw(pairs, None, **sizes, seed=DRAW_SEED)
    train, test = draw(pairs, None, **sizes)
    other_train, other_test = draw(pairs, None, **sizes, seed=DRAW_SEED + 1)
    assert set(train) != set(other_train) and set(test) != set(other_test)
    assert set(train) != set(pairs[:40]) and set(test) != set(pairs[:20])


def test_the_draw_of_this_seed_is_for_ever() -> None:
    """Pinned: another hash, seed or sorting would be other data under the same name, in every paper file."""
    train, test = draw(some_pairs("a", 10), None, train_pairs=3, test_pairs=2)
    assert [one.prompt[0].content for one in test] == ["a 7", "a 0"]
    assert [one.prompt[0].content for one in train] == ["a 9", "a 3", "a 2"]


@given(
    prompts=st.lists(st.integers(0, 30), max_size=60),
    others=st.none() | st.lists(st.integers(0, 30), max_size=60),
    train_pairs=st.integers(0, 40),
    test_pairs=st.integers(0, 40),
    seed=st.integers(0, 5),
)
def test_prompts_are_distinct_and_never_in_both_parts(
    prompts: list[int], others: list[int] | None, train_pairs: int, test_pairs: int, seed: int
) -> None:
    def numbered(numbers: list[int]) -> list[Pair]:
        return [pair(f"{number}", f"good {row}", "bad") for row, number in enumerate(numbers)]

    pool, rest = numbered(prompts), None if others is None else numbered(others)
    train, test = draw(pool, rest, train_pairs=train_pairs, test_pairs=test_pairs, seed=seed)
    assert checks.test_overlap(train, test) == 0
    for part in (train, test):
        assert len({one.prompt for one in part}) == len(part)
    # as many as asked for, or as there are
    held_out = set(prompts if others is None else others)
    assert len(test) == min(test_pairs, len(held_out))
    free = len(set(prompts)) - len(test) if others is None else len(set(prompts) - held_out)
    assert len(train) == min(train_pairs, free)
    assert set(train) <= set(pool) and set(test) <= set(pool if rest is None else rest)


def test_no_prompt_of_the_test_split_is_learnt_even_if_it_was_not_drawn() -> None:
    train, test = draw(some_pairs("a", 30), some_pairs("a", 20), train_pairs=30, test_pairs=2)
    assert len(test) == 2
    assert {one.prompt for one in train} == {one.prompt for one in some_pairs("a", 30)[20:]}


def test_a_repeated_prompt_is_one_prompt_and_its_first_pair() -> None:
    once, thrice = some_pairs("a", 30), some_pairs("a", 30, repeats=3)
    sizes = {"train_pairs": 10, "test_pairs": 5}
    assert draw(thrice, None, **sizes) == draw(once, None, **sizes)


def test_another_row_moves_no_prompt_to_another_place() -> None:
    pairs, new = some_pairs("a", 50), pair("new", "good", "bad")
    before, _ = draw(pairs, None, train_pairs=51, test_pairs=0)
    after, _ = draw([new, *reversed(pairs)], None, train_pairs=51, test_pairs=0)
    assert new in after and [one for one in after if one != new] == list(before)


def test_sizes_follow_the_released_files() -> None:
    sizes = {name: (source.train_pairs, source.test_pairs) for name, source in CATALOG.items()}
    assert sizes.pop("truthfulqa") == (653, 83)
    assert set(sizes.values()) == {(3000, 1000)}


# -------------------------------------------------------------------------------------------------------------- folder


def write_task(folder: Path, name: str, train: int = 3, test: int = 2) -> None:
    for split, count in (("train", train), ("test", test)):
        rows = [{"query": f"{name} {split} {n}", "chosen": "yes", "rejected": "no"} for n in range(count)]
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_folder_is_read_in_the_order_asked_for_and_as_it_is(tmp_path: Path) -> None:
    for name in ("hc3", "capybara"):
        write_task(tmp_path, name)
    tasks = load_catalog_tasks(["hc3", "capybara"], data_dir=tmp_path)
    assert [task.name for task in tasks] == ["hc3", "capybara"]
    assert [one.prompt[0].content for one in tasks[0].train] == ["hc3 train 0", "hc3 train 1", "hc3 train 2"]
    assert [one.prompt[0].content for one in tasks[1].test] == ["capybara test 0", "capybara test 1"]
    assert tasks[0].train[1].source == f"{tmp_path / 'hc3' / 'train.jsonl'}:2"
    assert tasks[0].check is None


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        ({"train_pairs": 2}, (2, 2)),
        ({"test_pairs": 1}, (3, 1)),
        ({"train_pairs": 1, "test_pairs": 0}, (1, 0)),
        ({"train_pairs": 9, "test_pairs": 9}, (3, 2)),
    ],
)
def test_only_the_first_so_many(tmp_path: Path, limits: dict[str, int], sizes: tuple[int, int]) -> None:
    write_task(tmp_path, "hc3")
    whole, part = (load_catalog_tasks(["hc3"], data_dir=str(tmp_path), **some)[0] for some in ({}, limits))
    assert (part.train, part.test) == (whole.train[: sizes[0]], whole.test[: sizes[1]])
    assert (len(part.train), len(part.test)) == sizes


def test_a_folder_is_cleaned_and_what_is_held_out_is_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_task(tmp_path, "hc3")
    load_catalog_tasks(["hc3"], data_dir=tmp_path)
    assert not caplog.records
    lines = (tmp_path / "hc3" / "train.jsonl").read_text().splitlines()
    empty = json.dumps({"query": "?", "chosen": "", "rejected": "no"})
    (tmp_path / "hc3" / "test.jsonl").write_text("\n".join([empty, lines[0], lines[1]]))
    (task,) = load_catalog_tasks(["hc3"], data_dir=tmp_path)
    assert [one.prompt[0].content for one in task.train] == ["hc3 train 2"]
    assert [one.prompt[0].content for one in task.test] == ["hc3 train 0", "hc3 train 1"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/hc3/test.jsonl: 2 usable pairs of 3 rows; 1 empty chosen (first {tmp_path}/hc3/test.jsonl:1)",
        f"{tmp_path}/hc3/train.jsonl: left out 2 of 3 training pairs with a prompt held out in "
        f"{tmp_path}/hc3/test.jsonl (first {tmp_path}/hc3/train.jsonl:1)",
    ]


LAYOUT = "NAME/train.jsonl and NAME/test.jsonl for every task"


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_file_is_named_with_the_tasks_that_are_there(tmp_path: Path, missing: str) -> None:
    for name in ("hh-helpful", "truthfulqa", "capybara"):
        write_task(tmp_path, name)
    (tmp_path / "capybara" / f"{missing}.jsonl").unlink()
    (tmp_path / "hh-helpful" / "train.jsonl").write_text("broken")  # what is missing is said before anything is read
    assert refusal(lambda: load_catalog_tasks(["hh-helpful", "capybara"], data_dir=tmp_path)) == (
        f"{tmp_path}/capybara/{missing}.jsonl",
        None,
        None,
        "no such file",
        f"{LAYOUT}; complete tasks in {tmp_path}: hh-helpful, truthfulqa",
    )


def test_a_missing_folder_is_told_from_an_empty_one(tmp_path: Path) -> None:
    fault = (f"{tmp_path}/data", None, None, "no such folder", f"a folder with {LAYOUT}")
    assert refusal(lambda: load_catalog_tasks(["hc3"], data_dir=tmp_path / "data")) == fault
    expected = f"{LAYOUT}; complete tasks in {tmp_path}: none"
    fault = (f"{tmp_path}/hc3/train.jsonl", None, None, "no such file", expected)
    assert refusal(lambda: load_catalog_tasks(["hc3"], data_dir=tmp_path)) == fault


@pytest.mark.skipif(not RAW.is_dir(), reason=f"real preference data is not at {RAW}")
def test_the_real_tasks_load_and_are_clean(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    names = ["hh-harmless", "hh-helpful", "safe-rlhf", "truthfulqa"]
    tasks = load_catalog_tasks(names, data_dir=RAW)
    assert {task.name: (len(task.train), len(task.test)) for task in tasks} == {
        "hh-harmless": (2995, 499),
        "hh-helpful": (2989, 498),
        "safe-rlhf": (2934, 174),
        "truthfulqa": (653, 41),
    }
    for task in tasks:
        assert checks.test_overlap(task.train, task.test) == 0  # safe-rlhf: 38 pairs of 5 held-out prompts left out
        for one in (*task.train, *task.test):
            assert one.chosen.strip() and one.rejected.strip() and one.chosen != one.rejected
            assert one.prompt[-1].role == "user"
    whole, part = tasks[3], load_catalog_tasks(["truthfulqa"], data_dir=RAW, train_pairs=50, test_pairs=10)[0]
    assert (part.train, part.test) == (whole.train[:50], whole.test[:10])


# ----------------------------------------------------------------------------------------------------------------- hub

Asked = list[tuple[str, dict[str, str]]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[dict[str, list[Row]], Asked]:
    """A hub of hand-made rows by split, and what it was asked; its clients are not imported."""
    splits: dict[str, list[Row]] = {}
    asked: Asked = []

    def load_dataset(path: str, **options: str) -> list[Row]:
        asked.append((path, options))
        return splits[options["split"]]

    def hf_hub_download(repo_id: str, filename: str, **options: str) -> str:
        asked.append((f"{repo_id}/{filename}", options))
        file = tmp_path / filename
        file.write_text("".join(json.dumps(row) + "\n" for row in splits["train"]))
        return str(file)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    return splits, asked


def talks(numbers: range) -> list[Row]:
    begun = [f"\n\nHuman: q {n}\n\nAssistant:" for n in numbers]
    return [{"chosen": f"{words} yes", "rejected": f"{words} no"} for words in begun]


def hc3_rows(numbers: range) -> list[Row]:
    return [{"question": f"q {n}", "human_answers": ["yes"], "chatgpt_answers": ["no"]} for n in numbers]


def safe_rows(numbers: range, answers: int = 1) -> list[Row]:
    return [
        {"prompt": f"q {n}", "response_0": f"no {a}", "response_1": f"yes {a}", "safer_response_id": 1}
        for n in numbers
        for a in range(answers)
    ]


def truthful_rows(numbers: range) -> list[Row]:
    return [{"question": f"q {n}", "best_answer": "yes", "incorrect_answers": ["no", "nay"]} for n in numbers]


ROWS = {"hc3": hc3_rows, "safe-rlhf": safe_rows, "truthfulqa": truthful_rows}


@pytest.mark.parametrize(
    ("name", "revision", "asked"),
    [
        ("capybara", None, [("argilla/Capybara-Preferences", {"split": "train"})]),
        ("capybara", "abc", [("argilla/Capybara-Preferences", {"split": "train", "revision": "abc"})]),
        ("hc3", None, [("Hello-SimpleAI/HC3/all.jsonl", {"repo_type": "dataset"})]),
        ("hc3", "abc", [("Hello-SimpleAI/HC3/all.jsonl", {"repo_type": "dataset", "revision": "abc"})]),
        (
            "hh-harmless",
            None,
            [("Anthropic/hh-rlhf", {"split": split, "data_dir": "harmless-base"}) for split in ("train", "test")],
        ),
        (
            "hh-helpful",
            "abc",
            [
                ("Anthropic/hh-rlhf", {"split": split, "data_dir": "helpful-base", "revision": "abc"})
                for split in ("train", "test")
            ],
        ),
        ("safe-rlhf", None, [("PKU-Alignment/PKU-SafeRLHF", {"split": split}) for split in ("train", "test")]),
        ("truthfulqa", None, [("truthfulqa/truthful_qa", {"split": "validation", "name": "generation"})]),
    ],
)
def test_each_task_asks_for_its_dataset_once_a_split(
    name: str, revision: str | None, asked: Asked, hub: tuple[dict[str, list[Row]], Asked]
) -> None:
    rows = ROWS.get(name, talks)
    hub[0].update(train=rows(range(1100)), validation=rows(range(1100)), test=rows(range(1100, 1110)))
    (task,) = load_catalog_tasks([name], revisions={name: revision} if revision else None)
    assert hub[1] == asked
    assert (task.name, task.train[0].prompt[0].content[:2]) == (name, "q ")
    assert {one.chosen for one in (*task.train, *task.test)} <= {"yes", "yes 0"}
    assert {one.rejected for one in (*task.train, *task.test)} <= {"no", "no 0", "no; nay"}


def test_two_splits_are_cleaned_drawn_and_kept_apart(
    hub: tuple[dict[str, list[Row]], Asked], caplog: pytest.LogCaptureFixture
) -> None:
    hub[0]["train"] = [*safe_rows(range(3500), answers=2), *safe_rows(range(1))]  # the last is a duplicate
    hub[0]["test"] = [*safe_rows(range(3400, 4600)), {**safe_rows(range(1))[0], "response_1": " "}]
    (task,) = load_catalog_tasks(["safe-rlhf"])
    assert (len(task.train), len(task.test)) == (3000, 1000)
    assert len({one.prompt for one in (*task.train, *task.test)}) == 4000
    numbers = {int(one.prompt[0].content.removeprefix("q ")) for one in task.train}
    assert max(numbers) < 3400 and numbers != set(range(3000))
    assert {one.chosen for one in task.train} == {"yes 0"}
    assert task.test[0].source.startswith("hub:PKU-Alignment/PKU-SafeRLHF:test:")
    assert [record.getMessage() for record in caplog.records] == [
        "hub:PKU-Alignment/PKU-SafeRLHF:train: 7 000 usable pairs of 7 001 rows; 1 duplicate (first "
        "hub:PKU-Alignment/PKU-SafeRLHF:train:7001)",
        "hub:PKU-Alignment/PKU-SafeRLHF:test: 1 200 usable pairs of 1 201 rows; 1 empty chosen (first "
        "hub:PKU-Alignment/PKU-SafeRLHF:test:1201)",
    ]


def test_one_split_serves_both_and_too_few_rows_are_said(
    hub: tuple[dict[str, list[Row]], Asked], caplog: pytest.LogCaptureFixture
) -> None:
    hub[0]["train"] = hc3_rows(range(1200))
    (task,) = load_catalog_tasks(["hc3"])
    assert (len(task.train), len(task.test)) == (200, 1000)
    assert checks.test_overlap(task.train, task.test) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "hc3: drew 200 training and 1000 held-out pairs, expected 3000 and 1000"
    ]
    (first,) = load_catalog_tasks(["hc3"], train_pairs=7, test_pairs=3)
    assert (first.train, first.test) == (task.train[:7], task.test[:3])  # smaller, but the same draw


@pytest.mark.parametrize(
    ("name", "place"),
    [("hh-helpful", "Anthropic/hh-rlhf/helpful-base:train"), ("hc3", "Hello-SimpleAI/HC3/all.jsonl")],
)
def test_a_hub_that_is_not_to_be_had_names_the_dataset_and_the_way_out(
    name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the hub\nmany more lines")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fail))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fail))
    assert refusal(lambda: load_catalog_tasks([name])) == (
        f"hub:{place}",
        None,
        None,
        "a dataset that does not load (ConnectionError: Couldn't reach the hub)",
        "the dataset, online or downloaded before; or --data DIR, a folder with NAME/train.jsonl and "
        "NAME/test.jsonl for every task",
    )


HAD = "when the catalog was written; load an earlier one with revisions"


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (
            "safe-rlhf",
            {"safer_response_id": -1},
            (
                "hub:PKU-Alignment/PKU-SafeRLHF:train",
                2,
                "response_-1",
                "an object with 'prompt', 'response_0', 'response_1', 'safer_response_id'",
                f"that column as PKU-Alignment/PKU-SafeRLHF had it {HAD}",
            ),
        ),
        (
            "hc3",
            {"human_answers": "yes"},
            (
                "hub:Hello-SimpleAI/HC3/all.jsonl",
                2,
                "human_answers",
                "the string 'yes'",
                f"that column as Hello-SimpleAI/HC3 had it {HAD}",
            ),
        ),
        (
            "hc3",
            {"question": 7},
            (
                "hub:Hello-SimpleAI/HC3/all.jsonl",
                2,
                "prompt",
                "a number (7)",
                "a string or a list of messages",
            ),
        ),
    ],
)
def test_a_row_that_the_publisher_changed_is_refused(
    name: str, change: Row, fault: Parts, hub: tuple[dict[str, list[Row]], Asked]
) -> None:
    rows = safe_rows(range(3)) if name == "safe-rlhf" else hc3_rows(range(3))
    rows[1] |= change
    hub[0]["train"] = rows
    assert refusal(lambda: load_catalog_tasks([name])) == fault


def test_an_empty_split_has_no_rows(hub: tuple[dict[str, list[Row]], Asked]) -> None:
    hub[0]["train"] = []
    fault = ("hub:Anthropic/hh-rlhf/helpful-base:train", None, None, "no rows", "at least one preference row")
    assert refusal(lambda: load_catalog_tasks(["hh-helpful"])) == fault


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["hc3", "capibara"], {}, f"task: found 'capibara', expected one of {NAMES}; did you mean capybara?"),
        (["mmlu"], {}, f"task: found 'mmlu', expected one of {NAMES}"),
        ([], {}, f"tasks: found none, expected at least one of {NAMES}"),
        (["hc3", "capybara", "hc3"], {}, "task: found 'hc3' twice, expected each task once"),
        (["hc3"], {"train_pairs": 0}, "train_pairs: found 0, expected at least 1, or None for all"),
        (["hc3"], {"test_pairs": -1}, "test_pairs: found -1, expected at least 0, or None for all"),
        (
            ["hc3"],
            {"revisions": {"hc4": "abc"}},
            f"revisions: found 'hc4', expected one of {NAMES}; did you mean hc3?",
        ),
        (
            ["hc3"],
            {"revisions": {"hc3": "abc"}, "data_dir": "x"},
            "revisions need tasks from the hub; leave out data_dir",
        ),
    ],
)
def test_message_for_what_cannot_be_asked(
    names: list[str], options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # nothing may be asked of the hub before
    with pytest.raises(ConfigError) as caught:
        load_catalog_tasks(names, **options)
    assert str(caught.value) == message and isinstance(caught.value, LifeAlignError)


# -------------------------------------------------------------------------------------------------- the paper's files

FILES = sorted((ROOT / "experiments").glob("paper_*.yaml"))
with_files = pytest.mark.skipif(not FILES, reason=f"the paper's experiments are not at {ROOT / 'experiments'}")


@with_files
def test_the_files_of_the_paper_differ_in_what_they_compare_and_in_nothing_else() -> None:
    experiments = {path.stem: load_experiment(path) for path in FILES}
    assert list(experiments) == [
        f"paper_{name}" for name in ("ablation", "lambda", "llama", "main", "mistral", "orders", "theta")
    ]
    assert len({one.output_dir for one in experiments.values()}) == len(experiments)
    backbones = {name: one.model.model_name_or_path for name, one in experiments.items()}
    assert backbones.pop("paper_mistral") == "mistralai/Mistral-7B-Instruct-v0.3"
    assert backbones.pop("paper_llama") == "meta-llama/Llama-3.1-8B-Instruct"
    assert set(backbones.values()) == {"Qwen/Qwen2.5-7B-Instruct"}
    own = {"output_dir": True, "compare": True, "model": {"model_name_or_path"}}
    shared = [one.model_dump(mode="json", exclude=own) for one in experiments.values()]
    assert all(settings == shared[0] for settings in shared)
    assert shared[0]["suite"] == "paper" and shared[0]["order"] == "order1"


@with_files
def test_the_files_of_the_paper_compare_what_the_paper_compares() -> None:
    compared = {path.stem.removeprefix("paper_"): load_experiment(path).compare for path in FILES}
    keys = {name: [variant.method.key for variant in one.methods] for name, one in compared.items()}
    assert sorted(keys.pop("main")) == sorted(set(METHODS) - {"cumulative"})  # ours is not in the paper
    for name in ("orders", "llama", "mistral"):
        assert set(keys.pop(name)) == {"er", "cppo", "lifealign"}
    assert all(set(methods) == {"lifealign"} for methods in keys.values())
    assert {name: one.orders for name, one in compared.items() if one.orders != ("order1",)} == {
        "orders": tuple(ORDERS)
    }

    def options(name: str) -> list[tuple[str, float, float, float]]:
        methods = [(variant.label, variant.method.model_dump()) for variant in compared[name].methods]
        return [(label, one["focal_exponent"], one["energy_kept"], one["overlap_kept"]) for label, one in methods]

    assert options("lambda") == [(f"lambda {n / 10}", 2, 0.9, n / 10) for n in range(11)]
    assert options("theta") == [(f"theta {n / 10}", 2, n / 10, 0.5) for n in range(1, 11)]
    assert options("ablation") == [
        ("neither", 0, 1, 1),
        ("SLMC only", 0, 0.9, 0.5),
        ("FPO only", 2, 1, 1),
        ("FPO and SLMC", 2, 0.9, 0.5),
    ]
