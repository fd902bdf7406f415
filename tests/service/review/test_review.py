"""Decisions: what they write, that none is lost, and that nothing of anybody else's is overwritten."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.writers import write_jsonl

from lifealign.data.clean import read_clean
from lifealign.data.pair import Pair
from lifealign.errors import ConfigError, DataError, LifeAlignError, LifeError
from lifealign.service.review import review as reviews
from lifealign.service.review.candidates import Side, read_candidates
from lifealign.service.review.decisions import Decision, folder_of
from lifealign.service.review.review import Review, Stale, open_review
from lifealign.storage import files

Open = Callable[..., AbstractContextManager[Review]]


@pytest.fixture
def opened(rows: Path, out: Path) -> Open:
    return lambda file=rows, out=out: open_review(str(file), read_candidates(file), out)


def side_of(view: dict[str, Any], text: str) -> Side:
    """The side of a view's row on which an answer is that begins with a text."""
    (side,) = [side for side in ("a", "b") if view["row"][side].startswith(text)]
    return "a" if side == "a" else "b"


def take(review: Review, view: dict[str, Any], text: str = "", edited: str | None = None) -> dict[str, Any]:
    """Decides for the answer that begins with a text; for no text skips."""
    choice = side_of(view, text) if text else "skip"
    return review.decide(view["version"], Decision(key=view["row"]["key"], choice=choice, edited=edited))


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_every_decision_is_in_the_file_at_once_and_learn_can_read_it(opened: Open, rows: Path, out: Path) -> None:
    with opened() as review:
        view = take(review, review.view(), "good")
        first = {"prompt": [{"role": "user", "content": "Question 1?"}], "chosen": "good 1", "rejected": "bad 1"}
        first |= {"source": f"{rows}:1", "why": "reviewed"}
        assert written(out) == [first]
        view = take(review, view)
        assert written(out) == [first]
        view = take(review, view, "bad")
        view = take(review, view, "bad", edited="better 4")
        assert view["row"] is None
        assert review.progress() == (4, 3, 1, 1, 1)
    assert [(row["chosen"], row["rejected"], row["why"]) for row in written(out)] == [
        ("good 1", "bad 1", "reviewed"),
        ("bad 3", "good 3", "reviewed"),
        ("better 4", "bad 4", "edited"),
    ]
    assert [pair.chosen for pair in read_clean(out).pairs] == ["good 1", "bad 3", "better 4"]
    assert not read_clean(out).dropped


@pytest.mark.parametrize(
    "answer",
    [
        "</script><script>alert(1)</script>",
        "[{'role': 'user', 'content': 'Hi'}]",
        "[{'role': 'user', 'content'",
        "Human: Question?\n\nAssistant: Yes.",
        "two\r\nlines \u2028 and \U0001f600, \u202eturned",
        "null",
    ],
)
def test_an_answer_is_read_back_as_it_was_whatever_it_says(
    opened: Open, tmp_path: Path, out: Path, answer: str
) -> None:
    said = [{"role": "assistant", "content": answer}]  # inside a message, a text is a text
    row = {"prompt": "Question?", "chosen": said, "rejected": "Human: Question?\n\nAssistant: No."}
    file = write_jsonl(tmp_path / "odd.jsonl", [row])
    (candidate,) = read_candidates(file).candidates
    with opened(file) as review:
        view = review.view()
        assert candidate.chosen is not None and view["row"][candidate.chosen] == answer
        review.decide(view["version"], Decision(key=candidate.key, choice=candidate.chosen))
    (pair,) = read_clean(out).pairs
    assert pair == Pair(candidate.prompt, answer, candidate.answer("b" if candidate.chosen == "a" else "a"))


@pytest.mark.parametrize("edited", ["good 1", "good 1\n", "", " \n", "a\0", "\ud800"])
def test_an_edit_that_changes_nothing_or_cannot_be_learnt_is_refused(opened: Open, out: Path, edited: str) -> None:
    with opened() as review:
        with pytest.raises(DataError) as refused:
            take(review, review.view(), "good", edited)
        assert refused.value.line == 1
        assert review.progress().decided == 0 and review.view()["version"] == 0 and not out.exists()
        assert take(review, review.view(), "good", "good 1, better")["row"]["number"] == 2


def test_the_same_command_goes_on_where_it_stopped(opened: Open, rows: Path, out: Path) -> None:
    with opened() as review:
        view = take(review, take(review, review.view(), "good"))
        number = view["row"]["number"]
    before = out.read_bytes()
    with opened() as review:
        view = review.view()
        assert view["row"]["number"] == number == 3 and (view["decided"], view["skipped"]) == (1, 1)
        assert review.view(1)["row"]["decision"] == {"choice": side_of(review.view(1), "good"), "edited": None}
        assert review.view(skipped=True)["row"]["number"] == 2
        assert out.read_bytes() == before


