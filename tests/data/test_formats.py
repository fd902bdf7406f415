"""Row shapes and file kinds: what each becomes, and the exact message for each way a file can be wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifealign.data import files
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
    with pytest.raises(UnclearTranscript) as caught:
        parse_row(row, "f", 1)
    assert str(caught.value) == (
        "f:1: chosen: found assistant, user, assistant after the 1 turns that chosen and rejected share, "
        "expected one turn, the assistant's answer"
    )


ANSWERS = {"chosen": "yes", "rejected": "no"}
TURNS = "user and assistant take turns, after at most one system message"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 2], f"found a list of 2, expected an object with {SHAPES}"),
        (None, f"found null, expected an object with {SHAPES}"),
        ({}, f"chosen: found no fields, expected {SHAPES}"),
        ({"prompt": "p", "answer": "a"}, f"chosen: found no such field among 'prompt', 'answer', expected {SHAPES}"),
        ({"prompt": "p", "chosen": "a"}, f"rejected: found no such field among 'prompt', 'chosen', expected {SHAPES}"),
        (ANSWERS, f"prompt: found no such field among 'chosen', 'rejected', expected {SHAPES}"),
        (ROW | {"chosen": 7}, "chosen: found a number (7), expected a string or a list of messages"),
        (ROW | {"rejected": None}, "rejected: found null, expected a string or a list of messages"),
        (ROW | {"prompt": True}, "prompt: found a boolean (true), expected a string or a list of messages"),
        (ROW | {"prompt": []}, "prompt: found a list of 0, expected a string or a list of messages"),
        (ROW | {"chosen": ["a"]}, "chosen[0]: found the string 'a', expected a message with role and content"),
        (
            ROW | {"prompt": [{"content": "x"}]},
            "prompt[0].role: found no such field among 'content', expected a string",
        ),
        (
            ROW | {"prompt": [{"role": "user"}]},
            "prompt[0].content: found no such field among 'role', expected a string",
        ),
        (
            ROW | {"prompt": [{"role": "user", "content": None}]},
            "prompt[0].content: found null, expected a string",
        ),
        (
            ROW | {"prompt": [turn("tool", "x")]},
            "prompt[0].role: found the string 'tool', expected 'system', 'user' or 'assistant'",
        ),
        (ROW | {"prompt": [USER, USER]}, f"prompt[1].role: found 'user', expected 'assistant': {TURNS}"),
        (ROW | {"prompt": [YES, USER]}, f"prompt[0].role: found 'assistant', expected 'user': {TURNS}"),
        (ROW | {"prompt": [SYSTEM, SYSTEM, USER]}, f"prompt[1].role: found 'system', expected 'user': {TURNS}"),
        (
            ROW | {"prompt": [USER, YES]},
            "prompt: found a last turn from the assistant, expected a prompt that ends with the user's turn",
        ),
        (
            ROW | {"prompt": [SYSTEM]},
            "prompt: found no turn of the user, expected a prompt that ends with the user's turn",
        ),
        (ROW | {"chosen": [USER]}, "chosen: found messages from user, expected one message, from the assistant"),
        (
            {"chosen": [YES], "rejected": [NO]},
            "chosen: found no turn of the user, expected a prompt that ends with the user's turn",
        ),
        (
            {"chosen": [USER, YES], "rejected": [USER, NO, USER]},
            "rejected: found assistant, user after the 1 turns that chosen and rejected share, "
            "expected one turn, the assistant's answer",
        ),
        (
            {"prompt": [turn("user", "Bye")], "chosen": [USER, YES], "rejected": [USER, NO]},
            "prompt: found messages that chosen and rejected do not begin with, "
            "expected the conversation up to the answer, or answers of one message each",
        ),
        (
            ROW | {"chosen": "ab\ud800"},
            "chosen: found half a character (lone surrogate U+D800) at position 2, expected text without it",
        ),
        (ROW | {"prompt": "\0"}, "prompt: found a NUL character at position 0, expected text without it"),
        (
            ROW | {"prompt": [turn("user", "a\0")]},
            "prompt[0].content: found a NUL character at position 1, expected text without it",
        ),
    ],
)
def test_message_for_a_bad_row(row: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_row(row, "rows.jsonl", 3)
    assert not isinstance(caught.value, UnclearTranscript)
    assert str(caught.value) == ("rows.jsonl:3: " + message)


WORDS = st.sampled_from(["Human: a", "Human: a\nAssistant: b", "Assistant: c", "user", "assistant", "system", "", "\0"])
NAMES = st.sampled_from(["prompt", "query", "chosen", "rejected", "role", "content"])
TEXT = WORDS | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(), inner, max_size=5),
    max_leaves=20,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": WORDS, "content": TEXT}), max_size=4)
ROWS = st.fixed_dictionaries(
    {}, optional={name: JSON | MESSAGES | TEXT for name in ("prompt", "query", "chosen", "rejected")}
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


PACKED_KINDS = "a plain file, or one packed with gzip; unpack it first"
PACKED = f": found compressed data (zip, zstd or gzip in gzip), expected {PACKED_KINDS}"
CUT = "(the last line: the file seems cut short), expected "
DEEP = "[" * 100_000
BAD_JSON = "one object a line, or one array of objects"
WHOLE = "a whole object on one line, or a whole array"
UTF8 = "expected UTF-8; save the file in that encoding"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", ": found no rows, expected at least one preference row"),
        ("rows.jsonl", " \n\n", ": found no rows, expected at least one preference row"),
        ("rows.json", "[]", ": found no rows, expected at least one preference row"),
        ("rows.csv", "prompt,chosen,rejected\n", ": found no rows, expected at least one preference row"),
        ("rows.parquet", "", ": found no rows, expected at least one preference row"),
        (
            "rows.jsonl",
            f"{LINE}\n{{'prompt': 1}}\n{LINE}\n",
            ":2: found broken JSON at 2:2 (Expecting property name enclosed in double quotes), expected " + BAD_JSON,
        ),
        ("rows.jsonl", LINE + LINE, f":1: found broken JSON at 1:{len(LINE) + 1} (Extra data), expected {BAD_JSON}"),
        (
            "rows.jsonl",
            f"{LINE}\n{LINE[:20]}",
            ":2: found JSON that breaks off at 2:18 " + CUT + WHOLE,
        ),
        (
            "rows.jsonl",
            f"{LINE}\n{LINE[:-1]}",
            f":2: found JSON that breaks off at 2:{len(LINE)} {CUT}{WHOLE}",
        ),
        ("rows.json", '{\n "prompt": 1\n}\n', f":1: found JSON that breaks off at 1:2, expected {WHOLE}"),
        (
            "rows.json",
            f"[\n{LINE},\n{LINE}\n",
            f":3: found JSON that breaks off at 3:{len(LINE) + 1}, expected {WHOLE}",
        ),
        ("rows.json", "[\n{},\n{} {}]", f":3: found broken JSON at 3:4 (Expecting ',' delimiter), expected {BAD_JSON}"),
        (
            "rows.jsonl",
            f'{LINE}\n{{"prompt": "a", "chosen": "b", "chosen": "c"}}\n',
            ":2: chosen: found the key twice, expected each key once",
        ),
        ("rows.jsonl", f"{LINE}\n{DEEP}\n", ":2: found JSON nested too deep to parse, expected flat rows"),
        ("rows.json", DEEP, ": found JSON nested too deep to parse, expected flat rows"),
        (
            "rows.jsonl",
            f"{LINE}\n".encode() + b'{"prompt": "\xe9"}',
            f":2: found byte 0xe9 at offset {len(LINE) + 1 + 12}, which is not UTF-8, {UTF8}",
        ),
        ("rows.json", b'[{"prompt": "\xff"}]', f": found byte 0xff at offset 13, which is not UTF-8, {UTF8}"),
        ("rows.csv", b"prompt\n\xe9\n", f":2: found byte 0xe9 at offset 7, which is not UTF-8, {UTF8}"),
        ("rows.jsonl", LINE.encode("utf-16"), f": found UTF-16 text, {UTF8}"),
        ("rows.jsonl", LINE.encode("utf-16-le"), f": found UTF-16 text, {UTF8}"),
        ("rows.csv", CSV.encode("utf-16"), f": found UTF-16 text, {UTF8}"),
        ("rows.jsonl", b"\x28\xb5\x2f\xfddata", PACKED),
        ("rows.csv", b"PK\x03\x04data", PACKED),
        ("rows.parquet", LINE, ": found a file that does not start as Parquet does, expected Parquet, as it is named"),
        ("rows.csv", "a,b,a\n1,2,3\n", ":1: a: found the column twice, expected each column once"),
        ("rows.csv", "a,b\n1,2\n1,2,3\n", ":3: found 3 cells, expected 2, as in the header"),
        (
            "rows.csv",
            'a,b\n1,2\n"1,2\n',
            ":3: found broken CSV (unexpected end of data), expected commas between cells, \"quotes\" around text",
        ),
    ],
)  # fmt: skip
def test_message_for_a_bad_file(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert str(caught.value) == f"{path}{message}"


def test_a_number_too_long_to_parse_is_a_data_error(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", '{"prompt": ' + "1" * 5000 + "}")
    with pytest.raises(DataError, match=r"rows.jsonl:1: found JSON that does not parse \(Exceeds the limit"):
        list(read_rows(path))


def test_broken_parquet(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.parquet", b"PAR1" + b"x" * 100)
    with pytest.raises(DataError, match=r"rows.parquet: found broken Parquet \(.+\), expected a whole file; write it"):
        list(read_rows(path))


def test_a_line_above_the_limit_is_refused_before_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", len(LINE) + 1)
    assert len(list(read_rows(write(tmp_path, "fits.jsonl", f"{LINE}\n{LINE}\n")))) == 2
    path = write(tmp_path, "rows.jsonl", f"{LINE}\n{LINE} \n")
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert str(caught.value) == f"{path}:2: found a line of more than {len(LINE) + 1} bytes, expected one row a line"


def test_missing_file_directory_and_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "a file of rows (JSONL, JSON, CSV or Parquet), or hub:owner/name"
    for path, found in (
        (tmp_path / "no.jsonl", "no such file"),
        (tmp_path, "a directory"),
        ("a\0b", "a file that does not open (embedded null byte)"),
    ):
        with pytest.raises(DataError) as caught:
            read_pairs(path)
        assert str(caught.value) == f"{path}: found {found}, expected {expected}"

    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)  # not by mode bits: they do not bind the administrator
    with pytest.raises(DataError) as caught:
        read_pairs("secret.jsonl")
    assert str(caught.value) == "secret.jsonl: found a file you may not read, expected permission to read it"


def test_read_pairs_drops_nothing_and_stops_at_the_first_fault(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", f'{LINE}\n{LINE}\n{{"prompt": "", "chosen": "a", "rejected": "a"}}\n')
    assert [pair.source for pair in read_pairs(path)] == [f"{path}:{line}" for line in (1, 2, 3)]
    with pytest.raises(DataError, match=r"rows.jsonl:2: found a number \(7\)"):
        read_pairs(write(tmp_path, "rows.jsonl", f"{LINE}\n7\n"))


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
    with pytest.raises(DataError) as caught:
        read_pairs(address)
    assert str(caught.value) == (
        f"{address}: found the address {address!r}, expected hub:owner/name or hub:owner/name:split of a public "
        "dataset, online or downloaded once before"
    )


def test_any_failure_of_the_hub_is_one_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the hub\nmany more lines")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError) as caught:
        read_pairs("hub:owner/name")
    assert str(caught.value) == (
        "hub:owner/name: found no dataset that loads (ConnectionError: Couldn't reach the hub), expected "
        "hub:owner/name or hub:owner/name:split of a public dataset, online or downloaded once before"
    )


def test_a_row_of_the_hub_that_does_not_load_is_one_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Images:
        def __iter__(self) -> Iterator[dict[str, str]]:
            yield ROW
            raise ImportError("To support decoding images, please install 'Pillow'.")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *_, **__: Images()))
    with pytest.raises(DataError, match=r"^hub:owner/name: found no dataset that loads \(ImportError: To support"):
        read_pairs("hub:owner/name")
