"""Cleaning and inspection: small files whose every count can be done by hand, and the facts of real raw data."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.refusals import refusal

from lifealign.data import clean as checks
from lifealign.data.clean import SCORES, SYSTEM_PROMPT, WORDS, read_clean, read_split
from lifealign.data.inspection import Spread, inspect
from lifealign.data.pair import Message, Pair
from lifealign.data.suites.paper import load_catalog_tasks
from lifealign.data.suites.support_desk import load_suite
from lifealign.data.task import Task
from lifealign.errors import ConfigError
from lifealign.experiments.settings import ExperimentConfig
from lifealign.experiments.tasks import load_tasks
from lifealign.model.token_counter import ModelTokens
from lifealign.settings.section import build_config

RAW = Path(__file__).parents[2].parent / "shared" / "data"


def write(path: Path, *rows: tuple[Any, Any, Any]) -> Path:
    names = ("prompt", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return path


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """Ten rows: four usable pairs, two of them in conflict, and one or more rows for each reason to drop."""
    return write(
        tmp_path / "rows.jsonl",
        ("a", "yes", "no"),
        (" \n", "yes", "no"),
        ("b", "", "no"),
        ("b", "yes", "\t"),
        ("b", "same", "same "),
        ("a", "yes", "no"),
        ("a", "no", "yes"),  # the opposite of row 1
        ("a", "yes", "no"),
        ("b", "longer", "short"),
        ([{"role": "system", "content": ""}, {"role": "user", "content": "b"}], "longer", "short"),
    )


def test_useless_rows_are_dropped_with_reason_and_place(dirty: Path) -> None:
    clean = read_clean(dirty)
    assert clean.rows == 10
    assert [pair.source for pair in clean.pairs] == [f"{dirty}:{line}" for line in (1, 7, 9, 10)]
    assert clean.shapes == {"standard": 9, "conversational": 1}
    assert clean.dropped == {
        "empty prompt": [f"{dirty}:2"],
        "empty chosen": [f"{dirty}:3"],
        "empty rejected": [f"{dirty}:4"],
        "identical answers": [f"{dirty}:5"],
        "duplicate": [f"{dirty}:6", f"{dirty}:8"],
    }


def test_conflicts_are_named_and_kept(dirty: Path) -> None:
    clean = read_clean(dirty)
    assert clean.conflicts == ((f"{dirty}:1", f"{dirty}:7"),)
    assert clean.pairs[0] == Pair((Message("user", "a"),), "yes", "no")
    assert clean.pairs[1] == Pair((Message("user", "a"),), "no", "yes")


def test_dropping_is_said_aloud_and_a_clean_file_is_silent(dirty: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_clean(dirty)
    assert caplog.record_tuples == [
        (
            "lifealign.data.clean",
            logging.WARNING,
            f"{dirty}: 4 usable pairs of 10 rows; 1 empty prompt (first {dirty}:2), 1 empty chosen (first {dirty}:3), "
            f"1 empty rejected (first {dirty}:4), 1 identical answers (first {dirty}:5), "
            f"2 duplicate (first {dirty}:6), 1 conflicting (kept)",
        )
    ]
    caplog.clear()
    read_clean(write(dirty.with_name("clean.jsonl"), ("a", "yes", "no")))
    assert not caplog.records


def test_unclear_transcripts_are_dropped_not_fatal(tmp_path: Path) -> None:
    good = {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a\n\nAssistant: c"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"rejected": "Human: z\n\nAssistant: c"}))
    clean = read_clean(path)
    assert clean.dropped == {"unclear transcript": [f"{path}:2"]}
    assert (len(clean.pairs), clean.rows, clean.shapes) == (1, 2, {"transcript": 2})


def test_no_pair_left_names_the_first_reason_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ("a", "same", "same"), ("a", "", "b"))
    for read in (read_clean, inspect):
        assert refusal(partial(read, path)) == (
            str(path),
            1,
            None,
            "no usable pair in 2 rows (here: identical answers)",
            "a prompt and two answers that differ in at least one row",
        )


def test_a_task_reads_clean_pairs(dirty: Path) -> None:
    test = write(dirty.with_name("test.jsonl"), ("c", "yes", "no"), ("c", "yes", "yes"))
    task = Task.from_files("letters", train=dirty, test=test)
    assert (len(task.train), len(task.test)) == (4, 1)


def test_pairs_with_a_held_out_prompt_are_left_out_and_counted(dirty: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = write(dirty.with_name("train.jsonl"), ("a", "1", "2"), ("b", "1", "2"), ("a", "2", "3"), ("a ", "1", "2"))
    test = write(dirty.with_name("test.jsonl"), ("a", "8", "9"), ("c", "1", "2"))
    learnt, held_out = read_split(train, test)
    assert [pair.prompt[0].content for pair in learnt] == ["b", "a "]
    assert [pair.prompt[0].content for pair in held_out] == ["a", "c"]
    message = f"{train}: left out 2 of 4 training pairs with a prompt held out in {test} (first {train}:1)"
    assert [record.getMessage() for record in caplog.records] == [message]
    caplog.clear()
    assert len(read_split(train)[0]) == 4 and not caplog.records


def test_every_way_to_a_task_leaves_held_out_prompts_out(tmp_path: Path) -> None:
    """Files of a task, of an experiment, of a folder for the paper's tasks: one mechanism."""
    folder = tmp_path / "hc3"
    folder.mkdir()
    rows = [(f"q {number}", "yes", "no") for number in range(6)]
    train, test = write(folder / "train.jsonl", *rows[:4]), write(folder / "test.jsonl", *rows[2:])
    settings = {"output_dir": str(tmp_path / "life"), "model": {"model_name_or_path": "none"}}
    task = {"name": "hc3", "train": str(train), "test": str(test)}
    tasks = [
        Task.from_files("hc3", train, test),
        *load_tasks(build_config(ExperimentConfig, settings | {"tasks": [task]})),
        *load_tasks(build_config(ExperimentConfig, settings | {"tasks": [task | {"max_test": 1}]})),
        *load_catalog_tasks(["hc3"], data_dir=tmp_path),
        *load_catalog_tasks(["hc3"], data_dir=tmp_path, test_pairs=0),
    ]
    assert [[pair.prompt[0].content for pair in task.train] for task in tasks] == [["q 0", "q 1"]] * 5
    assert [len(task.test) for task in tasks] == [4, 4, 1, 4, 0]  # a held-out pair that is not scored stays unlearnt
    limited = build_config(ExperimentConfig, settings | {"tasks": [task | {"max_train": 1}]})
    assert [pair.prompt[0].content for pair in load_tasks(limited)[0].train] == ["q 0"]


