"""The pages: what lives and runs hold is in them, text of others stays text, and the bytes are always the same."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import letter_task, pair

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError
from lifealign.experiments.result import RunResult
from lifealign.experiments.result_of_life import load_run, result_of, save_result
from lifealign.life.evaluate import Evaluation, evaluate_life, settings_for
from lifealign.life.life import Life
from lifealign.report.page.life_page import life_page
from lifealign.report.page.runs_page import runs_page

MakeLife = Callable[..., Life]
EVIL = "</style></script><script>alert(1)</script><img src=x onerror=alert(2)> \"><b>'&amp; ]]> --> {{ 7*7 }}"


class Reader(HTMLParser):
    """Tags with their attributes, ids, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("style", "script"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)

    def all_text(self) -> str:
        return " ".join("".join(self.text).split())


def learnt(make_life: MakeLife, **settings: Any) -> Life:
    life = make_life(name="my-bot", **settings)
    life.learn(replace(letter_task("brief", "a", "b"), check=AnswerCheck(max_words=3)))
    life.learn(letter_task("tone", "c", "d"))
    return life


def test_a_page_shows_scores_tasks_costs_settings_and_how_to_load(make_life: MakeLife) -> None:
    life = learnt(make_life)
    page = Reader(life_page(life))
    text = page.all_text()
    for expected in (
        "my-bot",
        "2 tasks learnt by LifeAlign",
        "brief, tone",
        "preference accuracy",
        "Perplexity on",
        "kept rank, from 0 to 4",
        "kept energy, from 0.8 to 1",
        "overlap \u03c1, from 0 to 0.5",
        "optimizer steps",
        'PeftModel.from_pretrained(base, "my-bot/versions/02-tone")',
        life.workspace.base_fingerprint,
        "energy_kept: 0.9",
    ):
        assert expected in text
    accuracy = life.scores["preference_accuracy"].rows[1]["brief"]
    assert f"{100 * accuracy:.0f} %" in text
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_life_gives_the_same_bytes_and_nothing_is_loaded_from_elsewhere(make_life: MakeLife) -> None:
    life = learnt(make_life)
    page = life_page(life)
    assert page == life_page(Life.open(life.directory.path))
    assert "runtime" not in Life.open(life.directory.path).__dict__
    for tag, attributes in Reader(page).tags:
        for name in ("src", "href", "action", "data", "poster"):
            target = attributes.get(name)
            assert target is None or target.startswith("#") or target == "data:,", (tag, target)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
    (policy,) = (
        each["content"] for _, each in Reader(page).tags if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert "@import" not in page and "url(" not in page


def test_text_of_models_and_data_stays_text(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    from lifealign.model import answer_cache

    monkeypatch.setattr(answer_cache, "generate_answers", lambda _, prompts, **__: [EVIL] * len(prompts))
    life = make_life(name="evil", lora={"lora_r": 4})
    rows = tuple(pair(f"{EVIL} {number}", "yes", "no") for number in range(3))
    life.learn(Task("evil", rows, rows, AnswerCheck(lacks=("<script>alert",))))
    page = life_page(life)
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 1 and [tag for tag, _ in reader.tags].count("img") == 0
    assert " ".join(EVIL.split()) in reader.all_text() and "49" not in re.findall(r"--> (\S+)", reader.all_text())
    assert page.count("<script>") == 1 and page.count("</style>") == 1


def test_what_is_missing_is_a_marked_hole_with_the_way_to_fill_it(make_life: MakeLife) -> None:
    life = learnt(make_life, evaluation={"metrics": ("margin",), "general_text": None})
    settings = settings_for(life.workspace, ["rouge_l"])
    evaluate_life(life.workspace, Evaluation(("rouge_l",), settings), as_of="02-tone")
    page = life_page(life)
    text = Reader(page).all_text()
    assert "Perplexity on general text was not measured" in text
    holes = [attributes for tag, attributes in Reader(page).tags if tag == "td" and attributes.get("class") == "hole"]
    assert [hole["data-tip"] for hole in holes] == [
        "brief after 01-brief: not measured. lifealign evaluate LIFE --metric rouge_l"
    ]
    assert "missing, not measured. lifealign evaluate LIFE --metric rouge_l" in text  # what a screen reader says
    assert "1 score is missing" in text and "a score is missing, so there is no mean" not in text
    bare = make_life(name="bare", evaluation={"metrics": ("margin",), "general_text": None})
    bare.learn(letter_task("untested", "a", "b", test=0))
    text = Reader(life_page(bare)).all_text()
    assert "Nothing was measured: no task has held-out pairs" in text and "No answers were generated" in text
    assert "Without held-out pairs, so not measured: untested" in text


def test_empty_answers_are_said_to_be_empty(make_life: MakeLife, monkeypatch: pytest.MonkeyPatch) -> None:
    from lifealign.model import answer_cache

    monkeypatch.setattr(
        answer_cache, "generate_answers", lambda _, prompts, **__: ["", *["words"] * (len(prompts) - 1)]
    )
    life = make_life(evaluation={"metrics": ("rouge_l", "paper_bleu"), "general_text": None})
    life.learn(letter_task("one", "a", "b"))
    text = Reader(life_page(life)).all_text()
    assert "Empty answers, which count as answers: 1 of 4 after 01-one." in text and "(empty answer)" in text
    assert life.scores["rouge_l"].rows[0]["one"] == 0.0  # nothing in common, and nothing missing


def test_half_of_a_surrogate_pair_does_not_make_a_page_that_cannot_be_written(
    make_life: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lifealign.model import answer_cache

    monkeypatch.setattr(answer_cache, "generate_answers", lambda _, prompts, **__: ["cut \ud83d here"] * len(prompts))
    page = life_page(learnt(make_life))
    assert "cut \ufffd here" in page and page.encode()


def test_a_life_that_has_learnt_nothing_has_no_page(make_life: MakeLife) -> None:
    with pytest.raises(LifeError, match="found no task learnt, expected at least one"):
        life_page(make_life())


@pytest.mark.parametrize("method", ["seqft", "l2p", "stl", "olora"])
def test_every_kind_of_method_has_a_page(make_life: MakeLife, method: str) -> None:
    text = Reader(life_page(learnt(make_life, method=method))).all_text()
    assert ("which PEFT does not know" in text) == (method == "l2p")
    assert ("Each task has a model of its own" in text) == (method == "stl")


def test_runs_stand_side_by_side_with_their_tables(make_life: MakeLife, tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        for method in ("seqft", "er"):
            life = make_life(name=f"{method}-{seed}", method=method, seed=seed)
            life.learn(letter_task("a", "a", "b"))
            life.learn(letter_task("b", "c", "d"))
            paths.append(life.directory.path)
    save_result(Life.open(paths[0]), tmp_path / "one.json")
    runs = [load_run(tmp_path / "one.json"), *map(load_run, paths[1:])]
    assert runs[0] == load_run(paths[0])
    page = runs_page(runs, "ER")
    text = Reader(page).all_text()
    assert "4 runs of SeqFT, ER" in text and "difference from ER" in text and "seeds 1, 2" in text
    assert page == runs_page(runs, "ER")
    assert "Over all orders" not in text and 'id="blocks"' not in page
    turned = [run.model_copy(update={"order": "turned"}) for run in runs]
    both = runs_page([*runs, *turned], "ER")
    blocks = both[both.index('id="blocks"') : both.index('id="costs"')]
    for title in ("preference accuracy", "margin"):
        assert both.count(f"All orders: {title}, Last") == blocks.count(f"All orders: {title}, Last") == 1
    assert " of 4" in Reader(blocks).all_text()  # two orders, two seeds
    assert both.count('href="#blocks"') == 1
    label = result_of(Life.open(paths[0]), label="<b>bold", order="o")
    assert "<b>bold" in Reader(runs_page([label])).all_text()


def test_methods_stand_by_their_last_score_and_every_seed_is_told(make_life: MakeLife) -> None:
    life = make_life(method="er")
    life.learn(letter_task("a", "a", "b"))
    life.learn(letter_task("b", "c", "d"))
    result = result_of(life)

    def run(label: str, seed: int, accuracy: float) -> RunResult:
        changed = result.model_dump() | {"label": label, "order": "stream"}
        changed["settings"]["seed"] = seed
        changed["scores"] = {"preference_accuracy": changed["scores"]["preference_accuracy"]}
        matrix, changed["outcomes"] = changed["scores"]["preference_accuracy"], {}
        matrix["rows"][-1] = {"a": accuracy, "b": accuracy}
        matrix["summary"] |= {"last": accuracy, "backward_transfer": -0.25}
        return RunResult(**changed)

    page = runs_page([run("Poor", 1, 0.25), run("Poor", 2, 0.75), run("Good", 1, 0.75), run("Good", 2, 1.0)])
    text = Reader(page).all_text()
    assert "50 ± 35 % (seed 1: 25 %; seed 2: 75 %)" in text and "88 ± 18 % (seed 1: 75 %; seed 2: 100 %)" in text
    assert "\u221225 ± 0 %" in text
    plot = page[page.index('class="wide"') :]
    assert plot.index(">Good<") < plot.index(">Poor<")  # best on top; the tables keep the order they were given in
    table = page[page.index('class="plain sortable"') :]
    assert table.index(">Poor<") < table.index(">Good<")
    assert "--against METHOD" in text and "difference from" not in text


def test_what_is_no_run_is_said(tmp_path: Path, make_life: MakeLife) -> None:
    with pytest.raises(ConfigError, match="found nothing, expected a life or a result file"):
        load_run(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"a directory without life\.json"):
        load_run(tmp_path)
    (tmp_path / "other.json").write_text('{"method": "er"}')
    with pytest.raises(LifeError, match=r"other\.json: found a file without base, cost"):
        load_run(tmp_path / "other.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(LifeError, match=r"list\.json: found a list of 0, expected a result file"):
        load_run(tmp_path / "list.json")
    bare = make_life(evaluation={"metrics": ("margin",), "general_text": None})
    bare.learn(letter_task("untested", "a", "b", test=0))
    with pytest.raises(ConfigError, match="found no scores in any of the runs"):
        runs_page([load_run(bare.directory.path)])
