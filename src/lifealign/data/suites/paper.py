"""The six tasks of the paper and its three orders: where the rows come from, and which of them are drawn.

The authors published only some of their subsets: no file of Capybara, none of HC3's training rows, and no seed of any
draw. So every task is drawn anew from its publisher's dataset, by the one rule in this module. If their files (or files
with the same layout) are available, ``data_dir`` uses those as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from lifealign.data.clean import read_clean, read_split
from lifealign.data.files import read_hub
from lifealign.data.pair import Pair
from lifealign.data.task import Task
from lifealign.errors import ConfigError, DataError, describe
from lifealign.settings.faults import nearest, shown

log = logging.getLogger(__name__)

Row = dict[str, Any]

# From the paper's experiments on task orders and the released scripts. In the paper's terms, HC3 and hh-helpful are
# human preference alignment, Capybara is instruction following, hh-harmless and safe-rlhf are value, and TruthfulQA is
# objective facts.
_ORDER1 = ("capybara", "hc3", "hh-harmless", "hh-helpful", "safe-rlhf", "truthfulqa")
ORDERS: dict[str, tuple[str, ...]] = {
    "order1": _ORDER1,  # the order of the main table
    "order2": tuple(reversed(_ORDER1)),
    "order3": ("hh-harmless", "capybara", "truthfulqa", "hh-helpful", "hc3", "safe-rlhf"),  # "random": 3, 1, 6, 4, 2, 5
}
"""The paper's orders, by name."""

DRAW_SEED = 42  # our choice: the authors' draw is not documented; 42 is the seed of their training scripts
SPLITS = ("train", "test")


def conversations(row: Row) -> Row:
    """Converts a row of Capybara-Preferences or hh-rlhf: two conversations that differ in their last answer, unchanged.

    Example:
        >>> conversations({"chosen": "Human: Hi Assistant: Hello", "rejected": "Human: Hi Assistant: No", "rating": 5})
        {'chosen': 'Human: Hi Assistant: Hello', 'rejected': 'Human: Hi Assistant: No'}
    """
    return {"chosen": row["chosen"], "rejected": row["rejected"]}


def human_before_chatgpt(row: Row) -> Row:
    """Converts a row of HC3: the human answer is chosen, ChatGPT's rejected.

    Of several answers the first is taken; the paper does not say which it took. A missing answer becomes an empty text,
    and cleaning drops and counts the row (14 of 1000 rows in the released test file). The spacing of the human texts
    ("it 's , say") is HC3's own and is kept.

    Example:
        >>> human_before_chatgpt({"question": "Why?", "human_answers": ["So .", "No ."], "chatgpt_answers": ["Since"]})
        {'prompt': 'Why?', 'chosen': 'So .', 'rejected': 'Since'}
    """
    chosen, rejected = ((_texts(row, column) or [""])[0] for column in ("human_answers", "chatgpt_answers"))
    return {"prompt": row["question"], "chosen": chosen, "rejected": rejected}


def safer(row: Row) -> Row:
    """Converts a row of PKU-SafeRLHF: the safer answer is chosen, the other rejected.

    The dataset has two labels, ``better_response_id`` (helpfulness) and ``safer_response_id``. Neither the paper nor
    its released files say which was used. We use the safer one, because the paper counts the task among those on
    values; this fits the released file, in which 30 % of the chosen and 10 % of the rejected answers contain words of
    refusal. Safer does not mean safe: where both answers are harmful, the less harmful one is chosen.

    Example:
        >>> safer({"prompt": "How?", "response_0": "Like so.", "response_1": "Better not.", "safer_response_id": 1})
        {'prompt': 'How?', 'chosen': 'Better not.', 'rejected': 'Like so.'}
    """
    label = row["safer_response_id"]
    return {"prompt": row["prompt"], "chosen": row[f"response_{label}"], "rejected": row[f"response_{1 - label}"]}


def best_before_wrong(row: Row) -> Row:
    """Converts a row of TruthfulQA: the best answer is chosen; rejected are all wrong ones, joined with ``"; "``.

    The released files join them in this way, and it is kept so that scores can be compared with the paper's, although
    the length or the semicolon alone almost tells the two apart (``lifealign check`` reports that for length).

    Example:
        >>> best_before_wrong({"question": "Flat?", "best_answer": "Round", "incorrect_answers": ["Flat", "Hollow"]})
        {'prompt': 'Flat?', 'chosen': 'Round', 'rejected': 'Flat; Hollow'}
    """
    rejected = "; ".join(_texts(row, "incorrect_answers"))
    return {"prompt": row["question"], "chosen": row["best_answer"], "rejected": rejected}


def _texts(row: Row, column: str) -> list[str]:
    texts = row[column] or []
    if not isinstance(texts, list):  # join and [0] also work on a string, with wrong results
        raise TypeError(column)
    return texts