def test_a_file_held_out_from_itself_leaves_nothing(dirty: Path) -> None:
    assert refusal(lambda: Task.from_files("letters", train=dirty, test=dirty)) == (
        str(dirty),
        None,
        None,
        f"only prompts that are held out in {dirty}",
        "at least one training prompt that is not held out",
    )


def test_the_house_rules_hold_out_no_prompt_of_their_own_training() -> None:
    for held_out in ("dev", "test"):
        for task in load_suite(held_out=held_out):
            assert checks.test_overlap(task.train, task.test) == 0


def test_overlap_counts_distinct_prompts() -> None:
    def pair(prompt: str, chosen: str) -> Pair:
        return Pair((Message("user", prompt),), chosen, "no")

    train = [pair("a", "1"), pair("a", "2"), pair("b", "1")]
    assert checks.test_overlap(train, [pair("a", "3"), pair("a", "4"), pair("c", "1")]) == 1
    assert checks.test_overlap(train, train) == 2
    assert checks.test_overlap(train, []) == 0


def test_spread_takes_nearest_ranks() -> None:
    assert Spread.of([7]) == (7, 7, 7, 7)
    assert Spread.of([4, 3, 2, 1]) == (1, 2, 4, 4)
    assert Spread.of(range(1, 21)) == (1, 10, 19, 20)
    assert Spread.of(range(1, 101)) == (1, 50, 95, 100)