def test_a_row_that_changed_is_asked_again_and_a_new_one_appears(opened: Open, rows: Path, out: Path) -> None:
    with opened() as review:
        view = review.view()
        while view["row"]:
            view = take(review, view, "good")
    lines = rows.read_text().splitlines()
    lines[1] = lines[1].replace("bad 2", "bad two")
    lines += [json.dumps({"prompt": "Question 5?", "answers": ["good 5", "bad 5"]})]
    rows.write_text("\n".join(lines) + "\n")
    with opened() as review:
        assert review.lost == 1 and review.progress() == (5, 3, 0, 0, 0)
        assert [row["chosen"] for row in written(out)] == ["good 1", "good 3", "good 4"]
        view = review.view()
        assert view["row"]["number"] == 2
        view = take(review, view, "good")
        assert view["row"]["number"] == 5
    lines[1] = lines[1].replace("bad two", "bad 2")  # what was decided about it is still known
    rows.write_text("\n".join(lines[1:]) + "\n")
    with opened() as review:
        assert review.view()["row"]["prompt"][0]["content"] == "Question 5?" and review.progress().decided == 3


def test_the_next_pair_is_the_open_one_after_this_one_and_after_the_last_the_first(opened: Open) -> None:
    with opened() as review:
        take(review, review.view(4), "good")
        numbers = [take(review, review.view(number), "good")["row"]["number"] for number in (2, 3)]
        assert numbers == [3, 1]
        assert take(review, review.view(3), "bad")["row"]["number"] == 1
        assert take(review, review.view(1), "bad")["row"] is None


def test_undo_takes_back_decisions_one_by_one_in_another_run_too(opened: Open, out: Path) -> None:
    with opened() as review:
        view = take(review, review.view(), "good")
        again = take(review, review.view(1), "bad")
        assert written(out)[0]["chosen"] == "bad 1" and again["row"]["number"] == view["row"]["number"] == 2
    with opened() as review:
        view = review.undo(review.view()["version"])
        assert view["row"]["number"] == 1 and written(out)[0]["chosen"] == "good 1"
        view = review.undo(view["version"])
        assert view["row"]["decision"] is None and written(out) == [] and review.progress().decided == 0
        with pytest.raises(ConfigError, match="nothing to undo"):
            review.undo(view["version"])


def test_whoever_has_not_seen_a_decision_does_not_overwrite_it(opened: Open, out: Path) -> None:
    """Two tabs: what the second one sees is older than what the first one did."""
    with opened() as review:
        first, second = review.view(1), review.view(1)
        other = review.view(2)
        take(review, first, "good")
        with pytest.raises(Stale) as stale:
            take(review, second, "bad")
        assert stale.value.view["row"]["number"] == 1 and stale.value.view["row"]["decision"]["choice"] == side_of(
            first, "good"
        )
        with pytest.raises(Stale) as stale:
            review.undo(second["version"])
        assert stale.value.view["row"]["number"] == 1
        take(review, other, "good")  # about another pair, nothing was missed
        between = review.view(1)
        take(review, review.view(1), "bad")
        assert [row["chosen"] for row in written(out)] == ["bad 1", "good 2"]
        with pytest.raises(Stale):
            take(review, between, "good")
        view = review.undo(review.view()["version"])
        with pytest.raises(Stale):  # an undone decision is news, too
            take(review, first, "good")
        take(review, view, "bad")
        with pytest.raises(Stale):
            take(review, {**review.view(3), "version": 99}, "good")