@dataclass(frozen=True)
class Source:
    """Where a task's rows are, how they are converted, and how many are drawn.

    Attributes:
        hub: Id of the dataset on the hub.
        convert: Converts one of its rows to a shape that :mod:`lifealign.data.formats` accepts.
        train_split: Split to draw training pairs from.
        test_split: Split to draw held-out pairs from; None if both are drawn from ``train_split``.
        config: Configuration of the dataset, if it has several.
        data_dir: Folder of the dataset, if only one is used.
        file: The only file of the dataset to read, if it has no splits.
        train_pairs: Training pairs to draw.
        test_pairs: Held-out pairs to draw.
    """

    hub: str
    convert: Callable[[Row], Row]
    train_split: str = "train"
    test_split: str | None = "test"
    config: str | None = None
    data_dir: str | None = None
    file: str | None = None
    train_pairs: int = 3000  # the released files of hh-rlhf
    test_pairs: int = 1000  # the released files of hh-rlhf and HC3

    def place(self, split: str) -> str:
        """The split's name in messages and in ``Pair.source``."""
        parts = [self.hub, *(part for part in (self.config, self.data_dir) if part)]
        return f"hub:{'/'.join(parts)}:{split}" if self.file is None else f"hub:{self.hub}/{self.file}"

    def request(self, split: str, revision: str | None = None) -> dict[str, str]:
        """Arguments of :func:`lifealign.data.files.read_hub` for one split."""
        arguments = {
            "dataset": self.hub,
            "name": self.config,
            "data_dir": self.data_dir,
            "file": self.file,
            "split": split if self.file is None else None,
            "revision": revision,
        }
        return {name: value for name, value in arguments.items() if value is not None}


# Revisions are not pinned, because commits of the hub could not be looked up when this was written. Pass them to
# load_catalog_tasks; otherwise the newest is read, and the content hash of the pairs in every life shows any change.
CATALOG: dict[str, Source] = {
    # 15 404 rows, train only, each a conversation of several turns.
    "capybara": Source("argilla/Capybara-Preferences", conversations, test_split=None),
    # 24 322 questions in one file. The dataset has a loading script, which datasets >= 4 refuses even with data_files,
    # and its json reader fails where a column is null for many rows and then a number; our own JSON Lines reader works.
    "hc3": Source("Hello-SimpleAI/HC3", human_before_chatgpt, test_split=None, file="all.jsonl"),
    "hh-harmless": Source("Anthropic/hh-rlhf", conversations, data_dir="harmless-base"),  # 42 537 and 2 312 rows
    "hh-helpful": Source("Anthropic/hh-rlhf", conversations, data_dir="helpful-base"),  # 43 835 and 2 354 rows
    # About 74 000 and 8 200 rows, many per prompt. The released files have 2985 and 348 for unstated reasons; 1000
    # held-out pairs cost little more and narrow the intervals.
    "safe-rlhf": Source("PKU-Alignment/PKU-SafeRLHF", safer),
    # 817 questions. 653 and 83 are the sizes of the released files: a split of 817 into 80, 10 and 10 % without the
    # middle part.
    "truthfulqa": Source(
        "truthfulqa/truthful_qa",
        best_before_wrong,
        train_split="validation",
        test_split=None,
        config="generation",
        train_pairs=653,
        test_pairs=83,
    ),
}
"""The six tasks, in the paper's first order."""