@settings(deadline=None)
@given(st.lists(st.integers(), min_size=1))
def test_spread_is_ordered_and_made_of_its_counts(counts: list[int]) -> None:
    spread = Spread.of(counts)
    assert list(spread) == sorted(spread) and set(spread) <= set(counts)
    assert 2 * sum(count <= spread.median for count in counts) >= len(counts)
    assert 100 * sum(count <= spread.p95 for count in counts) >= 95 * len(counts)


def test_report_counts_prompts_turns_and_words(dirty: Path) -> None:
    report = inspect(dirty)
    assert report.clean == read_clean(dirty)
    assert (report.prompts, report.repeated, report.most_repeated) == (3, 1, 2)
    assert report.turns == (1, 1, 2, 2)
    assert report.words["prompt"] == (1, 1, 1, 1)
    assert report.tokens == {} and report.special == {} and report.too_long == ()


@pytest.mark.parametrize(
    ("lengths", "longer", "accuracy"),
    [
        ([(2, 1), (2, 1), (2, 1), (1, 2)], 0.75, 0.75),
        ([(1, 2), (1, 2), (1, 2), (2, 1)], 0.25, 0.75),  # the rule may as well be: shorter
        ([(2, 1), (1, 1), (1, 1), (1, 1)], 0.625, 0.625),  # ties are half right
        ([(1, 1)], 0.5, 0.5),
    ],
)
def test_length_only_accuracy(tmp_path: Path, lengths: list[tuple[int, int]], longer: float, accuracy: float) -> None:
    rows = [(f"p{i}", "c" * chosen, "r" * rejected) for i, (chosen, rejected) in enumerate(lengths)]
    report = inspect(write(tmp_path / "rows.jsonl", *rows))
    assert (report.longer_chosen, report.length_only_accuracy) == (longer, accuracy)
    assert any("Length alone" in warning for warning in report.warnings) == (accuracy >= 0.75)


@pytest.mark.parametrize(
    "control", ["<|im_start|>", "<|eot_id|>", "<\uff5cUser\uff5c>", "<s>", "</s>", "<eos>", "<end_of_turn>", "[/INST]"]
)
def test_control_strings_are_counted_wherever_they_stand(tmp_path: Path, control: str) -> None:
    rows = [(f"a{control}b", f"{control}{control}", "c"), ("plain", "a < b | c > d [INSTALL]", f"x {control}")]
    report = inspect(write(tmp_path / "rows.jsonl", *rows))
    assert report.special == {control: 4}
    assert any(warning.startswith("4 control strings") and control in warning for warning in report.warnings)


