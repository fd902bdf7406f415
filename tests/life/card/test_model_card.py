"""Model cards: what the hub reads of them, what a person reads, that their code runs, and no path of a machine."""

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from tests.tiny import letter_task

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.life.card.markdown import fenced, plain, portable
from lifealign.life.card.model_card import HUB_LICENSES, CardFacts, model_card
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.methods import METHODS
from lifealign.methods.base import Paper
from lifealign.settings.section import build_config

MakeLife = Callable[..., Life]
ROOT = Path(__file__).parents[3]
BASE = "some-org/Some-Model_1.5"
NASTY = "/home/ann/we`ird\"_na'me <b> | [x](y) & ```\n```\n# no heading {{ 7 * 7 }}"
"""Folders may be called anything."""


def settings(**sections: Any) -> dict[str, Any]:
    config = build_config(LifeConfig, {"model": {"model_name_or_path": BASE}, "method": "ewc"} | sections)
    return config.model_dump(mode="json")


MATRIX = ScoreMatrix(
    "adherence", True, ["brief", "to_ne"], {"brief": 0, "to_ne": 1}, [{"brief": 0.9}, {"brief": 0.5}], {"brief": 0.25}
)
FACTS = CardFacts(
    version="02-to_ne",
    base=BASE,
    revision="abc",
    fingerprint="f00d",
    embedded=False,
    method=METHODS["ewc"](),
    is_adapter=True,
    steps=["01-brief", "02-to_ne"],
    tasks=[
        {"name": "brief", "step": "01-brief", "train_pairs": 16, "test_pairs": 4, "supersedes": []},
        {"name": "to_ne", "step": "02-to_ne", "train_pairs": 8, "test_pairs": 2, "supersedes": []},
    ],
    matrices={"adherence": MATRIX},
    general={"perplexity": 11.0, "base": {"perplexity": 10.0}},
    settings=settings(),
    environment={"peft": "0.1", "torch": "2.0"},
    license="apache-2.0",
)
FIRST = replace(
    FACTS,
    version="01-brief",
    steps=["01-brief"],
    tasks=FACTS.tasks[:1],
    matrices={"adherence": ScoreMatrix("adherence", True, ["brief"], {"brief": 0}, [{"brief": 0.9}], {"brief": 0.2})},
)
POOL = replace(FACTS, is_adapter=False, method=METHODS["l2p"]())
STL = replace(FACTS, method=METHODS["stl"]())
LOCAL = replace(
    FACTS,
    base="/home/ann/models/my_base",
    revision=None,
    settings=settings(
        model={"model_name_or_path": "/home/ann/models/my_base"}, evaluation={"general_text": "/home/ann/text.txt"}
    ),
)
GGUF = replace(LOCAL, base="/home/ann/models/tiny.gguf")
EMBEDDED = replace(FACTS, base="smollm2-135m", embedded=True, revision=None)
BARE = replace(FACTS, matrices={}, general=None, license=None, revision=None)
NASTY_BASE = replace(FACTS, base=NASTY, settings=settings(model={"model_name_or_path": NASTY}))
CARDS = {
    "hub": FACTS,
    "first": FIRST,
    "pool": POOL,
    "stl": STL,
    "local": LOCAL,
    "gguf": GGUF,
    "embedded": EMBEDDED,
    "bare": BARE,
    "nasty": NASTY_BASE,
}
every_card = pytest.mark.parametrize("facts", CARDS.values(), ids=CARDS)


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    return found


def blocks(card: str, language: str) -> list[str]:
    """Blocks of code as CommonMark reads them: closed by a fence of its own that is at least as long."""
    found, fence, lines = [], "", []
    for line in card.splitlines():
        if not fence and (opened := re.fullmatch(r"(`{3,})(\w*)", line)):
            fence, kind, lines = opened[1], opened[2], []
        elif fence and re.fullmatch(rf" {{0,3}}`{{{len(fence)},}} *", line):
            found += ["\n".join(lines)] if kind == language else []
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, "a block of code has no end"
    return found


def row(card: str, start: str) -> list[str]:
    """Cells of the one row that begins with this."""
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def forgetting_is_told(card: str) -> bool:
    scores = card.split("## How well it knows it")[1].split("## How it was trained")[0]
    return "forg" in scores or "transfer" in scores


