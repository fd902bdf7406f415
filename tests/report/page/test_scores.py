"""Score matrices on the page: what cells tell, holes that stay holes, key figures that say why there is none."""

from collections.abc import Callable
from dataclasses import replace

from tests.tiny import letter_task

from lifealign.life.life import Life
from lifealign.report.page.scores import key_figures, metric_panel

MakeLife = Callable[..., Life]


def learnt(make_life: MakeLife) -> Life:
    life = make_life(evaluation={"metrics": ("margin",), "general_text": None})
    life.learn(letter_task("brief", "a", "b"))
    life.learn(letter_task("tone", "c", "d"))
    return life


def test_a_base_score_that_is_missing_is_a_hole_too(make_life: MakeLife) -> None:
    life = learnt(make_life)
    matrix = replace(life.scores["margin"], base={"tone": 0.5})
    panel = metric_panel(matrix, ["01-brief", "02-tone"], life.records)
    brief, tone = panel["rows"][0]["cells"]
    assert (brief["kind"], tone["kind"], panel["rows"][0]["mean"]) == ("hole", "base", "–")
    assert brief["tip"] == "brief, base model: not measured. lifealign evaluate LIFE --metric margin"


def test_a_cell_tells_its_exact_score_and_what_changed_since_it_was_learnt(make_life: MakeLife) -> None:
    life = learnt(make_life)
    steps = ["01-brief", "02-tone"]
    told = {0.25: "\u22120.2500 since learnt", 0.75: "+0.2500 since learnt", 0.5: "as when learnt"}
    for after, expected in told.items():
        matrix = replace(life.scores["margin"], rows=[{"brief": 0.5}, {"brief": after, "tone": 1.0}])
        rows = metric_panel(matrix, steps, life.records)["rows"]
        assert rows[2]["cells"][0]["tip"] == f"brief after 02-tone: {after:.4f}, {expected}"
    assert rows[1]["cells"] == [rows[1]["cells"][0], {"kind": "future", "text": ""}]
    assert rows[1]["cells"][0]["tip"] == "brief after 01-brief: 0.5000, just learnt"


def test_key_figures_say_why_there_is_none(make_life: MakeLife) -> None:
    life = make_life(evaluation={"metrics": ("margin",), "general_text": None})
    life.learn(letter_task("one", "a", "b"))
    last, transfer, forgetting = key_figures(life.scores, life.records)
    assert last["value"] != "–" and (transfer["value"], forgetting["value"]) == ("–", "–")
    assert transfer["note"] == "there is none before a second step"
    life.learn(letter_task("two", "c", "d"))
    matrix = replace(life.scores["margin"], rows=[{"one": 0.5}, {"two": 0.5}])
    last, transfer, forgetting = key_figures({"margin": matrix}, life.records)
    assert {figure["value"] for figure in (last, transfer, forgetting)} == {"–"}
    assert transfer["note"] == "a score is missing, so there is no mean"