class LetterTokenizer:
    """One token a letter; its template writes ``role:content;`` a message, and ``a:`` before the answer."""

    chat_template: str | None = (
        "{% for message in messages %}"
        "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ message.role[0] }}:{{ message.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    special_tokens_map: ClassVar[dict[str, str]] = {}

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def letters() -> ModelTokens:
    """Counts with a tokenizer of the tests' own."""
    tokenizer: Any = LetterTokenizer()
    return ModelTokens(tokenizer)


def test_tokens_are_counted_with_the_template(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ("abc", "1234", "12345"), ("abcd", "1", "12"))
    report = inspect(path, tokens := letters(), max_length=9)
    assert report.tokens["prompt"] == (8, 8, 9, 9)  # u:abc;a: and u:abcd;a:
    assert report.tokens["chosen"] == (1, 1, 4, 4)
    assert report.tokens["rejected"] == (2, 2, 5, 5)
    assert report.too_long == (f"{path}:2",)  # 9 of 9 tokens leave none for an answer
    assert inspect(path, tokens, max_length=10).too_long == ()
    assert inspect(path, tokens).too_long == ()
    tokens.tokenizer.chat_template = None
    assert inspect(path, tokens).tokens["prompt"] == (3, 3, 4, 4)


def test_a_prompt_the_template_refuses_is_named(dirty: Path) -> None:
    assert refusal(lambda: inspect(dirty, letters())) == (
        str(dirty),
        10,
        None,
        "a prompt that the chat template refuses (System role not supported)",
        "roles that this model knows",
    )


@pytest.mark.parametrize(
    ("tokens", "max_length", "message"),
    [
        (None, 5, "max_length needs a tokenizer to count with; add one"),
        (letters(), 0, "max_length: found 0, expected at least 1 token"),
    ],
)
def test_max_length_needs_a_tokenizer_and_room(
    dirty: Path, tokens: ModelTokens | None, max_length: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        inspect(dirty, tokens, max_length)
    assert str(caught.value) == message


def test_report_reads_verdict_first_warnings_last(dirty: Path) -> None:
    assert (
        inspect(dirty).render()
        == f"""\
{dirty}: 4 usable pairs of 10 rows

  shapes    standard 9, conversational 1
  dropped   1 empty prompt (line 2)
  dropped   1 empty chosen (line 3)
  dropped   1 empty rejected (line 4)
  dropped   1 identical answers (line 5)
  dropped   2 duplicate (lines 6, 8)
  prompts   3 different, 1 repetition; the most common one occurs 2 times
  turns     1 to 2 in a prompt, median 1
  length    alone predicts 75.0% of the labels (longer is chosen)

  words          min   median      p95      max
  prompt           1        1        1        1
  chosen           1        1        1        1
  rejected         1        1        1        1

  ! 60.0% of the rows are dropped. Look at the lines named above.
  ! Length alone predicts 75.0% of the labels, so a model may learn to write longer answers and nothing else. \
Add pairs whose chosen answer is the shorter one.
  ! 1 pair contradicts an earlier one (first: lines 1 and 7). Both are kept; delete the wrong one."""
    )


def test_report_of_a_good_file_has_no_warning_and_lists_tokens(tmp_path: Path) -> None:
    rows = [("a", "long", "it"), ("b", "it", "long")]
    text = inspect(write(tmp_path / "rows.jsonl", *rows), letters(), 100).render()
    assert "!" not in text
    assert text.endswith("  rejected         2        2        4        4")
    assert "  tokens         min   median      p95      max\n  prompt           6        6        6        6\n" in text


def test_too_long_prompts_are_warned_of(tmp_path: Path) -> None:
    rows = [("a", "long", "it"), ("b" * 2000, "it", "long")]
    report = inspect(write(tmp_path / "rows.jsonl", *rows), letters(), 1000)
    assert report.warnings == (
        "1 prompt takes up all of max_length 1000 (first: line 2), leaving no room for an answer. "
        "Raise max_length, or shorten the prompts.",
    )
    assert "   2 005\n" in report.render()  # 2000 letters, u: ; a: around them


# ------------------------------------------------------------------------------------------- kept in doubt, and ignored


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_words_for_nothing_are_counted_wherever_a_whole_text_is_one(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        ("a", "None", "nan"),  # one row, one count
        ("b", "fine", " NULL\n"),
        ("nan", "fine", "x"),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "N/A"}, *USER], "fine", "x"),
        ("c", "None of them", "nano"),
        ("d", "none", "no"),
    )
    clean = read_clean(path)
    assert len(clean.pairs) == 6
    assert clean.suspicious == {WORDS: [f"{path}:{line}" for line in (1, 2, 3, 4, 6)]}
    assert inspect(path).warnings[-1] == (
        "5 rows have a text that is only a word like nan or None (lines 1, 2, 3, 4, 6), kept. "
        "Delete the rows where a text is missing."
    )


