"""The documentation: every block of code on every page is run, read, or says why not; and the site made of it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import docs.site
import pytest
import yaml
from docs.reference import commands_page, python_page, settings_page
from docs.site import ELSEWHERE, NAVIGATION, WRITTEN, DeadLink, copy_pages, for_the_site, pages
from tests.blocks import PAGES, ROOT, Block, blocks_of
from tests.world import SMALLER, World, world_in, write_adapters, write_csv, write_logs, write_tasks
from tests.writers import write_jsonl

import lifealign
from lifealign.cli.config import _read as read_settings
from lifealign.data.formats import parse_row
from lifealign.life.settings import LifeConfig

RUN, READ, SHOWN = {"bash", "python"}, {"yaml", "json", "jsonl"}, {"text", "bibtex"}
COMMAND = re.compile(r"^\s*(?:\$ )?(?:lifealign|make|pip|python3?|curl|jq|\.venv/bin/\S+) (?!->|──)\S", re.MULTILINE)

BY_PAGE = {path.relative_to(ROOT).as_posix(): blocks_of(path) for path in PAGES}
BLOCKS = [block for blocks in BY_PAGE.values() for block in blocks]

NOT_RUN = {
    "README.md": [
        "makes an environment, and trains the real model for minutes",
        "makes an environment",
        "serves until Ctrl-C; docs/tutorial.md has the same in pieces that are run",
    ],
    "docs/adding_a_method.md": ["there is no such method before its file is written"] * 2,
    "docs/evaluation.md": ["needs a judge's endpoint and its key", "needs lm-eval, and downloads its tasks"],
    "docs/export.md": ["needs llama.cpp"],
    "docs/general_ability.md": ["needs lm-eval, and downloads its tasks"],
    "docs/howto_engines.md": ["needs llama.cpp"],
    "docs/howto_service.md": ["waits for a person in a browser"],
    "docs/review.md": ["waits for a person in a browser"],
    "docs/scaling.md": ["needs DeepSpeed and graphics processors"],
    "docs/serve.md": [
        "each chatcmpl-... stands for the id of an answer; docs/tutorial.md has one that is run",
        "needs vLLM",
    ],
    "docs/tutorial.md": ["makes an environment, and trains the real model for minutes"],
}
"""Every block that nothing runs, by page, with its reason; a block that joins them has to be written down here, too."""

BOTS = {
    "docs/evaluation.md": ("greet", "brief"),
    "docs/export.md": ("greet", "brief"),
    "docs/general_ability.md": ("greet", "brief"),
    "docs/howto_engines.md": ("greet", "brief"),
    "docs/howto_report.md": ("greet", "brief"),
    "docs/howto_service.md": ("greet", "brief"),
    "docs/life_format.md": ("tone", "refunds"),
    "docs/method.md": ("greet", "brief"),
    "docs/serve.md": ("greet", "brief"),
}
"""What `my-bot` has learnt where a page takes it for granted."""

GIVEN: dict[str, Callable[[Path], Any]] = {
    "README.md": lambda folder: write_tasks(folder, ("brief", "greet")),
    "docs/api.md": lambda folder: write_tasks(folder, ("refunds",)),
    "docs/collect.md": write_logs,
    "docs/data.md": write_csv,
    "docs/howto_compare.md": lambda folder: write_tasks(folder, ("brief", "greet")),
    "docs/other_trainers.md": lambda folder: [write_adapters(folder), write_tasks(folder, ("refunds", "tone"))],
}
"""What else a page takes for granted."""


# -- what is done with each block --------------------------------------------------------------------------------------


def test_every_fence_on_every_page_is_one_of_these_blocks() -> None:
    """A fence that the pattern misses would be a block that nothing looks at."""
    for path in PAGES:
        fences = re.findall(r"^ *(?:```|~~~)", path.read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(path)), path


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_block_says_what_it_is(block: Block) -> None:
    """Without a language nobody can tell a command from what it prints; and as text a command would not be run."""
    assert block.language in RUN | READ | SHOWN
    if block.language == "text":
        assert not COMMAND.search(block.code), "commands are bash, or say why they are not run"


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    """Nothing is left out in silence: a comment on a page is not enough."""
    found = {
        page: reasons
        for page, blocks in BY_PAGE.items()
        if (reasons := [block.said for block in blocks if block.mark == "not run"])
    }
    assert found == NOT_RUN


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "run by"], ids=lambda block: block.where)
def test_a_block_that_another_test_runs_names_one_that_reads_its_page(block: Block) -> None:
    """The comment must not outlive the test."""
    text = (ROOT / block.said).read_text("utf-8")
    assert f'"docs" / "{Path(block.page).name}"' in text


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in READ and not block.mark], ids=lambda block: block.where
)
def test_what_is_data_or_settings_can_be_read(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what reads a user's file: a setting that was renamed fails here, and so does a comma too many."""
    monkeypatch.chdir(tmp_path)
    if block.language == "yaml":
        Path("settings.yaml").write_text(block.code)
        for named in re.findall(r"\S+\.jsonl", block.code):
            write_jsonl(tmp_path / named, [{"text": "Bread needs flour."}])
        read_settings(Path("settings.yaml"), None)
    elif block.language == "json":
        json.loads(block.code)
    else:
        assert [json.loads(line) for line in block.code.splitlines()]