# -- what the hub reads -----------------------------------------------------------------------------------------------


@every_card
def test_the_hub_reads_what_was_meant(facts: CardFacts) -> None:
    card = model_card(facts)
    read = ModelCard(card)  # its pattern for the front matter is the hub's own
    assert read.data.to_dict() == front(card)
    assert ModelCardData(**front(card)).to_dict() == front(card)
    assert read.text.lstrip().startswith("# 0")
    assert {"lifealign", "dpo"} <= set(read.data.tags or []) and read.data.pipeline_tag == "text-generation"
    assert read.data.library_name == ("peft" if facts.is_adapter else "lifealign")
    assert ("lora" in (read.data.tags or [])) is facts.is_adapter


@every_card
def test_the_front_matter_keeps_the_rules_of_the_hub(facts: CardFacts) -> None:
    """Those of its validation that are known: types, licences of its list, ids of models."""
    found = front(model_card(facts))
    assert set(found) <= {
        *("base_model", "library_name", "license", "license_name", "pipeline_tag", "tags"),
    }
    assert all(isinstance(value, str) for key, value in found.items() if key != "tags")
    assert found["license"] in HUB_LICENSES.split() and ("license_name" in found) is (found["license"] == "other")
    if "base_model" in found:
        validate_repo_id(found["base_model"])


@pytest.mark.parametrize(
    ("base", "is_one"),
    [
        (BASE, True),
        ("a/b", True),
        ("org/model.v2", True),
        ("org/mo--del", False),
        ("org/mo..del", False),
        ("org/model.git", False),
        ("org/.model", False),
        ("org/model-", False),
        ("org/modèle", False),
        ("org/" + "m" * 97, False),
        ("a/b/c", False),
        ("/srv/model", False),
        ("C:\\models\\base", False),
        ("./model", False),
        ("org/weights.gguf", False),
        ("smollm2-135m", False),  # of no owner: it could be a folder
    ],
)
def test_only_an_id_of_the_hub_is_written_as_one(base: str, is_one: bool) -> None:
    found = front(model_card(replace(FACTS, base=base)))
    assert found.get("base_model") == (base if is_one else None)
    if is_one:
        validate_repo_id(base)
    elif base not in ("smollm2-135m", "org/weights.gguf", "org/modèle"):  # the last one passed before 2.0
        with pytest.raises(HFValidationError):
            validate_repo_id(base)


def test_the_embedded_model_is_named_by_its_id_on_the_hub() -> None:
    card = model_card(EMBEDDED)
    assert front(card)["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert 'name = "HuggingFaceTB/SmolLM2-135M-Instruct"' in card and "4-bit weights of the package" in card
    assert "4-bit" not in model_card(FACTS)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, {"license": "unknown"}),
        ("mit", {"license": "mit"}),
        ("llama99", {"license": "other", "license_name": "llama99"}),
    ],
)
def test_a_licence_is_one_that_the_hub_takes(licence: str | None, expected: dict[str, str]) -> None:
    card = model_card(replace(FACTS, license=licence))
    assert {key: value for key, value in front(card).items() if key.startswith("license")} == expected
    assert ("Nobody has said under which licence" in card) is (licence is None)


@pytest.mark.parametrize("licence", ["Apache 2", "", "MIT; rm"])
def test_a_licence_is_a_short_name(make_life: MakeLife, licence: str) -> None:
    with pytest.raises(Exception, match="license"):
        make_life(license=licence)


def test_no_dpo_is_claimed_where_its_stage_is_off() -> None:
    card = model_card(replace(FACTS, settings=settings(preference={"num_train_epochs": 0})))
    assert "dpo" not in front(card)["tags"]
    assert row(card, "preference stage") == ["off"] and "| DPO |" not in card


# -- what a person reads ----------------------------------------------------------------------------------------------