USER = [{"role": "user", "content": "Hi"}]
ROW = {"prompt": "a", "chosen": "yes", "rejected": "no"}


def test_scores_that_do_not_put_chosen_first_are_counted_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"score_chosen": 5, "score_rejected": 5},
        {"score_chosen": 3, "score_rejected": 8},
        {"score_chosen": 8, "score_rejected": 3},
        {"chosen_rating": "2", "rejected_rating": "10"},  # numbers, not texts, though CSV has texts only
        {"chosen_score": None, "rejected_score": 4},
        {"chosen_score": 1, "rejected_score": True},
        {"reward_chosen": 0.5, "reward_rejected": float("nan")},
        {"rating_chosen": 1, "rejected_rating": 4},  # of two pairs
        {"score_chosen": -1, "score_rejected": -0.5, "reward_chosen": 2, "reward_rejected": 1},
    ]
    path = lines(tmp_path / "rows.jsonl", *(ROW | {"prompt": f"q {n}"} | row for n, row in enumerate(rows)))
    clean = read_clean(path)
    assert len(clean.pairs) == 9
    assert clean.suspicious == {SCORES: [f"{path}:{line}" for line in (1, 2, 4, 9)]}
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 9 usable pairs of 9 rows; 4 with chosen scored no higher than rejected (kept, first {path}:1)"
    ]
    assert inspect(path).warnings[-1] == (
        "4 rows score the chosen answer no higher than the rejected one (lines 1, 2, 4, 9), kept. "
        "Swap the answers or delete the rows where that is wrong."
    )