def test_one_row_of_each_shape_says_the_same() -> None:
    """As docs/data.md claims, but for the system message of the fifth."""
    (rows,) = [block for block in BY_PAGE["docs/data.md"] if block.language == "jsonl"]
    read = [parse_row(json.loads(line), "data.md", number) for number, line in enumerate(rows.code.splitlines(), 1)]
    said = {(pair.prompt[-1].content, pair.chosen, pair.rejected) for pair, _ in read}
    assert said == {("Where is my order?", "On its way.", "No idea.")}
    assert [len(pair.prompt) for pair, _ in read] == [1, 1, 1, 1, 2, 1, 1, 1, 1]


# -- running them ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("world")) as made:
        yield made


def test_what_is_made_smaller_is_on_a_page() -> None:
    """Otherwise a page that was rewritten would be run at its full size."""
    assert all(any(written in block.code for block in BLOCKS) for written in SMALLER)


def blocks_to_run(page: str) -> list[Block]:
    return [block for block in BY_PAGE[page] if block.language in RUN and block.mark in ("", "runs on")]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in BY_PAGE if blocks_to_run(page)])
def test_the_blocks_of_a_page_run_one_after_the_other(page: str, world: World, tmp_path: Path) -> None:
    """As a reader runs them, in one folder, with a tiny model by the name of the embedded one."""
    code = "".join(block.code for block in blocks_to_run(page))
    if missing := [tool for tool in ("curl", "jq") if re.search(rf"\b{tool} ", code) and not shutil.which(tool)]:
        pytest.skip(f"{page} uses {' and '.join(missing)}, which is not installed")
    world.page_folder(tmp_path, BOTS.get(page, ()), BY_PAGE[page])
    if page in GIVEN:
        GIVEN[page](tmp_path)
    with world.page_runs(tmp_path) as run:
        for block in blocks_to_run(page):
            run.take(block)


# -- the site ----------------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that is not in it can only be found by its address."""
    there = [f"{name}.md" for names in NAVIGATION.values() for name in names]
    assert sorted(there) == sorted({*pages().values(), *WRITTEN} - {"index.md"})


def test_links_lead_to_pages_and_files_are_named() -> None:
    """A link that leaves the pages would be dead on the site, where the repository is not."""
    page = Path("docs/serve.md")

    def there(text: str) -> str:
        return for_the_site(text, page)

    assert there("[rows](data.md#rows)") == "[rows](data.md#rows)"
    assert there("[`retention.md`](retention.md#what-is-promised)") == "[Retention](retention.md#what-is-promised)"
    assert there("[the README](../README.md#use-it)") == "[the README](index.md#use-it)"
    assert there("[streams](../experiments/README.md)") == "[streams](experiments.md)"
    assert there("[`life/learn.py`](../src/lifealign/life/learn.py)") == "`life/learn.py`"
    assert there("[SFT](../src/lifealign/training/stage.py)") == "SFT (`src/lifealign/training/stage.py`)"
    assert for_the_site("![A page](docs/report.png)", Path("README.md")) == "![A page](report.png)"
    assert there("[there](https://example.org) [here](#chat)") == "[there](https://example.org) [here](#chat)"
    assert there("```text\n[no](link.md)\n```") == "```text\n[no](link.md)\n```"
    with pytest.raises(DeadLink, match=r"docs/serve\.md: found a link to gone\.md, which is not there"):
        there("[gone](gone.md)")


def test_the_reference_names_every_command_every_setting_and_every_public_name() -> None:
    """It is written from the code, and what it leaves out nobody finds."""
    commands, settings, names = commands_page(), settings_page(), python_page()
    for name in ("init", "learn", "serve", "config schema", "doctor"):
        assert f"## `lifealign {name}`" in commands
    assert "`--max-words`" in commands and "`--set`" in commands
    for key in yaml.safe_load(LifeConfig().model_dump_json()):
        assert f"| `{key}` |" in settings
    for key in ("max_loss", "per_device_train_batch_size", "overlap_kept", "compare", "lora_r"):
        assert f"| `{key}` |" in settings
    assert all(f":: lifealign.{name}\n" in names for name in lifealign.__all__)
    headings = {re.sub(r"[`.]", "", heading) for heading in re.findall("^### (.+)$", settings, re.MULTILINE)}
    assert "retentionjudge" in headings and set(re.findall(r"\[section\]\(#(.+?)\)", settings)) <= headings


class Loaded(HTMLParser):
    """What a page has a browser fetch, and what it links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.linked.append(values["href"])
        elif tag == "link" and values.get("rel") != "canonical":
            self.fetched.append(values["href"])
        elif "src" in values:
            self.fetched.append(values["src"])


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, built as `make docs` builds it."""
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("Sphinx is not installed; make docs installs it")
    built = subprocess.run([sys.executable, "-m", "docs.site"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return docs.site.SITE


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere_and_no_link_in_it_is_dead(site: Path) -> None:
    """It is read where there is no network; and the generator's own check knows only links between Markdown files."""
    read = {page.name: Loaded(page) for page in site.glob("*.html")}
    assert len(read) >= len([*pages(), *WRITTEN])
    for name, page in read.items():
        assert not [one for one in page.fetched if re.match(r"(?:https?:)?//", one)], name
        for link in page.linked:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            assert (site / path).exists(), (name, link)
            if anchor and (not path or path in read):
                assert anchor in (read[path] if path else page).anchors | {"__skip"}, (name, link)


def test_a_copy_of_the_pages_is_made_without_the_generator(tmp_path: Path) -> None:
    """So that a dead link is found where it is not installed, too."""
    copy_pages(tmp_path / "docs")
    made = {path.name for path in (tmp_path / "docs").iterdir()}
    assert made >= {*pages().values(), *WRITTEN, "report.png"} and set(ELSEWHERE.values()) <= made