def test_a_person_reads_tasks_and_scores() -> None:
    card = model_card(FACTS)
    assert "It was taught 2 preference tasks, one after the other; after each of them it was scored" in card
    assert row(card, "to\\_ne") == ["02-to\\_ne", "8", "2"]  # an underscore is no emphasis
    assert row(card, "base model") == ["25 %", "-"]
    assert row(card, "after 01-brief") == ["**90 %**", ""]
    assert row(card, "after 02-to\\_ne") == ["50 %", "-"]
    assert "Last -, backward transfer -40 %, forgetting 40 %." in card  # no mean over a hole
    assert "Missing for adherence: to\\_ne after 02-to\\_ne." in card
    assert "Perplexity on general text 11.00, of the base model 10.00 (+10.0 %; lower is better)." in card
    assert "One run with one seed (42)" in card


def test_of_one_task_there_is_nothing_to_forget() -> None:
    card = model_card(FIRST)
    assert "It was taught 1 preference task; afterwards it was scored on held-out pairs of that task." in card
    assert "Last 90 %." in card and not forgetting_is_told(card)


def test_tasks_learnt_together_are_not_said_to_follow_each_other() -> None:
    name = "01-brief+to_ne"
    tasks = [{**task, "step": name} for task in FACTS.tasks]
    scores = ScoreMatrix("adherence", True, ["brief", "to_ne"], {"brief": 0, "to_ne": 0}, [{"brief": 1, "to_ne": 0.5}])
    joint = replace(
        FACTS, version=name, method=METHODS["mtl"](), steps=[name], tasks=tasks, matrices={"adherence": scores}
    )
    card = model_card(joint)
    assert "It was taught 2 preference tasks together; afterwards it was scored on held-out pairs of all" in card
    assert row(card, "after 01-brief+to\\_ne") == ["**100 %**", "**50 %**"] and not forgetting_is_told(card)


def test_a_model_of_one_task_does_not_claim_the_scores_of_others() -> None:
    card = model_card(STL)
    assert "It was taught to\\_ne alone; the task before has a model of its own." in card
    assert "Only to\\_ne was learnt by this model; the other scores are of other versions." in card
    assert not forgetting_is_told(card) and forgetting_is_told(model_card(FACTS))


def test_a_card_without_measurements_says_so() -> None:
    card = model_card(BARE)
    assert "No task was scored." in card and "General ability was not measured" in card
    assert "scored on held-out pairs" not in card.split("## How to load")[0]
    assert "Asked for, but no task could be scored on it: adherence, preference accuracy, margin." in card
    assert "revision" not in card.split("## What")[0]


def test_limits_say_which_tasks_and_how_few_pairs_were_scored() -> None:
    tasks = [{**FACTS.tasks[0], "test_pairs": 0}, FACTS.tasks[1]]
    card = model_card(replace(FACTS, tasks=tasks, settings=settings(evaluation={"pairs": 2, "prompts": 3})))
    assert "Without held-out pairs, and so without any score: brief." in card
    assert "At most 2 held-out pairs of each task were scored." in card
    assert "At most 3 held-out prompts of each task were scored." in card


@pytest.mark.parametrize(
    ("method", "replay", "shown"),
    [
        ("seqft", None, "off"),
        ("er", None, "on, as the method has it by default"),
        ("er", {"fraction": 0.5, "capacity": 10}, "0.5 of each task's pairs, at most 10"),
        ("er", {"capacity": 0}, "off"),
        ("stl", None, "off"),
    ],
)
def test_the_table_of_settings_says_what_decides_most(method: str, replay: Any, shown: str) -> None:
    more = {"preference": {"beta": 0.3, "learning_rate": 1e-5, "num_train_epochs": 1}, "replay": replay}
    config = build_config(LifeConfig, {"method": method, **more})
    card = model_card(replace(FACTS, method=config.method, settings=config.model_dump(mode="json")))
    assert row(card, "replay") == [shown]
    assert row(card, "DPO") == ["beta 0.3, reference: the base model"]
    assert row(card, "preference stage") == ["1 epoch, learning rate 1e-05, 16 pairs per optimizer step"]
    assert row(card, "LoRA") == ["rank 8, alpha 16, on the family's usual modules (adapter\\_config.json)"]


def test_options_of_the_method_and_all_settings_are_there() -> None:
    method = METHODS["ewc"](strength=7.5)
    used = settings(method={"name": "ewc", "strength": 7.5})
    card = model_card(replace(FACTS, method=method, settings=used))
    assert row(card, "strength") == ["7.5"]
    (shown,) = blocks(card, "yaml")
    assert yaml.safe_load(shown) == used
    assert build_config(LifeConfig, yaml.safe_load(shown)).model_dump(mode="json") == used


