"""Row shapes and file kinds: what each becomes, and what is said of each way a file can be wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.refusals import refusal

from lifealign.data import files
from lifealign.data.columns import FOREIGN
from lifealign.data.files import read_rows
from lifealign.data.formats import SHAPES, UnclearTranscript, parse_row, read_pairs
from lifealign.data.pair import Message, Pair
from lifealign.errors import DataError

ROW = {"prompt": "Hi", "chosen": "yes", "rejected": "no"}
LINE = json.dumps(ROW)
ASK = (Message("user", "Hi"),)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


USER, YES, NO = turn("user", "Hi"), turn("assistant", "yes"), turn("assistant", "no")
SYSTEM = turn("system", "Be kind")


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (ROW, "standard"),
        ({"query": "Hi", "chosen": "yes", "rejected": "no"}, "query"),
        ({"prompt": "Hi", "query": " Hi ", "chosen": "yes", "rejected": "no"}, "standard"),
        ({"instruction": "Hi", "input": "", "chosen": "yes", "rejected": "no"}, "instruction"),
        (ROW | {"id": 7, "score_chosen": 9.5, "messages": [USER, YES], "prompt_id": None}, "standard"),
        ({"prompt": [USER], "chosen": [YES], "rejected": [NO]}, "conversational"),
        ({"prompt": "Hi", "chosen": [YES], "rejected": [NO]}, "conversational"),
        ({"prompt": [USER], "chosen": "yes", "rejected": "no"}, "conversational"),
        ({"chosen": [USER, YES], "rejected": [USER, NO]}, "implicit"),
        ({"prompt": "Hi", "chosen": [USER, YES], "rejected": [USER, NO]}, "implicit"),
        ({"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]}, "implicit"),
        ({"query": "Human: Hi", "chosen": "Assistant: yes", "rejected": "Assistant: no"}, "transcript"),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " yes", "rejected": " no"}, "transcript"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: yes", "rejected": "\n\nHuman: Hi\n\nAssistant: no"}, "transcript"),
    ],
)
def test_every_shape_says_the_same_pair(row: dict[str, Any], shape: str) -> None:
    pair, name = parse_row(row, "rows.jsonl", 3)
    assert (pair, name, pair.source) == (Pair(ASK, "yes", "no"), shape, "rows.jsonl:3")


def test_messages_before_the_answer_are_the_prompt() -> None:
    beginning = [SYSTEM, USER, turn("assistant", "Hello"), turn("user", "Is it?")]
    expected = Pair(tuple(Message(**message) for message in beginning), "yes", "no")
    assert parse_row({"chosen": [*beginning, YES], "rejected": [*beginning, NO]}, "f", 1)[0] == expected
    assert parse_row({"prompt": beginning, "chosen": [YES], "rejected": [NO]}, "f", 1)[0] == expected


def test_equal_conversations_keep_their_last_turn_as_the_answer() -> None:
    pair, _ = parse_row({"chosen": [USER, YES], "rejected": [USER, YES]}, "f", 1)
    assert pair == Pair(ASK, "yes", "yes")


def transcript(query: str, chosen: str, rejected: str) -> tuple[list[tuple[str, str]], str, str]:
    pair, shape = parse_row({"query": query, "chosen": chosen, "rejected": rejected}, "f", 1)
    assert shape == "transcript"
    return [tuple(message) for message in pair.prompt], pair.chosen, pair.rejected


def test_transcript_turns_start_at_line_starts_only() -> None:
    query = (
        "Human: Who said 'Human: me'?\n Assistant: here is text\nAssistant: A poet.\n\n1) one\n2) two\nHuman: Which?"
    )
    assert transcript(query, "Assistant:  He\n", "She")[0] == [
        ("user", "Who said 'Human: me'?\n Assistant: here is text"),
        ("assistant", "A poet.\n\n1) one\n2) two"),
        ("user", "Which?"),
    ]


def test_answers_to_a_transcript_lose_every_leading_speaker_and_outer_whitespace() -> None:
    assert transcript("Human: Hi", "\nAssistant: Assistant: yes ", " no, Assistant: said he")[1:] == (
        "yes",
        "no, Assistant: said he",
    )


def test_neighbouring_turns_of_one_speaker_are_one() -> None:
    assert transcript("Human: a\nHuman: b\nAssistant:\nHuman: c", "x", "y")[0] == [
        ("user", "a\nb"),
        ("assistant", ""),
        ("user", "c"),
    ]


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("2) b", "Assistant: other", ("1) a\n2) b", "other")),  # the turn is the beginning of the one that goes on
        ("Assistant: other", "2) b", ("other", "1) a\n2) b")),
        ("2) b", "2) c", ("1) a\n2) b", "1) a\n2) c")),
        ("Assistant: b", "Assistant: c", ("1) a\nb", "1) a\nc")),  # neighbouring turns of one speaker
    ],
)
def test_last_assistant_turn_of_a_transcript_begins_the_answers(
    chosen: str, rejected: str, expected: tuple[str, str]
) -> None:
    assert transcript("Human: List\nAssistant: 1) a", chosen, rejected) == ([("user", "List")], *expected)


@pytest.mark.parametrize("prompt", ["What does 'Human: x' mean?", "Assistant: hi", "Line\nHuman: hi", "human: hi"])
def test_text_that_only_mentions_speakers_is_no_transcript(prompt: str) -> None:
    pair, shape = parse_row({"prompt": prompt, "chosen": "Assistant: yes", "rejected": " no"}, "f", 1)
    assert (pair, shape) == (Pair((Message("user", prompt),), "Assistant: yes", " no"), "standard")


def test_transcripts_that_part_early_are_told_apart_from_broken_rows() -> None:
    row = {"chosen": "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "rejected": "Human: a\n\nAssistant: x"}
    assert refusal(lambda: parse_row(row, "f", 1), UnclearTranscript) == (
        "f",
        1,
        "chosen",
        "assistant, user, assistant after the turn that chosen and rejected share",
        "one turn, the assistant's answer",
    )


ANSWERS = {"chosen": "yes", "rejected": "no"}
TURNS = "user and assistant take turns, after at most one system message"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([1, 2], (None, "a list of 2", f"an object with {SHAPES}")),
        (None, (None, "null", f"an object with {SHAPES}")),
        ({}, ("chosen", "no fields", SHAPES)),
        ({"prompt": "p", "answer": "a"}, ("chosen", "no such field among 'prompt', 'answer'", SHAPES)),
        ({"prompt": "p", "chosen": "a"}, ("rejected", "no such field among 'prompt', 'chosen'", SHAPES)),
        (ANSWERS, ("prompt", "no such field among 'chosen', 'rejected'", SHAPES)),
        (ROW | {"chosen": 7}, ("chosen", "a number (7)", "a string or a list of messages")),
        (ROW | {"rejected": None}, ("rejected", "null", "a string or a list of messages")),
        (ROW | {"prompt": True}, ("prompt", "a boolean (true)", "a string or a list of messages")),
        (ROW | {"prompt": []}, ("prompt", "a list of 0", "a string or a list of messages")),
        (ROW | {"chosen": ["a"]}, ("chosen[0]", "the string 'a'", "a message with role and content")),
        (
            ROW | {"prompt": [{"content": "x"}]},
            ("prompt[0].role", "no such field among 'content'", "a string"),
        ),
        (
            ROW | {"prompt": [{"role": "user"}]},
            ("prompt[0].content", "no such field among 'role'", "a string"),
        ),
        (
            ROW | {"prompt": [{"role": "user", "content": None}]},
            ("prompt[0].content", "null", "a string"),
        ),
        (
            ROW | {"prompt": [turn("tool", "x")]},
            ("prompt[0].role", "the string 'tool'", "'system', 'user' or 'assistant'"),
        ),
        (ROW | {"prompt": [USER, USER]}, ("prompt[1].role", "'user'", f"'assistant': {TURNS}")),
        (ROW | {"prompt": [YES, USER]}, ("prompt[0].role", "'assistant'", f"'user': {TURNS}")),
        (ROW | {"prompt": [SYSTEM, SYSTEM, USER]}, ("prompt[1].role", "'system'", f"'user': {TURNS}")),
        (
            ROW | {"prompt": [USER, YES]},
            ("prompt", "a last turn from the assistant", "a prompt that ends with the user's turn"),
        ),
        (
            ROW | {"prompt": [SYSTEM]},
            ("prompt", "no turn from the user", "a prompt that ends with the user's turn"),
        ),
        (ROW | {"chosen": [USER]}, ("chosen", "messages from user", "one message, from the assistant")),
        (
            {"chosen": [YES], "rejected": [NO]},
            ("chosen", "no turn from the user", "a prompt that ends with the user's turn"),
        ),
        (
            {"chosen": [USER, YES], "rejected": [USER, NO, USER]},
            (
                "rejected",
                "assistant, user after the turn that chosen and rejected share",
                "one turn, the assistant's answer",
            ),
        ),
        (
            {"prompt": [turn("user", "Bye")], "chosen": [USER, YES], "rejected": [USER, NO]},
            (
                "prompt",
                "messages that chosen and rejected do not begin with",
                "the conversation up to the answer, or answers of one message each",
            ),
        ),
        (
            ROW | {"chosen": "ab\ud800"},
            ("chosen", "half a character (lone surrogate U+D800) at position 2", "text without it"),
        ),
        (ROW | {"prompt": "\0"}, ("prompt", "a NUL character at position 0", "text without it")),
        (
            ROW | {"prompt": [turn("user", "a\0")]},
            ("prompt[0].content", "a NUL character at position 1", "text without it"),
        ),
    ],
)
def test_a_bad_row_is_refused_with_its_field(row: object, fault: tuple[str | None, str, str]) -> None:
    assert refusal(lambda: parse_row(row, "rows.jsonl", 3)) == ("rows.jsonl", 3, *fault)


def test_a_refusal_reads_as_one_line() -> None:
    with pytest.raises(DataError) as caught:
        parse_row(ROW | {"chosen": 7}, "rows.jsonl", 3)
    assert str(caught.value) == ("rows.jsonl:3: chosen: found a number (7), expected a string or a list of messages")


WORDS = st.sampled_from(["Human: a", "Human: a\nAssistant: b", "Assistant: c", "user", "assistant", "system", "", "\0"])
NAMES = st.sampled_from(["prompt", "query", "chosen", "rejected", "role", "content", "from", "value", "messages"])
TEXT = WORDS | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=5),
    max_leaves=20,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": WORDS, "content": TEXT}), max_size=4)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        name: JSON | MESSAGES | TEXT
        for name in ("prompt", "query", "chosen", "rejected", *(name for names in FOREIGN.values() for name in names))
    },
)


@settings(max_examples=300, deadline=None)
@given(row=JSON | ROWS)
@example(row=ROW)
def test_any_json_value_is_a_pair_or_a_data_error(row: Any) -> None:
    try:
        pair, shape = parse_row(row, "f", 1)
    except DataError as error:
        assert str(error).startswith("f:1: ") and ", expected " in str(error)
    else:
        roles = [message.role for message in pair.prompt]
        turns = roles[roles[0] == "system" :]
        assert turns == [("user", "assistant")[i % 2] for i in range(len(turns))] and roles[-1] == "user"
        assert shape in (
            *("standard", "query", "instruction", "conversational"),
            *("implicit", "system prompt", "transcript"),
            *FOREIGN,
        )
        assert len(pair.key) == 32


# --------------------------------------------------------------------------------------------------------------- files


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


CSV = 'prompt,chosen,rejected\nHi,yes,no\n\n"two\nlines","a ""quote""",b\n'


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("rows.jsonl", f"{LINE}\n{LINE}\n", [1, 2]),
        ("rows.jsonl", f"\r\n{LINE}\r\n\r\n{LINE}", [2, 4]),  # blank lines, Windows ends, no last newline
        ("rows.jsonl", b"\xef\xbb\xbf" + LINE.encode(), [1]),
        ("rows.jsonl", f"[{LINE},\n\n{LINE}]", [1, 2]),  # an array: record numbers
        ("rows.json", f"  [\n{LINE}\n]\n", [1]),
        ("rows.json", b"\xef\xbb\xbf[" + LINE.encode() + b"]", [1]),
        ("rows.json", f"{LINE}\n{LINE}\n", [1, 2]),  # JSON lines under another name
        ("rows.csv", "prompt,chosen,rejected\nHi,yes,no\n\nHi,yes,no\n", [2, 4]),
        ("rows.csv", b"\xef\xbb\xbfprompt,chosen,rejected\r\nHi,yes,no\r\n", [2]),
    ],
)
def test_file_kinds_and_line_numbers(tmp_path: Path, name: str, content: str | bytes, lines: list[int]) -> None:
    assert list(read_rows(write(tmp_path, name, content))) == [(line, ROW) for line in lines]