def draw(
    train: Sequence[Pair], test: Sequence[Pair] | None, *, train_pairs: int, test_pairs: int, seed: int = DRAW_SEED
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Draws a task's pairs at random: distinct prompts, none of them in both parts.

    If a prompt has several pairs, only the first can be drawn, so that every prompt is equally likely. Held-out prompts
    are drawn first, and no prompt of ``test`` is trained on, whether drawn or not. Prompts are ranked by a hash of the
    prompt and the seed: the draw is thus the same in every version of Python, and adding or removing a row does not
    change the rank of the others.

    Args:
        train: Clean pairs to train on.
        test: Clean pairs to hold out, or None to draw both from ``train``.
        train_pairs: Number of training pairs to draw; fewer are returned if there are not enough.
        test_pairs: Number of held-out pairs to draw; fewer are returned if there are not enough.
        seed: Seed of the draw.

    Returns:
        Training pairs and held-out pairs, both in random order, so that the first few are again a random sample.

    Example:
        >>> from lifealign.data.clean import test_overlap
        >>> from lifealign.data.pair import Message
        >>> pairs = [Pair((Message("user", f"question {number}"),), "yes", "no") for number in range(10)]
        >>> learnt, held_out = draw(pairs, None, train_pairs=6, test_pairs=3)
        >>> len(learnt), len(held_out), test_overlap(learnt, held_out)
        (6, 3, 0)
    """
    pool, held_out = _ranked(train, seed), _ranked(train if test is None else test, seed)
    kept_apart = {pair.prompt for pair in (held_out[:test_pairs] if test is None else held_out)}
    learnt = [pair for pair in pool if pair.prompt not in kept_apart]
    return tuple(learnt[:train_pairs]), tuple(held_out[:test_pairs])


def _ranked(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    first = {pair.prompt: pair for pair in reversed(pairs)}
    return sorted(first.values(), key=lambda pair: _rank(pair, seed))


def _rank(pair: Pair, seed: int) -> str:
    return xxhash.xxh3_128_hexdigest(f"{seed} {Pair(pair.prompt, '', '').key}".encode())


def load_catalog_tasks(
    names: Sequence[str],
    *,
    data_dir: str | Path | None = None,
    train_pairs: int | None = None,
    test_pairs: int | None = None,
    revisions: Mapping[str, str] | None = None,
) -> list[Task]:
    """Loads tasks of the paper, from their publishers' datasets on the hub or from a folder.

    Args:
        names: Tasks to load, in this order; :data:`ORDERS` has the paper's orders.
        data_dir: Folder with ``NAME/train.jsonl`` and ``NAME/test.jsonl`` for each task, in any accepted shape. They
            are cleaned, training pairs whose prompt is held out are left out, and the rest is used without a draw,
            because the files have been drawn already. None for the hub.
        train_pairs: Maximum training pairs of each task, taken from the first; None for all that are drawn.
        test_pairs: Maximum held-out pairs of each task, taken from the first; None for all that are drawn.
        revisions: Commit, tag or branch of a task's dataset on the hub, by the task's name; by default the newest.

    Raises:
        ConfigError: If a task is not in the catalog or is named twice, or a number or revision is invalid.
        DataError: If a file of ``data_dir`` is missing, a dataset is not available, or a row is malformed.
    """
    revisions = revisions or {}
    _check_names(names, revisions)
    for option, number, least in (("train_pairs", train_pairs, 1), ("test_pairs", test_pairs, 0)):
        if number is not None and number < least:
            raise ConfigError(f"{option}: found {shown(number)}, expected at least {least}, or None for all")
    if data_dir is not None and revisions:
        raise ConfigError("revisions need tasks from the hub; leave out data_dir")
    if data_dir is not None:
        _check_folder(Path(data_dir), names)
    tasks = []
    for name in names:
        if data_dir is None:
            train, test = _from_hub(name, revisions.get(name))
        else:
            train, test = read_split(*(Path(data_dir) / name / f"{split}.jsonl" for split in SPLITS))
        tasks.append(Task(name, train[:train_pairs], test[:test_pairs]))
    return tasks


def _check_names(names: Sequence[str], revisions: Mapping[str, str]) -> None:
    if not names:
        raise ConfigError(f"tasks: found none, expected at least one of {', '.join(CATALOG)}")
    for place, name in [("task", name) for name in names] + [("revisions", name) for name in revisions]:
        if name not in CATALOG:
            near = nearest(name, CATALOG)
            raise ConfigError(f"{place}: found {shown(name)}, expected one of {', '.join(CATALOG)}{near}")
    if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
        raise ConfigError(f"task: found {repeated[0]!r} twice, expected each task once")


def _check_folder(folder: Path, names: Sequence[str]) -> None:
    """Reports missing files before any is read: reading takes a while, and the missing one may be the last."""
    expected = "NAME/train.jsonl and NAME/test.jsonl for every task"
    if not folder.is_dir():
        raise DataError(folder, found="no such folder", expected=f"a folder with {expected}")
    there = [name for name in CATALOG if all((folder / name / f"{split}.jsonl").is_file() for split in SPLITS)]
    for name in names:
        for path in (folder / name / f"{split}.jsonl" for split in SPLITS):
            if not path.is_file():
                tasks = ", ".join(there) or "none"
                raise DataError(path, found="no such file", expected=f"{expected}; complete tasks in {folder}: {tasks}")


def _from_hub(name: str, revision: str | None) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    source = CATALOG[name]
    train = _clean_split(source, source.train_split, revision)
    test = None if source.test_split is None else _clean_split(source, source.test_split, revision)
    drawn = draw(train, test, train_pairs=source.train_pairs, test_pairs=source.test_pairs)
    if (sizes := tuple(map(len, drawn))) != (wanted := (source.train_pairs, source.test_pairs)):
        log.warning("%s: drew %d training and %d held-out pairs, expected %d and %d", name, *sizes, *wanted)
    return drawn


def _clean_split(source: Source, split: str, revision: str | None) -> tuple[Pair, ...]:
    place = source.place(split)
    expected = (
        "the dataset, online or downloaded before; or --data DIR, a folder with NAME/train.jsonl and "
        "NAME/test.jsonl for every task"
    )
    rows = read_hub(place, expected, **source.request(split, revision))
    return read_clean(place, _converted(source, place, rows)).pairs


def _converted(source: Source, place: str, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    for line, row in rows:
        try:
            converted = source.convert(row)
        except (KeyError, TypeError) as error:
            field = str(error.args[0])
            found = describe(row[field]) if field in row else describe(row)
            expected = (
                f"that column as {source.hub} had it when the catalog was written; load an earlier one with revisions"
            )
            raise DataError(place, line=line, field=field, found=found, expected=expected) from error
        yield line, converted