def test_prompts_are_trained_at_their_own_rate_and_have_no_rank() -> None:
    card = model_card(POOL)
    assert row(card, "sft stage") == ["3 epochs, learning rate 0.001, 16 pairs per optimizer step"]
    assert "| LoRA |" not in card


# -- citation ---------------------------------------------------------------------------------------------------------


def test_the_paper_is_cited_as_in_the_citation_file() -> None:
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["references"]
    (entry, _) = blocks(model_card(FACTS), "bibtex")
    assert f"{{{paper['title']}}}" in entry and paper["doi"] in entry and paper["collection-title"] in entry
    assert paper["identifiers"][0]["value"] in entry and f"{{{paper['year']}}}" in entry
    authors = re.search(r"author += \{(.*?)\}", entry, re.DOTALL)
    assert authors is not None
    names = [" ".join(name.split()) for name in authors[1].split(" and ")]
    assert names == [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]


@pytest.mark.parametrize("key", METHODS)
def test_a_methods_own_paper_is_cited_once(key: str) -> None:
    method = METHODS[key]()
    found = blocks(model_card(replace(FACTS, method=method)), "bibtex")
    assert len(found) == 1 + (method.paper is not None and key != "lifealign")
    if len(found) == 2:
        paper: Paper = method.paper
        assert (
            paper.title in found[1] and paper.url in found[1] and found[1].startswith(f"@misc{{{key}{paper.venue[-4:]}")
        )
        assert found[1].count("{") == found[1].count("}")


# -- how to load it ---------------------------------------------------------------------------------------------------


@every_card
def test_the_code_is_python_and_nothing_of_the_data_ends_its_block(facts: CardFacts) -> None:
    card = model_card(facts)
    (code,) = blocks(card, "python")
    ast.parse(code)
    (shown,) = blocks(card, "yaml")
    assert yaml.safe_load(shown) == portable(facts.settings)
    assert "# no heading" not in re.sub(r"```.*?```", "", card, flags=re.DOTALL).splitlines()


def test_a_revision_and_the_dtype_are_those_of_the_life() -> None:
    (code,) = blocks(model_card(FACTS), "python")
    assert code.count('revision="abc"') == 2 and 'dtype="bfloat16"' in code
    (code,) = blocks(model_card(replace(FACTS, settings=settings(model={"dtype": "float32"}))), "python")
    assert 'dtype="float32"' in code


def test_a_file_of_weights_is_read_as_one() -> None:
    (code,) = blocks(model_card(GGUF), "python")
    assert code.count('gguf_file="tiny.gguf"') == 2 and "GgufConfig(dequantize=True)" in code


def test_a_prompt_pool_is_not_passed_off_as_an_adapter() -> None:
    card = model_card(POOL)
    assert "PeftModel" not in card and "A pool of soft prompts" in card and "PEFT cannot load it" in card
    assert 'life = Life.open("LIFE")' in card and 'life.load("02-to_ne")' in card


@pytest.mark.parametrize("method", ["lifealign", "olora", "l2p"])
def test_the_code_of_a_card_loads_what_the_life_loads(
    make_life: MakeLife, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    life = make_life(method=method)
    run_stream(life.workspace, [letter_task("one", "a", "b"), letter_task("two", "c", "d")])
    name = life.versions[-1].name
    (code,) = blocks(life.directory.verified(f"versions/{name}/README.md").read_text("utf-8"), "python")
    code = code.replace(f'name = "{tiny_folder.name}"', f"name = {str(tiny_folder)!r}")
    code = code.replace('"LIFE"', repr(str(life.directory.path)))
    monkeypatch.chdir(life.directory.path / "versions")
    namespace: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), namespace)
    expected, tokenizer = life.load(name)
    ids = tokenizer("one 1", return_tensors="pt").input_ids
    with torch.no_grad():
        there, plain_base = namespace["model"](ids).logits, None
        assert torch.equal(there, expected(ids).logits)
        if method != "l2p":
            with namespace["model"].disable_adapter():
                plain_base = namespace["model"](ids).logits
            assert not torch.equal(there, plain_base)  # the adapter is on