def test_a_prompt_taken_as_system_message_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = {name: [*USER, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    path = lines(tmp_path / "rows.jsonl", {"prompt": "Hi", **answers}, {"prompt": "Rhyme.", **answers})
    clean = read_clean(path)
    assert clean.shapes == {"implicit": 1, "system prompt": 1}
    assert clean.suspicious == {SYSTEM_PROMPT: [f"{path}:2"]}
    assert caplog.messages == [
        f"{path}: 2 usable pairs of 2 rows; 1 with the prompt taken as system message (kept, first {path}:2)"
    ]
    assert inspect(path).warnings[-1] == (
        "1 row has a prompt that is not a turn of the conversation beside it (line 2), kept. "
        "It becomes the system message; rename or drop the column if it is not one."
    )


def test_columns_that_are_added_and_ignored_are_named(tmp_path: Path) -> None:
    rows = [
        ROW | {"prompt_id": 7, "system": "Be kind.", "note": None, "flag": False},
        ROW | {"prompt": [{**USER[0], "id": 3}], "score_chosen": 2, "system": "", "\x1b[31m": 1, "flag": True},
        ROW | {"prompt": "b", "input": "c", "history": [["a", "b"]], "prompt_id": 8, "flag": False},
    ]
    report = inspect(lines(tmp_path / "rows.jsonl", *rows))
    assert report.clean.added == {"system": 1, "input": 1, "history": 1}
    assert report.clean.ignored == {"prompt_id": 2, "flag": 3, "score_chosen": 1, "\x1b[31m": 1, "prompt[].id": 1}
    assert (
        "  added     system (in 1 of 3 rows), history (in 1 of 3 rows), input (in 1 of 3 rows)\n"
        "  ignored   prompt_id (in 2 of 3 rows), flag, score_chosen (in 1 of 3 rows), '\\x1b[31m' (in 1 of 3 rows), "
        "prompt[].id (in 1 of 3 rows)\n"
    ) in report.render()


def test_a_file_of_many_columns_is_named_in_one_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", ROW | {f"c{number}": 1 for number in range(1000)})
    ignored = next(line for line in inspect(path).render().splitlines() if "ignored" in line)
    assert ignored.startswith("  ignored   c0, c1, c2, ") and ignored.endswith(", c29 and 970 more")


# ------------------------------------------------------------------------------------------------------ real raw data

raw = pytest.mark.skipif(not RAW.is_dir(), reason="no raw preference data in ../shared/data beside the checkout")


@raw
@pytest.mark.parametrize(
    ("file", "rows", "dropped"),
    [
        ("safe-rlhf/train", 2985, {"empty chosen": 13}),
        ("safe-rlhf/test", 174, {}),
        ("hh-helpful/train", 3000, {"identical answers": 6, "empty rejected": 5}),
        ("hh-helpful/test", 500, {"empty rejected": 2}),
        ("hh-harmless/train", 3000, {"empty chosen": 4, "empty rejected": 1}),
        ("hh-harmless/test", 500, {"empty chosen": 1}),
        ("truthfulqa/train", 653, {}),
        ("truthfulqa/test", 41, {}),
    ],
)
def test_raw_files_lose_only_empty_and_identical_answers(file: str, rows: int, dropped: dict[str, int]) -> None:
    clean = read_clean(RAW / f"{file}.jsonl")
    assert {reason: len(places) for reason, places in clean.dropped.items()} == dropped
    assert clean.rows == rows == len(clean.pairs) + sum(dropped.values())
    assert clean.shapes == {"transcript" if file.startswith("hh") else "query": rows}


@raw
@pytest.mark.parametrize("file", ["hh-helpful/train", "hh-helpful/test", "hh-harmless/train", "hh-harmless/test"])
def test_hh_transcripts_become_turns_and_answers_lose_the_speaker(file: str) -> None:
    pairs = read_clean(RAW / f"{file}.jsonl").pairs
    assert max(len(pair.prompt) for pair in pairs) > 5
    for pair in pairs:
        roles = [message.role for message in pair.prompt]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert not pair.chosen.startswith("Assistant:") and not pair.rejected.startswith("Assistant:")
        assert not any(message.content.startswith(("Human:\n", "Assistant:\n")) for message in pair.prompt)


@raw
def test_hh_prompts_that_end_with_the_assistant_begin_the_answer() -> None:
    path = RAW / "hh-helpful" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    ends = {
        f"{path}:{n}"
        for n, row in enumerate(rows, 1)
        if row["query"].rfind("\nAssistant:") > row["query"].rfind("\nHuman:")
    }
    pairs = {pair.source: pair for pair in read_clean(path).pairs}
    assert len(ends) == 166
    for place in ends & pairs.keys():
        row = rows[int(place.rpartition(":")[2]) - 1]
        begun = row["query"].rpartition("\nAssistant:")[2].strip()
        assert pairs[place].chosen == f"{begun}\n{row['chosen'].strip()}"  # none of these has a speaker of its own


@raw
def test_truthfulqa_labels_can_be_told_from_length_alone() -> None:
    report = inspect(RAW / "truthfulqa" / "train.jsonl")
    assert report.length_only_accuracy > 0.9 and report.longer_chosen < 0.1
    assert report.warnings[0].startswith("Length alone predicts 95.9% of the labels")
    assert inspect(RAW / "hh-helpful" / "train.jsonl").length_only_accuracy < 0.7


@raw
def test_safe_rlhf_repeats_prompts_within_and_across_files() -> None:
    train, test = (RAW / "safe-rlhf" / f"{split}.jsonl" for split in ("train", "test"))
    report = inspect(train)
    assert (report.repeated, report.most_repeated) == (61, 19)
    queries = [{json.loads(line)["query"] for line in path.read_text().splitlines()} for path in (train, test)]
    assert checks.test_overlap(read_clean(train).pairs, read_clean(test).pairs) == len(queries[0] & queries[1]) == 5


def test_the_name_of_the_overlap_count_is_not_taken_for_a_test() -> None:
    assert checks.test_overlap.__test__ is False