def test_csv_cells_may_hold_lines_quotes_and_long_texts(tmp_path: Path) -> None:
    long = "x" * 200_000  # above the csv module's own limit
    path = write(tmp_path, "rows.csv", CSV + f"{long},c,r\n")
    assert [(line, row["prompt"], row["chosen"]) for line, row in read_rows(path)] == [
        (2, "Hi", "yes"),
        (4, "two\nlines", 'a "quote"'),
        (6, long, "c"),
    ]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.bin"])
def test_parquet_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    rows = [
        {"prompt": [USER], "chosen": [YES], "rejected": [NO], "score": 1.5},
        {"prompt": [USER], "chosen": [NO], "rejected": [YES], "score": None},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    pairs = read_pairs(tmp_path / name)
    assert pairs == [Pair(ASK, "yes", "no"), Pair(ASK, "no", "yes")]
    assert pairs[1].source == f"{tmp_path / name}:2"


PACKED_KINDS = "a plain file, or one compressed once with gzip; unpack it first"
PACKED = (None, None, "compressed data (zip, zstd or gzip in gzip)", PACKED_KINDS)
CUT = "(the last line: the file seems cut short)"
DEEP = "[" * 100_000
BAD_JSON = "one object per line, or one array of objects"
WHOLE = "a complete object on one line, or a complete array"
UTF8 = "UTF-8; save the file in that encoding"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("rows.jsonl", "", (None, None, "no rows", "at least one preference row")),
        ("rows.jsonl", " \n\n", (None, None, "no rows", "at least one preference row")),
        ("rows.json", "[]", (None, None, "no rows", "at least one preference row")),
        ("rows.csv", "prompt,chosen,rejected\n", (None, None, "no rows", "at least one preference row")),
        ("rows.parquet", "", (None, None, "no rows", "at least one preference row")),
        (
            "rows.jsonl",
            f"{LINE}\n{{'prompt': 1}}\n{LINE}\n",
            (2, None, "broken JSON at 2:2 (Expecting property name enclosed in double quotes)", BAD_JSON),
        ),
        ("rows.jsonl", LINE + LINE, (1, None, f"broken JSON at 1:{len(LINE) + 1} (Extra data)", BAD_JSON)),
        (
            "rows.jsonl",
            f"{LINE}\n{LINE[:20]}",
            (2, None, f"JSON that breaks off at 2:18 {CUT}", WHOLE),
        ),
        (
            "rows.jsonl",
            f"{LINE}\n{LINE[:-1]}",
            (2, None, f"JSON that breaks off at 2:{len(LINE)} {CUT}", WHOLE),
        ),
        ("rows.json", '{\n "prompt": 1\n}\n', (1, None, "JSON that breaks off at 1:2", WHOLE)),
        (
            "rows.json",
            f"[\n{LINE},\n{LINE}\n",
            (3, None, f"JSON that breaks off at 3:{len(LINE) + 1}", WHOLE),
        ),
        ("rows.json", "[\n{},\n{} {}]", (3, None, "broken JSON at 3:4 (Expecting ',' delimiter)", BAD_JSON)),
        (
            "rows.jsonl",
            f'{LINE}\n{{"prompt": "a", "chosen": "b", "chosen": "c"}}\n',
            (2, "chosen", "the key twice", "each key once"),
        ),
        ("rows.jsonl", f"{LINE}\n{DEEP}\n", (2, None, "JSON nested too deep to parse", "flat rows")),
        ("rows.json", DEEP, (None, None, "JSON nested too deep to parse", "flat rows")),
        (
            "rows.jsonl",
            f"{LINE}\n".encode() + b'{"prompt": "\xe9"}',
            (2, None, f"byte 0xe9 at offset {len(LINE) + 1 + 12}, which is not UTF-8", UTF8),
        ),
        ("rows.json", b'[{"prompt": "\xff"}]', (None, None, "byte 0xff at offset 13, which is not UTF-8", UTF8)),
        ("rows.csv", b"prompt\n\xe9\n", (2, None, "byte 0xe9 at offset 7, which is not UTF-8", UTF8)),
        ("rows.jsonl", LINE.encode("utf-16"), (None, None, "UTF-16 text", UTF8)),
        ("rows.jsonl", LINE.encode("utf-16-le"), (None, None, "UTF-16 text", UTF8)),
        ("rows.csv", CSV.encode("utf-16"), (None, None, "UTF-16 text", UTF8)),
        ("rows.jsonl", b"\x28\xb5\x2f\xfddata", PACKED),
        ("rows.csv", b"PK\x03\x04data", PACKED),
        (
            "rows.parquet",
            LINE,
            (None, None, "content that is not Parquet", "Parquet, because the file name ends in .parquet"),
        ),
        ("rows.csv", "a,b,a\n1,2,3\n", (1, "a", "the column twice", "each column once")),
        ("rows.csv", "a,b\n1,2\n1,2,3\n", (3, None, "3 cells", "2, as in the header")),
        (
            "rows.csv",
            'a,b\n1,2\n"1,2\n',
            (3, None, "broken CSV (unexpected end of data)", "commas between cells, \"quotes\" around text"),
        ),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, fault: tuple[int | None, str | None, str, str]
) -> None:
    path = write(tmp_path, name, content)
    assert refusal(lambda: list(read_rows(path))) == (str(path), *fault)


