"""Model cards: what the hub reads of them, what a person reads, and that no path of a machine is in them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from tests.tiny import letter_task

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.life import Life
from lifealign.methods import METHODS
from lifealign.report.model_card import CardFacts, model_card

MakeLife = Callable[..., Life]
MATRIX = ScoreMatrix(
    "adherence", True, ["brief", "to_ne"], {"brief": 0, "to_ne": 1}, [{"brief": 0.9}, {"brief": 0.5}], {"brief": 0.25}
)
FACTS = CardFacts(
    version="02-to_ne",
    base="some-org/Some-Model_1.5",
    revision="abc",
    fingerprint="f00d",
    embedded=False,
    method=METHODS["ewc"](),
    is_adapter=True,
    steps=["01-brief", "02-to_ne"],
    tasks=[
        {"name": "brief", "step": "01-brief", "train_pairs": 16, "test_pairs": 4},
        {"name": "to_ne", "step": "02-to_ne", "train_pairs": 8, "test_pairs": 0},
    ],
    matrices={"adherence": MATRIX},
    general={"perplexity": 11.0, "base": {"perplexity": 10.0}},
    settings={"model": {"model_name_or_path": "some-org/Some-Model_1.5"}, "evaluation": {"general_text": None}},
    environment={"peft": "0.1", "torch": "2.0"},
    license="apache-2.0",
)


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_hub_reads_base_library_licence_and_tags() -> None:
    card = ModelCard(model_card(FACTS))
    assert card.data.base_model == "some-org/Some-Model_1.5" and card.data.library_name == "peft"
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "text-generation"
    assert {"lifealign", "dpo", "lora"} <= set(card.data.tags or [])


def test_a_person_reads_tasks_scores_and_how_to_load_it() -> None:
    card = model_card(FACTS)
    assert "was taught 2 preference tasks, one after the other, by EWC" in card
    assert 'PeftModel.from_pretrained(base, "02-to_ne")' in card and 'revision="abc"' in card
    assert "| to\\_ne | 02-to\\_ne | 8 | 0 |" in card  # an underscore is no emphasis
    rows = [line for line in card.splitlines() if line.startswith(("| base", "| 01", "| 02"))]
    assert rows == ["| base model | 25 % | - | ", "| 01-brief | **90 %** |  | ", "| 02-to_ne | 50 % | - | "]
    assert "Last -, backward transfer -40 %" in card  # no mean over a hole
    assert "Perplexity on general text 11.00, of the base model 10.00 (+10.0 %; lower is better)." in card
    assert "Overcoming catastrophic forgetting" in card and "li2026lifealign" in card


def test_a_card_without_measurements_and_licence_says_so() -> None:
    bare = replace(FACTS, matrices={}, general=None, license=None, revision=None)
    card = model_card(bare)
    assert "Nothing was measured: no task has held-out pairs" in card and "General ability was not measured" in card
    assert front(card)["license"] == "unknown" and "Nobody has said under which licence" in card
    assert "revision" not in card.split("## What")[0]


def test_a_local_base_is_named_by_its_folder_alone() -> None:
    settings = {
        "model": {"model_name_or_path": "/home/ann/models/my_base"},
        "evaluation": {"general_text": "/home/ann/text.txt"},
    }
    card = model_card(replace(FACTS, base="/home/ann/models/my_base", settings=settings))
    assert "/home" not in card and "base_model" not in front(card) and "for my\\_base that" in card


def test_a_prompt_pool_is_not_passed_off_as_an_adapter() -> None:
    card = model_card(replace(FACTS, is_adapter=False, method=METHODS["l2p"]()))
    assert front(card)["library_name"] == "lifealign" and "PeftModel" not in card
    assert 'Life.open("LIFE").load("02-to_ne")' in card and "A pool of soft prompts" in card


def test_every_version_has_a_card_of_the_scores_it_was_committed_with(make_life: MakeLife, tiny_folder: Path) -> None:
    life = make_life()
    life.learn(letter_task("one", "a", "b"))
    life.learn(letter_task("two", "c", "d"))
    cards = [life.directory.verified(f"versions/{version.name}/README.md").read_text() for version in life.steps]
    assert "taught 1 preference task," in cards[0] and "taught 2 preference tasks," in cards[1]
    shown = f"{100 * life.scores['preference_accuracy'].rows[1]['one']:.0f} %"
    rows = [line for line in cards[1].split("preference accuracy")[1].splitlines() if line.startswith("| 02-two")]
    assert shown in rows[0]
    assert str(tiny_folder.parent) not in cards[1] and str(life.directory.path.parent) not in cards[1]
    assert front(cards[1])["library_name"] == "peft"


@pytest.mark.parametrize("licence", ["Apache 2", "", "MIT; rm"])
def test_a_licence_is_one_of_the_hubs_short_names(make_life: MakeLife, licence: str) -> None:
    with pytest.raises(Exception, match="license"):
        make_life(license=licence)