# -- what must not be in it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [LOCAL, GGUF, NASTY_BASE], ids=["folder", "file", "nasty"])
def test_a_local_base_is_named_by_its_last_part_alone(facts: CardFacts) -> None:
    card = model_card(facts)
    assert "/home" not in card and "ann" not in card and "base_model" not in front(card)


def test_paths_of_windows_are_paths_too() -> None:
    assert portable({"a": ["C:\\Users\\ann\\base", "rel/ative", 1, None, "/"]}) == {
        "a": ["base", "rel/ative", 1, None, "local"]
    }


@every_card
def test_the_same_facts_give_the_same_text_that_can_be_written(facts: CardFacts) -> None:
    card = model_card(facts)
    assert card == model_card(replace(facts)) and card.encode("utf-8")
    assert not [line for line in card.splitlines() if line != line.rstrip()]
    assert "\n\n\n" not in card and card.endswith("```\n")
    assert " 49" not in card  # data is no template


def test_markdown_in_data_is_shown_as_it_is() -> None:
    assert plain("<b>&amp; $x$ _y_ [z](u)\r\n# w") == "\\<b\\>\\&amp; \\$x\\$ \\_y\\_ \\[z\\](u) \\# w"
    assert fenced("yaml", "a: '````'").startswith("`````yaml\n")
    heading = model_card(NASTY_BASE).split("## How to load")[0]
    assert "we\\`ird\"\\_na'me \\<b\\> \\| \\[x\\](y) \\&" in heading


def test_every_version_has_a_card_of_the_scores_it_was_committed_with(make_life: MakeLife, tiny_folder: Path) -> None:
    life = make_life()
    life.learn(letter_task("one", "a", "b"))
    life.learn(letter_task("two", "c", "d"))
    cards = [life.directory.verified(f"versions/{version.name}/README.md").read_text("utf-8") for version in life.steps]
    assert "taught 1 preference task;" in cards[0] and "taught 2 preference tasks," in cards[1]
    shown = f"{100 * life.scores['preference_accuracy'].rows[1]['one']:.0f} %"
    assert row(cards[1].split("**preference accuracy")[1].split("**mean margin")[0], "after 02-two")[0] == shown
    assert str(tiny_folder.parent) not in cards[1] and str(life.directory.path.parent) not in cards[1]
    assert front(cards[1])["library_name"] == "peft"


def test_the_card_of_a_long_life_shows_its_latest_tasks_and_is_no_longer_for_it() -> None:
    def card(number: int) -> str:
        names = [f"task{place:03}" for place in range(number)]
        rows = [{name: 0.5 for name in names[: step + 1]} for step in range(number)]
        matrix = ScoreMatrix("adherence", True, names, {name: step for step, name in enumerate(names)}, rows)
        steps = [f"{step + 1:02}-{name}" for step, name in enumerate(names)]
        tasks = [dict(FACTS.tasks[0], name=name, step=step) for name, step in zip(names, steps, strict=True)]
        return model_card(
            replace(FACTS, version=steps[-1], steps=steps, tasks=tasks, matrices={"adherence": matrix}, adopted=None)
        )

    sixteen, hundred, more = card(16), card(100), card(300)
    assert "The latest tasks" not in sixteen and "in the table" not in sixteen
    assert "The latest tasks; 84 more were learnt before them." in hundred
    assert "of the latest 16 of 100 tasks and 100 steps in the table, every mean is over all" in hundred
    assert "task083" not in hundred and "**50 %**" in hundred and "| task084 | 85-task084 |" in hundred
    assert abs(len(more) - len(hundred)) < 100  # numbers of three digits in place of two


def test_a_card_names_the_first_of_many_missing_scores() -> None:
    names = [f"task{place:03}" for place in range(40)]
    rows: list[dict[str, float]] = [{}] * 40
    matrix = ScoreMatrix("adherence", True, names, {name: step for step, name in enumerate(names)}, rows)
    text = model_card(replace(FACTS, steps=[f"{step}-x" for step in range(40)], matrices={"adherence": matrix}))
    assert "task000 after 0-x, " in text and f"and {40 * 41 // 2 - 16} more. No mean is taken" in text
