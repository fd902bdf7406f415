"""Who may read what is written: texts are for their owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.conftest import MakeLife
from tests.tiny import letter_task

from lifealign.storage.files import (
    make_private_folder,
    read_rows,
    write_json,
    write_packed_rows,
    write_rows,
    write_sealed_json,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")


def test_rows_are_for_their_owner_alone_and_other_files_as_the_system_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_rows(tmp_path / "rows.jsonl", [{"a": 1}])
        write_packed_rows(tmp_path / "rows.jsonl.gz", [{"a": 1}])
        write_sealed_json(tmp_path / "answers.json", {"a": 1}, private=True)
        write_json(tmp_path / "figures.json", {"a": 1})
        make_private_folder(tmp_path / "deep" / "life")
        os.chmod(tmp_path / "figures.json", 0o640)
        make_private_folder(tmp_path)  # one that is there stays as it is
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [*tmp_path.iterdir(), tmp_path / "deep/life"]}
    finally:
        os.umask(before)
    private = {"rows.jsonl", "rows.jsonl.gz", "answers.json"}
    assert modes == dict.fromkeys(private, "0o600") | {"figures.json": "0o640", "deep": "0o755", "life": "0o700"}
    write_rows(tmp_path / "rows.jsonl", [{"a": 2}])
    assert read_rows(tmp_path / "rows.jsonl") == [{"a": 2}]


def test_nobody_else_reads_the_texts_of_a_life(make_life: MakeLife) -> None:
    """The directory is closed to others, and so is every file with texts, wherever it is copied to with its mode."""
    before = os.umask(0o022)
    try:
        life = make_life(method="er", keep_training_pairs=True)
        life.learn(letter_task("one", "a", "b"))
    finally:
        os.umask(before)
    root = life.directory.path
    assert oct(root.stat().st_mode & 0o777) == "0o700"
    texts = [path for path in root.rglob("*") if path.name.endswith((".jsonl", ".jsonl.gz", "answers.json"))]
    assert len(texts) > 3 and {oct(path.stat().st_mode & 0o777) for path in texts} == {"0o600"}
    os.chmod(root, 0o750)
    life.learn(letter_task("two", "c", "d"))
    assert oct(root.stat().st_mode & 0o777) == "0o750"  # what its owner decided stays