def test_a_number_too_long_to_parse_is_a_data_error(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", '{"prompt": ' + "1" * 5000 + "}")
    with pytest.raises(DataError, match=r"rows.jsonl:1: found JSON that does not parse \(Exceeds the limit"):
        list(read_rows(path))


def test_broken_parquet(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.parquet", b"PAR1" + b"x" * 100)
    with pytest.raises(
        DataError, match=r"rows.parquet: found broken Parquet \(.+\), expected a complete file; write it"
    ):
        list(read_rows(path))


def test_a_line_above_the_limit_is_refused_before_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", len(LINE) + 1)
    assert len(list(read_rows(write(tmp_path, "fits.jsonl", f"{LINE}\n{LINE}\n")))) == 2
    path = write(tmp_path, "rows.jsonl", f"{LINE}\n{LINE} \n")
    found = f"a line of more than {len(LINE) + 1} bytes"
    assert refusal(lambda: list(read_rows(path))) == (str(path), 2, None, found, "one row per line")


def test_missing_file_directory_and_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "a file of rows (JSONL, JSON, CSV or Parquet), or hub:owner/name"
    for path, found in (
        (tmp_path / "no.jsonl", "no such file"),
        (tmp_path, "a directory"),
        ("a\0b", "a file that cannot be opened (embedded null byte)"),
    ):
        assert refusal(partial(read_pairs, path)) == (str(path), None, None, found, expected)

    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)  # not by mode bits: they do not bind the administrator
    fault = ("secret.jsonl", None, None, "a file you may not read", "permission to read it")
    assert refusal(lambda: read_pairs("secret.jsonl")) == fault