def test_many_at_once_lose_nothing(tmp_path: Path, opened: Open, out: Path) -> None:
    rows = ({"prompt": f"{n}", "answers": [f"good {n}", f"bad {n}"]} for n in range(24))
    file = write_jsonl(tmp_path / "many.jsonl", rows)
    with opened(file) as review:
        threads = [
            threading.Thread(target=lambda n=n: [take(review, review.view(one), "good") for one in range(n, 25, 4)])
            for n in range(1, 5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert review.progress().decided == 24 and review.view()["version"] == 24
    assert [row["chosen"] for row in written(out)] == [f"good {n}" for n in range(24)]


def test_a_process_that_dies_between_two_writes_loses_no_decision(
    opened: Open, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as review:
        view = take(review, review.view(), "good")
        before = out.read_bytes()
        with monkeypatch.context() as dying:
            dying.setattr(reviews, "write_bytes", lambda *_: (_ for _ in ()).throw(LifeError("full")))
            with pytest.raises(LifeError, match="full"):
                take(review, view, "good")
            shutil.copytree(folder_of(out), out.with_name("killed.review"))
        assert out.read_bytes() == before
    assert [row["chosen"] for row in written(out)] == ["good 1", "good 2"]  # the end tries once more
    killed = out.with_name("killed.jsonl")
    folder_of(out).with_name("killed.review").rename(folder_of(killed))
    killed.write_bytes(before)
    with opened(out=killed) as review:
        assert review.view()["row"]["number"] == 3
        assert [row["chosen"] for row in written(killed)] == ["good 1", "good 2"]


def test_a_decision_that_cannot_be_kept_is_not_taken(opened: Open, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as review:
        take(review, review.view(), "good")
        before, view = out.read_bytes(), review.view()
        with monkeypatch.context() as full:
            full.setattr(reviews, "write_decisions", lambda *_: (_ for _ in ()).throw(LifeError("full")))
            with pytest.raises(LifeError, match="full"):
                take(review, view, "good")
        assert review.view() == view and out.read_bytes() == before


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [b'{"prompt": "p", "chosen": "x", "rejected": "y"}\n', b""])
def test_a_file_that_no_review_has_written_stays(opened: Open, out: Path, tmp_path: Path, content: bytes) -> None:
    out.write_bytes(content)
    before = tree(tmp_path)
    with (
        pytest.raises(ConfigError, match=r"has not written, expected none; give another --out, or move it away"),
        opened(),
    ):
        pass
    assert tree(tmp_path) == before and not folder_of(out).exists()


def test_the_reviewed_file_itself_and_a_folder_are_no_place_for_pairs(opened: Open, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(rows)
    (tmp_path / "folder").mkdir()
    for place, found in (
        (rows, "the file to be reviewed"),
        (tmp_path / "link.jsonl", "the file"),
        (tmp_path / "folder", "a dir"),
    ):
        with pytest.raises(ConfigError, match=found), opened(out=place):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link.jsonl", "pairs.jsonl"]


def test_pairs_that_were_changed_by_hand_stay_until_they_are_moved(opened: Open, out: Path) -> None:
    with opened() as review:
        view = take(review, review.view(), "good")
        ours = out.read_bytes()
        out.write_bytes(b"by hand\n")
        with pytest.raises(LifeError, match="was changed after"):
            take(review, view, "good")
        assert out.read_bytes() == b"by hand\n" and review.progress().decided == 1
        out.write_bytes(ours)
        view = take(review, view, "good")
    out.write_bytes(b"by hand\n")
    with pytest.raises(LifeError, match="move it away, and the same command writes it again"), opened():
        pass
    assert out.read_bytes() == b"by hand\n"
    out.unlink()
    with opened():
        assert [row["chosen"] for row in written(out)] == ["good 1", "good 2"]


def test_decisions_about_another_file_are_not_mixed_in(opened: Open, rows: Path, out: Path, tmp_path: Path) -> None:
    with opened() as review:
        take(review, review.view(), "good")
    before = tree(tmp_path)
    other = write_jsonl(tmp_path / "other.jsonl", [{"prompt": "p", "answers": ["x", "y"]}])
    with pytest.raises(LifeError, match=r"found decisions about pairs.jsonl, 1 of them"), opened(other):
        pass
    other.unlink()
    assert {name: part for name, part in tree(tmp_path).items() if ".lock" not in name} == {
        name: part for name, part in before.items() if ".lock" not in name
    }
    moved = rows.rename(tmp_path / "moved.jsonl")  # the same rows under another name
    with opened(moved) as review:
        assert review.progress().decided == 1


def test_two_processes_do_not_review_into_one_file(opened: Open, out: Path) -> None:
    with opened() as review:
        with pytest.raises(LifeError, match="in use by process"), opened():
            pass
        take(review, review.view(), "good")
    with opened() as review:
        assert review.progress().decided == 1


@pytest.mark.parametrize("damage", [b"{}", b"[]", b"{", b'{"format": 2}'])
def test_damaged_decisions_are_refused_and_left(opened: Open, out: Path, damage: bytes) -> None:
    with opened() as review:
        take(review, review.view(), "good")
    before, kept = out.read_bytes(), folder_of(out) / "decisions.json"
    kept.write_bytes(damage)
    with pytest.raises(LifeError, match=r"decisions\.json"), opened():
        pass
    assert (out.read_bytes(), kept.read_bytes()) == (before, damage)


def test_after_the_end_nothing_is_decided_any_more(opened: Open, out: Path) -> None:
    with opened() as review:
        view = review.view()
    with pytest.raises(LifeError, match="has ended"):
        take(review, view, "good")
    assert not out.exists()


def test_what_is_not_there_is_refused(opened: Open) -> None:
    with opened() as review:
        for work in (
            lambda: review.view(0),
            lambda: review.view(5),
            lambda: review.decide(0, Decision(key="x", choice="a")),
        ):
            with pytest.raises(LifeAlignError):
                work()


def test_files_are_written_whole_or_not_at_all() -> None:
    """The two writers are those that every file of a life is written by."""
    assert reviews.write_bytes is files.write_bytes