def test_read_pairs_drops_nothing_and_stops_at_the_first_fault(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", f'{LINE}\n{LINE}\n{{"prompt": "", "chosen": "a", "rejected": "a"}}\n')
    assert [pair.source for pair in read_pairs(path)] == [f"{path}:{line}" for line in (1, 2, 3)]
    write(tmp_path, "rows.jsonl", f"{LINE}\n7\n")
    assert refusal(lambda: read_pairs(path)) == (str(path), 2, None, "a number (7)", f"an object with {SHAPES}")


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".jsonl", ".json", ".csv", ".parquet"]))
@example(content=b"PAR1", suffix=".jsonl")
@example(content=b'a,b\n"', suffix=".csv")
@example(content=b"[1, 2", suffix=".json")
def test_any_bytes_are_pairs_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(content)
    try:
        read_pairs(path)
    except DataError as error:
        assert str(error).startswith(str(path))


# ----------------------------------------------------------------------------------------------------------------- hub

PUBLIC = "hub:owner/name or hub:owner/name:split of a public dataset, online or downloaded before"


@pytest.mark.parametrize(
    ("address", "split"), [("hub:owner/name", "train"), ("hub:owner/name:test_prefs", "test_prefs")]
)
def test_hub_address_names_dataset_and_split(address: str, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, *, split: str) -> list[dict[str, str]]:
        asked.append((name, split))
        return [ROW]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read_pairs(address)[0].source == f"{address}:1"
    assert asked == [("owner/name", split)]


@pytest.mark.parametrize("address", ["hub:name", "hub:/etc/rows", "hub:a/b/c", "hub:a/b:", "hub:"])
def test_what_is_no_hub_address_never_reaches_the_hub_client(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it would raise ImportError
    assert refusal(lambda: read_pairs(address)) == (address, None, None, f"the address {address!r}", PUBLIC)


def test_any_failure_of_the_hub_is_one_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the hub\nmany more lines")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    found = "a dataset that does not load (ConnectionError: Couldn't reach the hub)"
    assert refusal(lambda: read_pairs("hub:owner/name")) == ("hub:owner/name", None, None, found, PUBLIC)


def test_a_row_of_the_hub_that_does_not_load_is_one_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Images:
        def __iter__(self) -> Iterator[dict[str, str]]:
            yield ROW
            raise ImportError("To support decoding images, please install 'Pillow'.")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *_, **__: Images()))
    found = "a dataset that does not load (ImportError: To support decoding images, please install 'Pillow'.)"
    assert refusal(lambda: read_pairs("hub:owner/name")) == ("hub:owner/name", None, None, found, PUBLIC)
